//! Tests of `unpack.rs`: what dockerd 20.10 and 26.1 were seen to load and to refuse.

use super::*;
use crate::check::rules::tree::{Content, FileTree};

fn member(name: &str, kind: MemberKind) -> Member {
    let (name, attributes) = (name.to_owned(), Vec::new());
    Member { name, kind, mode: 0o755, uid: 0, gid: 0, attributes }
}

fn file(name: &str) -> Member {
    member(name, MemberKind::File(Content::default()))
}

fn directory(name: &str) -> Member {
    member(name, MemberKind::Directory)
}

fn link(name: &str, target: &str) -> Member {
    member(name, MemberKind::Link { target: target.to_owned() })
}

fn hard(name: &str, target: &str) -> Member {
    member(name, MemberKind::HardLink { target: target.to_owned() })
}

fn device(name: &str) -> Member {
    member(name, MemberKind::Device { whiteout: true })
}

fn unpack(members: Vec<Member>) -> Unpacked {
    let mut unpacking = Unpacking::default();
    for member in members {
        unpacking.add(member);
    }
    unpacking.finish()
}

fn tree(members: Vec<Member>) -> (FileTree, Vec<Fault>) {
    let unpacked = unpack(members);
    let mut tree = FileTree::default();
    tree.add_layer(unpacked.layer);
    (tree, unpacked.faults)
}

#[test]
fn what_engines_refuse_is_a_fault_at_its_path() {
    let long = "n".repeat(256);
    for (members, path, expected) in [
        (vec![file("a"), file("./a")], "a", "twice"),
        (vec![file("/a"), file("//a")], "a", "twice"),
        (vec![directory("a"), file("a/b"), directory("./a/")], "a", "twice"),
        (vec![file("b/../a"), file("a")], "a", "twice"),
        (vec![file("f"), file("f/y")], "f/y", "below \"f\", which is a file"),
        (vec![file("f"), file("f/y/z")], "f/y/z", "below \"f\", which is a file"),
        (vec![device("f"), directory("f/y")], "f/y", "which is a whiteout"),
        (vec![file(".wh.f"), file("f/y")], "f/y", "which is a whiteout"),
        (vec![link("l", "u"), file("l/y")], "l/y", "below the link \"l\""),
        (vec![link("l", "u"), file("l/z/y")], "l/z/y", "below the link \"l\""),
        (vec![link("l", "l"), file("l/y")], "l/y", "too many links"),
        (vec![file("f"), link("l", "f"), file("l/y")], "l/y", "below \"f\", which is a file"),
        (vec![hard("a", "b")], "a", "hard link to \"b\""),
        (vec![hard("a", "b"), file("b")], "a", "hard link to \"b\""),
        (vec![hard("a", "a")], "a", "hard link to \"a\""),
        (vec![file("a"), hard("/a", "a")], "a", "hard link to \"a\""),
        (vec![file("f"), hard("a", "f/x")], "a", "hard link to \"f/x\""),
        (vec![directory("b"), hard("a", "b")], "a", "which names a directory"),
        (vec![hard("a", "")], "a", "which names a directory"),
        (vec![file("/")], "", "replace the rootfs"),
        (vec![directory("."), hard("/", ".")], "", "replace the rootfs"),
        (vec![file("..")], "..", "replace the rootfs"),
        (vec![file("a"), file(".wh.a")], ".wh.a", "whiteout of a path in this layer"),
        (vec![device("a"), file(".wh.a")], ".wh.a", "path in this layer"),
        (vec![file("q/.wh.")], "q/.wh.", "path in this layer"),
        (vec![file("q/.wh...")], "q/.wh...", "path in this layer"),
        (vec![file("f"), file("f/.wh.b")], "f/.wh.b", "which is a file"),
        (vec![link("l", "u"), file("l/.wh..wh..opq")], "l/.wh..wh..opq", "below the link"),
        (vec![link("l", "")], "l", "without a target"),
        (vec![link("l", &"d/".repeat(2048))], "l", "without a target"),
        (vec![file(&long)], &long, "longer than 255 bytes"),
        (vec![directory("a/b"), file("/a")], "a/b", "removes this directory"),
        (vec![directory("a"), link("/a", "nowhere")], "a", "removes this directory"),
        (vec![member("a", MemberKind::Unknown { flag: b'7' })], "a", "of type 7"),
        (vec![member("a", MemberKind::Unknown { flag: b'S' })], "a", "sparse file"),
        (vec![member("g", MemberKind::Global), member("g", MemberKind::Global)], "g", "twice"),
    ] {
        let faults = unpack(members).faults;
        let found: Vec<_> = faults.iter().map(|fault| fault.kind.to_string()).collect();
        assert_eq!(faults.len(), 1, "{path}: {found:?}");
        assert!(found[0].contains(expected), "{path}: {found:?} does not say {expected}");
        assert_eq!(faults[0].path.as_deref().unwrap_or_default(), path);
    }
}

#[test]
fn what_engines_load_is_no_fault() {
    for members in [
        vec![file("a"), file("/a")],
        vec![directory("a"), directory("/a")],
        vec![directory("/"), directory("."), file("hooks/start")],
        vec![file(".")],
        vec![directory("..")],
        vec![file("a/b"), file("a")],
        vec![file("b"), hard("a", "/b"), hard("x/c", "../../b")],
        vec![link("b", "t"), hard("a", "b")],
        vec![file("u/f"), link("l", "u"), hard("a", "l/f")],
        vec![file(".wh.a"), file("a")],
        vec![file(".wh.x/y"), file("m/.wh..wh..opq/x")],
        vec![directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), hard("a", ".wh..wh.plnk/1.2")],
        vec![file("l"), file("l/.wh..wh..opq")],
        vec![directory("a/b"), directory("u/b"), link("/a", "u")],
        vec![file(&"n".repeat(255)), file(&format!(".wh.{}", "n".repeat(252)))],
        vec![link("l", "new"), file("/l")],
        vec![directory("u"), link("l", "../../.."), file("l/u/a")],
    ] {
        let names: Vec<String> = members.iter().map(|member| member.name.clone()).collect();
        assert_eq!(unpack(members).faults, [], "{names:?}");
    }
}

#[test]
fn a_file_behind_a_link_of_its_layer_lies_where_the_link_leads() {
    let (found, faults) = tree(vec![directory("usr/lib"), link("lib", "usr/lib"), file("lib/y")]);
    assert_eq!(faults, []);
    let paths: Vec<_> = found.iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["lib", "usr", "usr/lib", "usr/lib/y"]);
}

#[test]
fn both_names_of_a_file_have_the_mode_of_the_second() {
    let mut second = hard("b", "a");
    second.mode = 0o644;
    let (found, _) = tree(vec![file("a"), second]);
    assert_eq!((found.at("a").unwrap().mode, found.at("b").unwrap().mode), (0o644, 0o644));
}

#[test]
fn whiteouts_hide_and_the_book_keeping_of_aufs_does_not() {
    let members = vec![file("a/.wh.x"), file(".wh..wh.aufs"), file("b/.wh..wh..opq"), device("c")];
    let (found, faults) = tree(members);
    assert_eq!(faults, []);
    let expected = ["a/x", "c"].map(|path| Whiteout::Of(path.to_owned()));
    let opaque = Whiteout::Opaque("b".to_owned());
    assert_eq!(found.whiteouts().cloned().collect::<Vec<_>>(), [&expected[..], &[opaque]].concat());
}

#[test]
fn a_path_that_leads_out_lies_below_the_root_and_is_reported() {
    let unpacked = unpack(vec![file("../../etc/x")]);
    assert_eq!(unpacked.leads_out.as_deref(), Some("../../etc/x"));
    let (found, faults) = tree(vec![file("../../etc/x")]);
    assert!(found.at("etc/x").is_some() && faults.is_empty());
}

#[test]
fn the_kernel_decides_about_attributes() {
    let mut v2 = vec![1, 0, 0, 2];
    v2.resize(20, 0);
    for (name, value, expected) in [
        ("user.x", &b"y"[..], true),
        ("security.selinux", b"y", true),
        ("security.capability", v2.as_slice(), true),
        ("security.capability", b"y", false),
        ("security.capability", &v2[..12], false),
        ("system.posix_acl_access", b"y", false),
        ("nonsense", b"y", false),
        ("user.", b"y", false),
    ] {
        let attributes = vec![(name.to_owned(), value.to_vec())];
        let member = Member { attributes, ..file("a") };
        assert_eq!(unpack(vec![member]).faults.is_empty(), expected, "{name}");
    }
    let long = (format!("user.{}", "x".repeat(251)), Vec::new());
    let large = ("user.x".to_owned(), vec![0; 65_537]);
    for attribute in [long, large] {
        let member = Member { attributes: vec![attribute], ..file("a") };
        assert_eq!(unpack(vec![member]).faults.len(), 1);
    }
}

/// Each of these paths is a thousand steps through a link.
#[test]
fn links_are_not_followed_without_end() {
    let deep = vec!["d"; 1000].join("/");
    let mut unpacking = Unpacking::default();
    unpacking.add(directory(&deep));
    unpacking.add(link("l", &deep));
    let mut count = 0;
    while unpacking.weight() < crate::check::rules::tree::WEIGHT_MAX {
        count += 1;
        unpacking.add(file(&format!("l/{count}")));
    }
    assert!(count < 2000, "{count}");
}
