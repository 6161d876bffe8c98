//! The command line of `balena-extension-manager check`.

use crate::check::rules::machine::{self, Machine};
use crate::check::rules::rule::{self, Allowed};
use std::path::PathBuf;

/// Find out, before it is shipped, what would go wrong with an extension.
///
/// It applies rules to the files and the labels of an image, the runtime's own decisions among them.
/// docs/check.md explains every rule; --rules lists them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The exit status is 0 if nothing was found but notes, 3 if the worst that was found is a warning, 4 if \
it is an error, and 1 if something could not be read.")]
pub(crate) struct Check {
    /// A rootfs folder, an OCI bundle, an archive of `docker save` or `docker export` (- for standard
    /// input), or the name of an image of the engine
    #[arg(value_name = "PATH|IMAGE", required_unless_present = "rules")]
    pub(crate) subject: Option<String>,
    /// Accept what breaks this rule, everywhere or at and below PATH; may be repeated or a list
    #[arg(long, value_name = "RULE[:PATH]", value_delimiter = ',', value_parser = allowed)]
    pub(crate) allow: Vec<Allowed>,
    /// Compare with the root filesystem of the host that it is meant for
    #[arg(long, value_name = "ROOT", value_hint = clap::ValueHint::DirPath)]
    pub(crate) against: Option<PathBuf>,
    /// A label that the image will have, for what has none yet; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// The processor of the host, as `uname -m` or images say it [default: the image's, else that of
    /// ROOT, else this machine's]
    #[arg(long, value_name = "MACHINE", value_parser = machine)]
    pub(crate) machine: Option<Machine>,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// List the rules
    #[arg(long)]
    pub(crate) rules: bool,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs; docs/check.md has the fields
    Json,
}

fn allowed(text: &str) -> Result<Allowed, rule::Unknown> {
    Allowed::parse(text)
}

fn machine(name: &str) -> Result<Machine, machine::Unknown> {
    Machine::parse(name)
}

/// Why a label is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a label is NAME=VALUE, such as io.balena.image.class=overlay")]
struct NoLabel;

fn label(text: &str) -> Result<(String, String), NoLabel> {
    let (name, value) = text.split_once('=').ok_or(NoLabel)?;
    if name.is_empty() { Err(NoLabel) } else { Ok((name.to_owned(), value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        check: Check,
    }

    fn parse(words: &[&str]) -> Result<Check, String> {
        let line = Line::try_parse_from([&["check"], words].concat());
        line.map(|line| line.check).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_named_and_labels_have_values() {
        let check =
            parse(&["x", "--allow", "setuid,owner:/usr", "--allow=hook", "--label", "a=b=c"]);
        let check = check.unwrap();
        let allowed = ["setuid", "owner:usr", "hook"].map(|text| Allowed::parse(text).unwrap());
        assert_eq!(check.allow, allowed);
        assert_eq!(check.labels, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(check.format, Format::Text);
        assert!(parse(&["x", "--allow", "all"]).unwrap_err().contains("there is no rule"));
        assert_eq!(parse(&["x", "--machine", "arm64"]).unwrap().machine.unwrap().name, "aarch64");
        assert!(parse(&["x", "--machine", "arm46"]).unwrap_err().contains("there is no machine"));
        assert!(parse(&["x", "--label", "a"]).unwrap_err().contains("NAME=VALUE"));
        assert!(parse(&[]).unwrap_err().contains("PATH|IMAGE"));
        assert!(parse(&["--rules"]).unwrap().rules);
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct NoLabel;
}
