//! The subjects: the floor, and the life of a container under a runtime.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::process::{Argv, reap, wait};
use crate::Result;

/// Where the time of one life went.
#[derive(Clone, Copy)]
pub(crate) struct Life {
    pub(crate) create: Duration,
    pub(crate) start: Duration,
    /// From the end of `start` until the container's process has been waited for.
    pub(crate) exit: Duration,
    pub(crate) delete: Duration,
}

impl Life {
    pub(crate) fn whole(&self) -> Duration {
        self.create + self.start + self.exit + self.delete
    }
}

/// The time that no runtime can beat with the same number of programs: four programs that do nothing.
pub(crate) struct Floor {
    noop: Argv,
}

impl Floor {
    pub(crate) fn new(noop: &Path) -> Result<Self> {
        Ok(Self { noop: Argv::new([noop])? })
    }

    pub(crate) fn noop(&self) -> &Argv {
        &self.noop
    }

    pub(crate) fn life(&self) -> Result<Life> {
        let mut parts = [Duration::ZERO; 4];
        for part in &mut parts {
            let begin = Instant::now();
            self.noop.run()?;
            *part = begin.elapsed();
        }
        let [create, start, exit, delete] = parts;
        Ok(Life { create, start, exit, delete })
    }
}

/// The commands of one container's life under one runtime.
pub(crate) struct Runtime {
    program: PathBuf,
    scratch: PathBuf,
    bundle: PathBuf,
    id: String,
    pub(crate) create: Argv,
    pub(crate) start: Argv,
    pub(crate) delete: Argv,
    abandon: Argv,
    pid_file: PathBuf,
}

impl Runtime {
    /// Each container has its own state root below `scratch`. A log in JSON, as containerd asks for it.
    pub(crate) fn new(program: &Path, scratch: &Path, bundle: &Path, id: &str) -> Result<Self> {
        let pid_file = scratch.join(format!("{id}.pid"));
        let word = |path: &Path| path.display().to_string();
        let state = scratch.join("state").join(id);
        std::fs::create_dir_all(&state)?;
        let log = scratch.join(format!("{id}.log"));
        let verb = |verb: &[String]| {
            let mut words = vec![word(program), "--root".to_owned(), word(&state)];
            words.extend(["--log".to_owned(), word(&log)]);
            words.extend(["--log-format", "json"].map(str::to_owned));
            Argv::new(words.iter().chain(verb).chain([&id.to_owned()]))
        };
        let bundle_flags = ["--bundle", &word(bundle), "--pid-file", &word(&pid_file)];
        let mut create = vec!["create".to_owned()];
        create.extend(bundle_flags.map(str::to_owned));
        Ok(Self {
            program: program.to_owned(),
            scratch: scratch.to_owned(),
            bundle: bundle.to_owned(),
            id: id.to_owned(),
            create: verb(&create)?,
            start: verb(&["start".to_owned()])?,
            delete: verb(&["delete".to_owned()])?,
            abandon: verb(&["delete".to_owned(), "--force".to_owned()])?,
            pid_file,
        })
    }

    /// The same with another container id, to have several alive.
    pub(crate) fn sibling(&self, number: usize) -> Result<Self> {
        let id = format!("{}-{number}", self.id);
        Self::new(&self.program, &self.scratch, &self.bundle, &id)
    }

    /// The process of the created container.
    pub(crate) fn pid(&self) -> Result<Pid> {
        let text = std::fs::read_to_string(&self.pid_file)
            .map_err(|error| format!("{}: {error}", self.pid_file.display()))?;
        Ok(Pid::from_raw(text.trim().parse()?))
    }

    /// One life from create to delete.
    pub(crate) fn life(&self) -> Result<Life> {
        self.or_abandon(self.timed())
    }

    /// After a failure, removes all of the container: its process, its state and its cgroup.
    pub(crate) fn or_abandon<Value>(&self, outcome: Result<Value>) -> Result<Value> {
        if outcome.is_err() {
            let _the_first_error_counts = self.abandon();
        }
        outcome
    }

    /// Removes the container, whatever its state is.
    pub(crate) fn abandon(&self) -> Result<()> {
        self.abandon.run()?;
        reap()
    }

    fn timed(&self) -> Result<Life> {
        let begin = Instant::now();
        self.create.run()?;
        let created = Instant::now();
        let pid = self.pid()?;
        self.start.run()?;
        let started = Instant::now();
        wait(pid)?;
        let exited = Instant::now();
        self.delete.run()?;
        let deleted = Instant::now();
        Ok(Life {
            create: created - begin,
            start: started - created,
            exit: exited - started,
            delete: deleted - exited,
        })
    }
}

/// Which namespaces and cgroups a container asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// The usual namespaces, but the host's network.
    Inherited,
    /// An own network namespace: an entry without a path, as Docker and Podman's `none` send it.
    Own,
    /// And a cgroup. runc and crun always make one; the extension runtime makes one if config.json names it.
    OwnAndCgroup,
}

/// An extension without hooks.
pub(crate) fn extension_bundle(scratch: &Path, network: Network) -> Result<PathBuf> {
    let annotations = r#""annotations":{"io.balena.image.class":"overlay",
        "io.balena.image.override":"10","io.balena.image.requires-reboot":"false"},"#;
    bundle(scratch, "extension", network, annotations)
}

/// A container that runs `noop`. It has the two mounts without which runc or crun refuse to start, and no
/// other optional part.
pub(crate) fn container_bundle(scratch: &Path, network: Network, noop: &Path) -> Result<PathBuf> {
    let mounts = r#""mounts":[
        {"destination":"/proc","type":"proc","source":"proc"},
        {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755"]}],"#;
    let bundle = bundle(scratch, "container", network, mounts)?;
    std::fs::copy(noop, bundle.join("rootfs/noop"))?;
    Ok(bundle)
}

fn bundle(scratch: &Path, kind: &str, network: Network, more: &str) -> Result<PathBuf> {
    let (name, network, cgroup) = match network {
        Network::Inherited => ("plain", "", ""),
        Network::Own => ("network", r#",{"type":"network"}"#, ""),
        Network::OwnAndCgroup => {
            ("cgroup", r#",{"type":"network"}"#, r#""cgroupsPath":"/balena-extension-bench","#)
        }
    };
    let dir = scratch.join(format!("{kind}-{name}"));
    std::fs::create_dir_all(dir.join("rootfs/dev"))?;
    std::fs::create_dir_all(dir.join("rootfs/proc"))?;
    let config = format!(
        r#"{{"ociVersion":"1.0.2","process":{{"args":["/noop"],"cwd":"/","user":{{"uid":0,"gid":0}}}},
        "root":{{"path":"rootfs"}},{more}"linux":{{{cgroup}"namespaces":[{{"type":"pid"}},
        {{"type":"mount"}},{{"type":"ipc"}},{{"type":"uts"}}{network}]}}}}"#
    );
    std::fs::write(dir.join("config.json"), config)?;
    Ok(dir)
}
