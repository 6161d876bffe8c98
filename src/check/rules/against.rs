//! Rules that compare the content with the root of a host (`--against`).

use crate::check::rules::InputKind;
use crate::check::rules::files::is_the_engines;
use crate::check::rules::hooks;
use crate::check::rules::labels::{LabelFacts, Placement};
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::check::rules::tree::{Entry, EntryKind, FileTree};
use std::collections::BTreeSet;

/// The paths of the host that the rules compare, so that a root filesystem need not be read completely.
pub(crate) fn paths_on_host(tree: &FileTree) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = tree.iter().map(|(path, _)| path.to_owned()).collect();
    for (_, entry) in tree.iter() {
        if let EntryKind::Link { target } = &entry.kind {
            paths.extend(target.starts_with('/').then(|| target.clone()));
        }
    }
    paths.extend(hooks::paths_on_host(tree));
    paths
}

/// Applies the rules.
pub(crate) fn check(
    tree: &FileTree,
    host: &FileTree,
    input: InputKind,
    claims: &LabelFacts,
    findings: &mut Findings,
) {
    let mut conflict: Option<String> = None;
    for (path, ours) in tree.iter() {
        let below = |directory: &String| path.strip_prefix(directory.as_str())?.strip_prefix('/');
        if conflict.as_ref().and_then(below).is_some() {
            // Follows from the conflict above.
            continue;
        }
        let Some(theirs) = host.at(path) else { continue };
        if is_the_engines(path, ours, tree, input) {
            continue;
        }
        match (ours.is_directory(), theirs.is_directory()) {
            (true, true) => check_directory(path, ours, theirs, input, claims, findings),
            (false, false) if claims.placement == Placement::Below => {
                let message = "the host has this file too, and hides it";
                let fix = "remove it, or add the label io.balena.image.override=NUMBER if it should replace \
                           the host's file";
                findings.add_at(Rule::HiddenByHost, path, message, fix);
            }
            (false, false) => {}
            (true, false) | (false, true) => {
                check_conflict(path, ours, theirs, claims, findings);
                conflict = Some(path.to_owned());
            }
        }
    }
}

fn check_conflict(
    path: &str,
    ours: &Entry,
    theirs: &Entry,
    claims: &LabelFacts,
    findings: &mut Findings,
) {
    let message = match claims.placement {
        Placement::Above => format!("{} above {} of the host hides it", noun(ours), noun(theirs)),
        Placement::Below => {
            format!("{} of the host hides {} below it", noun(theirs), noun(ours))
        }
    };
    let fix = match theirs.kind {
        EntryKind::Link { .. } => {
            "move the files to where that link leads, such as usr/lib instead of lib"
        }
        EntryKind::Directory
        | EntryKind::File(_)
        | EntryKind::Device
        | EntryKind::Fifo
        | EntryKind::Socket => "rename it, or make it the same type as on the host",
    };
    findings.add_at(Rule::TypeConflict, path, message, fix);
}

fn noun(entry: &Entry) -> String {
    match &entry.kind {
        EntryKind::Link { target } => format!("a link to {target:?}"),
        kind @ (EntryKind::Directory
        | EntryKind::File(_)
        | EntryKind::Device
        | EntryKind::Fifo
        | EntryKind::Socket) => kind.noun().to_owned(),
    }
}

/// A directory that several layers contain has the owner and the permissions of the top one.
fn check_directory(
    path: &str,
    ours: &Entry,
    theirs: &Entry,
    input: InputKind,
    claims: &LabelFacts,
    findings: &mut Findings,
) {
    if claims.placement == Placement::Below {
        return;
    }
    let owner = |entry: &Entry| match input {
        // In the image it will belong to root.
        InputKind::Directory => (0, 0),
        InputKind::Image | InputKind::Export | InputKind::Bundle => (entry.uid, entry.gid),
    };
    let host_owner = if input == InputKind::Directory { (0, 0) } else { (theirs.uid, theirs.gid) };
    if ours.mode != theirs.mode || owner(ours) != host_owner {
        let access = |entry: &Entry| format!("{:04o} {}:{}", entry.mode, entry.uid, entry.gid);
        let message = format!("{} here, {} on the host", access(ours), access(theirs));
        let fix =
            "use the mode and owner of the host: the directory would change for the whole host";
        findings.add_at(Rule::DirectoryMode, path, message, fix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::rules;
    use crate::check::rules::tree::Content;
    use crate::check::rules::tree::tests::{directory, file, link, tree};

    fn apply(ours: &FileTree, placement: Placement) -> Vec<&'static str> {
        let host = tree(&[
            ("lib", link("usr/lib")),
            ("usr/lib/a", file(0o644, b"")),
            ("etc", Entry { mode: 0o700, ..directory() }),
            ("etc/a", file(0o644, b"")),
        ]);
        let claims = LabelFacts { placement, ..LabelFacts::default() };
        let mut findings = Findings::default();
        check(ours, &host, InputKind::Image, &claims, &mut findings);
        rules(findings)
    }

    #[test]
    fn a_file_that_the_host_has_is_hidden_unless_the_extension_overrides() {
        let ours = tree(&[("usr/lib/a", file(0o644, b"")), ("usr/lib/b", file(0o644, b""))]);
        assert_eq!(apply(&ours, Placement::Below), ["hidden-by-host"]);
        assert!(apply(&ours, Placement::Above).is_empty());
    }

    #[test]
    fn what_an_engine_adds_to_every_container_is_not_compared() {
        let text = Content { size: 9, ..Content::default() };
        let text = Entry { kind: EntryKind::File(text), mode: 0o644, uid: 0, gid: 0 };
        let closed = Entry { mode: 0o555, ..directory() };
        let host = tree(&[
            ("etc", Entry { mode: 0o700, ..directory() }),
            ("etc/hosts", text.clone()),
            ("etc/hostname", text.clone()),
            ("etc/mtab", link("../proc/self/mounts")),
            ("etc/resolv.conf", link("/run/resolv.conf")),
            ("proc", closed.clone()),
            ("sys", closed),
            ("dev/console", Entry { kind: EntryKind::Device, ..file(0o600, b"") }),
        ]);
        let empty = file(0o755, b"");
        let added = [
            (".dockerenv", empty.clone()),
            ("dev/console", empty.clone()),
            ("dev/pts", directory()),
            ("dev/shm", directory()),
            ("etc/hostname", empty.clone()),
            ("etc/hosts", empty.clone()),
            ("etc/mtab", link("/proc/mounts")),
            ("etc/resolv.conf", empty.clone()),
            ("proc", directory()),
            ("sys", directory()),
        ];
        let apply = |ours: &FileTree, input: InputKind, placement: Placement| {
            let claims = LabelFacts { placement, ..LabelFacts::default() };
            let mut findings = Findings::default();
            check(ours, &host, input, &claims, &mut findings);
            rules(findings)
        };
        let ours = tree(&added);
        for placement in [Placement::Below, Placement::Above] {
            assert!(apply(&ours, InputKind::Export, placement).is_empty(), "{placement:?}");
        }
        assert_eq!(apply(&ours, InputKind::Image, Placement::Below), ["hidden-by-host"; 5]);
        assert_eq!(apply(&ours, InputKind::Image, Placement::Above), ["directory-mode"; 3]);
        // What the image brought is compared, and so is the directory that it lies in.
        let own = [&added[..], &[("etc/own", text.clone())]].concat();
        assert_eq!(apply(&tree(&own), InputKind::Export, Placement::Above), ["directory-mode"]);
        let own = tree(&[("etc/hosts", text)]);
        assert_eq!(apply(&own, InputKind::Export, Placement::Below), ["hidden-by-host"]);
    }

    #[test]
    fn a_directory_over_a_link_is_one_conflict_however_much_is_in_it() {
        let ours = tree(&[("lib/a", file(0o644, b"")), ("lib/b/c", file(0o644, b""))]);
        assert_eq!(apply(&ours, Placement::Below), ["type-conflict"]);
        assert_eq!(apply(&ours, Placement::Above), ["type-conflict"]);
        let ours = tree(&[("usr/lib/a/b", file(0o644, b""))]);
        assert_eq!(apply(&ours, Placement::Above), ["type-conflict"]);
        let ours = tree(&[("libx/a", file(0o644, b"")), ("lib", file(0o644, b""))]);
        assert!(apply(&ours, Placement::Above).is_empty());
    }

    #[test]
    fn a_directory_that_would_change_the_hosts_is_reported() {
        let ours = tree(&[("etc/b", file(0o644, b""))]);
        assert_eq!(apply(&ours, Placement::Above), ["directory-mode"]);
        assert!(apply(&ours, Placement::Below).is_empty());
    }
}
