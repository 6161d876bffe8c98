//! Why a call of the runtime failed. The verbs share most of their failures, so they share one type.

use crate::cli::runtime::UsageError;
use crate::host::container::{
    bundle, cgroup, console, hook, image_hook, manager_call, net_namespace, proxy, rootfs,
    state_dir,
};
use crate::host::os::privilege;
use crate::model::container::cgroup as cgroup_path;
use crate::model::container::environment::Unpassable;
use crate::model::container::lifecycle::Refused;
use crate::model::container::refusal::Refusal;
use crate::model::extension::role::NotAnExtension;
use crate::model::kernel::volume::Unnameable;
use crate::model::text::cause::chain;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("container does not exist: {id}")]
    Unknown { id: String },
    #[error(
        "the state of container {id} is damaged ({path:?}: {why}); remove it with delete --force {id}"
    )]
    Damaged { id: String, path: PathBuf, why: String },
    #[error(
        "container {id} is busy: another command is working on it (delete --force {id} ends that)"
    )]
    Busy { id: String },
    #[error("cannot end the command that is working on container {id}")]
    EndHolder { id: String, source: io::Error },
    #[error(
        "container {id} is locked by another program: find it with `fuser {path:?}` and stop it"
    )]
    LockedByAnother { id: String, path: PathBuf },
    #[error("cannot find the proxy process of container {id}")]
    FindProxy { id: String, source: io::Error },
    #[error("cannot signal the proxy process {pid}")]
    SignalProxy { pid: i32, source: io::Error },
    #[error("cannot open /dev/null for the proxy")]
    Null { source: io::Error },
    #[error("cannot write the pid file {path:?} (--pid-file)")]
    PidFile { path: PathBuf, source: io::Error },
    #[error("cannot remove the pid file {path:?}")]
    RemovePidFile { path: PathBuf, source: io::Error },
    #[error("the path of the pid file is not UTF-8: {path:?}")]
    PidFilePath { path: PathBuf },
    #[error("process.terminal is true, but no --console-socket was given to send the pty to")]
    NoConsole,
    #[error(
        "--console-socket was given, but process.terminal is not true: there is no pty to send"
    )]
    NoTerminal,
    #[error(
        "{hook} was in the rootfs {rootfs:?} at create and is missing now; delete the container and create it \
         again"
    )]
    HookGone { hook: &'static str, rootfs: String },
    #[error("hooks/delete is skipped")]
    SkippedHook { source: rootfs::Error },
    #[error(
        "the image brings a kernel, which only Docker and balenaEngine can: this container is not in their container \
         store, so its image is not known"
    )]
    NoStoreForKernel,
    #[error("the image brings a kernel, but the volume for it cannot be named")]
    KernelVolume { source: Unnameable },
    #[error("the image brings a kernel, which {} installs", super::MANAGER)]
    NoManager { source: manager_call::Error },
    #[error("cannot start {} for the kernel of the image", super::MANAGER)]
    CallManager { source: manager_call::Error },
    #[error(
        "{} beside this program is not of version {version}, as this program is: it does not know the call for the \
         kernel of an image; install both programs of one version",
        super::MANAGER
    )]
    OtherManager { version: &'static str },
    #[error("cannot make the volume for the kernel of the image: {reason}")]
    Fabricate { reason: String },
    #[error("cannot arm the kernel of the image: {reason}")]
    Activate { reason: String },
    #[error("start refused the extension: {refusal}")]
    RefusedInRun { refusal: Refusal },
    #[error("interrupted")]
    Interrupted,
    #[error("cannot wait for signals and for the proxy's exit")]
    Watch { source: io::Error },
    #[error("cannot keep hooks from inheriting the engine's file descriptors")]
    Descriptors { source: io::Error },
    #[error("cannot reset SIGCHLD, without which the exit status of a child process may be lost")]
    Statuses { source: io::Error },
    #[error("cannot write the answer to standard output")]
    Print { source: io::Error },
    #[error("cannot write JSON")]
    Json { source: serde_json::Error },
    #[error(
        "this is {}, and {} is a separate program: install it in place of this link",
        super::NAME,
        super::MANAGER
    )]
    CalledAsManager,
    #[error("{verb} is not supported: {why}")]
    Unsupported { verb: &'static str, why: &'static str },
    #[error("there is no command {topic:?}: see {} --help", super::NAME)]
    NoTopic { topic: String },
    /// A failure, and those of cleaning up after it.
    #[error("{}; {cleanup} failed as well: {}", chain(&**first), listed(then))]
    NotCleanedUp { first: Box<Error>, cleanup: &'static str, then: Vec<Error> },
    /// A create that had done nothing yet, while the id may be another container's.
    #[error(transparent)]
    NotReserved(Box<Error>),
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The proxy ended while `start` was under way.
    #[error(transparent)]
    StoppedInStart(Refused),
    #[error(transparent)]
    NotAnExtension(#[from] NotAnExtension),
    #[error(transparent)]
    Unpassable(#[from] Unpassable),
    #[error(transparent)]
    CgroupPath(#[from] cgroup_path::InvalidCgroupsPath),
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    #[error(transparent)]
    State(#[from] state_dir::Error),
    #[error(transparent)]
    Console(#[from] console::Error),
    #[error(transparent)]
    ImageHook(#[from] image_hook::Error),
    #[error(transparent)]
    Hook(#[from] hook::Error),
    #[error(transparent)]
    Namespace(#[from] net_namespace::Error),
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error(transparent)]
    Unprivileged(#[from] privilege::Unprivileged),
    #[error(transparent)]
    Usage(#[from] UsageError),
}

impl Error {
    /// Adds the failures of a `cleanup` after this error.
    pub(super) fn and(self, cleanup: &'static str, then: Vec<Self>) -> Self {
        if then.is_empty() {
            return self;
        }
        Self::NotCleanedUp { first: Box::new(self), cleanup, then }
    }
}

fn listed(errors: &[Error]) -> String {
    errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Unknown { id }, Damaged { id, path, why }, Busy { id }, EndHolder { id, source },
        LockedByAnother { id, path }, FindProxy { id, source }, SignalProxy { pid, source },
        Null { source }, PidFile { path, source }, RemovePidFile { path, source },
        PidFilePath { path }, NoConsole, NoTerminal, HookGone { hook, rootfs },
        SkippedHook { source }, NoStoreForKernel, KernelVolume { source }, NoManager { source },
        CallManager { source }, OtherManager { version }, Fabricate { reason },
        Activate { reason }, RefusedInRun { refusal }, Interrupted, Watch { source },
        Descriptors { source }, Statuses { source }, Print { source }, Json { source },
        CalledAsManager, Unsupported { verb, why }, NoTopic { topic },
        NotCleanedUp { first, cleanup, then }, NotReserved(..), Refused(..), StoppedInStart(..),
        NotAnExtension(..), Unpassable(..), CgroupPath(..), Bundle(..), Rootfs(..), State(..),
        Console(..), ImageHook(..), Hook(..), Namespace(..), Proxy(..), Cgroup(..),
        Unprivileged(..), Usage(..),
    }
}
