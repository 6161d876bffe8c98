//! The command line of `balena-extension-manager check`.

use crate::check::rules::machine::TargetMachine;
use crate::check::rules::rule::Allowed;
use std::path::PathBuf;

/// Find what would go wrong with an extension before it ships.
///
/// Applies rules to the files and the labels of an image. Some rules are checks that the runtime makes too.
/// --rules lists all rules, and docs/check.md explains them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  balena-extension-manager check my/image:1.2
  docker save my/image | balena-extension-manager check - --against /
  balena-extension-manager check rootfs/ --label io.balena.image.class=overlay

Exit status: 0 if there are no findings, or only notes; 3 if the worst finding is a warning, 4 if it is an \
error, 1 if something could not be read.")]
pub(crate) struct Check {
    /// A rootfs directory, an OCI bundle, an archive of `docker save` or `docker export` (- for standard
    /// input), or the name of an image in the engine
    #[arg(value_name = "PATH|IMAGE", required_unless_present = "rules")]
    pub(crate) subject: Option<String>,
    /// Accept all findings of a rule, or those at and below PATH; repeat it, or separate several by commas
    #[arg(long, value_name = "RULE[:PATH]", value_delimiter = ',', value_parser = Allowed::parse)]
    pub(crate) allow: Vec<Allowed>,
    /// Compare with the root filesystem of the target host
    #[arg(long, value_name = "ROOT", value_hint = clap::ValueHint::DirPath)]
    pub(crate) against: Option<PathBuf>,
    /// Add a label that the image will have; repeat it for several
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// The processor of the target host, as `uname -m` or images name it [default: the one of the image,
    /// else of ROOT, else of this machine]
    #[arg(long, value_name = "MACHINE", value_parser = TargetMachine::parse)]
    pub(crate) machine: Option<TargetMachine>,
    /// The output format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
    /// List the rules
    #[arg(long)]
    pub(crate) rules: bool,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people
    #[default]
    Text,
    /// For programs; docs/check.md lists the fields
    Json,
}

/// A label that is not NAME=VALUE.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be NAME=VALUE, such as io.balena.image.class=overlay")]
pub(crate) struct InvalidLabel;

pub(crate) fn label(text: &str) -> Result<(String, String), InvalidLabel> {
    let (name, value) = text.split_once('=').ok_or(InvalidLabel)?;
    if name.is_empty() { Err(InvalidLabel) } else { Ok((name.to_owned(), value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        check: Check,
    }

    fn parse(words: &[&str]) -> Result<Check, String> {
        let line = CommandLine::try_parse_from([&["check"], words].concat());
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
        assert_eq!(check.format, ReportFormat::Text);
        assert!(parse(&["x", "--allow", "all"]).unwrap_err().contains("unknown rule"));
        assert_eq!(parse(&["x", "--machine", "arm64"]).unwrap().machine.unwrap().name, "arm64");
        assert!(parse(&["x", "--machine", "arm46"]).unwrap_err().contains("unknown machine"));
        assert!(parse(&["x", "--label", "a"]).unwrap_err().contains("NAME=VALUE"));
        assert!(parse(&[]).unwrap_err().contains("PATH|IMAGE"));
        assert!(parse(&["--rules"]).unwrap().rules);
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct InvalidLabel;
}
