//! Rules about kernels and their modules.

use crate::check::rules::labels::{LabelFacts, Placement};
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::check::rules::tree::{Content, Entry, FileTree, join, split};
use crate::model::container::exit::elf_machine;
use crate::model::extension::claim::version_of;
use crate::model::text::hex::hex;
use std::collections::BTreeSet;

/// The directories of modules.
const DIRECTORIES: [&str; 2] = ["lib/modules", "usr/lib/modules"];
/// Marks a volume that is being filled.
const MARKER: &str = "boot/.fabricating";
/// Indexes of the files of all packages of a host.
const INDEXES: [&str; 7] = [
    "etc/ld.so.cache",
    "etc/udev/hwdb.bin",
    "usr/lib/udev/hwdb.bin",
    "usr/lib/locale/locale-archive",
    "usr/share/glib-2.0/schemas/gschemas.compiled",
    "usr/share/mime/mime.cache",
    "var/lib/dpkg/status",
];

/// Applies the rules.
pub(crate) fn check(tree: &FileTree, claims: &LabelFacts, findings: &mut Findings) {
    check_modules(tree, claims, findings);
    check_indexes(tree, claims, findings);
    if let Some(abi) = &claims.kernel_abi {
        check_kernel(tree, abi, findings);
    }
    if tree.at(MARKER).is_some() {
        let message = "this file marks a volume that is being filled";
        findings.add_at(Rule::BootMarker, MARKER, message, "remove it from the image");
    }
}

/// The directories `lib/modules/RELEASE`, each with its release.
fn releases(tree: &FileTree) -> Vec<(&str, &str)> {
    let below = DIRECTORIES.iter().flat_map(|modules| tree.below(modules));
    let is_of_release = |(path, entry): &(&str, &Entry)| {
        DIRECTORIES.contains(&split(path).0) && entry.is_directory()
    };
    below.filter(is_of_release).map(|(path, _)| (path, split(path).1)).collect()
}

fn is_module(path: &str) -> bool {
    [".ko", ".ko.gz", ".ko.xz", ".ko.zst"].iter().any(|end| path.ends_with(end))
}

/// The modules outside the directory of a release, which hooks load with insmod. A text in Korean may have
/// such a name too.
fn elsewhere(tree: &FileTree) -> impl Iterator<Item = (&str, &Content)> {
    let has_release = |path: &str| {
        let inside =
            |directory: &&str| path.strip_prefix(directory)?.strip_prefix('/')?.split_once('/');
        DIRECTORIES.iter().find_map(inside).is_some()
    };
    let contents = tree.iter().filter_map(|(path, entry)| Some((path, entry.content()?)));
    contents.filter(move |(path, content)| {
        let likely = match path.ends_with(".ko") {
            true => content.module_release.is_some() || elf_machine(&content.head).is_some(),
            false => !path.starts_with("usr/share/"),
        };
        is_module(path) && likely && !has_release(path)
    })
}

fn check_modules(tree: &FileTree, claims: &LabelFacts, findings: &mut Findings) {
    let mut unclaimed = None;
    for (directory, release) in releases(tree) {
        let modules: Vec<(&str, &Entry)> =
            tree.below(directory).filter(|(path, _)| is_module(path)).collect();
        if modules.is_empty() {
            continue;
        }
        unclaimed = unclaimed.or(Some(directory));
        if let Some(claimed) =
            claims.kernel_version.as_ref().filter(|&it| it != version_of(release))
        {
            let message = format!("modules for {release}, but kernel-version is {claimed}");
            let fix = "build them for that kernel, or change the label";
            findings.add_at(Rule::ModuleRelease, directory, message, fix);
        }
        let misplaced = modules.iter().filter_map(|(path, entry)| {
            let own = entry.content()?.module_release.as_deref()?;
            (own != release).then_some((path, own))
        });
        for (path, own) in misplaced {
            let message = format!("built for {own}, but in the directory of {release}");
            let fix = "build it for the kernel of its directory: the kernel refuses to load it";
            findings.add_at(Rule::ModuleRelease, path, message, fix);
        }
    }
    for (path, content) in elsewhere(tree) {
        unclaimed = unclaimed.or(Some(path));
        let (Some(own), Some(claimed)) = (&content.module_release, &claims.kernel_version) else {
            continue;
        };
        if version_of(own) != claimed {
            let message = format!("built for {own}, but kernel-version is {claimed}");
            let fix = "build it for that kernel, or change the label";
            findings.add_at(Rule::ModuleRelease, path, message, fix);
        }
    }
    if let Some(place) = unclaimed.filter(|_| claims.known && !claims.claims_kernel) {
        let message = "kernel modules, but no label kernel-version or kernel-abi-id";
        let fix = "add the label io.balena.image.kernel-version=M.m.p: without it, the extension is kept \
                   after an update to another kernel, which does not load the modules";
        findings.add_at(Rule::ModuleClaim, place, message, fix);
    }
}

/// Checks what the runtime requires of an extension that brings a kernel.
fn check_kernel(tree: &FileTree, abi: &str, findings: &mut Findings) {
    let in_boot = || tree.below("boot").filter(|(path, _)| split(path).0 == "boot");
    let kernels: Vec<&Content> = in_boot().filter_map(|(_, entry)| entry.content()).collect();
    if !kernels.is_empty() {
        let message =
            "the image brings a kernel: the device boots it on trial after its next reboot";
        let fix = "if the image only needs that kernel, remove the files from /boot";
        findings.add_at(Rule::KernelOverride, "boot", message, fix);
    }
    // The runtime takes no empty file for a kernel, whatever the label says.
    let hashes: BTreeSet<String> = kernels
        .iter()
        .filter(|content| content.size > 0)
        .filter_map(|content| content.sha256.as_ref())
        .map(|hash| hex(hash))
        .collect();
    if !hashes.contains(abi) {
        let message = match kernels.iter().any(|content| content.sha256.is_none()) {
            true => {
                "no file in /boot that was hashed has the hash of kernel-abi-id; files above 1 GiB are \
                 not hashed"
                    .to_owned()
            }
            false => format!(
                "none of the {} regular file(s) in /boot that are not empty hashes to {abi}",
                hashes.len()
            ),
        };
        let fix = "put the kernel image itself, not a link, directly into /boot, and set kernel-abi-id to \
                   the output of sha256sum for it";
        findings.add_at(Rule::KernelAbiFile, "boot", message, fix);
    }
    let has_symvers = releases(tree)
        .iter()
        .any(|(directory, _)| tree.at(&join(directory, "Module.symvers")).is_some());
    if !has_symvers {
        let message = "no lib/modules/RELEASE/Module.symvers";
        let fix = "add the file from the kernel build: the runtime refuses a kernel without it";
        findings.add(Rule::ModuleSymvers, message, fix);
    }
}

/// An index lists the files that existed when it was made: one from an image does not know the host's.
fn check_indexes(tree: &FileTree, claims: &LabelFacts, findings: &mut Findings) {
    let fix = match claims.placement {
        Placement::Above => {
            "remove it: it replaces the host's index, so that the host finds only your files"
        }
        Placement::Below => {
            "remove it: the host's index hides it and does not list your files; update the index in a \
             hook (depmod, ldconfig)"
        }
    };
    for path in INDEXES {
        if tree.at(path).is_some_and(|entry| !entry.is_directory()) {
            findings.add_at(
                Rule::IndexFile,
                path,
                "an index that should list all files of the host",
                fix,
            );
        }
    }
    // A kernel in the image comes with all of its modules.
    if claims.kernel_abi.is_some() {
        return;
    }
    for (directory, _) in releases(tree) {
        for (path, entry) in tree.below(directory) {
            let (parent, name) = split(path);
            if parent == directory && name.starts_with("modules.") && !entry.is_directory() {
                let message = "an index that should list all modules of this kernel";
                findings.add_at(Rule::IndexFile, path, message, fix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::rules;
    use crate::check::rules::tree::EntryKind;
    use crate::check::rules::tree::tests::{file, link, tree};

    fn hashed(byte: u8) -> Entry {
        let content = Content { size: 1, sha256: Some([byte; 32]), ..Content::default() };
        Entry { kind: EntryKind::File(content), mode: 0o644, uid: 0, gid: 0 }
    }

    fn module(release: &str) -> Entry {
        let content = Content { module_release: Some(release.to_owned()), ..Content::default() };
        Entry { kind: EntryKind::File(content), mode: 0o644, uid: 0, gid: 0 }
    }

    fn apply(tree: &FileTree, claims: &LabelFacts) -> Vec<&'static str> {
        let mut findings = Findings::default();
        check(tree, claims, &mut findings);
        rules(findings)
    }

    #[test]
    fn modules_must_be_for_the_kernel_that_is_claimed() {
        let claims = |version: &str| LabelFacts {
            kernel_version: Some(version.to_owned()),
            claims_kernel: true,
            known: true,
            ..LabelFacts::default()
        };
        let good = tree(&[("lib/modules/6.1.83-yocto/a.ko", module("6.1.83-yocto"))]);
        assert!(apply(&good, &claims("6.1.83")).is_empty());
        assert_eq!(apply(&good, &claims("6.1.8")), ["module-release"]);
        assert_eq!(
            apply(&good, &LabelFacts { known: true, ..LabelFacts::default() }),
            ["module-claim"]
        );
        assert!(apply(&good, &LabelFacts::default()).is_empty(), "labels that are not known");
        let moved = tree(&[("usr/lib/modules/6.1.83/x/a.ko", module("6.1.83-yocto"))]);
        assert_eq!(apply(&moved, &claims("6.1.83")), ["module-release"]);
        let packed = tree(&[("usr/lib/modules/5.10.1/x/a.ko.xz", file(0o644, b""))]);
        assert_eq!(apply(&packed, &claims("6.1.83")), ["module-release"]);
        let none = tree(&[("usr/lib/modules/5.10.1/README", file(0o644, b""))]);
        assert!(apply(&none, &claims("6.1.83")).is_empty());
    }

    /// A hook loads such modules with insmod.
    #[test]
    fn modules_anywhere_must_be_for_the_kernel_that_is_claimed() {
        let labels = |version: Option<&str>| LabelFacts {
            kernel_version: version.map(str::to_owned),
            claims_kernel: version.is_some(),
            known: true,
            ..LabelFacts::default()
        };
        let claimed = || labels(Some("6.1.83"));
        for path in ["usr/lib/drv/foo.ko", "lib/modules/foo.ko", "foo.ko"] {
            let other = tree(&[(path, module("5.10.1-other"))]);
            assert_eq!(apply(&other, &claimed()), ["module-release"], "{path}");
            let good = tree(&[(path, module("6.1.83-yocto"))]);
            assert!(apply(&good, &claimed()).is_empty(), "{path}");
            assert_eq!(apply(&good, &labels(None)), ["module-claim"], "{path}");
            assert!(apply(&good, &LabelFacts::default()).is_empty(), "labels that are not known");
        }
        // What cannot be read: it counts, and what it is for is not known.
        let mut object = b"\x7fELF\x02\x01\x01".to_vec();
        object.resize(20, 0);
        for (path, head) in [("opt/foo.ko", &object[..]), ("opt/foo.ko.xz", b"\xfd7zXZ")] {
            let silent = tree(&[(path, file(0o644, head))]);
            assert_eq!(apply(&silent, &labels(None)), ["module-claim"], "{path}");
            assert!(apply(&silent, &claimed()).is_empty(), "{path}");
        }
        // A text in Korean.
        for path in ["usr/share/doc/README.ko.gz", "usr/share/doc/README.ko"] {
            let text = tree(&[(path, file(0o644, b"text"))]);
            assert!(apply(&text, &labels(None)).is_empty(), "{path}");
        }
        let both =
            tree(&[("lib/modules/6.1.83/a.ko", module("6.1.83")), ("a.ko", module("6.1.83"))]);
        assert_eq!(apply(&both, &labels(None)), ["module-claim"], "one for all");
    }

    #[test]
    fn a_claimed_kernel_is_a_file_directly_in_boot_with_its_symbol_versions() {
        let abi = "a".repeat(64);
        let claims = LabelFacts {
            kernel_abi: Some(abi.clone()),
            claims_kernel: true,
            known: true,
            ..LabelFacts::default()
        };
        let symvers = ("lib/modules/6.1.0/Module.symvers", file(0o644, b""));
        let kernel = |path| (path, hashed(0xaa));
        let good = tree(&[kernel("boot/bzImage"), symvers.clone()]);
        assert_eq!(apply(&good, &claims), ["kernel-override"]);
        let no = tree(&[kernel("boot/bzImage")]);
        assert_eq!(apply(&no, &claims), ["module-symvers", "kernel-override"]);
        let no = tree(&[kernel("boot/sub/bzImage"), symvers.clone()]);
        assert_eq!(apply(&no, &claims), ["kernel-abi-file"]);
        let no = tree(&[("boot/bzImage", link("../bzImage")), kernel("bzImage"), symvers.clone()]);
        assert_eq!(apply(&no, &claims), ["kernel-abi-file"]);
        let mut empty = hashed(0xaa);
        if let EntryKind::File(content) = &mut empty.kind {
            content.size = 0;
        }
        let no = tree(&[("boot/bzImage", empty), symvers.clone()]);
        assert_eq!(apply(&no, &claims), ["kernel-abi-file", "kernel-override"]);
        let no = tree(&[("boot/bzImage", hashed(0xbb)), symvers]);
        assert_eq!(apply(&no, &claims), ["kernel-abi-file", "kernel-override"]);
        let marker = tree(&[(MARKER, file(0o644, b""))]);
        assert_eq!(apply(&marker, &LabelFacts::default()), ["boot-marker"]);
    }

    #[test]
    fn an_index_of_the_host_is_reported_but_not_that_of_an_own_kernel() {
        let tree = tree(&[
            ("lib/modules/6.1.0/modules.dep", file(0o644, b"")),
            ("lib/modules/6.1.0/modules.alias.bin", file(0o644, b"")),
            ("etc/ld.so.cache", file(0o644, b"")),
        ]);
        assert_eq!(apply(&tree, &LabelFacts::default()), ["index-file"; 3]);
        let own = LabelFacts { kernel_abi: Some("x".to_owned()), ..LabelFacts::default() };
        let found = apply(&tree, &own);
        assert_eq!(found.iter().filter(|rule| **rule == "index-file").count(), 1, "{found:?}");
    }
}
