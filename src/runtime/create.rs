//! `create ID`: check the extension, run its hook, start the proxy. What fails leaves nothing.

use super::hooks::{self, Ran, run_image_hook, run_poststop, run_spec_hooks, sweep};
use super::{Context, listed, observe};
use crate::cli::runtime::{Create, Terminals};
use crate::host::container::bundle::{self, Bundle};
use crate::host::container::cgroup;
use crate::host::container::console;
use crate::host::container::log::{ContainerLog, Reader};
use crate::host::container::net_namespace;
use crate::host::container::proxy::{self, Spawned, Stdio};
use crate::host::container::rootfs::{self, Rootfs};
use crate::host::container::state_dir::{self, Held};
use crate::host::engine::containers_storage::Hints;
use crate::host::engine::label_sources;
use crate::host::os::atomic_file;
use crate::host::os::clock;
use crate::host::os::descriptor;
use crate::model::container::cgroup::{self as cgroup_path};
use crate::model::container::environment::{self, Unpassable};
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::{Phase, Status};
use crate::model::container::spec::{Network, Spec, SpecHooks, Terminal};
use crate::model::container::state::{RecordedRole, StartOutput, State};
use crate::model::extension::hook::Verb;
use crate::model::extension::role::{self, NotAnExtension, Role};
use crate::model::text::cause::chain;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// Why a container was not created.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    #[error(transparent)]
    NotAnExtension(#[from] NotAnExtension),
    #[error(transparent)]
    Unpassable(#[from] Unpassable),
    #[error(transparent)]
    CgroupPath(#[from] cgroup_path::Invalid),
    #[error("process.terminal is true, but no --console-socket was given to send the pty to")]
    NoConsole,
    #[error(
        "--console-socket was given, but process.terminal is not true: there is no pty to send"
    )]
    NoTerminal,
    #[error("the path of the pid file is not UTF-8: {path:?}")]
    PidFilePath { path: PathBuf },
    #[error(transparent)]
    State(#[from] state_dir::Error),
    #[error(transparent)]
    Console(#[from] console::Error),
    #[error(transparent)]
    Hooks(#[from] hooks::Error),
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    #[error(transparent)]
    Namespace(#[from] net_namespace::Error),
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error("cannot open /dev/null for the proxy")]
    Null { source: io::Error },
    #[error("write the pid file {path:?} (--pid-file)")]
    PidFile { path: PathBuf, source: io::Error },
}

/// The first error, and what could not be undone after it.
#[derive(Debug, thiserror::Error)]
#[error("{first}; and cleaning up: {then}")]
struct NotUndone {
    first: String,
    then: String,
}

/// A create that failed, and whether it had the id.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nothing was touched. The id may be that of a container which is there.
    WithoutTheId(Error),
    /// What it did was taken back.
    WithTheId(Box<dyn std::error::Error>),
}

impl Failed {
    pub(super) fn cause(&self) -> &(dyn std::error::Error + 'static) {
        match self {
            Self::WithoutTheId(error) => error,
            Self::WithTheId(error) => &**error,
        }
    }

    /// Whether another container may have the id: of that one the failure says nothing.
    pub(super) fn may_be_of_another(&self, context: &Context<'_>, id: &ContainerId) -> bool {
        match self {
            Self::WithoutTheId(Error::State(error)) if error.is_of_another() => true,
            // What cannot be seen may be there.
            Self::WithoutTheId(_) => context.root.has_folder(id).unwrap_or(true),
            Self::WithTheId(_) => false,
        }
    }
}

impl From<Failed> for Box<dyn std::error::Error> {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::WithoutTheId(error) => error.into(),
            Failed::WithTheId(error) => error,
        }
    }
}

pub(super) fn create(context: &Context<'_>, request: &Create) -> Result<Option<String>, Failed> {
    let (plan, spec) = prepare(context, request).map_err(Failed::WithoutTheId)?;
    let reserved = context.root.reserve(&request.id);
    let (held, leftover) = reserved.map_err(|error| Failed::WithoutTheId(Error::State(error)))?;
    let mut making = Making {
        context,
        held,
        state: plan.state,
        rootfs: plan.rootfs,
        proxy: None,
        created_hook: Ran::Nothing,
        spec_hooks: Ran::Nothing,
        pid_file: None,
        leftover: None,
    };
    if let Some(leftover) = leftover {
        context
            .log
            .warn("an earlier create or delete of this container did not finish; taking over");
        clear(context, &leftover).map_err(Failed::WithTheId)?;
        sweep(context, request.id.as_str(), making.held.lock());
        making.leftover = Some(leftover);
    }
    context.log.debug(|| {
        let folder = context.root.folder_path(&request.id);
        format!("the state is kept in {}", folder.display())
    });
    match making.make(&spec, request) {
        Ok(pid) => Ok(Some(format!("created with proxy {pid}, rootfs {}", making.state.rootfs))),
        Err(first) => Err(Failed::WithTheId(making.undo(first))),
    }
}

/// Ends and removes what an unfinished create or delete has left beside the state.
fn clear(context: &Context<'_>, leftover: &State) -> Result<(), Box<dyn std::error::Error>> {
    if let (Some(proxy), _) = observe(leftover)? {
        context.log.debug(|| format!("killing its proxy {}", proxy.pid()));
        proxy::kill(&proxy).map_err(Error::Proxy)?;
    }
    if let Some(leaf) = &leftover.cgroup {
        // A process of somebody else's may be in it by now. The new container removes it then.
        match cgroup::remove(leaf, &leftover.foreign_cgroups) {
            Ok(removed) => {
                context.log.debug(|| format!("removed its cgroups: {}", listed(&removed)));
            }
            Err(error) => context.log.warn(&format!("{}; going on", chain(&error))),
        }
    }
    Ok(())
}

/// What is known before anything is touched.
struct Plan {
    state: State,
    rootfs: Rootfs,
}

fn prepare(context: &Context<'_>, request: &Create) -> Result<(Plan, Spec), Error> {
    let Bundle { path: bundle, spec } = bundle::load(request.bundle.as_deref())?;
    let rootfs = Rootfs::open(&bundle, &spec.root_path)?;
    rootfs.check_mounted()?;
    let id = request.id.as_str();
    context.log.debug(|| {
        let (annotations, mounts) = (spec.annotations.len(), spec.mounts.len());
        let rootfs = rootfs.path();
        format!("bundle {bundle}: rootfs {rootfs}, {annotations} annotations, {mounts} mounts")
    });
    let mut source = "the annotations of config.json".to_owned();
    let role = role::role(&spec.annotations, || {
        let sources = spec.mounts.iter().map(|mount| Path::new(&mount.source));
        let hints = Hints {
            id,
            rootfs: Path::new(rootfs.path()),
            bundle: Path::new(&bundle),
            files: request.pid_file.as_deref().into_iter().chain(sources).collect(),
        };
        let lookup = label_sources::look_up(context.docker_root.as_deref(), &hints);
        source = lookup.path().to_owned();
        lookup
    })?;
    tell_role(context, &role, &source);
    let (role, labels, image) = match role {
        Role::Extension { labels, image } => {
            // Refused here, before the state is touched, for the hooks of all verbs.
            environment::environment(rootfs.path(), &labels, &spec.mounts)?;
            (RecordedRole::Extension, labels, image)
        }
        Role::Sandbox => (RecordedRole::Sandbox, Default::default(), None),
    };
    match (spec.terminal, &request.console_socket, request.terminals) {
        (Terminal::Pty { .. }, None, Terminals::ToConsoleSocket) => return Err(Error::NoConsole),
        (Terminal::None, Some(_), _) => return Err(Error::NoTerminal),
        (Terminal::Pty { .. } | Terminal::None, _, _) => {}
    }
    let pid_file = match &request.pid_file {
        Some(path) => {
            let path = bundle::absolute(path).unwrap_or_else(|_| path.clone());
            let text = path.into_os_string().into_string();
            Some(text.map_err(|path| Error::PidFilePath { path: path.into() })?)
        }
        None => None,
    };
    let cgroup = spec.cgroups_path.as_deref().map(cgroup_path::leaf).transpose()?;
    let state = State {
        oci_version: crate::model::container::spec::OCI_VERSION.to_owned(),
        id: id.to_owned(),
        pid: 0,
        status: Status::Creating,
        bundle,
        rootfs: rootfs.path().to_owned(),
        created: clock::now(),
        annotations: spec.annotations.clone(),
        pid_start_time: 0,
        role,
        labels,
        image,
        mounts: spec.mounts.clone(),
        hooks: SpecHooks {
            start_container: spec.hooks.start_container.clone(),
            poststart: spec.hooks.poststart.clone(),
            poststop: spec.hooks.poststop.clone(),
            ..SpecHooks::default()
        },
        cgroup,
        foreign_cgroups: Vec::new(),
        pid_file,
        phase: Phase::InUse,
        start_output: StartOutput::Proxy,
        refused: None,
        run: request.run.clone(),
        seen: None,
    };
    Ok((Plan { state, rootfs }, spec))
}

fn tell_role(context: &Context<'_>, role: &Role, source: &str) {
    context.log.debug(|| match role {
        Role::Extension { labels, .. } => {
            let labels: Vec<_> =
                labels.iter().map(|(name, text)| format!("{name}={text:?}")).collect();
            format!("labels from {source}: {}", labels.join(", "))
        }
        Role::Sandbox => {
            "a sandbox of Kubernetes by its annotations: no labels and no hooks".to_owned()
        }
    });
}

/// A container in the making, with what has to be undone if it fails.
struct Making<'a> {
    context: &'a Context<'a>,
    held: Held,
    state: State,
    rootfs: Rootfs,
    proxy: Option<Spawned>,
    created_hook: Ran,
    spec_hooks: Ran,
    pid_file: Option<PathBuf>,
    /// What was taken over.
    leftover: Option<Box<State>>,
}

impl Making<'_> {
    fn make(&mut self, spec: &Spec, request: &Create) -> Result<i32, Error> {
        self.find_foreign_cgroups()?;
        self.held.save(&self.state)?;
        let slave = self.open_terminal(spec, request)?;
        if self.state.role == RecordedRole::Extension {
            let pty = slave.as_ref().map(|slave| slave.as_fd());
            let reader = match (request.terminals, pty) {
                // Whoever typed `run`.
                (Terminals::Inherited, None) => Reader::Now,
                (Terminals::Inherited, Some(_)) | (Terminals::ToConsoleSocket, _) => Reader::Later,
            };
            let log = || ContainerLog::of_this_process(pty, reader);
            let (context, state, rootfs) = (self.context, &self.state, &self.rootfs);
            let lock = self.held.lock();
            self.created_hook = run_image_hook(context, Verb::Create, state, rootfs, lock, log)?;
            // Only now: it may make the other hooks.
            self.state.seen = Some(self.rootfs.seen()?);
        }
        let null = self.open_null(slave.as_ref(), request)?;
        let stdio = match (&slave, &null) {
            (Some(slave), _) => Stdio::Pty(slave.as_fd()),
            (None, Some(null)) => Stdio::Silent(null.as_fd()),
            (None, None) => Stdio::Inherited,
        };
        let id = self.state.id.clone();
        let spawned =
            net_namespace::within(&spec.network, || proxy::spawn(&id, stdio, self.held.lock()))??;
        let identity = spawned.identity();
        self.state.pid = identity.pid;
        self.state.pid_start_time = identity.start_time;
        self.proxy = Some(spawned);
        self.tell_namespace(&spec.network);
        match &self.state.cgroup {
            Some(leaf) => {
                let entered = cgroup::enter(leaf, identity.pid)?;
                let told = || format!("moved the proxy into the cgroups {}", listed(&entered));
                self.context.log.debug(told);
            }
            None => self.context.log.debug(|| {
                "config.json names no cgroup: the proxy stays in this process's".to_owned()
            }),
        }
        self.run_create_hooks(&spec.hooks)?;
        self.state.status = Status::Created;
        self.state.phase = Phase::Completing;
        self.held.save(&self.state)?;
        self.publish_pid(identity.pid)?;
        // Awaited last, since it starts up meanwhile: signals wait from its first instant on, and its
        // namespace was entered before it was born.
        match &self.proxy {
            Some(proxy) => proxy.complete()?,
            None => return Err(proxy::Error::NotReady.into()),
        }
        // Until here the proxy goes with this process, and the id is free again if it dies.
        self.state.phase = Phase::InUse;
        self.held.save(&self.state)?;
        Ok(identity.pid)
    }

    /// Recorded before any is made, so that what a kill leaves is known to be this program's or not.
    fn find_foreign_cgroups(&mut self) -> Result<(), Error> {
        // Unless it is known whose it is, undoing must not touch it.
        let Some(leaf) = self.state.cgroup.take() else { return Ok(()) };
        let mut found = cgroup::find(&leaf)?;
        self.state.cgroup = Some(leaf);
        // One that a create has made and nobody could remove yet is still this program's.
        if let Some(leftover) = self.leftover.take().filter(|it| it.cgroup == self.state.cgroup) {
            found.retain(|path| leftover.foreign_cgroups.contains(path));
        }
        if !found.is_empty() {
            let told =
                || format!("cgroups that stay, as they were there before: {}", listed(&found));
            self.context.log.debug(told);
        }
        self.state.foreign_cgroups = found;
        Ok(())
    }

    fn tell_namespace(&self, network: &Network) {
        self.context.log.debug(|| {
            let pid = self.state.pid;
            let why = match network {
                Network::Inherited => "this process's, as config.json names none".to_owned(),
                Network::New => "a new one".to_owned(),
                Network::Joined(path) => format!("joined at {path}"),
            };
            let name = net_namespace::name_of(pid);
            format!("proxy {pid} was born into the network namespace {name}, {why}")
        });
    }

    fn open_terminal(&self, spec: &Spec, request: &Create) -> Result<Option<OwnedFd>, Error> {
        match (spec.terminal, &request.console_socket) {
            (Terminal::Pty { rows, columns }, Some(socket)) => {
                let slave = console::open(socket, rows, columns)?;
                self.context.log.debug(|| {
                    let socket = socket.display();
                    format!("sent the master of a pty ({columns}x{rows}) to {socket}")
                });
                Ok(Some(slave))
            }
            (Terminal::Pty { .. } | Terminal::None, _) => {
                let told = "no pty: the proxy has this process's standard streams";
                self.context.log.debug(|| told.to_owned());
                Ok(None)
            }
        }
    }

    /// `/dev/null` for a proxy that would keep the pipe open whose end the caller awaits.
    fn open_null(
        &mut self,
        slave: Option<&OwnedFd>,
        request: &Create,
    ) -> Result<Option<File>, Error> {
        match (slave, request.terminals) {
            (None, Terminals::ToConsoleSocket) if descriptor::output_is_one_pipe() => {}
            (Some(_), _) | (None, Terminals::ToConsoleSocket | Terminals::Inherited) => {
                return Ok(None);
            }
        }
        self.context.log.debug(|| {
            "standard output and error are one pipe: the proxy has /dev/null, and what hooks/start prints \
             is the output of start"
                .to_owned()
        });
        self.state.start_output = StartOutput::Caller;
        let null = File::options().write(true).open("/dev/null");
        null.map(Some).map_err(|source| Error::Null { source })
    }

    fn run_create_hooks(&mut self, hooks: &SpecHooks) -> Result<(), Error> {
        let container = match &self.proxy {
            Some(proxy) if !hooks.create_container.is_empty() => {
                let held = net_namespace::Held::of(proxy.process())?;
                Some(held.ok_or(proxy::Error::NotReady)?)
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
            run_spec_hooks(self.context, list, hooks, state, namespace, self.held.lock())?;
        }
        Ok(())
    }

    fn publish_pid(&mut self, pid: i32) -> Result<(), Error> {
        let Some(path) = self.state.pid_file.as_ref().map(PathBuf::from) else { return Ok(()) };
        // No newline: containerd's shim parses the bytes as they are.
        atomic_file::publish(&path, pid.to_string().as_bytes())
            .map_err(|source| Error::PidFile { path: path.clone(), source })?;
        self.context.log.debug(|| format!("wrote the pid {pid} to {}", path.display()));
        self.pid_file = Some(path);
        Ok(())
    }

    /// Takes back what was done, the newest first. Each step is tried.
    fn undo(mut self, first: Error) -> Box<dyn std::error::Error> {
        let mut failures = Vec::new();
        let refusal = self.proxy.as_ref().and_then(Spawned::refusal);
        let first = refusal.map_or(first, Error::Proxy);
        self.context.log.debug(|| "it fails: taking back what was done".to_owned());
        if let Some(path) = self.pid_file.take() {
            let removed = std::fs::remove_file(&path);
            failures
                .extend(removed.err().map(|error| format!("remove {path:?}: {}", chain(&error))));
        }
        if let Some(proxy) = self.proxy.take() {
            failures.extend(proxy.kill().err().map(|error| chain(&error)));
        }
        self.state.pid = 0;
        if self.created_hook == Ran::Hook {
            let (context, state, rootfs) = (self.context, &self.state, &self.rootfs);
            let lock = self.held.lock();
            if let Err(error) =
                run_image_hook(context, Verb::Delete, state, rootfs, lock, ContainerLog::nowhere)
            {
                context.log.warn(&chain(&error));
            }
        }
        if self.spec_hooks == Ran::Hook {
            let warn = |error: &hooks::Error| self.context.log.warn(&chain(error));
            run_poststop(self.context, &self.state, self.held.lock(), warn);
        }
        if let Some(leaf) = &self.state.cgroup {
            let removed = cgroup::remove(leaf, &self.state.foreign_cgroups);
            failures.extend(removed.err().map(|error| chain(&error)));
        }
        failures.extend(self.held.remove().err().map(|error| chain(&error)));
        if failures.is_empty() {
            return first.into();
        }
        NotUndone { first: chain(&first), then: failures.join("; ") }.into()
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Bundle(..), Rootfs(..), NotAnExtension(..), Unpassable(..), CgroupPath(..), NoConsole,
        NoTerminal, PidFilePath { path }, State(..), Console(..), Hooks(..), Proxy(..),
        Namespace(..), Cgroup(..), Null { source }, PidFile { path, source },
    }
    struct NotUndone { first, then };
}
