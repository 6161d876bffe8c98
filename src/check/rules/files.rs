//! Rules about the files: those that must not be in an extension, and those that are rarely intended.

use crate::check::rules::content::is_linked;
use crate::check::rules::hooks;
use crate::check::rules::labels::Placement;
use crate::check::rules::machine::TargetMachine;
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::check::rules::tree::{Entry, EntryKind, FileTree, Whiteout, leads_out, split};
use crate::check::rules::{Files, InputKind};
use crate::model::container::exit::elf_machine;

/// Every host mounts a filesystem over these at boot.
const MOUNTED_OVER: [&str; 4] = ["run", "proc", "sys", "dev"];
/// Files that belong to each host.
const HOST_FILES: [&str; 9] = [
    "etc/passwd",
    "etc/group",
    "etc/shadow",
    "etc/machine-id",
    "etc/fstab",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "etc/os-release",
];
/// Files that engines add to every container, so that every export has them.
const ENGINE_FILES: [&str; 6] =
    [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];
/// Directories that engines add for these files and for mounts.
const ENGINE_DIRECTORIES: [&str; 6] = ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"];
/// The most links that are followed: each may lead through forty others.
const LINKS_FOLLOWED: usize = 50_000;
/// The first user id of a person on Linux distributions.
const FIRST_PERSON: u32 = 1000;

/// Applies the rules.
pub(crate) fn check(files: &Files<'_>, findings: &mut Findings) {
    let Files { tree, claims, .. } = files;
    check_mounted_over(files, findings);
    let of_image = || tree.iter().filter(|(path, entry)| !is_the_engines(path, entry, files));
    if of_image().all(|(_, entry)| entry.is_directory()) {
        let fix = "copy the files into the image (COPY rootfs/ / in a Dockerfile)";
        findings.add(Rule::Empty, "the rootfs contains no file", fix);
    }
    let hooks = hooks::files(tree);
    let mut links_left = LINKS_FOLLOWED;
    for (path, entry) in of_image() {
        if HOST_FILES.contains(&path) && !entry.is_directory() {
            let fix = match claims.placement {
                Placement::Above => "remove it: it would replace the file of every host",
                Placement::Below => "remove it: every host has its own, which hides it",
            };
            findings.add_at(Rule::HostFile, path, "a file that belongs to each host", fix);
        }
        check_permissions(path, entry, files.input, findings);
        if let Some(target) = entry.target() {
            check_link(path, target, files, &mut links_left, findings);
        }
        // Hooks have a rule of their own.
        if !hooks.contains(path) {
            check_machine(path, entry, files.machine, findings);
        }
    }
    for whiteout in tree.whiteouts() {
        let (path, message) = match whiteout {
            Whiteout::Of(path) => (path, "a whiteout: a layer deletes this file"),
            Whiteout::Opaque(path) => (path, "an opaque directory: a layer deletes its content"),
        };
        let fix = match claims.placement {
            Placement::Above => {
                "build in one layer, FROM scratch: at boot the layers are mounted above the host's files, \
                 and delete those too"
            }
            Placement::Below => {
                "build in one layer, FROM scratch: the deleted file is still in the layer below"
            }
        };
        findings.add_at(Rule::Whiteout, path, message, fix);
    }
}

/// Whether an engine added the file to the container. A directory is the engine's only if everything in it
/// is.
pub(super) fn is_the_engines(path: &str, entry: &Entry, files: &Files<'_>) -> bool {
    let is_empty_or_link = match entry.content() {
        Some(content) => content.size == 0,
        None => entry.target().is_some(),
    };
    let is_added = is_empty_or_link && ENGINE_FILES.contains(&path)
        || entry.is_directory()
            && ENGINE_DIRECTORIES.contains(&path)
            && files.tree.below(path).all(|(path, entry)| is_the_engines(path, entry, files));
    files.input == InputKind::Export && is_added
}

/// Reports one finding per directory, which may have thousands of files.
fn check_mounted_over(files: &Files<'_>, findings: &mut Findings) {
    for directory in MOUNTED_OVER {
        let mut hidden = files
            .tree
            .below(directory)
            .filter(|(path, entry)| !entry.is_directory() && !is_the_engines(path, entry, files));
        let Some((first, _)) = hidden.next() else { continue };
        let message = match hidden.count() {
            0 => format!("{first}: at boot, the host mounts a filesystem over /{directory}"),
            more => format!(
                "{first} and {more} more: at boot, the host mounts a filesystem over /{directory}"
            ),
        };
        let fix = "create the files with tmpfiles.d or a hook: those of the image are hidden";
        findings.add_at(Rule::MountedOver, directory, message, fix);
    }
}

fn check_permissions(path: &str, entry: &Entry, input: InputKind, findings: &mut Findings) {
    let mode = entry.mode;
    match &entry.kind {
        EntryKind::File(content) => {
            if mode & 0o6000 != 0 {
                let what = if mode & 0o4000 != 0 { "setuid" } else { "setgid" };
                let message = format!("{what} (mode {mode:04o}, owner {})", entry.uid);
                let fix = "chmod ug-s, unless the host should run it with more rights";
                findings.add_at(Rule::SetUid, path, message, fix);
            }
            if content.capable {
                let fix = "setcap -r, unless the host should run it with more rights";
                findings.add_at(Rule::Capability, path, "a file with capabilities", fix);
            }
            if mode & 0o002 != 0 {
                let message = format!("everybody can change this file (mode {mode:04o})");
                findings.add_at(Rule::WorldWritable, path, message, "chmod o-w");
            }
        }
        EntryKind::Directory if mode & 0o1002 == 0o002 => {
            let message =
                format!("everybody can replace files in it (mode {mode:04o}, not sticky)");
            findings.add_at(Rule::WorldWritable, path, message, "chmod o-w, or chmod +t");
        }
        EntryKind::Device | EntryKind::Fifo | EntryKind::Socket => {
            let message = entry.kind.noun();
            let fix = "remove it: create it on the host with udev, tmpfiles.d or a service";
            findings.add_at(Rule::SpecialFile, path, message, fix);
        }
        EntryKind::Directory | EntryKind::Link { .. } => {}
    }
    // A rootfs on the author's machine belongs to the author; in the image it belongs to root.
    if input != InputKind::Directory && (entry.uid >= FIRST_PERSON || entry.gid >= FIRST_PERSON) {
        let message = format!("belongs to user {} and group {}", entry.uid, entry.gid);
        let fix = "COPY --chown=0:0, or tar --owner=0 --group=0: on the host, somebody else has these ids";
        findings.add_at(Rule::Owner, path, message, fix);
    }
}

fn check_link(
    path: &str,
    target: &str,
    files: &Files<'_>,
    left: &mut usize,
    findings: &mut Findings,
) {
    if leads_out(path, target) {
        let message = format!("its target {target:?} is outside the rootfs");
        let fix = "use an absolute target, or remove one ../";
        findings.add_at(Rule::LinkOut, path, message, fix);
        return;
    }
    let Some(inner) = target.strip_prefix('/') else { return };
    // These exist on a running host; systemd masks a unit with a link to /dev/null.
    let first = inner.trim_start_matches('/').split('/').next().unwrap_or_default();
    *left = left.saturating_sub(1);
    if *left == 0 {
        return;
    }
    let leads = |tree: &FileTree| tree.resolve(target).found().is_some();
    if !MOUNTED_OVER.contains(&first) && !leads(files.tree) && !files.host.is_some_and(leads) {
        let where_else = if files.host.is_some() { ", nor on the host" } else { "" };
        let message = format!("its target {target:?} is not in the image{where_else}");
        let fix = "add the target to the image, or check --against the root of the host; a hook that \
                   follows the link reads the host's file";
        findings.add_at(Rule::LinkOut, path, message, fix);
    }
}

/// Finds programs for another machine. Firmware is for other processors by its nature, and files in /boot
/// may be.
fn check_machine(path: &str, entry: &Entry, machine: &TargetMachine, findings: &mut Findings) {
    let Some(content) = entry.content() else { return };
    let foreign = ["boot/", "lib/firmware/", "usr/lib/firmware/"];
    if foreign.iter().any(|directory| path.starts_with(directory)) {
        return;
    }
    let Some(found) = elf_machine(&content.head) else { return };
    let fits = match path.ends_with(".ko") {
        true => machine.loads(found),
        false => machine.runs(found) || !is_linked(&content.head),
    };
    if !fits {
        let rule = match path.ends_with(".ko") || entry.mode & 0o111 != 0 || is_library(path) {
            true => Rule::Architecture,
            false => Rule::ForeignData,
        };
        let message = format!("the file is for {found}, but {machine}");
        let fix = format!("build it for {}, or remove it", machine.name);
        findings.add_at(rule, path, message, fix);
    }
}

/// Whether the dynamic loader searches this place (ld.so(8)). Libraries there need no x bit.
fn is_library(path: &str) -> bool {
    let (directory, name) = split(path);
    let directory = directory.strip_prefix("usr/").unwrap_or(directory);
    let directory = directory.strip_prefix("local/").unwrap_or(directory);
    // lib, lib64, and on Debian lib/x86_64-linux-gnu.
    let (lib, rest) = directory.split_once('/').unwrap_or((directory, ""));
    let is_searched = lib.starts_with("lib") && (rest.is_empty() || rest.contains("-linux-"));
    is_searched && !rest.contains('/') && name.contains(".so")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::{files, rules};
    use crate::check::rules::tree::tests::{file, link, tree};
    use crate::check::rules::tree::{Content, Layer};

    fn apply(tree: &FileTree, input: InputKind) -> Vec<&'static str> {
        let mut findings = Findings::default();
        check(&Files { input, ..files(tree) }, &mut findings);
        rules(findings)
    }

    fn one(path: &str, entry: Entry) -> Vec<&'static str> {
        apply(&tree(&[("usr/share/x", file(0o644, b"")), (path, entry)]), InputKind::Image)
    }

    fn elf(kind: u8, machine: u8) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(16, 0);
        head.extend([kind, 0, machine, 0]);
        head
    }

    #[test]
    fn each_kind_of_unwanted_file_has_its_rule() {
        let special = |kind| Entry { kind, mode: 0o644, uid: 0, gid: 0 };
        let directory = |mode| Entry { kind: EntryKind::Directory, mode, uid: 0, gid: 0 };
        let capable = Content { capable: true, ..Content::default() };
        let capable = Entry { kind: EntryKind::File(capable), mode: 0o755, uid: 0, gid: 0 };
        let owned = Entry { uid: 1000, ..file(0o644, b"") };
        for (path, entry, expected) in [
            ("a", file(0o644, b""), vec![]),
            ("a", file(0o4755, b""), vec!["setuid"]),
            ("a", file(0o2755, b""), vec!["setuid"]),
            ("a", file(0o666, b""), vec!["world-writable"]),
            ("a", directory(0o777), vec!["world-writable"]),
            ("a", directory(0o1777), vec![]),
            ("a", special(EntryKind::Fifo), vec!["special-file"]),
            ("a", special(EntryKind::Socket), vec!["special-file"]),
            ("a", special(EntryKind::Device), vec!["special-file"]),
            ("a", owned, vec!["owner"]),
            ("run/x/y", file(0o644, b""), vec!["mounted-over"]),
            ("run/x", directory(0o755), vec![]),
            ("etc/passwd", file(0o644, b""), vec!["host-file"]),
            ("usr/bin/x", file(0o755, &elf(2, 183)), vec!["architecture"]),
            ("usr/bin/x", file(0o755, &elf(2, 62)), vec![]),
            ("usr/lib/libx.so.1", file(0o644, &elf(3, 183)), vec!["architecture"]),
            ("usr/lib/aarch64-linux-gnu/x.so", file(0o644, &elf(3, 183)), vec!["architecture"]),
            ("usr/share/qemu/boot.elf", file(0o644, &elf(2, 183)), vec!["foreign-data"]),
            ("usr/lib/plugins/x.so", file(0o644, &elf(3, 183)), vec!["foreign-data"]),
            ("a", capable, vec!["capability"]),
            ("usr/bin/x", file(0o755, &elf(2, 3)), vec![]),
            ("usr/lib/x.bpf.o", file(0o755, &elf(1, 247)), vec![]),
            ("lib/modules/1.2.3/x.ko", file(0o755, &elf(1, 183)), vec!["architecture"]),
            // The kernel loads no module of its family with 32 bits, as it runs programs of it.
            ("lib/modules/1.2.3/x.ko", file(0o755, &elf(1, 3)), vec!["architecture"]),
            ("lib/modules/1.2.3/x.ko", file(0o755, &elf(1, 62)), vec![]),
            ("hooks/helper2", file(0o755, &elf(2, 183)), vec!["architecture"]),
            ("hooks/bin/helper", file(0o755, &elf(2, 183)), vec!["architecture"]),
            ("hooks/start", file(0o755, &elf(2, 183)), vec![]),
            ("lib/firmware/x.elf", file(0o755, &elf(2, 183)), vec![]),
            ("a/b", link("../usr/share/x"), vec![]),
            ("a/b", link("../../../x"), vec!["link-out"]),
            ("a", link("/usr/share/x"), vec![]),
            ("a", link("/usr/share/y"), vec!["link-out"]),
            ("a", link("/"), vec![]),
            ("a", link("/usr/.."), vec![]),
            ("etc/systemd/system/x.service", link("/dev/null"), vec![]),
        ] {
            assert_eq!(one(path, entry.clone()), expected, "{path} {entry:?}");
        }
    }

    #[test]
    fn what_the_hooks_are_links_to_is_judged_as_a_hook_alone() {
        let linked = tree(&[
            ("usr/lib/hook", file(0o755, &elf(2, 183))),
            ("hooks/start", link("../usr/lib/hook")),
            ("hooks/create", link("own")),
            ("hooks/own", file(0o755, &elf(2, 183))),
        ]);
        assert!(apply(&linked, InputKind::Image).is_empty());
    }

    #[test]
    fn a_directory_of_the_author_may_belong_to_the_author() {
        let tree = tree(&[("a", Entry { uid: 1000, gid: 1000, ..file(0o644, b"") })]);
        assert!(apply(&tree, InputKind::Directory).is_empty());
    }

    #[test]
    fn what_an_engine_adds_to_every_container_is_not_the_images() {
        let added = [(".dockerenv", file(0o755, b"")), ("etc/hosts", file(0o644, b""))];
        let exported = tree(&[&added[..], &[("a", file(0o644, b""))]].concat());
        assert!(apply(&exported, InputKind::Export).is_empty());
        assert_eq!(apply(&exported, InputKind::Image), ["host-file"]);
        assert_eq!(apply(&tree(&added), InputKind::Export), ["empty"]);
        assert_eq!(apply(&FileTree::default(), InputKind::Image), ["empty"]);
        let own = Content { size: 9, ..Content::default() };
        let own = Entry { kind: EntryKind::File(own), mode: 0o644, uid: 0, gid: 0 };
        assert_eq!(apply(&tree(&[("etc/hosts", own)]), InputKind::Export), ["host-file"]);
    }

    #[test]
    fn whiteouts_are_reported_also_those_that_deleted_a_file_of_the_image() {
        let mut tree = tree(&[("a", file(0o644, b"")), ("b", file(0o644, b""))]);
        let mut layer = Layer::default();
        layer.add(".wh.a", file(0o644, b""));
        layer.add_whiteout(Whiteout::Opaque("c".to_owned()));
        tree.add_layer(layer);
        assert_eq!(apply(&tree, InputKind::Image), ["whiteout"; 2]);
    }
}
