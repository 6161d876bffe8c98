//! Mount namespaces (mount_namespaces(7)): whether a process is in that of process 1, and a handle on the
//! one of a proxy. `host/container/attached.rs` enters them; `model/container/mount_namespace.rs` compares.

use crate::host::os::directory;
use crate::host::os::process::Process;
use crate::model::container::mount_namespace::{Relation, compare};
use crate::model::text::cause::in_words;
use rustix::fs::{Mode, OFlags};
use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;

/// How the mount namespace of `process`, a pid or `self`, relates to that of process 1. Costs two
/// readlink(2) where both may be read.
pub(crate) fn relation(process: impl Display) -> Relation {
    let link = |process: &dyn Display| std::fs::read_link(format!("/proc/{process}/ns/mnt"));
    match (link(&process), link(&1)) {
        (Ok(own), Ok(host)) if own == host => Relation::Same,
        (Ok(_), Ok(_)) => Relation::Other,
        // The link is for whoever may trace process 1, its mount table for everybody.
        (Err(_), _) | (_, Err(_)) => by_tables(&process),
    }
}

fn by_tables(process: &dyn Display) -> Relation {
    let read = |process: &dyn Display| {
        let path = format!("/proc/{process}/mountinfo");
        std::fs::read(&path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|error| Relation::Unknown(format!("{path}: {}", in_words(&error))))
    };
    match (read(process), read(&1)) {
        (Ok(own), Ok(host)) => compare(&own, &host),
        (Err(unknown), _) | (_, Err(unknown)) => unknown,
    }
}

/// The mount namespace and the root directory of a process.
pub(crate) struct MountView {
    pub(crate) namespace: OwnedFd,
    pub(crate) root: OwnedFd,
}

impl MountView {
    /// Those of `process`; `None` if it has ended. Only a process that may trace it can open them.
    pub(crate) fn of(process: &Process) -> io::Result<Option<Self>> {
        process.ask(|pid| {
            let (flags, namespace) =
                (OFlags::RDONLY | OFlags::CLOEXEC, format!("/proc/{pid}/ns/mnt"));
            let namespace = rustix::fs::open(namespace, flags, Mode::empty())?;
            Ok(Self { namespace, root: directory::open(format!("/proc/{pid}/root"))? })
        })
    }
}
