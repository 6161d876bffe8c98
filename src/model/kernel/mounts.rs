//! Parses `/proc/mounts`: which layers and volumes lie in an overlay of the host, and whether the root
//! filesystem is an overlay. The initramfs layers extensions at boot.

use std::collections::BTreeSet;

/// The overlays that are mounted over the host's own files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostOverlays {
    /// Whether the root filesystem is an overlay: otherwise layering at boot leaves no trace.
    pub(crate) root: bool,
    /// The names of the layers (`<layer>/diff`, `<layer>/merged`) and volumes (`<volume>/_data`).
    pub(crate) layers: BTreeSet<String>,
    /// The lower layers of the root filesystem whose names are unknown, because they are given by links
    /// that no longer exist.
    pub(crate) unnamed: Vec<String>,
}

/// The overlays as `/proc/mounts` names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountedOverlays {
    pub(crate) overlays: HostOverlays,
    /// Paths that may be a link to a layer; `host/engine/layer_links.rs` follows them.
    pub(crate) links: Vec<Lower>,
}

/// A lower layer that its path does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lower {
    pub(crate) path: String,
    /// Whether it belongs to the root filesystem.
    pub(crate) of_root: bool,
}

impl MountedOverlays {
    /// Parses `/proc/mounts` (fstab(5)).
    pub(crate) fn parse(mounts: &str) -> Self {
        let mut mounted = Self::default();
        for line in mounts.lines() {
            let mut fields = line.split(' ');
            let (Some(_), Some(point), Some("overlay"), Some(options)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            // The engine's own mount of a container does not change the host's files.
            if layer_in(point).is_some() {
                continue;
            }
            let of_root = point == "/";
            mounted.overlays.root |= of_root;
            for option in options.split(',') {
                let Some((name, paths)) = option.split_once('=') else { continue };
                let is_lower = matches!(name, "lowerdir" | "lowerdir+");
                if is_lower || name == "upperdir" {
                    mounted.add(paths, of_root, is_lower);
                }
            }
        }
        mounted
    }

    fn add(&mut self, paths: &str, of_root: bool, is_lower: bool) {
        for path in paths.split(':').filter(|path| !path.is_empty()) {
            match layer_in(path) {
                Some(layer) => {
                    self.overlays.layers.insert(layer);
                }
                None if is_lower => self.links.push(Lower { path: unescaped(path), of_root }),
                None => {}
            }
        }
    }
}

/// The layers of the overlay that is mounted at `point`, the topmost first, by `/proc/mounts`; `None` if what is mounted
/// there is no overlay.
pub(crate) fn layers_at(mounts: &str, point: &str) -> Option<Vec<String>> {
    // The last one is above the others.
    let mut fields = mounts.lines().rev().map(|line| line.split(' '));
    let (kind, options) = fields.find_map(|mut fields| {
        (fields.nth(1)? == point).then_some((fields.next()?, fields.next()?))
    })?;
    let options = options.split(',').filter_map(|option| option.split_once('='));
    let (mut upper, mut lower) = (Vec::new(), Vec::new());
    for (name, paths) in options.filter(|_| kind == "overlay") {
        match name {
            "upperdir" => upper.push(unescaped(paths)),
            "lowerdir" | "lowerdir+" => {
                let paths = paths.split(':').filter(|path| !path.is_empty());
                lower.extend(paths.map(unescaped));
            }
            _ => {}
        }
    }
    (kind == "overlay").then(|| [upper, lower].concat())
}

/// Whether something is mounted at `point`, by `/proc/mounts`.
pub(crate) fn is_mount_point(mounts: &str, point: &str) -> bool {
    points(mounts).any(|found| found == point)
}

/// The source of the first mount at `point`, by `/proc/mounts`.
pub(crate) fn source_of(mounts: &str, point: &str) -> Option<String> {
    let mut fields = mounts.lines().map(|line| line.split(' '));
    fields.find_map(|mut fields| {
        let source = fields.next()?;
        (fields.next()? == point).then(|| unescaped(source))
    })
}

/// The mount points directly in `directory`, by `/proc/mounts`, each once.
pub(crate) fn points_in(mounts: &str, directory: &str) -> Vec<String> {
    let inside = points(mounts).filter(|point| {
        let name = point.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
    });
    inside.map(str::to_owned).collect::<BTreeSet<String>>().into_iter().collect()
}

fn points(mounts: &str) -> impl Iterator<Item = &str> {
    mounts.lines().filter_map(|line| line.split(' ').nth(1))
}

/// The layer or volume that a path leads into: the name of the directory above `diff`, `merged` or `_data`.
pub(crate) fn layer_in(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let inside = parts.windows(2).find(|pair| {
        pair.last().is_some_and(|part| matches!(*part, "diff" | "merged" | "_data"))
    })?;
    inside.first().filter(|layer| !matches!(**layer, "" | "..")).map(|layer| (*layer).to_owned())
}

/// The name of a short link that an engine makes for a layer: `…/overlay2/l/<name>`.
pub(crate) fn short_name(path: &str) -> Option<&str> {
    let (directory, name) = path.rsplit_once('/')?;
    let is_short = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    (directory.ends_with("/l") && is_short && !name.is_empty()).then_some(name)
}

/// The text of a field: the kernel writes blanks, tabs, line ends and backslashes in octal (`mangle_path` of
/// fs/seq_file.c).
pub(crate) fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let number = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        let code = number.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_the_host_are_found_and_the_engines_own_mounts_are_not() {
        let MountedOverlays { overlays, links } = MountedOverlays::parse(
            "overlay / overlay ro,lowerdir=/x/overlay2/aa/diff:/x/volumes/vol/_data/usr:/rootfs,upperdir=/u 0 0\n\
             overlay /usr/lib overlay ro,lowerdir+=/x/overlay2/bb/merged,lowerdir+=/y\\040z 0 0\n\
             overlay /var/lib/docker/overlay2/cc/merged overlay rw,lowerdir=/x/overlay2/dd/diff 0 0\n\
             tmpfs /run tmpfs rw,lowerdir=/x/overlay2/ee/diff 0 0\n\
             garbage\n",
        );
        assert!(overlays.root && overlays.unnamed.is_empty());
        assert_eq!(overlays.layers.iter().collect::<Vec<_>>(), ["aa", "bb", "vol"]);
        let lower = |path: &str, of_root| Lower { path: path.to_owned(), of_root };
        assert_eq!(links, [lower("/rootfs", true), lower("/y z", false)]);
    }

    #[test]
    fn without_an_overlay_nothing_is_layered() {
        assert_eq!(MountedOverlays::parse("/dev/sda2 / ext4 ro 0 0\n"), MountedOverlays::default());
        assert_eq!(MountedOverlays::parse(""), MountedOverlays::default());
    }

    #[test]
    fn the_layers_of_the_topmost_mount_are_in_their_order() {
        let mounts = "/dev/sda / ext4 ro 0 0\n\
                      overlay / overlay ro,lowerdir=/a:/b\\040c,upperdir=/u,workdir=/w 0 0\n\
                      overlay /x overlay ro,lowerdir+=/d,lowerdir+=/e 0 0\n\
                      overlay /y overlay ro,lowerdir=/d 0 0\n/dev/sdb /y ext4 rw 0 0\n";
        let layers = |point| layers_at(mounts, point);
        assert_eq!(layers("/").unwrap(), ["/u", "/a", "/b c"]);
        assert_eq!(layers("/x").unwrap(), ["/d", "/e"]);
        assert_eq!((layers("/y"), layers("/z")), (None, None));
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
