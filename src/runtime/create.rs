//! `create ID`: request → bundle → rootfs → role (`prepare.rs`) → reserve (`reserve.rs`) → hooks → proxy → cgroup →
//! spec hooks → complete. If a step fails, `undo` reverts those before it.

use super::container::Container;
use super::error::Error;
use super::hooks::{ImageHooks, Ran, remove_left_mounts, run_poststop, run_spec_hooks};
use super::journal::{Journal, Outcome};
use super::kernel::Kernel;
use super::prepare::{Prepared, prepare};
use super::reserve::{Reserved, reserve};
use super::shown_paths;
use crate::cli::runtime::{Create, Terminals};
use crate::host::container::cgroup;
use crate::host::container::console;
use crate::host::container::log::{ContainerLog, Reader};
use crate::host::container::net_namespace::{self, OpenNamespace};
use crate::host::container::proxy::{self, Spawned, Stdio};
use crate::host::container::rootfs::Rootfs;
use crate::host::container::state_dir::{LockedContainer, StateRoot};
use crate::host::os::atomic_file;
use crate::host::os::descriptor;
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::{Phase, Status};
use crate::model::container::proxy::Identity;
use crate::model::container::spec::{Network, Spec, SpecHooks, Terminal};
use crate::model::container::state::{RecordedRole, StartOutput, State};
use crate::model::extension::hook::Verb;
use crate::model::text::cause::chain;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

pub(super) fn create(
    journal: &mut Journal,
    root: &StateRoot,
    docker_root: Option<&Path>,
    request: &Create,
) -> Result<Outcome, Error> {
    let not_reserved = |error| not_reserved(root, &request.id, error);
    let prepared = prepare(journal, docker_root, request).map_err(not_reserved)?;
    let Reserved { locked, leftover } = reserve(root, &request.id).map_err(not_reserved)?;
    if let Some(leftover) = &leftover {
        take_over(journal, leftover, &locked)?;
    }
    journal.debug(|| format!("the state is kept in {}", root.path_of(&request.id).display()));
    let Prepared { spec, rootfs, state } = prepared;
    let mut making = Making {
        locked,
        state,
        rootfs,
        proxy: None,
        created_hook: Ran::Nothing,
        spec_hooks: Ran::Nothing,
        pid_file: None,
    };
    match making.make(journal, &spec, request, leftover) {
        Ok(proxy) => {
            let rootfs = &making.state.rootfs;
            Ok(Outcome::Did(format!("created with proxy {}, rootfs {rootfs}", proxy.pid)))
        }
        Err(first) => Err(making.undo(journal, first)),
    }
}

/// The error of a create that has done nothing. If another container may have the id, the error is none of that one's.
fn not_reserved(root: &StateRoot, id: &ContainerId, error: Error) -> Error {
    let is_another = matches!(&error, Error::State(error) if error.is_of_another())
        // If that cannot be seen, there may be one.
        || root.has_directory(id).unwrap_or(true);
    if is_another { Error::NotReserved(Box::new(error)) } else { error }
}

/// Ends and removes what an unfinished create or delete left, apart from the state.
fn take_over(
    journal: &mut Journal,
    leftover: &Container,
    locked: &LockedContainer,
) -> Result<(), Error> {
    journal.warn("an earlier create or delete of this container did not finish; taking over");
    if let Some(proxy) = &leftover.proxy {
        journal.debug(|| format!("killing its proxy {}", proxy.pid()));
        proxy::kill(proxy)?;
    }
    let State { id, cgroup, foreign_cgroups, .. } = &leftover.state;
    if let Some(leaf) = cgroup {
        // Another program's process may be in it by now. The delete of the new container removes it then.
        match cgroup::remove(leaf, foreign_cgroups) {
            Ok(removed) => {
                journal.debug(|| format!("removed its cgroups: {}", shown_paths(&removed)));
            }
            Err(error) => journal.warn(&format!("{}; continuing", chain(&error))),
        }
    }
    remove_left_mounts(journal, id, locked.lock());
    Ok(())
}

/// A container in the making: what `undo` has to revert.
struct Making {
    locked: LockedContainer,
    state: State,
    rootfs: Rootfs,
    proxy: Option<Spawned>,
    created_hook: Ran,
    spec_hooks: Ran,
    pid_file: Option<PathBuf>,
}

/// The terminal of the container, or what stands in for it.
enum Streams {
    /// Those of this process.
    Own,
    Pty(OwnedFd),
    /// Output goes to `/dev/null`.
    Silent(File),
}

/// The log of the container that is made.
fn container_log(streams: &Streams, terminals: Terminals) -> ContainerLog {
    let (pty, reader) = match (streams, terminals) {
        (Streams::Pty(slave), _) => (Some(slave.as_fd()), Reader::Later),
        // The person who typed `run`.
        (Streams::Own | Streams::Silent(_), Terminals::Inherited) => (None, Reader::Now),
        (Streams::Own | Streams::Silent(_), Terminals::ToConsoleSocket) => (None, Reader::Later),
    };
    ContainerLog::of_this_process(pty, reader)
}

impl Making {
    fn make(
        &mut self,
        journal: &mut Journal,
        spec: &Spec,
        request: &Create,
        leftover: Option<Container>,
    ) -> Result<Identity, Error> {
        self.find_foreign_cgroups(journal, leftover)?;
        self.locked.save(&self.state)?;
        let streams = self.open_streams(journal, spec, request)?;
        self.fabricate(journal, &streams, request.terminals)?;
        self.run_create_hook(journal, &streams, request.terminals)?;
        let proxy = self.spawn_proxy(journal, &streams, &spec.network)?;
        self.enter_cgroup(journal, proxy)?;
        self.run_spec_hooks(journal, &spec.hooks)?;
        self.complete(journal, proxy)?;
        Ok(proxy)
    }

    /// Finds the cgroups that are there before any is made, so that neither `undo` nor a later delete removes them.
    fn find_foreign_cgroups(
        &mut self,
        journal: &Journal,
        leftover: Option<Container>,
    ) -> Result<(), Error> {
        // Until it is known which of them are foreign, undo must not touch any.
        let Some(leaf) = self.state.cgroup.take() else { return Ok(()) };
        let mut found = cgroup::find(&leaf)?;
        self.state.cgroup = Some(leaf);
        // A cgroup that an earlier create made, and that could not be removed yet, is not foreign.
        if let Some(Container { state, .. }) =
            leftover.filter(|it| it.state.cgroup == self.state.cgroup)
        {
            found.retain(|path| state.foreign_cgroups.contains(path));
        }
        if !found.is_empty() {
            journal.debug(|| {
                format!(
                    "cgroups that existed before, and are therefore kept: {}",
                    shown_paths(&found)
                )
            });
        }
        self.state.foreign_cgroups = found;
        Ok(())
    }

    fn open_streams(
        &mut self,
        journal: &Journal,
        spec: &Spec,
        request: &Create,
    ) -> Result<Streams, Error> {
        if let (Terminal::Pty { rows, columns }, Some(socket)) =
            (spec.terminal, &request.console_socket)
        {
            let slave = console::open(socket, rows, columns)?;
            journal.debug(|| {
                let socket = socket.display();
                format!("sent the master of a pty ({columns}x{rows}) to {socket}")
            });
            return Ok(Streams::Pty(slave));
        }
        journal.debug(|| "no pty: the proxy has this process's standard streams".to_owned());
        if request.terminals == Terminals::Inherited || !descriptor::output_is_one_pipe() {
            return Ok(Streams::Own);
        }
        // The caller reads the pipe to its end, which the proxy must not keep open.
        journal.debug(|| {
            "standard output and error are one pipe: the proxy has /dev/null, and what hooks/start prints \
             is the output of start"
                .to_owned()
        });
        self.state.start_output = StartOutput::Caller;
        let null = File::options().write(true).open("/dev/null");
        null.map(Streams::Silent).map_err(|source| Error::Null { source })
    }

    /// Before the hook, which is given the volume.
    fn fabricate(
        &self,
        journal: &mut Journal,
        streams: &Streams,
        terminals: Terminals,
    ) -> Result<(), Error> {
        let Self { state, rootfs, locked, .. } = self;
        let kernel = Kernel { state, rootfs, lock: locked.lock() };
        kernel.fabricate(journal, |_| container_log(streams, terminals))
    }

    fn run_create_hook(
        &mut self,
        journal: &mut Journal,
        streams: &Streams,
        terminals: Terminals,
    ) -> Result<(), Error> {
        if self.state.role == RecordedRole::Sandbox {
            return Ok(());
        }
        let hooks = self.image_hooks();
        let log = |_: &mut Journal| container_log(streams, terminals);
        self.created_hook = hooks.run(journal, Verb::Create, log)?;
        // Only now: the hook may make the other hooks.
        self.state.seen = Some(self.rootfs.seen()?);
        Ok(())
    }

    fn image_hooks(&self) -> ImageHooks<'_> {
        ImageHooks { state: &self.state, rootfs: &self.rootfs, lock: self.locked.lock() }
    }

    fn spawn_proxy(
        &mut self,
        journal: &Journal,
        streams: &Streams,
        network: &Network,
    ) -> Result<Identity, Error> {
        let stdio = match streams {
            Streams::Own => Stdio::Inherited,
            Streams::Pty(slave) => Stdio::Pty(slave.as_fd()),
            Streams::Silent(null) => Stdio::Silent(null.as_fd()),
        };
        let spawn = || proxy::spawn(&self.state.id, stdio, self.locked.lock());
        let spawned = net_namespace::within(network, spawn)??;
        let identity = spawned.identity;
        self.state.pid = identity.pid;
        self.state.pid_start_time = identity.start_time;
        self.proxy = Some(spawned);
        journal.debug(|| {
            let why = match network {
                Network::Inherited => {
                    "the one of create, because config.json names none".to_owned()
                }
                Network::New => "a new one".to_owned(),
                Network::Joined(path) => format!("joined at {path}"),
            };
            let (pid, name) = (identity.pid, net_namespace::name_of(identity.pid));
            format!("proxy {pid} started in the network namespace {name}, {why}")
        });
        Ok(identity)
    }

    fn enter_cgroup(&self, journal: &Journal, proxy: Identity) -> Result<(), Error> {
        let Some(leaf) = &self.state.cgroup else {
            journal.debug(|| {
                "config.json names no cgroup: the proxy remains in the cgroup of create".to_owned()
            });
            return Ok(());
        };
        let entered = cgroup::enter(leaf, proxy.pid)?;
        journal.debug(|| format!("moved the proxy into the cgroups {}", shown_paths(&entered)));
        Ok(())
    }

    fn run_spec_hooks(&mut self, journal: &mut Journal, hooks: &SpecHooks) -> Result<(), Error> {
        let container = match &self.proxy {
            Some(proxy) if !hooks.create_container.is_empty() => {
                let opened = OpenNamespace::of(&proxy.process)?;
                Some(opened.ok_or(proxy::Error::NotReady)?)
            }
            Some(_) | None => None,
        };
        for (list, hooks, namespace) in [
            ("prestart", &hooks.prestart, None),
            ("createRuntime", &hooks.create_runtime, None),
            ("createContainer", &hooks.create_container, container.as_ref()),
        ] {
            if !hooks.is_empty() {
                self.spec_hooks = Ran::Hook;
            }
            let state = (&self.state, Status::Creating);
            run_spec_hooks(journal, list, hooks, state, namespace, self.locked.lock())?;
        }
        Ok(())
    }

    /// Lets the proxy live on without this process. Until it has that word, it ends with this process, and the id is
    /// free again: `Phase::Completing` says so.
    fn complete(&mut self, journal: &Journal, proxy: Identity) -> Result<(), Error> {
        self.state.status = Status::Created;
        self.state.phase = Phase::Completing;
        self.locked.save(&self.state)?;
        self.publish_pid(journal, proxy.pid)?;
        // Last, because the proxy starts up meanwhile: signals wait from its first instant on, and it was born into
        // its namespace.
        match &self.proxy {
            Some(proxy) => proxy.complete()?,
            None => return Err(proxy::Error::NotReady.into()),
        }
        self.state.phase = Phase::InUse;
        Ok(self.locked.save(&self.state)?)
    }

    fn publish_pid(&mut self, journal: &Journal, pid: i32) -> Result<(), Error> {
        let Some(path) = self.state.pid_file.as_ref().map(PathBuf::from) else { return Ok(()) };
        // No newline: containerd's shim parses the bytes as they are.
        atomic_file::publish(&path, pid.to_string().as_bytes())
            .map_err(|source| Error::PidFile { path: path.clone(), source })?;
        journal.debug(|| format!("wrote the pid {pid} to {}", path.display()));
        self.pid_file = Some(path);
        Ok(())
    }

    /// Reverts the steps that were done, the newest first. Each is tried.
    fn undo(mut self, journal: &mut Journal, first: Error) -> Error {
        journal.debug(|| "create failed: undoing its steps".to_owned());
        // A signal that ended a hook must not keep others from cleaning up.
        journal.stop = None;
        let refusal = self.proxy.as_ref().and_then(Spawned::refusal);
        let first = refusal.map_or(first, Error::Proxy);
        let mut failures: Vec<Error> = Vec::new();
        if let Some(path) = self.pid_file.take() {
            let removed = std::fs::remove_file(&path);
            failures.extend(removed.err().map(|source| Error::RemovePidFile { path, source }));
        }
        if let Some(proxy) = self.proxy.take() {
            failures.extend(proxy.kill().err().map(Error::from));
        }
        self.state.pid = 0;
        if self.created_hook == Ran::Hook {
            let nowhere = |_: &mut Journal| ContainerLog::nowhere();
            if let Err(error) = self.image_hooks().run(journal, Verb::Delete, nowhere) {
                journal.warn(&chain(&error));
            }
        }
        if self.spec_hooks == Ran::Hook {
            for error in run_poststop(journal, &self.state, self.locked.lock()) {
                journal.warn(&chain(&error));
            }
        }
        if let Some(leaf) = &self.state.cgroup {
            let removed = cgroup::remove(leaf, &self.state.foreign_cgroups);
            failures.extend(removed.err().map(Error::from));
        }
        failures.extend(self.locked.remove().err().map(Error::from));
        first.and("cleaning up", failures)
    }
}
