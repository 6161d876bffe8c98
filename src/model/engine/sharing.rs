//! Decides which volumes of extensions are shared with a container that is not an extension. Anybody who can
//! write to the top of a volume can put a `deactivate` there, which would run on the host as root.

use std::path::{Path, PathBuf};

/// A directory of the host, whatever path leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Without links.
    pub(crate) path: PathBuf,
    /// Device and inode, which are the same in a bind mount.
    pub(crate) identity: (u64, u64),
}

/// A mount of a container that is not an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignMount {
    /// The container's name.
    pub(crate) container: String,
    pub(crate) volume: Option<String>,
    /// The path on the host, as the engine reports it.
    pub(crate) source: String,
}

/// The source of a mount; `None` if it is missing, or why it cannot be examined.
pub(crate) type MountSource = Result<Option<Directory>, String>;

/// Why the `deactivate` of a volume must not run, if it must not. A directory above the volume does not count:
/// it holds the engine's own data, and anybody who can write there is root already.
pub(crate) fn why_shared<'a>(
    volume: &str,
    (given, directory): (&str, &Directory),
    foreign: impl IntoIterator<Item = (&'a ForeignMount, &'a MountSource)>,
) -> Option<String> {
    foreign.into_iter().find_map(|(mount, source)| {
        let container =
            format!("container {}, which is not an extension, also uses", mount.container);
        if mount.volume.as_deref() == Some(volume) {
            return Some(format!("{container} the volume"));
        }
        let uses_directory = match source {
            // An engine with its own mount namespace may have a directory there that is not here.
            Ok(None) => !given.is_empty() && Path::new(&mount.source).starts_with(given),
            Ok(Some(source)) => {
                source.identity == directory.identity || source.path.starts_with(&directory.path)
            }
            Err(why) => {
                return Some(format!(
                    "cannot determine whether {container} the volume's directory: {why}"
                ));
            }
        };
        uses_directory.then(|| format!("{container} the volume's directory ({:?})", mount.source))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &str, inode: u64) -> Directory {
        Directory { path: path.into(), identity: (1, inode) }
    }

    fn mount(volume: Option<&str>, source: &str) -> ForeignMount {
        let volume = volume.map(str::to_owned);
        ForeignMount { container: "app".to_owned(), volume, source: source.to_owned() }
    }

    #[test]
    fn a_volume_is_shared_by_its_name_its_directory_and_any_path_in_it() {
        for (mount, source, expected) in [
            (mount(Some("v"), ""), Ok(None), "also uses the volume"),
            (
                mount(None, "/d/v/_data"),
                Ok(Some(directory("/d/v/_data", 7))),
                "also uses the volume's directory",
            ),
            (mount(None, "/link"), Ok(Some(directory("/d/v/_data", 7))), "(\"/link\")"),
            (
                mount(None, "/bound"),
                Ok(Some(directory("/bound", 7))),
                "also uses the volume's directory",
            ),
            (
                mount(None, "/d/v/_data/x"),
                Ok(Some(directory("/d/v/_data/x", 8))),
                "also uses the volume's directory",
            ),
            (mount(None, "/given/x"), Ok(None), "directory (\"/given/x\")"),
            (mount(None, "/x"), Err("why".to_owned()), "cannot determine whether container app"),
        ] {
            let volume = directory("/d/v/_data", 7);
            let why = why_shared("v", ("/given", &volume), [(&mount, &source)]).unwrap();
            assert!(why.contains(expected), "{why}");
        }
        for (mount, source) in [
            (mount(Some("w"), "/d/w/_data"), Ok(Some(directory("/d/w/_data", 8)))),
            (mount(None, "/gone"), Ok(None)),
            (mount(None, "/d/v/_data2"), Ok(Some(directory("/d/v/_data2", 9)))),
            (mount(None, "/d"), Ok(Some(directory("/d", 2)))),
        ] {
            let volume = directory("/d/v/_data", 7);
            assert_eq!(why_shared("v", ("/given", &volume), [(&mount, &source)]), None);
        }
    }
}
