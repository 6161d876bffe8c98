//! Rules about kernels and their modules.

use crate::check::rules::labels::{Claims, Layering};
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::check::rules::tree::{Content, Entry, Kind, Tree, join, split};
use crate::model::container::exit::elf_machine;
use crate::model::extension::claim::version_of;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Where modules are.
const FOLDERS: [&str; 2] = ["lib/modules", "usr/lib/modules"];
/// While a volume is being filled it has a file of this name, which an image must not bring.
const MARKER: &str = "boot/.fabricating";
/// Indexes with a fixed place that cover what all of a host's packages brought.
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
pub(crate) fn check(tree: &Tree, claims: &Claims, findings: &mut Findings) {
    check_modules(tree, claims, findings);
    check_indexes(tree, claims, findings);
    if let Some(abi) = &claims.kernel_abi {
        check_kernel(tree, abi, findings);
    }
    if tree.at(MARKER).is_some() {
        let message = "a volume has a file of this name while it is being filled";
        findings.add_at(Rule::BootMarker, MARKER, message, "remove it from the image");
    }
}

/// The folders `lib/modules/RELEASE` with their release.
fn releases(tree: &Tree) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    for modules in FOLDERS {
        for (path, entry) in tree.below(modules) {
            let (folder, release) = split(path);
            if folder == modules && entry.is_folder() {
                found.push((path.to_owned(), release));
            }
        }
    }
    found
}

fn is_module(path: &str) -> bool {
    [".ko", ".ko.gz", ".ko.xz", ".ko.zst"].iter().any(|end| path.ends_with(end))
}

/// The modules that lie in no folder of a release, where modprobe finds none: hooks load such with
/// insmod. A text in Korean may have such a name too.
fn elsewhere(tree: &Tree) -> impl Iterator<Item = (&str, &Content)> {
    let has_release = |path: &str| {
        let inside = |folder: &&str| path.strip_prefix(folder)?.strip_prefix('/')?.split_once('/');
        FOLDERS.iter().find_map(inside).is_some()
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

fn check_modules(tree: &Tree, claims: &Claims, findings: &mut Findings) {
    let mut unclaimed = None;
    for (folder, release) in releases(tree) {
        let modules: Vec<(&str, &Entry)> =
            tree.below(&folder).filter(|(path, _)| is_module(path)).collect();
        if modules.is_empty() {
            continue;
        }
        unclaimed = unclaimed.or(Some(folder.clone()));
        if let Some(claimed) =
            claims.kernel_version.as_ref().filter(|&it| it != version_of(release))
        {
            let message = format!("modules for {release}, but kernel-version claims {claimed}");
            let mend = "build them for the claimed kernel, or claim the one they are for";
            findings.add_at(Rule::ModuleRelease, &folder, message, mend);
        }
        let strangers = modules.iter().filter_map(|(path, entry)| {
            let own = entry.content()?.module_release.as_deref()?;
            (own != release).then_some((path, own))
        });
        for (path, own) in strangers {
            let message = format!("it was built for {own} and lies in the folder of {release}");
            let mend = "the kernel refuses it there; build it for the kernel it is meant for";
            findings.add_at(Rule::ModuleRelease, path, message, mend);
        }
    }
    for (path, content) in elsewhere(tree) {
        unclaimed = unclaimed.or_else(|| Some(path.to_owned()));
        let (Some(own), Some(claimed)) = (&content.module_release, &claims.kernel_version) else {
            continue;
        };
        if version_of(own) != claimed {
            let message = format!("it was built for {own}, but kernel-version claims {claimed}");
            let mend = "build it for the claimed kernel, or claim the one that it is for";
            findings.add_at(Rule::ModuleRelease, path, message, mend);
        }
    }
    if let Some(place) = unclaimed.filter(|_| claims.known && !claims.claims_kernel) {
        let message = "kernel modules, but no claim on the kernel";
        let mend = "label the image io.balena.image.kernel-version=M.m.p, so that it is cleaned up \
                    when an OS update brings another kernel";
        findings.add_at(Rule::ModuleClaim, &place, message, mend);
    }
}

/// What the runtime asks of an extension that claims a kernel, before it arms it.
fn check_kernel(tree: &Tree, abi: &str, findings: &mut Findings) {
    let mut hashes = BTreeSet::new();
    let mut unread = false;
    for (path, entry) in tree.below("boot") {
        if split(path).0 != "boot" {
            continue;
        }
        if let Kind::File(content) = &entry.kind {
            unread |= content.sha256.is_none();
            hashes.extend(content.sha256.as_ref().map(hex));
        }
    }
    if tree.below("boot").any(|(path, entry)| split(path).0 == "boot" && entry.content().is_some())
    {
        let message = "the image brings a kernel, and this version of the runtime installs none";
        let mend =
            "the start of such a container is refused until the runtime has kernel overrides";
        findings.add_at(Rule::KernelOverride, "boot", message, mend);
    }
    if !hashes.contains(abi) {
        let count = hashes.len();
        let message = match unread {
            true => {
                "a file in /boot is larger than any kernel, and was not hashed; none of the others is it"
                    .to_owned()
            }
            false => {
                format!("none of the {count} regular file(s) directly in /boot hashes to {abi}")
            }
        };
        let mend = "put the kernel image itself (no symbolic link to it) into /boot, and label the image with \
                    the output of sha256sum for it";
        findings.add_at(Rule::KernelAbiFile, "boot", message, mend);
    }
    let has_symvers =
        releases(tree).iter().any(|(folder, _)| tree.at(&join(folder, "Module.symvers")).is_some());
    if !has_symvers {
        let message = "there is no lib/modules/RELEASE/Module.symvers";
        let mend =
            "ship the one that the kernel build left: the runtime refuses the kernel without";
        findings.add(Rule::ModuleSymvers, message, mend);
    }
}

/// As sha256sum writes it.
fn hex(hash: &[u8; 32]) -> String {
    let mut text = String::new();
    for byte in hash {
        // A formatter into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An index lists what was there when it was made. That of an image knows nothing of the host's.
fn check_indexes(tree: &Tree, claims: &Claims, findings: &mut Findings) {
    let mend = match claims.layering {
        Layering::Above => "leave it out: it replaces the host's, which then finds only yours",
        Layering::Below => {
            "leave it out: the host's own wins, which knows nothing of your files; \
                            have a hook make the index (depmod, ldconfig)"
        }
    };
    for path in INDEXES {
        if tree.at(path).is_some_and(|entry| !entry.is_folder()) {
            findings.add_at(Rule::IndexFile, path, "an index of all the host's files", mend);
        }
    }
    // An own kernel has modules of its own, all of which come with it.
    if claims.kernel_abi.is_some() {
        return;
    }
    for (folder, _) in releases(tree) {
        for (path, entry) in tree.below(&folder) {
            let (parent, name) = split(path);
            if parent == folder && name.starts_with("modules.") && !entry.is_folder() {
                let message = "an index of all modules of this kernel";
                findings.add_at(Rule::IndexFile, path, message, mend);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::rules;
    use crate::check::rules::tree::tests::{file, link, tree};

    fn hashed(byte: u8) -> Entry {
        let content = Content { sha256: Some([byte; 32]), ..Content::default() };
        Entry { kind: Kind::File(content), mode: 0o644, uid: 0, gid: 0 }
    }

    fn module(release: &str) -> Entry {
        let content = Content { module_release: Some(release.to_owned()), ..Content::default() };
        Entry { kind: Kind::File(content), mode: 0o644, uid: 0, gid: 0 }
    }

    fn apply(tree: &Tree, claims: &Claims) -> Vec<&'static str> {
        let mut findings = Findings::default();
        check(tree, claims, &mut findings);
        rules(findings)
    }

    #[test]
    fn modules_must_be_for_the_kernel_that_is_claimed() {
        let claims = |version: &str| Claims {
            kernel_version: Some(version.to_owned()),
            claims_kernel: true,
            known: true,
            ..Claims::default()
        };
        let good = tree(&[("lib/modules/6.1.83-yocto/a.ko", module("6.1.83-yocto"))]);
        assert!(apply(&good, &claims("6.1.83")).is_empty());
        assert_eq!(apply(&good, &claims("6.1.8")), ["module-release"]);
        assert_eq!(apply(&good, &Claims { known: true, ..Claims::default() }), ["module-claim"]);
        assert!(apply(&good, &Claims::default()).is_empty(), "labels that are not known");
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
        let labels = |version: Option<&str>| Claims {
            kernel_version: version.map(str::to_owned),
            claims_kernel: version.is_some(),
            known: true,
            ..Claims::default()
        };
        let claimed = || labels(Some("6.1.83"));
        for path in ["usr/lib/drv/foo.ko", "lib/modules/foo.ko", "foo.ko"] {
            let other = tree(&[(path, module("5.10.1-other"))]);
            assert_eq!(apply(&other, &claimed()), ["module-release"], "{path}");
            let good = tree(&[(path, module("6.1.83-yocto"))]);
            assert!(apply(&good, &claimed()).is_empty(), "{path}");
            assert_eq!(apply(&good, &labels(None)), ["module-claim"], "{path}");
            assert!(apply(&good, &Claims::default()).is_empty(), "labels that are not known");
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
        let claims = Claims {
            kernel_abi: Some(abi.clone()),
            claims_kernel: true,
            known: true,
            ..Claims::default()
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
        let no = tree(&[("boot/bzImage", hashed(0xbb)), symvers]);
        assert_eq!(apply(&no, &claims), ["kernel-abi-file", "kernel-override"]);
        let marker = tree(&[(MARKER, file(0o644, b""))]);
        assert_eq!(apply(&marker, &Claims::default()), ["boot-marker"]);
    }

    #[test]
    fn an_index_of_the_host_is_told_but_not_that_of_an_own_kernel() {
        let tree = tree(&[
            ("lib/modules/6.1.0/modules.dep", file(0o644, b"")),
            ("lib/modules/6.1.0/modules.alias.bin", file(0o644, b"")),
            ("etc/ld.so.cache", file(0o644, b"")),
        ]);
        assert_eq!(apply(&tree, &Claims::default()), ["index-file"; 3]);
        let own = Claims { kernel_abi: Some("x".to_owned()), ..Claims::default() };
        let found = apply(&tree, &own);
        assert_eq!(found.iter().filter(|rule| **rule == "index-file").count(), 1, "{found:?}");
    }
}
