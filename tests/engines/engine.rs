//! What every engine can do, in one vocabulary, so that a scenario serves them all.

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

/// What a container is to its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Not there, or not started yet.
    NotRun,
    Running,
    Exited(i32),
}

pub(crate) trait Engine: Sync {
    /// The engine's command line.
    fn client(&self) -> Command;

    /// Puts an image into the engine's store.
    fn import(&self, image: &Image);

    /// Removes an image and whatever the engine keeps of it.
    fn remove_image(&self, image: &Image);

    /// Deploys an image as a user would, with more arguments for the engine's `run`, and returns
    /// once the start is over.
    fn run(&self, name: &str, image: &Image, arguments: &[&str]) -> Finished {
        self.begin_run(name, image, arguments).finish_within(LIMIT)
    }

    /// [`Engine::run`], left running.
    fn begin_run(&self, name: &str, image: &Image, arguments: &[&str]) -> Captured;

    /// Starts an exited container again.
    fn start(&self, name: &str) -> Finished;

    /// Starts a container again whose last start failed.
    fn start_after_failure(&self, name: &str) -> Finished {
        self.start(name)
    }

    /// Removes a container that is not running.
    fn remove(&self, name: &str) -> Finished;

    /// Removes a container whatever its state, and reports nothing.
    fn force_remove(&self, name: &str);

    fn status(&self, name: &str) -> Status;

    /// The id under which the runtime knows the container.
    fn id(&self, name: &str) -> String;

    /// The same, from the place of the bundle: during a start some engines answer no question.
    fn id_of_bundle(&self, bundle: &Path) -> String {
        bundle.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// What the engine kept of the container's output.
    fn logs(&self, name: &str) -> String;

    /// The file that the engine reads the proxy's pid from.
    fn pid_file(&self, id: &str) -> PathBuf;

    /// The line in which this engine passes on `reason` from a failed `operation` (create, start).
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

/// The engines by name, for tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Docker,
    Containerd,
    Podman,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Docker, Self::Containerd, Self::Podman];

    /// The part of a test's name that says which engine it ran under.
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
