//! Generated archives of images, as `docker save` writes them: valid ones, and archives with faults in any
//! combination. There are few names, so that entries interfere with each other.

use std::io::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::numbers::Numbers;

/// An archive, and a description of its contents for people.
pub(crate) struct Generated {
    pub(crate) bytes: Vec<u8>,
    pub(crate) description: String,
    /// Whether it has a layer that older engines cannot unpack.
    pub(crate) has_zstd: bool,
}

const NAMES: &str = "a b l m u a/x a/y a/x/z b/x l/x l/x/y m/x u/v u/v/w ./a /a a/ //a ./l/x u/../a ../a a/../../b \
    .. . / a/./x /l/x u/v/../w b/ m/./x/";
const WHITEOUTS: &str = ".wh.a a/.wh.x l/.wh.x u/v/.wh.w u/.wh.v .wh.l .wh.none a/.wh..wh..opq l/.wh..wh..opq \
    .wh..wh..opq .wh..wh.aufs /.wh.a";
const TARGETS: &str = "a b u u/v l m a/x /u /a/x ../a nowhere ../../u l/x .";

/// Makes the archive number `serial`.
pub(crate) fn generate(numbers: &mut Numbers, serial: usize) -> Generated {
    let mut made = Generated { bytes: Vec::new(), description: String::new(), has_zstd: false };
    let mut layers = Vec::new();
    for index in 0..1 + numbers.below(3) {
        made.description.push_str(&format!("layer {index}:"));
        layers.push(layer(numbers, &format!("serial-{serial}-{index}"), &mut made.description));
    }
    if numbers.one_in(10) {
        made.description.push_str(" the last layer twice;");
        layers.push(layers.last().unwrap().clone());
    }
    let config = configuration(numbers, &layers, &mut made.description);
    let mut files = Vec::new();
    for (index, layer) in layers.into_iter().enumerate() {
        let name = numbers.word("N/layer.tar /sha256:N.tar layers/N N blobs/sha256/N");
        let name = name.replace('N', &format!("{index}"));
        files.push((name, packed(numbers, layer, &mut made)));
    }
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let manifest = json!([{ "Config": "c", "RepoTags": ["generated:1"], "Layers": names }]);
    let mut builder = tar::Builder::new(Vec::new());
    files.push(("c".to_owned(), config.to_string().into_bytes()));
    files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len().try_into().unwrap());
        builder.append_data(&mut header, name.trim_start_matches('/'), bytes.as_slice()).unwrap();
    }
    made.bytes = builder.into_inner().unwrap();
    made
}

fn configuration(numbers: &mut Numbers, layers: &[Vec<u8>], description: &mut String) -> Value {
    let id = |layer: &Vec<u8>| {
        let hash = Sha256::digest(layer);
        format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let mut ids: Vec<String> = layers.iter().map(id).collect();
    let fault = numbers.below(60);
    match fault {
        0 => ids.push(ids[0].clone()),
        1 => ids.clear(),
        2 => ids[0] = id(&Vec::new()),
        _ => {}
    }
    let labels = json!({ "io.balena.image.class": "overlay" });
    let mut config = json!({ "architecture": "amd64", "os": "linux",
        "config": { "Labels": labels, "Cmd": ["none"] },
        "rootfs": { "type": "layers", "diff_ids": ids } });
    match fault {
        3 => config["rootfs"] = Value::Null,
        4 => config["history"] = json!(vec![json!({ "created_by": "x" }); layers.len() + 1]),
        5 => config["history"] = json!([{ "empty_layer": true }, { "created_by": "x" }]),
        6 => config["os"] = json!("windows"),
        7 => config["created"] = json!("yesterday"),
        8 => config["config"] = json!({ "labels": labels, "CMD": "none" }),
        9 => config["created"] = json!("2026-11-27T10:00:00.5+01:00"),
        _ => {}
    }
    if fault < 10 {
        description.push_str(&format!(" configuration with {fault};"));
    }
    config
}

/// The layer compressed, cut off, or unchanged.
fn packed(numbers: &mut Numbers, layer: Vec<u8>, made: &mut Generated) -> Vec<u8> {
    match numbers.below(24) {
        0 => {
            made.description.push_str(" a layer with gzip;");
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&layer).unwrap();
            encoder.finish().unwrap()
        }
        1 => {
            made.description.push_str(" a layer with zstd;");
            made.has_zstd = true;
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress_to_vec(layer.as_slice(), level)
        }
        2 if layer.len() > 2048 => {
            made.description.push_str(" a layer that is cut off;");
            layer[..layer.len() - 1024 - 512].to_vec()
        }
        _ => layer,
    }
}

fn layer(numbers: &mut Numbers, serial: &str, description: &mut String) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry(&mut bytes, EntryType::Regular, serial, "", 0o644, b"x");
    for index in 0..2 + numbers.below(5) {
        // In its own directory it does not interfere with other entries.
        let folder = if numbers.one_in(4) { String::new() } else { format!("own-{index}/") };
        random_entry(numbers, &folder, &mut bytes, description);
    }
    if numbers.one_in(6) {
        description.push_str(" no end blocks;");
    } else {
        bytes.resize(bytes.len() + 1024, 0);
    }
    bytes
}

fn random_entry(
    numbers: &mut Numbers,
    folder: &str,
    bytes: &mut Vec<u8>,
    description: &mut String,
) {
    let name = numbers.word(NAMES);
    let target = numbers.word(TARGETS);
    let (kind, name, target) = match numbers.below(20) {
        0..=6 => (EntryType::Regular, name, ""),
        7..=10 => (EntryType::Directory, name, ""),
        11..=13 => (EntryType::Symlink, name, target),
        14 => (EntryType::Link, name, target),
        15 | 16 => (EntryType::Regular, numbers.word(WHITEOUTS), ""),
        17 => (EntryType::Char, name, ""),
        18 => (EntryType::Fifo, name, ""),
        _ => match numbers.below(4) {
            0 => (EntryType::Continuous, name, ""),
            1 => (EntryType::Symlink, name, ""),
            2 => return attribute(numbers, bytes, description),
            _ => (EntryType::Directory, numbers.word(WHITEOUTS), ""),
        },
    };
    let name = &format!("{folder}{name}");
    description.push_str(&format!(" {} {name}", char::from(kind.as_byte())));
    if !target.is_empty() {
        description.push_str(&format!(" -> {target}"));
    }
    description.push(';');
    let mode = [0o644, 0o755, 0o4755, 0o700][numbers.below(4)];
    let content: &[u8] = if kind == EntryType::Regular { b"content" } else { b"" };
    entry(bytes, kind, name, target, mode, content);
}

/// A file with an extended attribute.
fn attribute(numbers: &mut Numbers, bytes: &mut Vec<u8>, description: &mut String) {
    let capability = [&[1, 0, 0, 2, 10, b'\n'][..], &[0; 14]].concat();
    let all: [(&str, &[u8]); 4] = [
        ("security.capability", &capability),
        ("security.capability", b"nonsense"),
        ("user.note", b"two\nlines"),
        // The length is not that of an ACL.
        ("system.posix_acl_access", b"\x02\0\0\0nonsense!"),
    ];
    let (name, value) = all[numbers.below(all.len())];
    description.push_str(&format!(" a file with {name} of {} bytes;", value.len()));
    let record = [format!("SCHILY.xattr.{name}=").as_bytes(), value, b"\n"].concat();
    let digits = if record.len() + 3 > 99 { 3 } else { 2 };
    let length = record.len() + digits + 1;
    let record = [format!("{length} ").as_bytes(), &record].concat();
    entry(bytes, EntryType::XHeader, "PaxHeaders/f", "", 0o644, &record);
    entry(bytes, EntryType::Regular, "f", "", 0o755, b"x");
}

/// An entry with any name, including names that the library rejects.
fn entry(
    bytes: &mut Vec<u8>,
    kind: EntryType,
    name: &str,
    target: &str,
    mode: u32,
    content: &[u8],
) {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len().try_into().unwrap());
    header.set_device_major(0).unwrap();
    header.set_device_minor(0).unwrap();
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}
