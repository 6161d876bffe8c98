//! Examines the directories of volumes, for `model/engine/sharing.rs`, which decides whether a volume is shared with
//! a container that is not an extension.

use crate::host::os::host_root::HostRoot;
use crate::model::engine::inventory::Inventory;
use crate::model::engine::sharing::{Directory, MountSource, why_shared};
use crate::model::text::cause::in_words;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// The volumes of extensions whose `deactivate` must not run, by name, and why not.
pub(super) fn shared_volumes(host: &HostRoot, inventory: &Inventory) -> BTreeMap<String, String> {
    let foreign = &inventory.foreign.mounts;
    let sources: Vec<MountSource> = foreign.iter().map(|mount| look(host, &mount.source)).collect();
    let mut shared = BTreeMap::new();
    for mount in inventory.containers.iter().flat_map(|container| &container.mounts) {
        let Some(volume) = mount.volume.as_ref().filter(|volume| !shared.contains_key(*volume))
        else {
            continue;
        };
        // An object that cannot be parsed may use any volume.
        let unread = inventory.unreadable.first();
        let unread = unread.map(|item| format!("another object may also use the volume: {item}"));
        let why = unread.or_else(|| match look(host, &mount.source) {
            Ok(Some(directory)) => {
                why_shared(volume, (&mount.source, &directory), foreign.iter().zip(&sources))
            }
            // Without the directory there is no `deactivate`.
            Ok(None) => None,
            Err(why) => Some(why),
        });
        if let Some(why) = why {
            shared.insert(volume.clone(), why);
        }
    }
    shared
}

fn look(host: &HostRoot, path: &str) -> MountSource {
    let directory = || -> io::Result<Directory> {
        let path = host.reach(path)?.canonicalize()?;
        let metadata = path.metadata()?;
        Ok(Directory { identity: (metadata.dev(), metadata.ino()), path })
    };
    match directory() {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot examine {path:?}: {}", in_words(&error))),
    }
}
