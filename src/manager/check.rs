//! `check`: reads what is to be checked, and what of the host decides; the rules are in
//! `check/rules`.

use crate::check::read::archive::{self, Archive};
use crate::check::read::{folder, saved};
use crate::check::rules::machine::Machine;
use crate::check::rules::report::{self, Report};
use crate::check::rules::rule::{Rule, Severity};
use crate::check::rules::{self, Image, Origin, Subject, against};
use crate::cli::check::{Check, Format};
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
pub(crate) enum Error {
    #[error("check {name:?}")]
    Open { name: String, source: io::Error },
    #[error(
        "check {name:?}: it is neither a folder nor a file, and as an image it cannot be had from the \
         engine"
    )]
    Nowhere { name: String, source: Box<dyn Cause> },
    #[error("check the folder {name:?}")]
    Folder { name: String, source: folder::Error },
    #[error("check the bundle {name:?}")]
    Rootfs { name: String, source: rootfs::Error },
    #[error("check {name:?}")]
    Archive { name: String, source: archive::Error },
    #[error("look at the host below {root:?} (--against)")]
    Against { root: PathBuf, source: folder::Error },
    #[error("print the report as JSON")]
    Print { source: serde_json::Error },
}

/// What was found, as text.
pub(crate) struct Answer {
    pub(crate) text: String,
    /// The worst that is not allowed.
    pub(crate) worst: Option<Severity>,
}

/// Does what `request` asks. `engine` hands out an image of the engine as the archive that `docker
/// save` makes; it is only called for what is no path.
///
/// # Errors
/// Something could not be read, so that nothing can be said about it.
pub(crate) fn run<R: Read>(
    request: &Check,
    engine: impl FnOnce(&str) -> Result<R, Box<dyn Cause>>,
) -> Result<Answer, Error> {
    let Some(name) = request.subject.as_deref().filter(|_| !request.rules) else {
        return Ok(Answer { text: list_of_rules(), worst: None });
    };
    let mut reports = Vec::new();
    for (mut subject, machine) in load(name, engine)? {
        for (label, text) in &request.labels {
            let labels = subject.labels.get_or_insert_default();
            labels.insert(label.clone(), text.clone());
        }
        reports.push(judge(&subject, machine, request)?);
    }
    let worst = reports.iter().filter_map(Report::worst).max();
    let text = match request.format {
        Format::Text => reports.iter().map(Report::text).collect(),
        Format::Json => report::json(&reports).map_err(|source| Error::Print { source })?,
    };
    Ok(Answer { text, worst })
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

/// A subject, and the machine that it says it is for.
type Loaded = (Subject, Option<Machine>);

fn load<R: Read>(
    name: &str,
    engine: impl FnOnce(&str) -> Result<R, Box<dyn Cause>>,
) -> Result<Vec<Loaded>, Error> {
    let opening = |source| Error::Open { name: name.to_owned(), source };
    if name == "-" {
        return load_archive(name, io::stdin().lock());
    }
    match std::fs::metadata(name) {
        Ok(found) if found.is_dir() => {
            if saved::is_saved_image(Path::new(name)).map_err(opening)? {
                let images = saved::read(Path::new(name));
                let failed = |source| Error::Archive { name: name.to_owned(), source };
                return Ok(of_images(name, images.map_err(failed)?));
            }
            let is_bundle = Path::new(name).join("config.json").exists();
            let subject = if is_bundle { load_bundle(name) } else { load_folder(name) };
            Ok(vec![(subject?, None)])
        }
        Ok(_) => load_archive(name, File::open(name).map_err(opening)?),
        // What has no path of its own may be the name of an image, such as registry/name:tag.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_path(name) => {
            let reader =
                engine(name).map_err(|source| Error::Nowhere { name: name.to_owned(), source })?;
            load_archive(name, reader)
        }
        Err(source) => Err(opening(source)),
    }
}

fn is_path(name: &str) -> bool {
    name.starts_with(['/', '.'])
        || [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end))
}

fn load_folder(name: &str) -> Result<Subject, Error> {
    let tree = folder::load(Path::new(name))
        .map_err(|source| Error::Folder { name: name.to_owned(), source })?;
    Ok(Subject { name: name.to_owned(), tree, ..Subject::default() })
}

/// What the runtime would refuse in `config.json` is a finding; only what cannot be read is an error.
fn load_bundle(name: &str) -> Result<Subject, Error> {
    let empty = Subject { name: name.to_owned(), origin: Origin::Bundle, ..Subject::default() };
    let bundle = match bundle::load(Some(Path::new(name))) {
        Ok(bundle) => bundle,
        Err(error @ bundle::Error::Invalid { .. }) => {
            return Ok(Subject { refusal: Some(chain(&error)), ..empty });
        }
        Err(error) => {
            return Err(Error::Open {
                name: name.to_owned(),
                source: io::Error::other(chain(&error)),
            });
        }
    };
    let labels = Some(bundle.spec.annotations.clone());
    let subject = Subject { labels, mounts: bundle.spec.mounts.clone(), ..empty };
    match Rootfs::open(&bundle.path, &bundle.spec.root_path) {
        Ok(rootfs) => {
            let tree = folder::load(Path::new(rootfs.path()))
                .map_err(|source| Error::Folder { name: rootfs.path().to_owned(), source })?;
            Ok(Subject { tree, ..subject })
        }
        Err(error @ rootfs::Error::Escapes { .. }) => {
            Ok(Subject { refusal: Some(chain(&error)), ..subject })
        }
        Err(source) => Err(Error::Rootfs { name: name.to_owned(), source }),
    }
}

fn load_archive(name: &str, reader: impl Read) -> Result<Vec<Loaded>, Error> {
    let archive =
        archive::read(reader).map_err(|source| Error::Archive { name: name.to_owned(), source })?;
    let images = match archive {
        Archive::Images(images) => images,
        Archive::Export(tree, layers) => {
            let (name, origin) = (name.to_owned(), Origin::Export);
            let subject = Subject { name, origin, tree, layers, ..Subject::default() };
            return Ok(vec![(subject, None)]);
        }
    };
    Ok(of_images(name, images))
}

fn of_images(name: &str, images: Vec<archive::Image>) -> Vec<Loaded> {
    let one = |image: archive::Image| {
        let configuration = image.configuration;
        let name = match image.name {
            Some(own) if own != name => format!("{name}: {own}"),
            Some(_) | None => name.to_owned(),
        };
        let machine = configuration.architecture.as_deref().map(Machine::of_image);
        let subject = Subject {
            name,
            origin: Origin::Image,
            tree: image.tree,
            layers: image.layers,
            labels: Some(configuration.labels),
            image: Some(Image {
                has_command: configuration.has_command,
                has_health_check: configuration.has_health_check,
            }),
            ..Subject::default()
        };
        (subject, machine)
    };
    images.into_iter().map(one).collect()
}

fn judge(subject: &Subject, own: Option<Machine>, request: &Check) -> Result<Report, Error> {
    let root = request.against.as_deref();
    let look = |root: &Path| {
        folder::look(root, &against::wanted_of_host(&subject.tree))
            .map_err(|source| Error::Against { root: root.to_owned(), source })
    };
    let host = root.map(look).transpose()?;
    let machine = match &request.machine {
        Some(machine) => machine.clone(),
        None => own.or_else(|| root.and_then(machine_of)).unwrap_or_else(this_machine),
    };
    Ok(rules::check(subject, host.as_ref(), Some(&machine), &request.allow))
}

fn machine_of(root: &Path) -> Option<Machine> {
    let name = folder::machine(root)?;
    Some(Machine::new(name, format!("the host below {} is {name}", root.display())))
}

fn this_machine() -> Machine {
    let name = folder::own_machine();
    let why = format!("this machine is {name} (--machine names another)");
    Machine::new(&name, why)
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Open { name, source }, Nowhere { name, source }, Folder { name, source },
        Rootfs { name, source }, Archive { name, source }, Against { root, source },
        Print { source },
    }
}
