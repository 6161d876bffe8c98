//! `check`: reads the input, and what the rules need of the host; the rules are in `check/rules`.

use crate::check::read::archive::{self, Archive, ArchivedImage};
use crate::check::read::{directory, saved};
use crate::check::rules::machine::TargetMachine;
use crate::check::rules::report::{self, CheckReport};
use crate::check::rules::rule::{Rule, Severity};
use crate::check::rules::{self, ImageConfig, InputKind, Subject, against};
use crate::cli::check::{Check, ReportFormat};
use crate::host::container::bundle;
use crate::host::container::rootfs::{self, Rootfs};
use crate::model::text::cause::chain;
use std::error::Error as Cause;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why something could not be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("cannot check {name:?}")]
    Open { name: String, source: io::Error },
    #[error(
        "cannot check {name:?}: it is neither a directory nor a file, and the engine does not provide it \
         as an image"
    )]
    Nowhere { name: String, source: Box<dyn Cause> },
    #[error("cannot check the directory {name:?}")]
    Directory { name: String, source: directory::DirectoryError },
    #[error("cannot check the bundle {name:?}")]
    Rootfs { name: String, source: rootfs::Error },
    #[error("cannot check {name:?}")]
    Archive { name: String, source: archive::ArchiveError },
    #[error("cannot read the host in {root:?} (--against)")]
    Against { root: PathBuf, source: directory::DirectoryError },
    #[error("cannot print the report as JSON")]
    Print { source: serde_json::Error },
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
    for (mut subject, machine) in load(name, engine)? {
        for (label, text) in &request.labels {
            let labels = subject.labels.get_or_insert_default();
            labels.insert(label.clone(), text.clone());
        }
        reports.push(judge(&subject, machine, request)?);
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
    let mut text = String::new();
    for rule in Rule::ALL {
        // A formatter into a String cannot fail.
        let _ =
            writeln!(text, "{:<18} {:<8} {}", rule.name(), rule.severity().name(), rule.summary());
    }
    text
}

/// An input, and the machine that it names.
type Input = (Subject, Option<TargetMachine>);

fn load<R: Read>(
    name: &str,
    engine: impl FnOnce(&str) -> Result<R, Box<dyn Cause>>,
) -> Result<Vec<Input>, CheckError> {
    let opening = |source| CheckError::Open { name: name.to_owned(), source };
    if name == "-" {
        return load_archive(name, io::stdin().lock());
    }
    match std::fs::metadata(name) {
        Ok(found) if found.is_dir() => {
            if saved::is_saved_image(Path::new(name)).map_err(opening)? {
                let images = saved::read(Path::new(name));
                let failed = |source| CheckError::Archive { name: name.to_owned(), source };
                return Ok(of_images(name, images.map_err(failed)?));
            }
            let is_bundle = Path::new(name).join("config.json").exists();
            let subject = if is_bundle { load_bundle(name) } else { load_directory(name) };
            Ok(vec![(subject?, None)])
        }
        Ok(_) => load_archive(name, File::open(name).map_err(opening)?),
        // Anything else may be the name of an image, such as registry/name:tag.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_path(name) => {
            let reader = engine(name)
                .map_err(|source| CheckError::Nowhere { name: name.to_owned(), source })?;
            load_archive(name, reader)
        }
        Err(source) => Err(opening(source)),
    }
}

fn is_path(name: &str) -> bool {
    name.starts_with(['/', '.'])
        || [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end))
}

fn load_directory(name: &str) -> Result<Subject, CheckError> {
    let tree = directory::load(Path::new(name))
        .map_err(|source| CheckError::Directory { name: name.to_owned(), source })?;
    Ok(Subject { name: name.to_owned(), tree, ..Subject::default() })
}

/// A `config.json` that the runtime would refuse is a finding; one that cannot be read is an error.
fn load_bundle(name: &str) -> Result<Subject, CheckError> {
    let empty = Subject { name: name.to_owned(), input: InputKind::Bundle, ..Subject::default() };
    let bundle = match bundle::load(Some(Path::new(name))) {
        Ok(bundle) => bundle,
        Err(error @ bundle::Error::Invalid { .. }) => {
            return Ok(Subject { refusal: Some(chain(&error)), ..empty });
        }
        Err(error) => {
            return Err(CheckError::Open {
                name: name.to_owned(),
                source: io::Error::other(chain(&error)),
            });
        }
    };
    let labels = Some(bundle.spec.annotations.clone());
    let subject = Subject { labels, mounts: bundle.spec.mounts.clone(), ..empty };
    match Rootfs::open(&bundle.path, &bundle.spec.root_path) {
        Ok(rootfs) => {
            let tree = directory::load(Path::new(rootfs.path())).map_err(|source| {
                CheckError::Directory { name: rootfs.path().to_owned(), source }
            })?;
            Ok(Subject { tree, ..subject })
        }
        Err(error @ rootfs::Error::Escapes { .. }) => {
            Ok(Subject { refusal: Some(chain(&error)), ..subject })
        }
        Err(source) => Err(CheckError::Rootfs { name: name.to_owned(), source }),
    }
}

fn load_archive(name: &str, reader: impl Read) -> Result<Vec<Input>, CheckError> {
    let archive = archive::read(reader)
        .map_err(|source| CheckError::Archive { name: name.to_owned(), source })?;
    let images = match archive {
        Archive::Images(images) => images,
        Archive::Export(tree, layers) => {
            let (name, input) = (name.to_owned(), InputKind::Export);
            let subject = Subject { name, input, tree, layers, ..Subject::default() };
            return Ok(vec![(subject, None)]);
        }
    };
    Ok(of_images(name, images))
}

fn of_images(name: &str, images: Vec<ArchivedImage>) -> Vec<Input> {
    let one = |image: ArchivedImage| {
        let configuration = image.configuration;
        let name = match image.name {
            Some(own) if own != name => format!("{name}: {own}"),
            Some(_) | None => name.to_owned(),
        };
        let machine = configuration.architecture.as_deref().map(TargetMachine::of_image);
        let subject = Subject {
            name,
            input: InputKind::Image,
            tree: image.tree,
            layers: image.layers,
            labels: Some(configuration.labels),
            image: Some(ImageConfig {
                has_command: configuration.has_command,
                has_health_check: configuration.has_health_check,
            }),
            ..Subject::default()
        };
        (subject, machine)
    };
    images.into_iter().map(one).collect()
}

fn judge(
    subject: &Subject,
    own: Option<TargetMachine>,
    request: &Check,
) -> Result<CheckReport, CheckError> {
    let root = request.against.as_deref();
    let look = |root: &Path| {
        directory::look(root, &against::paths_on_host(&subject.tree))
            .map_err(|source| CheckError::Against { root: root.to_owned(), source })
    };
    let host = root.map(look).transpose()?;
    let machine = match &request.machine {
        Some(machine) => machine.clone(),
        None => own.or_else(|| root.and_then(machine_of)).unwrap_or_else(this_machine),
    };
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
        Open { name, source }, Nowhere { name, source }, Directory { name, source },
        Rootfs { name, source }, Archive { name, source }, Against { root, source },
        Print { source },
    }
}
