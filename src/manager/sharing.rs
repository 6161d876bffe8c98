//! Looking at the folders of volumes: which of them others use, too. What follows is decided in
//! `model/engine/sharing.rs`.

use crate::model::engine::inventory::Inventory;
use crate::model::engine::sharing::{Folder, Source, why_shared};
use crate::model::text::cause::in_words;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The volumes of extensions whose `deactivate` must not run, by their names, and why not.
pub(super) fn shared_volumes(inventory: &Inventory) -> BTreeMap<String, String> {
    let foreign = &inventory.foreign.mounts;
    let sources: Vec<Source> = foreign.iter().map(|mount| look(&mount.source)).collect();
    let mut shared = BTreeMap::new();
    for mount in inventory.containers.iter().flat_map(|container| &container.mounts) {
        let Some(volume) = mount.volume.as_ref().filter(|volume| !shared.contains_key(*volume))
        else {
            continue;
        };
        // Of what cannot be read nobody knows what it uses.
        let unread = inventory.unreadable.first();
        let unread = unread.map(|item| format!("something may use the volume, too: {item}"));
        let why = unread.or_else(|| match look(&mount.source) {
            Ok(Some(folder)) => {
                why_shared(volume, (&mount.source, &folder), foreign.iter().zip(&sources))
            }
            // Without the folder there is nothing to run.
            Ok(None) => None,
            Err(why) => Some(why),
        });
        if let Some(why) = why {
            shared.insert(volume.clone(), why);
        }
    }
    shared
}

fn look(path: &str) -> Source {
    let folder = || -> io::Result<Folder> {
        let path = Path::new(path).canonicalize()?;
        let metadata = path.metadata()?;
        Ok(Folder { identity: (metadata.dev(), metadata.ino()), path })
    };
    match folder() {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("look at {path:?}: {}", in_words(&error))),
    }
}
