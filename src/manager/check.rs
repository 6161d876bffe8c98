//! `check`: reads the input, and what the rules need of the host; the rules are in `check/rules`.

use crate::check::read::archive::{self, ArchiveError};
use crate::check::read::directory::{self, DirectoryError};
use crate::check::read::saved;
use crate::check::rules::machine::TargetMachine;
use crate::check::rules::report::{self, CheckReport};
use crate::check::rules::rule::{Rule, Severity};
use crate::check::rules::{self, InputKind, Subject, against};
use crate::cli::check::{Check, ReportFormat};
use crate::host::container::bundle;
use crate::host::container::rootfs::{self, Rootfs};
use crate::model::text::cause::chain;
use std::error::Error as Cause;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why something could not be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("cannot check {name:?}")]
    Input { name: String, source: InputError },
    #[error("cannot read the host in {root:?} (--against)")]
    Against { root: PathBuf, source: DirectoryError },
    #[error("cannot print the report as JSON")]
    Print { source: serde_json::Error },
}

/// Why an input cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot open the input")]
    Open { source: io::Error },
    #[error("it is neither a directory nor a file, and the engine does not provide it as an image")]
    Nowhere { source: Box<dyn Cause> },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// The report, ready to print.
pub(crate) struct CheckOutput {
    pub(crate) text: String,
    /// The highest severity of the findings that are not allowed.
    pub(crate) worst: Option<Severity>,
}

/// Runs the command. `engine` exports an image of the engine as `docker save` does; it is called only if the
/// argument is not a path.
pub(crate) fn run<R: Read>(
    request: &Check,
    engine: impl FnOnce(&str) -> Result<R, Box<dyn Cause>>,
) -> Result<CheckOutput, CheckError> {
    let Some(name) = request.subject.as_deref().filter(|_| !request.rules) else {
        return Ok(CheckOutput { text: list_of_rules(), worst: None });
    };
    let mut reports = Vec::new();
    let subjects = load(name, engine);
    let failed = |source| CheckError::Input { name: name.to_owned(), source };
    for mut subject in subjects.map_err(failed)? {
        subject.name = match subject.name {
            own if own.is_empty() || own == name => name.to_owned(),
            own => format!("{name}: {own}"),
        };
        for (label, text) in &request.labels {
            let labels = subject.labels.get_or_insert_default();
            labels.insert(label.clone(), text.clone());
        }
        reports.push(judge(&subject, request)?);
    }
    let worst = reports.iter().filter_map(CheckReport::worst).max();
    let text = match request.format {
        ReportFormat::Text => reports.iter().map(CheckReport::text).collect(),
        ReportFormat::Json => {
            report::json(&reports).map_err(|source| CheckError::Print { source })?
        }
    };
    Ok(CheckOutput { text, worst })
}

fn list_of_rules() -> String {
    let row = |rule: &Rule| {
        format!("{:<18} {:<8} {}\n", rule.name(), rule.severity().name(), rule.summary())
    };
    Rule::ALL.iter().map(row).collect()
}

fn load<R: Read>(
    name: &str,
    engine: impl FnOnce(&str) -> Result<R, Box<dyn Cause>>,
) -> Result<Vec<Subject>, InputError> {
    if name == "-" {
        return Ok(archive::read(io::stdin().lock())?);
    }
    let opening = |source| InputError::Open { source };
    let path = Path::new(name);
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            if saved::is_saved_image(path).map_err(opening)? {
                Ok(saved::read(path)?)
            } else if path.join("config.json").exists() {
                Ok(vec![load_bundle(path)?])
            } else {
                Ok(vec![Subject { tree: directory::load(path)?, ..Subject::default() }])
            }
        }
        Ok(_) => Ok(archive::read(File::open(path).map_err(opening)?)?),
        // Anything else may be the name of an image, such as registry/name:tag.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_path(name) => {
            Ok(archive::read(engine(name).map_err(|source| InputError::Nowhere { source })?)?)
        }
        Err(source) => Err(opening(source)),
    }
}

fn is_path(name: &str) -> bool {
    name.starts_with(['/', '.'])
        || [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end))
}

/// A `config.json` that the runtime would refuse is a finding; one that cannot be read is an error.
fn load_bundle(path: &Path) -> Result<Subject, InputError> {
    let mut subject = Subject { input: InputKind::Bundle, ..Subject::default() };
    let bundle = match bundle::load(Some(path)) {
        Err(error @ bundle::Error::Invalid { .. }) => {
            subject.refusal = Some(chain(&error));
            return Ok(subject);
        }
        loaded => loaded?,
    };
    subject.labels = Some(bundle.spec.annotations.clone());
    subject.mounts.clone_from(&bundle.spec.mounts);
    match Rootfs::open(&bundle.path, &bundle.spec.root_path) {
        Err(error @ rootfs::Error::Escapes { .. }) => subject.refusal = Some(chain(&error)),
        opened => subject.tree = directory::load(Path::new(opened?.path()))?,
    }
    Ok(subject)
}

fn judge(subject: &Subject, request: &Check) -> Result<CheckReport, CheckError> {
    let root = request.against.as_deref();
    let look = |root: &Path| {
        directory::look(root, &against::paths_on_host(&subject.tree))
            .map_err(|source| CheckError::Against { root: root.to_owned(), source })
    };
    let host = root.map(look).transpose()?;
    let of_image = || subject.image.as_ref()?.architecture.as_deref().map(TargetMachine::of_image);
    let named = request.machine.clone().or_else(of_image);
    let machine = named.or_else(|| machine_of(root?)).unwrap_or_else(this_machine);
    Ok(rules::check(subject, host.as_ref(), &machine, &request.allow))
}

fn machine_of(root: &Path) -> Option<TargetMachine> {
    let name = directory::machine(root)?;
    Some(TargetMachine::new(name, format!("the host in {} is {name}", root.display())))
}

fn this_machine() -> TargetMachine {
    let name = directory::own_machine();
    let why = format!("this machine is {name} (to choose another: --machine)");
    TargetMachine::new(&name, why)
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum CheckError {
        Input { name, source }, Against { root, source }, Print { source },
    }
    enum InputError {
        Open { source }, Nowhere { source }, Directory(..), Bundle(..), Rootfs(..), Archive(..),
    }
}
