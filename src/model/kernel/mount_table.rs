//! The mount table of a process (`/proc/self/mountinfo`, proc_pid_mountinfo(5)): which mounts are visible at which
//! path, for a process that clones them elsewhere.

use crate::model::kernel::mounts::unescaped;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountEntry {
    id: u64,
    parent: u64,
    pub(crate) point: String,
    /// The options of the mount, not those of the filesystem.
    options: String,
    pub(crate) filesystem: String,
    /// The options of the filesystem.
    pub(crate) super_options: String,
}

impl MountEntry {
    pub(crate) fn has_option(&self, name: &str) -> bool {
        self.options.split(',').any(|option| option == name)
    }
}

/// The mounts in the order of the table. A line that cannot be parsed is left out.
pub(crate) fn parse(mountinfo: &str) -> Vec<MountEntry> {
    mountinfo.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<MountEntry> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut fields = mount.split(' ');
    let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    // The device, and the directory of the filesystem that is mounted.
    let mut fields = fields.skip(2);
    let (point, options) = (fields.next()?, fields.next()?);
    let mut of_filesystem = filesystem.split(' ');
    Some(MountEntry {
        id,
        parent,
        point: unescaped(point),
        options: options.to_owned(),
        filesystem: of_filesystem.next()?.to_owned(),
        super_options: of_filesystem.nth(1).unwrap_or_default().to_owned(),
    })
}

/// The mounts that no other mount hides.
pub(crate) fn visible(mounts: &[MountEntry]) -> Vec<&MountEntry> {
    mounts.iter().filter(|mount| is_visible(mount, mounts, mounts.len())).collect()
}

/// `depth` ends the walk if the table, which is not read at one moment, has a circle.
fn is_visible(mount: &MountEntry, mounts: &[MountEntry], depth: usize) -> bool {
    let is_hidden = mounts.iter().any(|other| {
        let covers = other.parent == mount.id && other.point == mount.point;
        // Mounted later: otherwise it would be the parent.
        let contains = other.parent == mount.parent && is_inside(&mount.point, &other.point);
        other.id != mount.id && (covers || contains)
    });
    let parent = mounts.iter().find(|other| other.id == mount.parent && other.id != mount.id);
    // The mount that is covered here is a parent that need not be visible.
    let is_over = |parent: &MountEntry| parent.point == mount.point;
    !is_hidden
        && depth > 0
        && parent.is_none_or(|parent| {
            is_over(parent) && is_placed(parent, mounts, depth - 1)
                || is_visible(parent, mounts, depth - 1)
        })
}

/// Whether the mount point of a covered mount is visible.
fn is_placed(mount: &MountEntry, mounts: &[MountEntry], depth: usize) -> bool {
    let alone = MountEntry { id: u64::MAX, ..mount.clone() };
    is_visible(&alone, mounts, depth)
}

/// Whether `path` is below the directory `folder`, and not that directory.
pub(crate) fn is_inside(path: &str, folder: &str) -> bool {
    let rest = path.strip_prefix(folder.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

/// The mount of the root directory; `None` if that is not the root of a mount.
pub(crate) fn root(mounts: &[MountEntry]) -> Option<&MountEntry> {
    visible(mounts).into_iter().find(|mount| mount.point == "/")
}

/// The visible mounts directly on the root filesystem, in the order of the table. Each path is there once.
pub(crate) fn on_root(mounts: &[MountEntry]) -> Vec<&MountEntry> {
    let all = visible(mounts);
    let is_on_another = |mount: &MountEntry| {
        all.iter().any(|other| other.point != "/" && is_inside(&mount.point, &other.point))
    };
    all.iter().filter(|mount| mount.point != "/" && !is_on_another(mount)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of lines `id parent point`.
    fn table(lines: &str) -> Vec<MountEntry> {
        let line = |line: &str| {
            let [id, parent, point] = line.split(' ').collect::<Vec<_>>()[..] else { panic!() };
            format!("{id} {parent} 0:1 / {point} rw,nosuid - ext4 /dev/a ro,errors=x\n")
        };
        parse(&lines.lines().map(|text| line(text.trim())).collect::<String>())
    }

    fn points<'a>(mounts: &[&'a MountEntry]) -> Vec<(u64, &'a str)> {
        mounts.iter().map(|mount| (mount.id, mount.point.as_str())).collect()
    }

    #[test]
    fn a_line_is_parsed_with_and_without_optional_fields() {
        let mounts = parse(
            "36 35 98:0 /sub /mnt\\0402 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue\n\
             garbage\n37 36 0:2 / /x ro - tmpfs none rw\n",
        );
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, "/mnt 2");
        assert!(mounts[0].has_option("noatime") && !mounts[0].has_option("ro"));
        assert_eq!(mounts[0].super_options, "rw,errors=continue");
        assert_eq!((mounts[1].filesystem.as_str(), mounts[1].parent), ("tmpfs", 36));
    }

    #[test]
    fn the_mounts_on_the_root_are_those_that_are_visible_and_on_no_other() {
        let mounts = table(
            "1 0 /\n2 1 /proc\n3 1 /dev\n4 3 /dev/pts\n5 1 /var/lib/x/merged\n6 2 /proc/sys/fs\n7 1 /devices",
        );
        assert_eq!(root(&mounts).unwrap().id, 1);
        let expected = [(2, "/proc"), (3, "/dev"), (5, "/var/lib/x/merged"), (7, "/devices")];
        assert_eq!(points(&on_root(&mounts)), expected);
        assert_eq!(visible(&mounts).len(), 7);
        assert_eq!(root(&table("2 1 /proc")), None);
    }

    #[test]
    fn of_mounts_at_one_path_the_last_is_visible() {
        let mounts = table("1 0 /\n2 1 /a\n3 2 /a\n4 2 /a/old\n5 3 /a/new\n6 3 /a\n7 6 /a/newest");
        assert_eq!(points(&visible(&mounts)), [(1, "/"), (6, "/a"), (7, "/a/newest")]);
        assert_eq!(points(&on_root(&mounts)), [(6, "/a")]);
        let mounts = table("1 0 /\n2 1 /\n3 2 /a\n4 1 /b");
        assert_eq!(root(&mounts).unwrap().id, 2);
        assert_eq!(points(&on_root(&mounts)), [(3, "/a")]);
    }

    #[test]
    fn a_mount_over_a_directory_hides_those_below_it() {
        let mounts = table("1 0 /\n2 1 /a/b\n3 2 /a/b/c\n4 1 /a\n5 4 /a/d");
        assert_eq!(points(&visible(&mounts)), [(1, "/"), (4, "/a"), (5, "/a/d")]);
        // The covered one as well.
        let mounts = table("1 0 /\n2 1 /a/b\n3 2 /a/b\n4 1 /a");
        assert_eq!(points(&visible(&mounts)), [(1, "/"), (4, "/a")]);
    }

    #[test]
    fn a_circle_ends() {
        assert_eq!(visible(&table("1 2 /a\n2 1 /b")).len(), 0);
        assert_eq!(visible(&table("1 1 /")).len(), 1);
    }
}
