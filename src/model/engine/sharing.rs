//! Which volumes of extensions a container that is no extension uses, too. Whoever may write to the top of a
//! volume may put a `deactivate` there, which would run on the host as root.

use std::path::{Path, PathBuf};

/// A folder of the host as it is, whatever path leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// Without links.
    pub(crate) path: PathBuf,
    /// Device and inode: a bind mount has them, too.
    pub(crate) identity: (u64, u64),
}

/// A mount of a container that is no extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignMount {
    /// The container, by its name.
    pub(crate) container: String,
    pub(crate) volume: Option<String>,
    /// The path on the host, as the engine has it.
    pub(crate) source: String,
}

/// What a mount's source is; `None` if it is missing, or why it cannot be looked at.
pub(crate) type Source = Result<Option<Folder>, String>;

/// Why the `deactivate` of a volume must not run, if it must not. A folder above the volume does not count: it
/// has the engine's own data, and whoever may write there is root already.
pub(crate) fn why_shared<'a>(
    volume: &str,
    (given, folder): (&str, &Folder),
    foreign: impl IntoIterator<Item = (&'a ForeignMount, &'a Source)>,
) -> Option<String> {
    foreign.into_iter().find_map(|(mount, source)| {
        let container = &mount.container;
        if mount.volume.as_deref() == Some(volume) {
            return Some(format!("container {container}, which is no extension, uses the volume, too"));
        }
        // An engine with a mount namespace of its own may see there what is not here.
        let is_below = !given.is_empty() && Path::new(&mount.source).starts_with(given);
        match source {
            Ok(None) if is_below => Some(format!(
                "container {container}, which is no extension, uses its folder, too ({:?})",
                mount.source
            )),
            Ok(None) => None,
            Ok(Some(source)) => {
                let is_same = source.identity == folder.identity;
                let is_inside = source.path.starts_with(&folder.path);
                (is_same || is_inside).then(|| {
                    let path = &mount.source;
                    format!("container {container}, which is no extension, uses its folder, too ({path:?})")
                })
            }
            Err(why) => Some(format!(
                "it cannot be told whether container {container}, which is no extension, uses its folder, \
                 too: {why}"
            )),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &str, inode: u64) -> Folder {
        Folder { path: path.into(), identity: (1, inode) }
    }

    fn mount(volume: Option<&str>, source: &str) -> ForeignMount {
        let volume = volume.map(str::to_owned);
        ForeignMount { container: "app".to_owned(), volume, source: source.to_owned() }
    }

    #[test]
    fn a_volume_is_shared_by_its_name_its_folder_and_what_is_in_it() {
        for (mount, source, expected) in [
            (mount(Some("v"), ""), Ok(None), "uses the volume, too"),
            (mount(None, "/d/v/_data"), Ok(Some(folder("/d/v/_data", 7))), "uses its folder"),
            (mount(None, "/link"), Ok(Some(folder("/d/v/_data", 7))), "(\"/link\")"),
            (mount(None, "/bound"), Ok(Some(folder("/bound", 7))), "uses its folder"),
            (mount(None, "/d/v/_data/x"), Ok(Some(folder("/d/v/_data/x", 8))), "uses its folder"),
            (mount(None, "/given/x"), Ok(None), "uses its folder, too (\"/given/x\")"),
            (mount(None, "/x"), Err("why".to_owned()), "cannot be told whether container app"),
        ] {
            let volume = folder("/d/v/_data", 7);
            let told = why_shared("v", ("/given", &volume), [(&mount, &source)]).unwrap();
            assert!(told.contains(expected), "{told}");
        }
        for (mount, source) in [
            (mount(Some("w"), "/d/w/_data"), Ok(Some(folder("/d/w/_data", 8)))),
            (mount(None, "/gone"), Ok(None)),
            (mount(None, "/d/v/_data2"), Ok(Some(folder("/d/v/_data2", 9)))),
            (mount(None, "/d"), Ok(Some(folder("/d", 2)))),
        ] {
            let volume = folder("/d/v/_data", 7);
            assert_eq!(why_shared("v", ("/given", &volume), [(&mount, &source)]), None);
        }
    }
}
