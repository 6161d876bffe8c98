//! What `/proc/mounts` says about layering: which layers and volumes lie in an overlay of the host, and
//! whether the root filesystem is one. The initramfs layers extensions at boot.

use std::collections::BTreeSet;

/// What is layered over the host's own files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layering {
    /// Whether the root filesystem is an overlay, so that layering at boot can be seen at all.
    pub(crate) root: bool,
    /// The names of the layers (`<layer>/diff`, `<layer>/merged`) and volumes (`<volume>/_data`).
    pub(crate) layers: BTreeSet<String>,
    /// The lower layers of the root filesystem whose names cannot be told, because they are named by links
    /// that cannot be followed any more.
    pub(crate) unnamed: Vec<String>,
}

/// The overlays of the host, as far as their text goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overlays {
    pub(crate) layering: Layering,
    /// What may be a link that stands for a layer; `host/engine/layer_links.rs` follows it.
    pub(crate) links: Vec<Lower>,
}

/// A lower layer that its path does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lower {
    pub(crate) path: String,
    /// Whether it is one of the root filesystem.
    pub(crate) of_root: bool,
}

impl Overlays {
    /// Reads `/proc/mounts` (fstab(5): blanks are octal).
    pub(crate) fn parse(mounts: &str) -> Self {
        let mut overlays = Self::default();
        for line in mounts.lines() {
            let mut fields = line.split(' ');
            let (Some(_), Some(point), Some("overlay"), Some(options)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            // The engine's own mount of a container is no layering of the host.
            if layer_in(point).is_some() {
                continue;
            }
            let of_root = point == "/";
            overlays.layering.root |= of_root;
            for option in options.split(',') {
                let Some((name, paths)) = option.split_once('=') else { continue };
                let is_lower = matches!(name, "lowerdir" | "lowerdir+");
                if is_lower || name == "upperdir" {
                    overlays.add(paths, of_root, is_lower);
                }
            }
        }
        overlays
    }

    fn add(&mut self, paths: &str, of_root: bool, is_lower: bool) {
        for path in paths.split(':').filter(|path| !path.is_empty()) {
            match layer_in(path) {
                Some(layer) => {
                    self.layering.layers.insert(layer);
                }
                None if is_lower => self.links.push(Lower { path: unescaped(path), of_root }),
                None => {}
            }
        }
    }
}

/// Whether something is mounted at `point`, by `/proc/mounts`.
pub(crate) fn is_mount_point(mounts: &str, point: &str) -> bool {
    points(mounts).any(|found| found == point)
}

/// The mount points directly in `folder`, by `/proc/mounts`, each once.
pub(crate) fn points_in(mounts: &str, folder: &str) -> Vec<String> {
    let inside = points(mounts).filter(|point| {
        let name = point.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
    });
    inside.map(str::to_owned).collect::<BTreeSet<String>>().into_iter().collect()
}

fn points(mounts: &str) -> impl Iterator<Item = &str> {
    mounts.lines().filter_map(|line| line.split(' ').nth(1))
}

/// The layer or volume that a path leads into: the folder above `diff`, `merged` or `_data`.
pub(crate) fn layer_in(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let inside = parts.windows(2).find(|pair| {
        pair.last().is_some_and(|part| matches!(*part, "diff" | "merged" | "_data"))
    })?;
    inside.first().filter(|layer| !matches!(**layer, "" | "..")).map(|layer| (*layer).to_owned())
}

/// The name of one of the short links that engines make for their layers: `…/overlay2/l/<name>`.
pub(crate) fn short_name(path: &str) -> Option<&str> {
    let (folder, name) = path.rsplit_once('/')?;
    let is_short = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    (folder.ends_with("/l") && is_short && !name.is_empty()).then_some(name)
}

/// The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (code.filter(u8::is_ascii), after.get(3..)) {
            (Some(code), Some(behind)) => {
                text.push(char::from(code));
                rest = behind;
            }
            (_, _) => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_the_host_are_found_and_the_engines_own_mounts_are_not() {
        let Overlays { layering, links } = Overlays::parse(
            "overlay / overlay ro,lowerdir=/x/overlay2/aa/diff:/x/volumes/vol/_data/usr:/rootfs,upperdir=/u 0 0\n\
             overlay /usr/lib overlay ro,lowerdir+=/x/overlay2/bb/merged,lowerdir+=/y\\040z 0 0\n\
             overlay /var/lib/docker/overlay2/cc/merged overlay rw,lowerdir=/x/overlay2/dd/diff 0 0\n\
             tmpfs /run tmpfs rw,lowerdir=/x/overlay2/ee/diff 0 0\n\
             garbage\n",
        );
        assert!(layering.root && layering.unnamed.is_empty());
        assert_eq!(layering.layers.iter().collect::<Vec<_>>(), ["aa", "bb", "vol"]);
        let lower = |path: &str, of_root| Lower { path: path.to_owned(), of_root };
        assert_eq!(links, [lower("/rootfs", true), lower("/y z", false)]);
    }

    #[test]
    fn without_an_overlay_there_is_no_layering() {
        assert_eq!(Overlays::parse("/dev/sda2 / ext4 ro 0 0\n"), Overlays::default());
        assert_eq!(Overlays::parse(""), Overlays::default());
    }

    #[test]
    fn short_links_are_known_by_their_folder() {
        let name = "4Z7YJNMPKM5W5IHGQEY2GDYLAA";
        assert_eq!(short_name(&format!("/var/lib/docker/overlay2/l/{name}")), Some(name));
        for path in ["/tmp/mobynit-lower1/3", "/x/l/", "/x/l/diff", "l/A", "A", ""] {
            assert_eq!(short_name(path), None, "{path}");
        }
        assert_eq!(layer_in("../abc/diff").as_deref(), Some("abc"));
        assert_eq!(layer_in("../diff"), None);
    }

    #[test]
    fn mount_points_are_those_directly_in_a_folder() {
        let mounts = "/a /mnt/boot vfat rw 0 0\n/b /mnt/efi vfat rw 0 0\n/c /mnt/sysroot/active x\n\
                      /b /mnt/efi vfat rw 0 0\n/d /mntx ext4\n/e /mnt ext4\n";
        assert_eq!(points_in(mounts, "/mnt"), ["/mnt/boot", "/mnt/efi"]);
        assert!(is_mount_point(mounts, "/mnt") && !is_mount_point(mounts, "/mnt/sysroot"));
    }

    #[test]
    fn octal_codes_are_characters_and_all_else_stays() {
        for (text, expected) in
            [("a\\040b", "a b"), ("a\\134", "a\\"), ("\\", "\\"), ("\\9é", "\\9é")]
        {
            assert_eq!(unescaped(text), expected);
        }
    }
}
