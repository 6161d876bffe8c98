//! The kernel of an image. This program cannot install one: it starts the manager for it, which has the engine's API and
//! hashes (docs/kernel-override.md). An extension that does not name its kernel in a label costs nothing of this.

use super::error::Error;
use super::journal::Journal;
use crate::host::container::hook;
use crate::host::container::image_hook::{Bring, Image};
use crate::host::container::log::ContainerLog;
use crate::host::container::manager_call::{self, ManagerCall, ManagerProgram, ManagerRun};
use crate::host::container::rootfs::Rootfs;
use crate::model::container::deploy_record::MountNamespace;
use crate::model::container::exit::{Exit, last_line};
use crate::model::container::id::ContainerId;
use crate::model::container::refusal::Refusal;
use crate::model::container::state::{RecordedKernel, State};
use crate::model::extension::claim::Claims;
use crate::model::extension::labels::{ABI, IMAGE_PREFIX, KERNEL_VERSION};
use crate::model::extension::role::Role;
use crate::model::kernel::abi::Abi;
use crate::model::kernel::volume::BootVolume;
use crate::model::text::phrase::respell;
use crate::version::VERSION;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What the manager does for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Fabricate,
    Activate,
}

impl Task {
    /// The words of the manager's command line, and the name in messages.
    fn words(self) -> [&'static str; 2] {
        match self {
            Self::Fabricate => ["kernel", "fabricate"],
            Self::Activate => ["kernel", "activate"],
        }
    }

    fn limit(self) -> Duration {
        match self {
            Self::Fabricate => Duration::from_secs(5 * 60),
            Self::Activate => Duration::from_secs(2 * 60),
        }
    }
}

/// How much earlier than at the limit the manager gives up, so that it can report for what it has waited.
const REPORT_TIME: Duration = Duration::from_secs(10);
/// The exit statuses of the manager: the kernel is refused, and the command line is not understood.
const REFUSED: i32 = 10;
const USAGE: i32 = 2;

/// Whether an image brings a kernel.
enum Brought {
    Nothing,
    Kernel,
    /// It has this file in `/boot`, but its label is not an ABI.
    Malformed {
        file: String,
        label: String,
    },
}

/// A label with an ABI alone is only a claim: in earlier versions it named the kernel that an extension needs.
fn brought(label: Option<&str>, rootfs: &Rootfs) -> Result<Brought, Error> {
    let Some(label) = label else { return Ok(Brought::Nothing) };
    Ok(match (rootfs.file_in_boot()?, Abi::parse(label)) {
        (None, _) => Brought::Nothing,
        (Some(_), Some(_)) => Brought::Kernel,
        (Some(file), None) => Brought::Malformed { file, label: label.to_owned() },
    })
}

/// The volume for the kernel that a new container brings. Nothing is made.
///
/// # Errors
/// The engine is not one that can have the volume, or would refuse its name.
pub(super) fn find(
    id: &ContainerId,
    role: &Role,
    rootfs: &Rootfs,
) -> Result<Option<RecordedKernel>, Error> {
    let Role::Extension { labels, image, data_root } = role else { return Ok(None) };
    let label = |name: &str| labels.get(name).map(String::as_str);
    match brought(Claims::of(label).abi, rootfs)? {
        // `start` refuses the latter.
        Brought::Nothing | Brought::Malformed { .. } => return Ok(None),
        Brought::Kernel => {}
    }
    let Some(data_root) = data_root else { return Err(Error::NoStoreForKernel) };
    let volume = BootVolume::of(label, id.as_str(), image.as_deref())
        .map_err(|source| Error::KernelVolume { source })?;
    let volume = volume.as_str().to_owned();
    let data_root = std::path::absolute(data_root).unwrap_or_else(|_| data_root.clone());
    Ok(Some(RecordedKernel { volume, data_root }))
}

/// What the manager is started for.
#[derive(Clone, Copy)]
pub(super) struct Kernel<'a> {
    pub(super) state: &'a State,
    pub(super) rootfs: &'a Rootfs,
    pub(super) lock: BorrowedFd<'a>,
}

impl Kernel<'_> {
    /// Makes the volume of the kernel, if the image brings one.
    pub(super) fn fabricate(
        &self,
        journal: &mut Journal,
        log: impl FnOnce(&mut Journal) -> ContainerLog,
    ) -> Result<(), Error> {
        if self.state.kernel.is_none() {
            return Ok(());
        }
        match self.run(journal, Task::Fabricate, log)? {
            Answer::Done => Ok(()),
            Answer::Refused { reason } => Err(Error::Fabricate { reason }),
        }
    }

    /// Why the extension must not be applied, if that is known before its hook runs.
    pub(super) fn refusal(&self) -> Result<Option<Refusal>, Error> {
        Ok(match self.brought()? {
            Brought::Nothing | Brought::Kernel => None,
            Brought::Malformed { file, label } => Some(Refusal::MalformedAbi { file, label }),
        })
    }

    /// Publishes and arms the kernel, if the image brings one; or why the kernel is refused.
    pub(super) fn activate(
        &self,
        journal: &mut Journal,
        log: impl FnOnce(&mut Journal) -> ContainerLog,
    ) -> Result<Option<Refusal>, Error> {
        // The hooks may have changed what is in `/boot`. The manager finds what is missing then.
        if self.state.kernel.is_none() && !matches!(self.brought()?, Brought::Kernel) {
            return Ok(None);
        }
        Ok(match self.run(journal, Task::Activate, log)? {
            Answer::Done => None,
            Answer::Refused { reason } => Some(Refusal::Kernel { reason }),
        })
    }

    fn brought(&self) -> Result<Brought, Error> {
        brought(Claims::of(|name| self.label(name)).abi, self.rootfs)
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.state.labels.get(name).map(String::as_str)
    }

    fn run(
        &self,
        journal: &mut Journal,
        task: Task,
        log: impl FnOnce(&mut Journal) -> ContainerLog,
    ) -> Result<Answer, Error> {
        let program = ManagerProgram::open().map_err(|source| Error::NoManager { source })?;
        let failed = |source| Error::CallManager { source };
        let mut words = self.words(task);
        if let Some(RecordedKernel { volume, data_root }) = &self.state.kernel {
            let identity = manager_call::identity(data_root).map_err(failed)?;
            let root = data_root.display().to_string();
            let named = ["--volume", volume, "--docker-root", &root, "--docker-root-is", &identity];
            words.extend(named.map(str::to_owned));
        }
        let (id, name) = (&self.state.id, task.words().join(" "));
        let image = Image {
            rootfs: self.rootfs,
            labels: &self.state.labels,
            mounts: &self.state.mounts,
            id,
            bring: Bring::Always,
        };
        journal.debug(|| format!("starting balena-extension-manager {}", words.join(" ")));
        let mut log = log(journal);
        let interrupt = journal.interrupt();
        let (image, limit, lock) = (&image, task.limit(), self.lock);
        let call = ManagerCall { name: &name, image, limit, lock, interrupt };
        let with_rootfs = |rootfs: &str| {
            words.extend(["--rootfs", rootfs].map(str::to_owned));
            words
        };
        let ManagerRun { run, doubt } =
            program.run(&call, with_rootfs, &mut log).map_err(failed)?;
        let namespace = match doubt {
            None => MountNamespace::Host,
            Some(why) => {
                journal.warn(&format!(
                    "cannot determine whether this is the mount namespace of process 1 ({why}): {name} ran here"
                ));
                MountNamespace::Unknown
            }
        };
        let reason = last_line(&run.output).map(|line| respell(&line)).unwrap_or_default();
        let status = match &run.result {
            Err(hook::Error::Failed { exit: Exit::Status(status), .. }) => Some(*status),
            Ok(()) | Err(_) => None,
        };
        match (journal.add(run, namespace), status) {
            (Ok(()), _) => Ok(Answer::Done),
            (Err(_), Some(REFUSED)) => Ok(Answer::Refused { reason }),
            // The manager compares the versions, but an old one does not know the command at all.
            (Err(_), Some(USAGE)) => Err(Error::OtherManager { version: VERSION }),
            (Err(_), Some(_)) => Err(match task {
                Task::Fabricate => Error::Fabricate { reason },
                Task::Activate => Error::Activate { reason },
            }),
            (Err(error), None) => Err(error),
        }
    }

    fn words(&self, task: Task) -> Vec<String> {
        let timeout = task.limit().saturating_sub(REPORT_TIME).as_secs().to_string();
        let [command, verb] = task.words();
        let words = [command, verb, "--timeout", &timeout, "--caller", VERSION, "--container"];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        words.push(self.state.id.clone());
        for (name, text) in &self.state.labels {
            let is_needed = match task {
                Task::Fabricate => name.starts_with(IMAGE_PREFIX),
                Task::Activate => [ABI, KERNEL_VERSION].contains(&name.as_str()),
            };
            if is_needed {
                words.extend(["--label".to_owned(), format!("{name}={text}")]);
            }
        }
        words
    }
}

/// What the manager has answered.
enum Answer {
    Done,
    Refused { reason: String },
}
