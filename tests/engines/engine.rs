//! The operations that all engines have, so that a scenario runs on all of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::capture::Captured;
use crate::command::LIMIT;
use crate::cri::Cri;
use crate::ctr::Containerd;
use crate::docker::Docker;
use crate::finished::Finished;
use crate::image::Image;
use crate::podman::Podman;

/// The status of a container in its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It does not exist, or was not started yet.
    NotRun,
    Running,
    Exited(i32),
}

pub(crate) trait Engine: Sync {
    /// The engine's command line.
    fn client(&self) -> Command;

    /// Puts an image into the engine's store.
    fn import(&self, image: &Image);

    /// Removes an image and all that the engine keeps for it.
    fn remove_image(&self, image: &Image);

    /// Deploys an image as a user would, with more arguments for the engine's `run`, and waits until the start
    /// is over.
    fn run(&self, name: &str, image: &Image, arguments: &[&str]) -> Finished {
        self.begin_run(name, image, arguments).finish_within(LIMIT)
    }

    /// [`Engine::run`], but does not wait.
    fn begin_run(&self, name: &str, image: &Image, arguments: &[&str]) -> Captured;

    /// Starts an exited container again.
    fn start(&self, name: &str) -> Finished;

    /// Starts a container again whose last start failed.
    fn start_after_failure(&self, name: &str) -> Finished {
        self.start(name)
    }

    /// Removes a container that is not running.
    fn remove(&self, name: &str) -> Finished;

    /// Removes a container in any state. Errors are ignored.
    fn force_remove(&self, name: &str);

    fn status(&self, name: &str) -> Status;

    /// The id under which the runtime knows the container.
    fn id(&self, name: &str) -> String;

    /// The same, from the path of the bundle: some engines answer no question during a start.
    fn id_of_bundle(&self, bundle: &Path) -> String {
        bundle.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// The container's output, as the engine kept it.
    fn logs(&self, name: &str) -> String;

    /// The file that the engine reads the proxy's pid from.
    fn pid_file(&self, id: &str) -> PathBuf;

    /// This engine's error line for a failed `operation` (create, start) with `reason`.
    fn error(&self, operation: &str, reason: &str) -> String;

    /// The exit status of this engine's `run` when the runtime fails.
    fn failure_code(&self) -> i32;
}

/// The engines that tests share. Each starts when it is first asked for.
#[derive(Default)]
pub(crate) struct Engines {
    docker: OnceLock<Docker>,
    containerd: OnceLock<Containerd>,
    podman: OnceLock<Podman>,
    cri: OnceLock<Cri>,
}

/// The kinds of engines, for tables of scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Docker,
    Containerd,
    Podman,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Docker, Self::Containerd, Self::Podman];

    /// The part of a test's name that names the engine.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
        }
    }
}

impl Engines {
    pub(crate) fn get(&self, kind: Kind) -> &dyn Engine {
        match kind {
            Kind::Docker => self.docker(),
            Kind::Containerd => self.containerd(),
            Kind::Podman => self.podman(),
        }
    }

    pub(crate) fn docker(&self) -> &Docker {
        self.docker.get_or_init(|| Docker::start(&[]))
    }

    pub(crate) fn containerd(&self) -> &Containerd {
        self.containerd.get_or_init(Containerd::start)
    }

    pub(crate) fn podman(&self) -> &Podman {
        self.podman.get_or_init(Podman::new)
    }

    pub(crate) fn cri(&self) -> &Cri {
        self.cri.get_or_init(Cri::start)
    }
}
