//! Rules about the content: what must not be in an extension, or is rarely meant to be.

use crate::check::rules::Origin;
use crate::check::rules::content::is_linked;
use crate::check::rules::hooks;
use crate::check::rules::labels::{Claims, Layering};
use crate::check::rules::machine::Machine;
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::check::rules::tree::{Entry, Kind, Resolved, Tree, Whiteout, climbs_out, split};
use crate::model::container::exit::elf_machine;

/// What every host mounts something over at boot.
const MOUNTED_OVER: [&str; 4] = ["run", "proc", "sys", "dev"];
/// What makes a host that host.
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
/// What an engine puts into every container, so that an export has it whatever the image holds.
const ENGINE_FILES: [&str; 6] =
    [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];
/// The folders that it makes for them and for its mounts.
const ENGINE_FOLDERS: [&str; 6] = ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"];
/// How many links are followed: each may lead through forty others.
const LINKS_FOLLOWED: usize = 50_000;
/// The first number of people's accounts on Linux distributions.
const FIRST_PERSON: u32 = 1000;

/// Applies the rules.
pub(crate) fn check(
    tree: &Tree,
    host: Option<&Tree>,
    machine: Option<&Machine>,
    origin: Origin,
    claims: &Claims,
    findings: &mut Findings,
) {
    let shown = |path: &str, entry: &Entry| !is_the_engines(path, entry, tree, origin);
    check_mounted_over(tree, origin, findings);
    if !tree.iter().any(|(path, entry)| !entry.is_folder() && shown(path, entry)) {
        let mend = "copy the files into the image (COPY rootfs/ / in a Dockerfile)";
        findings.add(Rule::Empty, "there is no file in it", mend);
    }
    let hooks = hooks::files(tree);
    let mut links_left = LINKS_FOLLOWED;
    for (path, entry) in tree.iter().filter(|(path, entry)| shown(path, entry)) {
        if HOST_FILES.contains(&path) && !entry.is_folder() {
            let mend = match claims.layering {
                Layering::Above => "leave it out: it would replace every host's own",
                Layering::Below => "leave it out: every host has its own, which wins",
            };
            findings.add_at(Rule::HostFile, path, "a file that belongs to each host", mend);
        }
        check_permissions(path, entry, origin, findings);
        check_link(path, entry, tree, host, &mut links_left, findings);
        // Hooks have a rule of their own; what they call has not.
        if !hooks.contains(path) {
            check_machine(path, entry, machine, findings);
        }
    }
    for whiteout in tree.whiteouts() {
        let (path, message) = match whiteout {
            Whiteout::Of(path) => (path, "a whiteout: a layer hides this file"),
            Whiteout::Opaque(path) => (path, "an opaque folder: a layer hides all that is in it"),
        };
        let mend = match claims.layering {
            Layering::Above => {
                "make the image FROM scratch and never delete in a later layer: at \
                                boot the layers lie above the host's, and would hide its files too"
            }
            Layering::Below => {
                "make the image FROM scratch and never delete in a later layer: what \
                                is deleted is still shipped"
            }
        };
        findings.add_at(Rule::Whiteout, path, message, mend);
    }
}

/// Whether the image need not have brought it. A folder in which there is anything of the image may be
/// the image's own.
pub(super) fn is_the_engines(path: &str, entry: &Entry, tree: &Tree, origin: Origin) -> bool {
    if origin != Origin::Export {
        return false;
    }
    match &entry.kind {
        Kind::File(content) => content.size == 0 && ENGINE_FILES.contains(&path),
        Kind::Link { .. } => ENGINE_FILES.contains(&path),
        Kind::Folder if ENGINE_FOLDERS.contains(&path) => {
            tree.below(path).all(|(path, entry)| is_the_engines(path, entry, tree, origin))
        }
        Kind::Folder | Kind::Device | Kind::Fifo | Kind::Socket => false,
    }
}

/// One finding a folder: it may have thousands of files.
fn check_mounted_over(tree: &Tree, origin: Origin, findings: &mut Findings) {
    for folder in MOUNTED_OVER {
        let mut files = tree.below(folder).filter(|(path, entry)| {
            !entry.is_folder() && !is_the_engines(path, entry, tree, origin)
        });
        let Some((first, _)) = files.next() else { continue };
        let message = match files.count() {
            0 => format!("{first}: the host mounts over /{folder} at boot"),
            more => format!("{first} and {more} more: the host mounts over /{folder} at boot"),
        };
        let mend = "nobody would see it; use tmpfiles.d or a hook for what has to be there";
        findings.add_at(Rule::MountedOver, folder, message, mend);
    }
}

fn check_permissions(path: &str, entry: &Entry, origin: Origin, findings: &mut Findings) {
    let mode = entry.mode;
    match &entry.kind {
        Kind::File(_) => {
            if mode & 0o6000 != 0 {
                let what = if mode & 0o4000 != 0 { "setuid" } else { "setgid" };
                let message = format!("it is {what} (mode {mode:04o}, owner {})", entry.uid);
                let mend = "chmod ug-s, unless the host shall really run it with more rights";
                findings.add_at(Rule::SetUid, path, message, mend);
            }
            if entry.content().is_some_and(|content| content.capable) {
                let mend = "setcap -r, unless the host shall really run it with more rights";
                findings.add_at(Rule::Capability, path, "it has file capabilities", mend);
            }
            if mode & 0o002 != 0 {
                let message = format!("everybody may write to it (mode {mode:04o})");
                findings.add_at(Rule::WorldWritable, path, message, "chmod o-w");
            }
        }
        Kind::Folder => {
            if mode & 0o1002 == 0o002 {
                let message =
                    format!("everybody may replace what is in it (mode {mode:04o}, not sticky)");
                findings.add_at(Rule::WorldWritable, path, message, "chmod o-w, or chmod +t");
            }
        }
        Kind::Device | Kind::Fifo | Kind::Socket => {
            let what = match entry.kind {
                Kind::Device => "a device",
                Kind::Fifo => "a FIFO",
                Kind::Folder | Kind::File(_) | Kind::Link { .. } | Kind::Socket => "a socket",
            };
            let message = format!("it is {what}");
            let mend = "leave it out: udev, tmpfiles.d or a service makes it where it is needed";
            findings.add_at(Rule::SpecialFile, path, message, mend);
        }
        Kind::Link { .. } => {}
    }
    // A folder on the author's machine belongs to the author; the engine gives it to root.
    if origin != Origin::Folder && (entry.uid >= FIRST_PERSON || entry.gid >= FIRST_PERSON) {
        let message = format!("it belongs to user {} and group {}", entry.uid, entry.gid);
        let mend =
            "COPY --chown=0:0, or tar --owner=0 --group=0: on the host these are somebody else";
        findings.add_at(Rule::Owner, path, message, mend);
    }
}

fn check_link(
    path: &str,
    entry: &Entry,
    tree: &Tree,
    host: Option<&Tree>,
    left: &mut usize,
    findings: &mut Findings,
) {
    let Kind::Link { target } = &entry.kind else { return };
    if climbs_out(path, target) {
        let message = format!("its target {target:?} climbs out of the rootfs");
        let mend = "count the dots again, or start the target with a slash";
        findings.add_at(Rule::LinkOut, path, message, mend);
        return;
    }
    let Some(inner) = target.strip_prefix('/') else { return };
    // These are there once the host runs; /dev/null is how systemd spells "masked".
    let first = inner.trim_start_matches('/').split('/').next().unwrap_or_default();
    *left = left.saturating_sub(1);
    if *left == 0 {
        return;
    }
    let leads =
        |tree: &Tree| matches!(tree.resolve(target), Resolved::Found { .. } | Resolved::Root);
    if !MOUNTED_OVER.contains(&first) && !leads(tree) && !host.is_some_and(leads) {
        let where_else = if host.is_some() { ", nor on the host" } else { "" };
        let message = format!("its target {target:?} is not in the image{where_else}");
        let mend = "ship the target too, or make sure of it with --against the root of the host; a \
                    hook that follows the link reads the host's file";
        findings.add_at(Rule::LinkOut, path, message, mend);
    }
}

/// Programs of another machine. Firmware is for other processors by its nature, and so may be what
/// lies in /boot.
fn check_machine(path: &str, entry: &Entry, machine: Option<&Machine>, findings: &mut Findings) {
    let (Some(machine), Some(content)) = (machine, entry.content()) else { return };
    let foreign = ["boot/", "lib/firmware/", "usr/lib/firmware/"];
    if foreign.iter().any(|folder| path.starts_with(folder)) {
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
        let message = format!("it is for {found}, but {machine}");
        let mend = format!("build it for {}, or leave it out", machine.name);
        findings.add_at(rule, path, message, mend);
    }
}

/// Whether the dynamic loader finds a library there by its name alone (ld.so(8)). Such need no x bit.
fn is_library(path: &str) -> bool {
    let (folder, name) = split(path);
    let folder = folder.strip_prefix("usr/").unwrap_or(folder);
    let folder = folder.strip_prefix("local/").unwrap_or(folder);
    // lib, lib64, and as Debian has them lib/x86_64-linux-gnu.
    let (lib, rest) = folder.split_once('/').unwrap_or((folder, ""));
    let is_searched = lib.starts_with("lib") && (rest.is_empty() || rest.contains("-linux-"));
    is_searched && !rest.contains('/') && name.contains(".so")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::rules;
    use crate::check::rules::tree::tests::{file, link, tree};
    use crate::check::rules::tree::{Content, Layer};

    fn apply(tree: &Tree, origin: Origin) -> Vec<&'static str> {
        let machine = Machine::new("x86_64", "this machine is x86_64");
        let mut findings = Findings::default();
        check(tree, None, Some(&machine), origin, &Claims::default(), &mut findings);
        rules(findings)
    }

    fn one(path: &str, entry: Entry) -> Vec<&'static str> {
        apply(&tree(&[("usr/share/x", file(0o644, b"")), (path, entry)]), Origin::Image)
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
        let folder = |mode| Entry { kind: Kind::Folder, mode, uid: 0, gid: 0 };
        let capable = Content { capable: true, ..Content::default() };
        let capable = Entry { kind: Kind::File(capable), mode: 0o755, uid: 0, gid: 0 };
        let owned = Entry { uid: 1000, ..file(0o644, b"") };
        for (path, entry, expected) in [
            ("a", file(0o644, b""), vec![]),
            ("a", file(0o4755, b""), vec!["setuid"]),
            ("a", file(0o2755, b""), vec!["setuid"]),
            ("a", file(0o666, b""), vec!["world-writable"]),
            ("a", folder(0o777), vec!["world-writable"]),
            ("a", folder(0o1777), vec![]),
            ("a", special(Kind::Fifo), vec!["special-file"]),
            ("a", special(Kind::Socket), vec!["special-file"]),
            ("a", special(Kind::Device), vec!["special-file"]),
            ("a", owned, vec!["owner"]),
            ("run/x/y", file(0o644, b""), vec!["mounted-over"]),
            ("run/x", folder(0o755), vec![]),
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
        assert!(apply(&linked, Origin::Image).is_empty());
    }

    #[test]
    fn a_folder_of_the_author_may_belong_to_the_author() {
        let tree = tree(&[("a", Entry { uid: 1000, gid: 1000, ..file(0o644, b"") })]);
        assert!(apply(&tree, Origin::Folder).is_empty());
    }

    #[test]
    fn what_an_engine_adds_to_every_container_is_not_the_images() {
        let added = [(".dockerenv", file(0o755, b"")), ("etc/hosts", file(0o644, b""))];
        let exported = tree(&[&added[..], &[("a", file(0o644, b""))]].concat());
        assert!(apply(&exported, Origin::Export).is_empty());
        assert_eq!(apply(&exported, Origin::Image), ["host-file"]);
        assert_eq!(apply(&tree(&added), Origin::Export), ["empty"]);
        assert_eq!(apply(&Tree::default(), Origin::Image), ["empty"]);
        let own = Content { size: 9, ..Content::default() };
        let own = Entry { kind: Kind::File(own), mode: 0o644, uid: 0, gid: 0 };
        assert_eq!(apply(&tree(&[("etc/hosts", own)]), Origin::Export), ["host-file"]);
    }

    #[test]
    fn whiteouts_are_told_also_those_that_have_done_their_work() {
        let mut tree = tree(&[("a", file(0o644, b"")), ("b", file(0o644, b""))]);
        let mut layer = Layer::default();
        layer.add(".wh.a", file(0o644, b"")).unwrap();
        layer.add_opaque("c").unwrap();
        tree.add_layer(layer).unwrap();
        assert_eq!(apply(&tree, Origin::Image), ["whiteout"; 2]);
    }
}
