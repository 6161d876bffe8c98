//! The entry point for what leads to the labels of an image.

use super::{assert_no_prefix, assert_one_component, assert_one_line, check_environment};
use crate::model::engine::containers_storage::{self, Listed};
use crate::model::extension::label_sources::{Lookup, StoredLabels};
use crate::model::extension::labels::CLASS;
use crate::model::extension::role::{self, NotAnExtension, Role};
use serde_json::Value;
use std::path::Path;

/// The container stores of Moby (`model/extension/label_sources.rs`) and of Podman (`model/engine/containers_storage.rs`), what leads to
/// other image stores, and which image is an extension (`model/extension/role.rs`).
pub fn store(bytes: &[u8]) {
    let value = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    match StoredLabels::parse(bytes) {
        Ok(record) => {
            let config = ["Config", "config"].map(|name| &value[name]["Labels"]);
            config.into_iter().for_each(|labels| assert_labels(&record, labels));
            check_role(record);
            assert_no_prefix(bytes, |prefix| StoredLabels::parse(prefix).is_ok());
        }
        Err(error) => assert_one_line(&error),
    }
    let text = String::from_utf8_lossy(bytes);
    let layers = containers_storage::lower_layers(&text, Path::new("/r"));
    let found = layers.into_iter().chain(containers_storage::image_stores(&text));
    found.for_each(|path| assert!(path.is_absolute(), "{path:?}"));
    match containers_storage::config_digest(bytes) {
        Ok(Some(digest)) => {
            let name = containers_storage::blob_name(&digest);
            assert_one_component(&name);
            assert_eq!(decoded(&name), digest.as_bytes());
        }
        Ok(None) => {}
        Err(error) => assert_one_line(&error),
    }
    match containers_storage::listed(bytes, "") {
        Ok(_) => assert_no_prefix(bytes, |prefix| containers_storage::listed(prefix, "").is_ok()),
        Err(error) => return assert_one_line(&error),
    }
    for container in value.as_array().into_iter().flatten() {
        let Some(id) = container["id"].as_str() else { continue };
        let listed = containers_storage::listed(bytes, id).expect("the list was read before");
        let Listed::Image(image) = listed else { continue };
        assert_one_component(&image);
    }
}

/// The labels are those that another reader finds; null is empty.
fn assert_labels(record: &StoredLabels, found: &Value) {
    let Some(found) = found.as_object() else { return };
    assert_eq!(record.labels.len(), found.len());
    for (name, text) in &record.labels {
        assert_eq!(found[name].as_str().unwrap_or_default(), text);
    }
}

fn check_role(record: StoredLabels) {
    let labels = record.labels.clone();
    let role =
        role::of_store(0, Lookup::Found { path: "/s".into(), stored: record, data_root: None });
    match role {
        Ok(Role::Extension { labels: kept, .. }) => {
            assert_eq!(labels.get(CLASS).map(String::as_str), Some("overlay"));
            let ours = labels.into_iter().filter(|(name, _)| name.starts_with("io.balena."));
            assert_eq!(kept, ours.collect());
            check_environment("/r", &kept, &[]);
        }
        Ok(Role::Sandbox) => panic!("a label makes no sandbox"),
        Err(error @ NotAnExtension::ClassMissing { .. }) => {
            assert!(!labels.contains_key(CLASS));
            assert_one_line(&error);
        }
        Err(error @ NotAnExtension::ClassUnsupported { .. }) => {
            assert!(labels.get(CLASS).is_some_and(|class| class != "overlay"));
            assert_one_line(&error);
        }
    }
}

/// The name of a blob in containers/storage, base64 behind a `=` (RFC 4648), as its key.
fn decoded(name: &str) -> Vec<u8> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{letter} is not of base64"),
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in name.strip_prefix('=').unwrap().trim_end_matches('=').bytes() {
        bits = bits << 6 | u32::from(digit(letter));
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    bytes
}
