//! Rules that compare the content with the root of a host (`--against`).

use crate::check::rules::files::is_the_engines;
use crate::check::rules::hooks;
use crate::check::rules::labels::Placement;
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::check::rules::tree::{Entry, FileTree};
use crate::check::rules::{Files, InputKind};
use std::collections::BTreeSet;

/// The paths of the host that the rules compare, so that a root filesystem need not be read completely.
pub(crate) fn paths_on_host(tree: &FileTree) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = tree.iter().map(|(path, _)| path.to_owned()).collect();
    let targets = tree.iter().filter_map(|(_, entry)| entry.target());
    paths.extend(targets.filter(|target| target.starts_with('/')).map(str::to_owned));
    paths.extend(hooks::paths_on_host(tree));
    paths
}

/// Applies the rules.
pub(crate) fn check(files: &Files<'_>, findings: &mut Findings) {
    let Some(host) = files.host else { return };
    let mut conflict: Option<String> = None;
    for (path, ours) in files.tree.iter() {
        let below = |directory: &String| path.strip_prefix(directory.as_str())?.strip_prefix('/');
        if conflict.as_ref().and_then(below).is_some() {
            // Follows from the conflict above.
            continue;
        }
        let Some(theirs) = host.at(path) else { continue };
        if is_the_engines(path, ours, files) {
            continue;
        }
        match (ours.is_directory(), theirs.is_directory()) {
            (true, true) => check_directory(path, ours, theirs, files, findings),
            (false, false) if files.claims.placement == Placement::Below => {
                let message = "the host has this file too, and hides it";
                let fix = "remove it, or add the label io.balena.image.override=NUMBER if it should replace \
                           the host's file";
                findings.add_at(Rule::HiddenByHost, path, message, fix);
            }
            (false, false) => {}
            (true, false) | (false, true) => {
                let (ours, host) = (noun(ours), noun(theirs));
                let message = match files.claims.placement {
                    Placement::Above => format!("{ours} above {host} of the host hides it"),
                    Placement::Below => format!("{host} of the host hides {ours} below it"),
                };
                let fix = match theirs.target() {
                    Some(_) => {
                        "move the files to where that link leads, such as usr/lib instead of lib"
                    }
                    None => "rename it, or make it the same type as on the host",
                };
                findings.add_at(Rule::TypeConflict, path, message, fix);
                conflict = Some(path.to_owned());
            }
        }
    }
}

fn noun(entry: &Entry) -> String {
    match entry.target() {
        Some(target) => format!("a link to {target:?}"),
        None => entry.kind.noun().to_owned(),
    }
}

/// A directory that several layers contain has the owner and the permissions of the top one.
fn check_directory(
    path: &str,
    ours: &Entry,
    theirs: &Entry,
    files: &Files<'_>,
    findings: &mut Findings,
) {
    // A rootfs on the author's machine belongs to the author; in the image it belongs to root.
    let is_owner_known = files.input != InputKind::Directory;
    let owner = |entry: &Entry| is_owner_known.then_some((entry.uid, entry.gid));
    let is_same = ours.mode == theirs.mode && owner(ours) == owner(theirs);
    if files.claims.placement == Placement::Above && !is_same {
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
    use crate::check::rules::labels::LabelFacts;
    use crate::check::rules::tests::{files, rules};
    use crate::check::rules::tree::tests::{directory, file, link, tree};
    use crate::check::rules::tree::{Content, EntryKind};

    fn apply(ours: &FileTree, placement: Placement) -> Vec<&'static str> {
        let host = tree(&[
            ("lib", link("usr/lib")),
            ("usr/lib/a", file(0o644, b"")),
            ("etc", Entry { mode: 0o700, ..directory() }),
            ("etc/a", file(0o644, b"")),
        ]);
        let claims = LabelFacts { placement, ..LabelFacts::default() };
        let mut findings = Findings::default();
        check(&Files { claims, host: Some(&host), ..files(ours) }, &mut findings);
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
            check(&Files { input, claims, host: Some(&host), ..files(ours) }, &mut findings);
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
