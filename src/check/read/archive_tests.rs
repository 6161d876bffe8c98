//! Tests of `archive.rs`: every kind of archive, and what hostile ones may ask for.

use super::*;
use crate::check::rules::{InputKind, layer::LayerRefusal, tree::FileTree};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;
use tar::EntryType;

enum TestEntry<'a> {
    File(&'a str, u32, &'a [u8]),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Char(&'a str),
}

fn archive(items: &[TestEntry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match item {
            TestEntry::File(path, mode, bytes) => {
                header.set_mode(*mode);
                header.set_size(u64::try_from(bytes.len()).unwrap());
                builder.append_data(&mut header, path, *bytes).unwrap();
            }
            TestEntry::Link(path, target) => {
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, path, target).unwrap();
            }
            TestEntry::Hard(path, target) => {
                header.set_entry_type(EntryType::Link);
                builder.append_link(&mut header, path, target).unwrap();
            }
            TestEntry::Char(path) => {
                header.set_entry_type(EntryType::Char);
                header.set_device_major(0).unwrap();
                header.set_device_minor(0).unwrap();
                builder.append_data(&mut header, path, &b""[..]).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn images(bytes: &[u8]) -> Vec<Subject> {
    let images = read(bytes).unwrap();
    assert!(images.iter().all(|image| image.input == InputKind::Image), "{images:?}");
    images
}

fn export(bytes: &[u8]) -> Subject {
    let export = read(bytes).unwrap().remove(0);
    assert_eq!(export.input, InputKind::Export);
    export
}

fn paths(tree: &FileTree) -> Vec<&str> {
    tree.iter().filter(|(_, entry)| !entry.is_directory()).map(|(path, _)| path).collect()
}

const CONFIG: &[u8] = br#"{"architecture":"arm64","config":{"Labels":{"a":"1"},"Cmd":["x"]}}"#;

#[test]
fn an_image_of_docker_is_its_layers_on_top_of_each_other() {
    let low = archive(&[
        TestEntry::File("hooks/start", 0o755, b"#!/bin/sh\n"),
        TestEntry::File("gone", 0o644, b""),
        TestEntry::Hard("hooks/create", "hooks/start"),
    ]);
    let high = archive(&[
        TestEntry::File(".wh.gone", 0o644, b""),
        TestEntry::Char("hidden"),
        TestEntry::Link("b", "/a"),
    ]);
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["1/layer.tar","2/layer.tar",
        "3/layer.tar"]}]"#;
    let whole = archive(&[
        TestEntry::File("1/layer.tar", 0o644, &low),
        TestEntry::File("2/layer.tar", 0o644, &packed(&high)),
        // What two layers share is there once.
        TestEntry::Link("3/layer.tar", "../2/layer.tar"),
        TestEntry::File("c.json", 0o644, CONFIG),
        TestEntry::File("manifest.json", 0o644, manifest),
    ]);
    for bytes in [whole.clone(), packed(&whole)] {
        let images = images(&bytes);
        assert_eq!(images[0].name, "x:1");
        let configuration = images[0].image.as_ref().unwrap();
        assert_eq!(configuration.architecture.as_deref(), Some("arm64"));
        assert_eq!(paths(&images[0].tree), ["b", "hooks/create", "hooks/start"]);
        assert_eq!(images[0].tree.whiteouts().len(), 2);
        let hook = images[0].tree.at("hooks/create").unwrap();
        assert_eq!(
            (hook.mode, hook.content().unwrap().head.as_slice()),
            // The permissions of the later name are those of both.
            (0o644, &b"#!/bin/sh"[..])
        );
    }
}

#[test]
fn a_layout_is_read_whatever_the_order_of_its_blobs() {
    let layer = packed(&archive(&[TestEntry::File("boot/kernel", 0o644, b"")]));
    let manifest = br#"{"config":{"digest":"sha256:c"},"layers":[{"digest":"sha256:l"}]}"#;
    let index = br#"{"manifests":[{"digest":"sha256:m"}]}"#;
    let items = [
        TestEntry::File("blobs/sha256/l", 0o644, &layer),
        TestEntry::File("blobs/sha256/m", 0o644, manifest),
        TestEntry::File("index.json", 0o644, index),
        TestEntry::File("oci-layout", 0o644, b"{}"),
        TestEntry::File("blobs/sha256/c", 0o644, CONFIG),
    ];
    let images = images(&archive(&items));
    assert!(images[0].tree.at("boot/kernel").unwrap().content().unwrap().sha256.is_some());
}

#[test]
fn the_files_of_a_container_are_an_export_whatever_their_names() {
    let bytes = archive(&[
        TestEntry::File("./usr/bin/x", 0o4755, b"\x7fELF"),
        TestEntry::File("manifest.json", 0o644, b"{}"),
        TestEntry::Link("link", "usr/bin/x"),
    ]);
    let tree = export(&bytes).tree;
    assert_eq!(paths(&tree), ["link", "manifest.json", "usr/bin/x"]);
    assert_eq!(tree.at("usr/bin/x").unwrap().mode, 0o4755);
}

#[test]
fn what_is_broken_is_named() {
    let layer = archive(&[TestEntry::File("a", 0o644, b"")]);
    let config = TestEntry::File("c.json", 0o644, CONFIG);
    let manifest = br#"[{"Config":"c.json","Layers":["1/layer.tar"]}]"#;
    let manifest = TestEntry::File("manifest.json", 0o644, manifest);
    let whole = archive(&[TestEntry::File("1/layer.tar", 0o644, &layer)]);
    let lone = archive(&[TestEntry::File("manifest.json", 0o644, br#"[{"Config":"d.json"}]"#)]);
    let mut other = packed(&whole);
    other.truncate(other.len() / 2);
    for (bytes, expected) in [
        (b"hello".to_vec(), "not a tar archive"),
        (Vec::new(), "not a tar archive"),
        (b"\xfd7zXZ\0....".to_vec(), "compressed with xz"),
        (whole.clone(), "the archive has layers but no manifest"),
        (whole[..700].to_vec(), "cannot read the tar archive"),
        (other, "cannot read the tar archive"),
        (lone, "does not contain d.json, which the manifest names"),
        (archive(&[config, manifest]), "does not contain 1/layer.tar, which the manifest names"),
    ] {
        let error = crate::model::text::cause::chain(&read(bytes.as_slice()).unwrap_err());
        assert!(error.contains(expected), "{error}\n does not say {expected}");
    }
}

#[test]
fn an_empty_layer_is_a_layer() {
    let manifest = br#"[{"Config":"c.json","Layers":["1/layer.tar"]}]"#;
    let bytes = archive(&[
        TestEntry::File("1/layer.tar", 0o644, &archive(&[])),
        TestEntry::File("c.json", 0o644, CONFIG),
        TestEntry::File("manifest.json", 0o644, manifest),
    ]);
    assert!(images(&bytes)[0].tree.iter().next().is_none());
}

/// As capabilities and access lists are; the library takes a new line for the end of a record.
#[test]
fn attributes_with_any_bytes_are_no_damage() {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind) in [("a", EntryType::Directory), ("a/b", EntryType::Regular)] {
        let attributes =
            [("SCHILY.xattr.a", &b"\x01\n\x02"[..]), ("SCHILY.xattr.trusted.overlay.opaque", b"y")];
        builder.append_pax_extensions(attributes).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_data(&mut header, path, &b""[..]).unwrap();
    }
    let bytes = builder.into_inner().unwrap();
    let tree = export(&bytes).tree;
    assert_eq!(paths(&tree), ["a/b"]);
    assert_eq!(tree.whiteouts().len(), 1);
}

/// What GNU tar writes with --format=posix -S: the map of the holes stands before the bytes, and the
/// name is another one.
#[test]
fn a_sparse_file_that_would_be_misread_is_refused_with_the_way_out() {
    let mut builder = tar::Builder::new(Vec::new());
    let attributes = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"boot/bzImage"),
        ("GNU.sparse.realsize", b"1048576"),
    ];
    builder.append_pax_extensions(attributes).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(512);
    builder.append_data(&mut header, "boot/GNUSparseFile.1/bzImage", &[b'0'; 512][..]).unwrap();
    let layer = builder.into_inner().unwrap();
    let found = refusal(&layer);
    for part in ["\"boot/bzImage\"", "sparse", "without -S"] {
        assert!(found.contains(part), "{found}");
    }
    let manifest = br#"[{"Config":"c.json","Layers":["1/layer.tar"]}]"#;
    let found = refusal(&archive(&[
        TestEntry::File("1/layer.tar", 0o644, &layer),
        TestEntry::File("c.json", 0o644, CONFIG),
        TestEntry::File("manifest.json", 0o644, manifest),
    ]));
    assert!(found.contains("the layer 1/layer.tar") && found.contains("sparse"), "{found}");
}

/// A file is as much a kernel or a module under its second name as under its first.
#[test]
fn a_hard_link_says_what_the_file_in_a_directory_says() {
    let module = [&b"\x7fELF\x02\x01\x01"[..], &[0; 9], &[1, 0, 62, 0], b"\0vermagic=6.1.0 SMP\0"];
    let module = module.concat();
    let items = [
        TestEntry::File("aaa/bzImage", 0o644, &[7; 100_000]),
        TestEntry::File("aaa/small", 0o644, b"x"),
        TestEntry::File("aaa/module", 0o644, &module),
        TestEntry::Hard("boot/bzImage", "aaa/bzImage"),
        TestEntry::Hard("boot/small", "aaa/small"),
        TestEntry::Hard("boot/module.ko", "aaa/module"),
        TestEntry::Hard("lib/modules/6.1.0/x.ko", "aaa/module"),
        TestEntry::Hard("zzz/x.ko", "aaa/module"),
    ];
    let layer = archive(&items);
    let manifest = br#"[{"Config":"c.json","Layers":["1/layer.tar"]}]"#;
    let image = archive(&[
        TestEntry::File("1/layer.tar", 0o644, &layer),
        TestEntry::File("c.json", 0o644, CONFIG),
        TestEntry::File("manifest.json", 0o644, manifest),
    ]);
    let root = tempfile::tempdir().unwrap();
    tar::Archive::new(layer.as_slice()).unpack(root.path()).unwrap();
    let directory = crate::check::read::directory::load(root.path()).unwrap();
    let exported = export(&layer).tree;
    for tree in [&exported, &images(&image)[0].tree] {
        let content =
            |tree: &FileTree, path: &str| tree.at(path).unwrap().content().unwrap().clone();
        for path in ["boot/bzImage", "boot/small", "boot/module.ko"] {
            let found = content(tree, path).sha256;
            assert_eq!(found, content(&directory, path).sha256, "{path}");
            assert!(found.is_some(), "{path}");
        }
        for path in ["boot/module.ko", "lib/modules/6.1.0/x.ko", "zzz/x.ko"] {
            let found = content(tree, path).module_release;
            assert_eq!(found, content(&directory, path).module_release, "{path}");
            assert_eq!(found.as_deref(), Some("6.1.0"), "{path}");
        }
    }
}

/// Why it cannot be read, or why engines would refuse it.
fn refusal(bytes: &[u8]) -> String {
    let why = |refusal: &LayerRefusal| {
        let layer = refusal.layer.as_deref().unwrap_or_default();
        format!("its layer {layer}: {}; ", refusal.why)
    };
    match read(bytes) {
        Ok(subjects) => subjects.iter().flat_map(|it| &it.layers.refusals).map(why).collect(),
        Err(error) => crate::model::text::cause::chain(&error),
    }
}

#[test]
fn archives_of_other_tools_have_other_names() {
    let layer = archive(&[TestEntry::File("hooks/start", 0o755, b"#!/bin/sh\n")]);
    // Podman: layers beside the manifest. Builders that use go-containerregistry: compressed ones.
    for (config, name, bytes) in
        [("abc.json", "abc.tar", layer.clone()), ("sha256:abc", "def.tar.gz", packed(&layer))]
    {
        let manifest = format!(r#"[{{"Config":"{config}","Layers":["{name}"]}}]"#);
        let items = [
            TestEntry::File(name, 0o644, &bytes),
            TestEntry::File(config, 0o644, CONFIG),
            TestEntry::File("manifest.json", 0o644, manifest.as_bytes()),
        ];
        assert_eq!(paths(&images(&archive(&items))[0].tree), ["hooks/start"]);
    }
}

#[test]
fn an_export_has_every_file_whatever_it_could_be_in_an_image() {
    let long = vec![b'{'; usize::try_from(DOCUMENT_MAX).unwrap() + 1];
    let layer = archive(&[TestEntry::File("a", 0o644, b"")]);
    let bytes = archive(&[
        TestEntry::File("app.json", 0o4755, b"{}"),
        TestEntry::File("long.json", 0o644, &long),
        TestEntry::File("cache/layer.tar", 0o666, &layer),
        TestEntry::File("data.tar", 0o644, &packed(&layer)[..20]),
        TestEntry::File("usr/bin/x", 0o755, b""),
    ]);
    let tree = export(&bytes).tree;
    let names = ["app.json", "cache/layer.tar", "data.tar", "long.json", "usr/bin/x"];
    assert_eq!(paths(&tree), names);
    assert_eq!(tree.at("app.json").unwrap().mode, 0o4755);
    assert_eq!(tree.at("cache/layer.tar").unwrap().mode, 0o666);
    assert_eq!(tree.at("long.json").unwrap().content().unwrap().size, DOCUMENT_MAX + 1);
}

#[test]
fn what_is_cut_off_or_damaged_at_any_place_is_no_verdict() {
    let layer = packed(&archive(&[TestEntry::File("usr/x", 0o644, &[7; 3000])]));
    let manifest = br#"[{"Config":"c.json","Layers":["1/layer.tar"]}]"#;
    let image = archive(&[
        TestEntry::File("1/layer.tar", 0o644, &layer),
        TestEntry::File("c.json", 0o644, CONFIG),
        TestEntry::File("manifest.json", 0o644, manifest),
    ]);
    let export =
        archive(&[TestEntry::File("usr/x", 0o644, b"x"), TestEntry::File("usr/y", 0o644, b"y")]);
    for whole in [image, export] {
        assert!(read(whole.as_slice()).is_ok());
        // The last block may be missing: one is enough.
        for len in (0..whole.len() - 1024).step_by(64) {
            // Between two files nothing is wrong but that there is no end.
            if let Ok(subjects) = read(&whole[..len]) {
                // All is there but what fills up the last block.
                let is_whole = len > whole.len() - 1536;
                assert!(subjects[0].layers.may_be_cut_off || is_whole);
            }
        }
        let packed = packed(&whole);
        for len in 0..packed.len() {
            assert!(read(&packed[..len]).is_err(), "{len} of {}", packed.len());
        }
        // The checksum is the last eight bytes.
        for at in packed.len() - 8..packed.len() {
            let mut damaged = packed.clone();
            damaged[at] ^= 1;
            assert!(read(damaged.as_slice()).is_err(), "{at} of {}", damaged.len());
        }
    }
    // Of a layer, too.
    for (at, expected) in [(layer.len() - 1, "1/layer.tar"), (0, "1/layer.tar")] {
        let mut damaged = layer.clone();
        damaged[at] ^= 1;
        let bytes = archive(&[
            TestEntry::File("1/layer.tar", 0o644, &damaged),
            TestEntry::File("c.json", 0o644, CONFIG),
            TestEntry::File("manifest.json", 0o644, manifest),
        ]);
        let refusal = refusal(&bytes);
        assert!(refusal.contains(expected), "{refusal}");
    }
}

/// An archive with a header of its own making, which the library would not write.
fn raw(path: &[u8], kind: u8, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_entry_type(EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn a_path_that_leads_out_is_reported_in_every_kind_of_entry() {
    let end = vec![0; 1024];
    for kind in [b'0', b'5', b'2', b'3', b'6', b'1'] {
        let bytes = [raw(b"usr/../../etc/x", kind, 0), end.clone()].concat();
        let facts = export(&bytes).layers;
        assert_eq!(facts.leading_out, ["../etc/x"], "{kind}");
    }
    let absolute = [raw(b"/etc//./x", b'0', 0), end].concat();
    let tree = export(&absolute).tree;
    assert_eq!(paths(&tree), ["etc/x"]);
}

#[test]
fn names_without_end_are_not_read_to_their_end() {
    // A name of 8 GiB that costs nothing to send.
    let head = raw(b"././@LongLink", b'L', 8 << 30);
    let stream = head.chain(io::repeat(b'a'));
    let error = crate::model::text::cause::chain(&read(stream).unwrap_err());
    assert!(error.contains("bytes of names and attributes for one file"), "{error}");
    let mut name = raw(b"././@LongLink", b'L', 5001);
    name.extend([&[b'a'; 5000][..], &[0; 120]].concat());
    let refusal = refusal(&[name, raw(b"a", b'0', 0), vec![0; 1024]].concat());
    assert!(refusal.contains("too long for an engine"), "{refusal}");
}

#[test]
fn what_a_small_archive_unpacks_to_has_a_limit() {
    // Read as one layer in another, over and over: the budget is one.
    let budget = Budget::of(100_000);
    let bytes = packed(&archive(&[TestEntry::File("a", 0o644, &vec![0; 200_000])]));
    let found = each_entry::<TarError>(&mut bytes.as_slice(), &budget, &mut |_| Ok(()));
    let error = crate::model::text::cause::chain(&found.unwrap_err());
    assert!(error.contains("unpacks to more than"), "{error}");
    let again = each_entry::<TarError>(&mut bytes.as_slice(), &budget, &mut |_| Ok(()));
    assert!(again.is_err(), "a budget that is used up remains so");
}

#[test]
fn a_small_manifest_cannot_ask_for_endless_work() {
    let long = "f".repeat(4000);
    let files: Vec<String> = (0..20).map(|index| format!("{index}{long}")).collect();
    let items: Vec<_> = files.iter().map(|path| TestEntry::File(path, 0o644, b"")).collect();
    let layer = archive(&items);
    let with = |layers: usize, images: usize| {
        let layers = vec!["\"1/layer.tar\""; layers].join(",");
        let image = format!(r#"{{"Config":"c.json","Layers":[{layers}]}}"#);
        let manifest = format!("[{}]", vec![image; images].join(","));
        archive(&[
            TestEntry::File("1/layer.tar", 0o644, &layer),
            TestEntry::File("c.json", 0o644, CONFIG),
            TestEntry::File("manifest.json", 0o644, manifest.as_bytes()),
        ])
    };
    assert_eq!(images(&with(3, 2)).len(), 2);
    assert!(refusal(&with(8000, 1)).contains("too many files for an extension"));
    assert!(refusal(&with(50, 200)).contains("save fewer at a time"));
    assert!(refusal(&with(1, IMAGES_MAX + 1)).contains("more than 256 images"));
}

#[test]
fn a_document_that_is_too_long_is_named() {
    let mut long = br#"{"config":{"Labels":{"a":""#.to_vec();
    long.resize(usize::try_from(DOCUMENT_MAX).unwrap() + 10, b'x');
    let manifest = br#"[{"Config":"c.json","Layers":[]}]"#;
    let items = |config, manifest| {
        [
            TestEntry::File("c.json", 0o644, config),
            TestEntry::File("manifest.json", 0o644, manifest),
        ]
    };
    assert!(refusal(&archive(&items(&long, manifest))).contains("the document c.json is longer"));
}

#[test]
fn only_a_layer_that_is_used_must_be_readable() {
    let layer = archive(&[TestEntry::File("usr/x", 0o644, b"")]);
    let with = |named: &str| {
        let manifest = format!(r#"[{{"Config":"c.json","Layers":["{named}"]}}]"#);
        archive(&[
            TestEntry::File("blobs/sha256/good", 0o644, &layer),
            TestEntry::File("blobs/sha256/xz", 0o644, b"\xfd7zXZ\0...."),
            TestEntry::File("c.json", 0o644, CONFIG),
            TestEntry::File("manifest.json", 0o644, manifest.as_bytes()),
        ])
    };
    assert_eq!(paths(&images(&with("blobs/sha256/good"))[0].tree), ["usr/x"]);
    let refusal = refusal(&with("blobs/sha256/xz"));
    let expected =
        "the layer blobs/sha256/xz: the archive is compressed with xz, which check cannot read";
    assert!(refusal.contains(expected), "{refusal}");
}

#[test]
fn directories_that_are_not_listed_count() {
    // 600 directories for each file, every path another.
    let deep = "/a".repeat(600);
    let paths: Vec<String> = (0..10).map(|index| format!("{index}{deep}")).collect();
    let items: Vec<_> = paths.iter().map(|path| TestEntry::File(path, 0o644, b"")).collect();
    let error = read(archive(&items).as_slice()).unwrap_err();
    assert!(error.to_string().contains("too many files"), "{error}");
}

proptest::proptest! {
    #[test]
    fn any_damage_is_an_error_or_another_archive_and_never_a_panic(
        damage in proptest::collection::vec((0_usize..10_000, proptest::num::u8::ANY), 1..20),
        compress in proptest::bool::ANY,
    ) {
        let layer = packed(&archive(&[TestEntry::File("hooks/start", 0o755, b"#!/bin/sh\n")]));
        let manifest = br#"[{"Config":"c.json","Layers":["1/layer.tar"]}]"#;
        let mut bytes = archive(&[
            TestEntry::File("1/layer.tar", 0o644, &layer),
            TestEntry::File("c.json", 0o644, CONFIG),
            TestEntry::File("manifest.json", 0o644, manifest),
        ]);
        if compress {
            bytes = packed(&bytes);
        }
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = read(bytes.as_slice());
    }
}
