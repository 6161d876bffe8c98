//! Rules that compare the content with the root of a host (`--against`).

use crate::check::rules::Origin;
use crate::check::rules::files::is_the_engines;
use crate::check::rules::hooks;
use crate::check::rules::labels::{Claims, Layering};
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::check::rules::tree::{Entry, Kind, Tree};
use std::collections::BTreeSet;

/// What of the host has to be looked at, so that nobody reads a whole root filesystem.
pub(crate) fn wanted_of_host(tree: &Tree) -> BTreeSet<String> {
    let mut wanted: BTreeSet<String> = tree.iter().map(|(path, _)| path.to_owned()).collect();
    for (_, entry) in tree.iter() {
        if let Kind::Link { target } = &entry.kind {
            wanted.extend(target.starts_with('/').then(|| target.clone()));
        }
    }
    wanted.extend(hooks::wanted_of_host(tree));
    wanted
}

/// Applies the rules.
pub(crate) fn check(
    tree: &Tree,
    host: &Tree,
    origin: Origin,
    claims: &Claims,
    findings: &mut Findings,
) {
    let mut conflict: Option<String> = None;
    for (path, ours) in tree.iter() {
        let below = |folder: &String| path.strip_prefix(folder.as_str())?.strip_prefix('/');
        if conflict.as_ref().and_then(below).is_some() {
            // All of it follows from the folder above.
            continue;
        }
        let Some(theirs) = host.at(path) else { continue };
        if is_the_engines(path, ours, tree, origin) {
            continue;
        }
        match (ours.is_folder(), theirs.is_folder()) {
            (true, true) => check_folder(path, ours, theirs, origin, claims, findings),
            (false, false) if claims.layering == Layering::Below => {
                let message = "the host has this file already, and wins";
                let mend = "leave it out, or label the image io.balena.image.override=NUMBER if it \
                            shall replace the host's";
                findings.add_at(Rule::HiddenByHost, path, message, mend);
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
    claims: &Claims,
    findings: &mut Findings,
) {
    let (ours, theirs) = (noun(ours), noun(theirs));
    let effect = match claims.layering {
        Layering::Above => "and hides it",
        Layering::Below => "which hides it with all that is below",
    };
    let message = match claims.layering {
        Layering::Above => format!("{ours} lies over {theirs} of the host {effect}"),
        Layering::Below => format!("{ours} lies under {theirs} of the host, {effect}"),
    };
    let mend = match &theirs {
        found if found.starts_with("a link to") => {
            "put the files where that link leads (usr/lib instead of lib, for instance)"
        }
        _ => "rename it, or make it the same kind of thing as on the host",
    };
    findings.add_at(Rule::TypeConflict, path, message, mend);
}

fn noun(entry: &Entry) -> String {
    match &entry.kind {
        Kind::Folder => "a folder".to_owned(),
        Kind::File(_) => "a file".to_owned(),
        Kind::Link { target } => format!("a link to {target:?}"),
        Kind::Device => "a device".to_owned(),
        Kind::Fifo => "a FIFO".to_owned(),
        Kind::Socket => "a socket".to_owned(),
    }
}

/// A folder in several layers has the owner and the permissions of the top one.
fn check_folder(
    path: &str,
    ours: &Entry,
    theirs: &Entry,
    origin: Origin,
    claims: &Claims,
    findings: &mut Findings,
) {
    if claims.layering == Layering::Below {
        return;
    }
    let owner = |entry: &Entry| match origin {
        // Not yet root's.
        Origin::Folder => (0, 0),
        Origin::Image | Origin::Export | Origin::Bundle => (entry.uid, entry.gid),
    };
    let host_owner = if origin == Origin::Folder { (0, 0) } else { (theirs.uid, theirs.gid) };
    if ours.mode != theirs.mode || owner(ours) != host_owner {
        let told = |entry: &Entry| format!("{:04o} {}:{}", entry.mode, entry.uid, entry.gid);
        let message = format!("it is {}, on the host it is {}", told(ours), told(theirs));
        let mend = "make it as it is on the host: it would become so for everybody there";
        findings.add_at(Rule::FolderMode, path, message, mend);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::rules;
    use crate::check::rules::tree::Content;
    use crate::check::rules::tree::tests::{file, folder, link, tree};

    fn apply(ours: &Tree, layering: Layering) -> Vec<&'static str> {
        let host = tree(&[
            ("lib", link("usr/lib")),
            ("usr/lib/a", file(0o644, b"")),
            ("etc", Entry { mode: 0o700, ..folder() }),
            ("etc/a", file(0o644, b"")),
        ]);
        let claims = Claims { layering, ..Claims::default() };
        let mut findings = Findings::default();
        check(ours, &host, Origin::Image, &claims, &mut findings);
        rules(findings)
    }

    #[test]
    fn a_file_that_the_host_has_is_hidden_unless_the_extension_overrides() {
        let ours = tree(&[("usr/lib/a", file(0o644, b"")), ("usr/lib/b", file(0o644, b""))]);
        assert_eq!(apply(&ours, Layering::Below), ["hidden-by-host"]);
        assert!(apply(&ours, Layering::Above).is_empty());
    }

    #[test]
    fn what_an_engine_adds_to_every_container_is_not_compared() {
        let text = Content { size: 9, ..Content::default() };
        let text = Entry { kind: Kind::File(text), mode: 0o644, uid: 0, gid: 0 };
        let closed = Entry { mode: 0o555, ..folder() };
        let host = tree(&[
            ("etc", Entry { mode: 0o700, ..folder() }),
            ("etc/hosts", text.clone()),
            ("etc/hostname", text.clone()),
            ("etc/mtab", link("../proc/self/mounts")),
            ("etc/resolv.conf", link("/run/resolv.conf")),
            ("proc", closed.clone()),
            ("sys", closed),
            ("dev/console", Entry { kind: Kind::Device, ..file(0o600, b"") }),
        ]);
        let empty = file(0o755, b"");
        let added = [
            (".dockerenv", empty.clone()),
            ("dev/console", empty.clone()),
            ("dev/pts", folder()),
            ("dev/shm", folder()),
            ("etc/hostname", empty.clone()),
            ("etc/hosts", empty.clone()),
            ("etc/mtab", link("/proc/mounts")),
            ("etc/resolv.conf", empty.clone()),
            ("proc", folder()),
            ("sys", folder()),
        ];
        let apply = |ours: &Tree, origin: Origin, layering: Layering| {
            let claims = Claims { layering, ..Claims::default() };
            let mut findings = Findings::default();
            check(ours, &host, origin, &claims, &mut findings);
            rules(findings)
        };
        let ours = tree(&added);
        for layering in [Layering::Below, Layering::Above] {
            assert!(apply(&ours, Origin::Export, layering).is_empty(), "{layering:?}");
        }
        assert_eq!(apply(&ours, Origin::Image, Layering::Below), ["hidden-by-host"; 5]);
        assert_eq!(apply(&ours, Origin::Image, Layering::Above), ["folder-mode"; 3]);
        // What the image brought is compared, and so is the folder that it lies in.
        let own = [&added[..], &[("etc/own", text.clone())]].concat();
        assert_eq!(apply(&tree(&own), Origin::Export, Layering::Above), ["folder-mode"]);
        let own = tree(&[("etc/hosts", text)]);
        assert_eq!(apply(&own, Origin::Export, Layering::Below), ["hidden-by-host"]);
    }

    #[test]
    fn a_folder_over_a_link_is_one_conflict_however_much_is_in_it() {
        let ours = tree(&[("lib/a", file(0o644, b"")), ("lib/b/c", file(0o644, b""))]);
        assert_eq!(apply(&ours, Layering::Below), ["type-conflict"]);
        assert_eq!(apply(&ours, Layering::Above), ["type-conflict"]);
        let ours = tree(&[("usr/lib/a/b", file(0o644, b""))]);
        assert_eq!(apply(&ours, Layering::Above), ["type-conflict"]);
        let ours = tree(&[("libx/a", file(0o644, b"")), ("lib", file(0o644, b""))]);
        assert!(apply(&ours, Layering::Above).is_empty());
    }

    #[test]
    fn a_folder_that_would_change_the_hosts_is_told() {
        let ours = tree(&[("etc/b", file(0o644, b""))]);
        assert_eq!(apply(&ours, Layering::Above), ["folder-mode"]);
        assert!(apply(&ours, Layering::Below).is_empty());
    }
}
