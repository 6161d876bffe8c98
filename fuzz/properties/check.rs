//! The entry points for what `check` reads of an image: its documents, and its layers once their headers
//! are read. `manager::image_archive` has whole archives.

use crate::check::rules::image_documents::{self, Configuration, INDEX, Manifest};
use crate::check::rules::layer::{Member, MemberKind};
use crate::check::rules::tar_header;
use crate::check::rules::tree::{Content, FileTree};
use crate::check::rules::unpack::Unpacking;
use crate::fuzzing::{assert_one_line, assert_printable};
use std::collections::BTreeMap;

/// The documents of an image (`check/rules/image_documents.rs`, `model/text/go_json.rs`), and the records of tar
/// (`check/rules/tar_header.rs`).
pub fn image_documents(bytes: &[u8]) {
    match Configuration::parse(bytes, "c") {
        Ok(configuration) => {
            let ids = configuration.diff_ids.len();
            // With another number of layers it is always refused.
            assert!(configuration.refusal(ids + 1).is_some());
            if let Some(why) = configuration.refusal(ids) {
                assert_printable(&crate::model::text::cause::on_one_line(why));
            }
        }
        Err(error) => assert_one_line(&error),
    }
    let named =
        |manifest: &Manifest| assert!(!manifest.is_by_digest || !manifest.config.is_empty());
    match image_documents::manifests(bytes) {
        Ok(manifests) => manifests.iter().for_each(named),
        Err(error) => assert_one_line(&error),
    }
    let documents = BTreeMap::from([
        (INDEX.to_owned(), bytes.to_vec()),
        ("blobs/sha256/m".to_owned(), bytes.to_vec()),
        ("blobs/sha256/c".to_owned(), b"{}".to_vec()),
    ]);
    match image_documents::manifests_of_layout(&documents) {
        Ok(manifests) => manifests.iter().for_each(named),
        Err(error) => assert_one_line(&error),
    }
    if let Ok(records) = tar_header::records(bytes) {
        let written: Vec<u8> = records.iter().flat_map(|record| one_record(*record)).collect();
        assert_eq!(tar_header::records(&written).as_ref(), Ok(&records));
        let _ = tar_header::Header::default().extend(&records);
    }
    if let Some(block) = bytes.first_chunk::<{ tar_header::BLOCK }>() {
        let _ = tar_header::Header::parse(block);
    }
}

fn one_record((key, value): tar_header::PaxRecord<'_>) -> Vec<u8> {
    let rest = [b" ", key, b"=", value, b"\n"].concat();
    let mut len = rest.len() + 1;
    while len.to_string().len() + rest.len() != len {
        len += 1;
    }
    [len.to_string().as_bytes(), &rest].concat()
}

/// A layer (`check/rules/unpack.rs`): each line is a kind, a name and a target, with tabs between.
pub fn layer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut unpacking = Unpacking::default();
    for line in text.lines() {
        let mut parts = line.splitn(3, '\t');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (letter, name, target) = (next(), next(), next());
        let kind = match letter.as_str() {
            "d" => MemberKind::Directory,
            "l" => MemberKind::Link { target },
            "h" => MemberKind::HardLink { target },
            "c" => MemberKind::Device { whiteout: true },
            "b" => MemberKind::Device { whiteout: false },
            "p" => MemberKind::Fifo,
            "g" => MemberKind::Global,
            "x" => MemberKind::Unknown { flag: b'x' },
            _ => MemberKind::File(Content::default()),
        };
        unpacking.add(Member { name, kind, mode: 0o644, uid: 0, gid: 0, attributes: Vec::new() });
    }
    let weight = unpacking.weight();
    let unpacked = unpacking.finish();
    for fault in &unpacked.faults {
        assert_printable(&crate::model::text::cause::on_one_line(fault.kind.to_string()));
    }
    let mut tree = FileTree::default();
    if weight < bytes.len() * 10_000 + 10_000 {
        tree.add_layer(unpacked.layer.clone());
        let files = unpacked.layer.len();
        assert!(files <= tree.iter().count() + tree.whiteouts().len());
        for (path, _) in tree.iter() {
            let inside = |part: &str| !matches!(part, "" | "." | "..");
            assert!(path.split('/').all(inside), "{path:?}");
            // What was unpacked lies in directories only, so that nothing lies behind a link.
            let mut directory = path;
            while let Some((parent, _)) = directory.rsplit_once('/') {
                assert!(tree.at(parent).is_some_and(|entry| entry.is_directory()), "{path:?}");
                directory = parent;
            }
        }
    }
}
