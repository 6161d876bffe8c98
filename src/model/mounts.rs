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
}

impl Layering {
    /// Reads `/proc/mounts` (fstab(5): blanks are octal).
    pub(crate) fn parse(mounts: &str) -> Self {
        let mut layering = Self::default();
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
            layering.root |= point == "/";
            for option in options.split(',') {
                let Some((name, paths)) = option.split_once('=') else { continue };
                if matches!(name, "lowerdir" | "lowerdir+" | "upperdir") {
                    layering.layers.extend(paths.split(':').filter_map(layer_in));
                }
            }
        }
        layering
    }
}

/// Whether something is mounted at `point`, by `/proc/mounts`.
pub(crate) fn is_mount_point(mounts: &str, point: &str) -> bool {
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(point))
}

/// The layer or volume that a path leads into: the folder above `diff`, `merged` or `_data`.
fn layer_in(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let inside = parts.windows(2).find(|pair| {
        pair.last().is_some_and(|part| matches!(*part, "diff" | "merged" | "_data"))
    })?;
    inside.first().filter(|layer| !layer.is_empty()).map(|layer| (*layer).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_the_host_are_found_and_the_engines_own_mounts_are_not() {
        let layering = Layering::parse(
            "overlay / overlay ro,lowerdir=/x/overlay2/aa/diff:/x/volumes/vol/_data/usr:/rootfs,upperdir=/u 0 0\n\
             overlay /usr/lib overlay ro,lowerdir+=/x/overlay2/bb/merged,lowerdir+=/y 0 0\n\
             overlay /var/lib/docker/overlay2/cc/merged overlay rw,lowerdir=/x/overlay2/dd/diff 0 0\n\
             tmpfs /run tmpfs rw,lowerdir=/x/overlay2/ee/diff 0 0\n\
             garbage\n",
        );
        assert!(layering.root);
        assert_eq!(layering.layers.iter().collect::<Vec<_>>(), ["aa", "bb", "vol"]);
    }

    #[test]
    fn without_an_overlay_there_is_no_layering() {
        let layering = Layering::parse("/dev/sda2 / ext4 ro 0 0\n");
        assert_eq!(layering, Layering::default());
        assert_eq!(Layering::parse(""), Layering::default());
    }
}
