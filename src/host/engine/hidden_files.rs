//! The files that members of an overlay hide of each other, found in their layers: for each member, what its own layers
//! show is compared with what all of them show.

use crate::host::engine::merged_layers::{
    LayerDirectory, MergedEntry, MergedLookup, look_up, names,
};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;

/// An extension, or the OS.
#[derive(Clone, Debug)]
pub(crate) struct OverlayOwner {
    pub(crate) number: usize,
    /// The numbers of its layers. Several may have the same layer.
    pub(crate) layers: BTreeSet<usize>,
}

/// A path that one member has and that another member hides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HiddenPath {
    /// It ends with `/` if it is a directory, which is hidden with all that is in it.
    pub(crate) path: String,
    pub(crate) by: usize,
    pub(crate) of: usize,
}

/// A directory that a member and others have.
struct SharedDirectory {
    path: String,
    names_left: <BTreeSet<CString> as IntoIterator>::IntoIter,
    /// The member's own parts.
    own: Vec<LayerDirectory>,
    /// The parts that the overlay shows.
    shown: Vec<LayerDirectory>,
    /// The layer that hides other parts.
    hidden_by: Option<usize>,
}

/// The paths of every member that the overlay does not show, in their order. `stack` has the layers of all of them, the
/// topmost first; `owners` are in the order of the overlay.
pub(crate) fn hidden(
    stack: &[LayerDirectory],
    owners: &[OverlayOwner],
) -> io::Result<Vec<HiddenPath>> {
    let mut found = Vec::new();
    for owner in owners {
        hidden_of(stack, owner, owners, &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn hidden_of(
    stack: &[LayerDirectory],
    owner: &OverlayOwner,
    owners: &[OverlayOwner],
    found: &mut Vec<HiddenPath>,
) -> io::Result<()> {
    // A layer that several have is at the place of the last one.
    let of_layer = |layer: usize| {
        let last = owners.iter().rev().find(|other| other.layers.contains(&layer));
        last.map(|other| other.number)
    };
    let is_own = |part: &&LayerDirectory| owner.layers.contains(&part.layer);
    let own = copies(&mut stack.iter().filter(is_own))?;
    let names_left = names(&own)?.into_iter();
    let shown = copies(&mut stack.iter())?;
    let top = SharedDirectory { path: String::new(), names_left, own, shown, hidden_by: None };
    // The directories on the way to the current one.
    let mut way = vec![top];
    while let Some(current) = way.last_mut() {
        let Some(name) = current.names_left.next() else {
            way.pop();
            continue;
        };
        let Some(own) = look_up(&current.own, &name)?.entry else { continue };
        let MergedLookup { entry: shown, hidden_by } = look_up(&current.shown, &name)?;
        let hidden_by = hidden_by.or(current.hidden_by);
        let path = format!("{}/{}", current.path, name.to_string_lossy());
        let (path, by) = match (own, shown) {
            (MergedEntry::Directory(own), Some(MergedEntry::Directory(shown))) => {
                if !own.iter().any(|part| has(&shown, part.layer)) {
                    (format!("{path}/"), hidden_by)
                } else {
                    let is_whole = own.iter().all(|part| has(&shown, part.layer));
                    // Where it is alone, nothing is hidden.
                    if !is_whole || !shown.iter().all(|part| is_own(&part)) {
                        let names_left = names(&own)?.into_iter();
                        way.push(SharedDirectory { path, names_left, own, shown, hidden_by });
                    }
                    continue;
                }
            }
            (MergedEntry::Directory(_), _) => (format!("{path}/"), hidden_by),
            (MergedEntry::Other { layer, .. }, Some(MergedEntry::Other { layer: shown, .. }))
                if layer == shown =>
            {
                continue;
            }
            (MergedEntry::Other { .. }, Some(MergedEntry::Directory(shown))) => {
                (path, shown.first().map(|part| part.layer))
            }
            (MergedEntry::Other { .. }, _) => (path, hidden_by),
        };
        if let Some(by) = by.and_then(of_layer) {
            found.push(HiddenPath { path, by, of: owner.number });
        }
    }
    Ok(())
}

fn has(parts: &[LayerDirectory], layer: usize) -> bool {
    parts.iter().any(|part| part.layer == layer)
}

/// Other handles of the same directories.
fn copies(parts: &mut dyn Iterator<Item = &LayerDirectory>) -> io::Result<Vec<LayerDirectory>> {
    let copy = |part: &LayerDirectory| {
        Ok(LayerDirectory { layer: part.layer, directory: part.directory.try_clone()? })
    };
    parts.map(copy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::engine::merged_layers::tests::Layers;

    /// The hidden paths of a stack of layers, each with its owners.
    fn found(layers: &Layers, stack: &[(&[usize], &str)]) -> Vec<(String, usize, usize)> {
        let names: Vec<&str> = stack.iter().map(|(_, name)| *name).collect();
        let numbers: BTreeSet<usize> = stack.iter().flat_map(|(all, _)| *all).copied().collect();
        let of = |number: usize| {
            let layers = stack.iter().enumerate().filter(|(_, (all, _))| all.contains(&number));
            OverlayOwner { number, layers: layers.map(|(at, _)| at).collect() }
        };
        let owners: Vec<OverlayOwner> = numbers.into_iter().map(of).collect();
        let found = hidden(&layers.stack(&names), &owners).unwrap().into_iter();
        found.map(|hidden| (hidden.path, hidden.by, hidden.of)).collect()
    }

    fn expected(all: &[(&str, usize, usize)]) -> Vec<(String, usize, usize)> {
        all.iter().map(|(path, by, of)| ((*path).to_owned(), *by, *of)).collect()
    }

    #[test]
    fn what_is_not_a_directory_hides_what_is_below_and_directories_merge() {
        let layers = Layers::new();
        layers.file("a", "etc/both");
        layers.file("a", "etc/only-a");
        layers.file("a", "file-over-folder");
        layers.folder("a", "folder-over-file");
        layers.file("b", "etc/both");
        layers.file("b", "etc/only-b");
        layers.file("b", "file-over-folder/x");
        layers.file("b", "folder-over-file");
        let all = [("/etc/both", 0, 1), ("/file-over-folder/", 0, 1), ("/folder-over-file", 0, 1)];
        assert_eq!(found(&layers, &[(&[0], "a"), (&[1], "b")]), expected(&all));
        assert_eq!(found(&layers, &[(&[0], "a"), (&[0], "b")]), [], "the layers of one image");
    }

    #[test]
    fn whiteouts_and_opaque_directories_of_an_image_hide_the_files_of_others_too() {
        let layers = Layers::new();
        layers.whiteout("a1", "etc/gone");
        layers.opaque("a1", "opt");
        layers.file("a2", "etc/gone");
        layers.file("a2", "opt/x");
        layers.file("b", "etc/gone");
        layers.file("b", "opt/y");
        layers.whiteout("b", "etc/other");
        layers.file("os", "etc/gone");
        layers.file("os", "etc/other");
        let stack: [(&[usize], &str); 4] = [(&[0], "a1"), (&[0], "a2"), (&[1], "b"), (&[2], "os")];
        let all = [("/etc/gone", 0, 1), ("/etc/gone", 0, 2), ("/etc/other", 1, 2), ("/opt/", 0, 1)];
        assert_eq!(found(&layers, &stack), expected(&all));
    }

    #[test]
    fn what_an_image_itself_has_deleted_is_not_hidden_by_another() {
        let layers = Layers::new();
        layers.file("a", "deleted");
        layers.file("a", "replaced");
        layers.whiteout("b1", "deleted");
        layers.folder("b1", "replaced");
        layers.file("b2", "deleted");
        layers.file("b2", "replaced");
        let stack: [(&[usize], &str); 3] = [(&[0], "a"), (&[1], "b1"), (&[1], "b2")];
        assert_eq!(found(&layers, &stack), expected(&[("/replaced/", 0, 1)]));
    }

    #[test]
    fn a_shared_layer_belongs_to_each_that_has_it() {
        let layers = Layers::new();
        layers.file("a", "opt/own");
        layers.file("os", "etc/x");
        layers.file("b", "etc/y");
        layers.opaque("b", "opt");
        layers.file("base", "etc/x");
        layers.file("base", "etc/y");
        layers.file("base", "opt/z");
        // It is at the place of 2, below the OS, although 0 is above.
        let stack: [(&[usize], &str); 4] =
            [(&[0], "a"), (&[1], "os"), (&[2], "b"), (&[0, 2], "base")];
        let all = [("/etc/x", 1, 0), ("/etc/x", 1, 2), ("/etc/y", 2, 0), ("/opt/z", 2, 0)];
        assert_eq!(found(&layers, &stack), expected(&all));
    }

    #[test]
    fn a_part_of_a_directory_may_be_hidden_where_nobody_else_has_a_part() {
        let layers = Layers::new();
        layers.file("a", "opt/own");
        layers.whiteout("b", "opt");
        layers.file("base", "opt/z");
        let stack: [(&[usize], &str); 3] = [(&[0], "a"), (&[1], "b"), (&[0, 1], "base")];
        assert_eq!(found(&layers, &stack), expected(&[("/opt/z", 1, 0)]));
    }
}
