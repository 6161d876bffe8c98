//! The entry points for the engine's answers, and for the decisions that depend on them.

use super::{assert_no_prefix, assert_one_line, assert_printable};
use crate::model::container::deploy_record::DeployRecord;
use crate::model::engine::api;
use crate::model::engine::cleanup::{Decision, Fate, ObjectKind, Removal, Window, plan};
use crate::model::engine::doctor::RegisteredBinary;
use crate::model::engine::inspection::{Errors, InspectedContainer, parse_stored};
use crate::model::engine::inventory::{Inventory, ListedVolumes};
use crate::model::engine::verdict::{self, Evidence, HostFacts};
use crate::model::extension::claim::{Running, abi_of};
use crate::model::extension::labels::CLASS;
use crate::model::kernel::abi::Abi;
use crate::model::kernel::mounts::{HostOverlays, MountedOverlays};
use crate::model::kernel::records::{BlockValues, Committed, Field, Slot};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

/// One answer of the engine, as any of those that are asked for (`model/engine/inventory.rs`,
/// `model/engine/api.rs`, `model/engine/inspection.rs`).
pub fn engine_answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(message) = api::message(bytes) {
        assert!(!message.is_empty() && message.chars().count() <= 601);
    }
    if let Err(error) = api::negotiate(Some(&text)) {
        assert_one_line(&error);
    }
    let path = api::in_path(&text);
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte)));
    assert_eq!(unescaped(&path), text.as_bytes());

    // The parsers do not look into what they do not need; this reader does, and knows no other texts.
    if std::str::from_utf8(bytes).is_err() {
        return;
    }
    let value = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    if let Some(items) = decoded::<Vec<Box<RawValue>>>(bytes) {
        let collected = |take: fn(&mut Inventory, &RawValue)| {
            let mut inventory = Inventory::default();
            items.iter().for_each(|item| take(&mut inventory, item));
            inventory.without_intermediates()
        };
        let containers = collected(Inventory::add_container);
        containers.unreadable.iter().for_each(|why| assert_printable(why));
        if containers.unreadable.is_empty() {
            check_containers(&containers, &value);
        }
        let images = collected(Inventory::add_image);
        images.unreadable.iter().for_each(|why| assert_printable(why));
        let listed = ids(&value, "Id");
        assert!(images.images.iter().all(|image| listed.contains(&image.id)));
        if images.unreadable.is_empty() && images.parents.is_empty() {
            assert_eq!(images.images.len(), listed.len());
        }
    }
    if let Some(listed) = decoded::<ListedVolumes>(bytes) {
        let mut inventory = Inventory::default();
        inventory.add_volumes(&listed);
        let inventory = inventory.without_intermediates();
        inventory.unreadable.iter().for_each(|why| assert_printable(why));
        let found: Vec<String> = inventory.volumes.into_iter().map(|volume| volume.name).collect();
        let is_whole = inventory.unreadable.is_empty() && !value["Volumes"].is_null();
        assert!(!is_whole || found == ids(&value["Volumes"], "Name"));
    }
    let inspected = decoded::<InspectedContainer>(bytes);
    if let Some(Ok(summary)) = inspected.map(|inspected| inspected.summary(Errors::Kept)) {
        let mut container = one_container();
        summary.add_to(&mut container);
        assert!(container.volumes().all(|volume| !volume.is_empty()));
    }
    match parse_stored(bytes) {
        Ok(Some(stored)) => {
            assert_eq!(value["Config"]["Labels"][CLASS], "overlay");
            assert_eq!(value["ID"], stored.container.id);
            assert_no_prefix(bytes, |prefix| parse_stored(prefix).is_ok());
        }
        Ok(None) => {}
        Err(error) => assert_one_line(&error),
    }
}

/// `None` for bytes that are refused, with an error of one line. No prefix of an answer is accepted.
fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match serde_json::from_slice(bytes) {
        Ok(decoded) => {
            assert_no_prefix(bytes, |prefix| serde_json::from_slice::<T>(prefix).is_ok());
            Some(decoded)
        }
        Err(error) => {
            assert_one_line(&error);
            None
        }
    }
}

/// The extensions in a list, as another reader finds them.
fn ids(list: &Value, id: &str) -> Vec<String> {
    let extensions = list.as_array().into_iter().flatten();
    let extensions = extensions.filter(|one| one["Labels"][CLASS] == "overlay");
    extensions.map(|one| one[id].as_str().unwrap_or_default().to_owned()).collect()
}

fn check_containers(inventory: &Inventory, value: &Value) {
    // serde also reads the fields of an object from a list, by position, which nobody writes.
    if !value.as_array().is_some_and(|all| all.iter().all(Value::is_object)) {
        return;
    }
    let found: Vec<&str> = inventory.containers.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(found, ids(value, "Id"));
    let own = |one: &&Value| one["Labels"][CLASS] == "overlay";
    let extensions = value.as_array().unwrap().iter().filter(own);
    for (container, value) in inventory.containers.iter().zip(extensions) {
        assert_eq!(container.image_id, value["ImageID"].as_str().unwrap_or_default());
        for (name, text) in container.labels.to_map() {
            assert!(name.starts_with("io.balena."));
            assert_eq!(value["Labels"][&name], text);
        }
    }
    for other in value.as_array().unwrap().iter().filter(|one| !own(one)) {
        let image = other["ImageID"].as_str().unwrap_or_default();
        assert!(inventory.foreign.images.contains(image));
        for mount in other["Mounts"].as_array().into_iter().flatten().filter(|one| one.is_object())
        {
            let name = mount["Name"].as_str().unwrap_or_default();
            let counts = mount["Type"] == "volume" && !name.is_empty();
            assert!(!counts || inventory.foreign.volumes.contains(name));
        }
    }
}

fn one_container() -> crate::model::engine::inventory::EngineContainer {
    let mut inventory = Inventory::default();
    let listed = serde_json::json!({ "Id": "x", "Labels": { CLASS: "overlay" } });
    inventory.add_container(&raw(&listed));
    inventory.without_intermediates().containers.remove(0)
}

fn unescaped(path: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), path.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            plain => plain,
        });
    }
    bytes
}

/// A whole engine, its answer to each request under a name: the plan of `cleanup` and the verdicts of `status`
/// (`model/engine/cleanup.rs`, `model/engine/verdict.rs`).
pub fn cleanup_plan(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let inventory = inventory(&value);
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let fact = |name: &str| text(name).ok_or_else(|| format!("{name} was not read"));
    let field = |name: &str| Field::parse(&text(name).unwrap_or_default());
    let running = Running {
        kernel_release: fact("release"),
        abi: fact("cmdline").map(|cmdline| abi_of(&cmdline)),
        os_version: fact("os"),
    };
    for window in [Window::RollbackPossible, Window::Committed(&running)] {
        let plan = plan(&inventory, window);
        let objects = inventory.containers.len() + inventory.images.len() + inventory.volumes.len();
        assert_eq!(plan.0.len(), objects);
        assert!(plan.0.is_sorted_by_key(|decision| decision.object.kind));
        for (index, decision) in plan.0.iter().enumerate() {
            check_decision(decision, &inventory, window, index);
        }
        assert_nothing_in_use_is_removed(&plan.0, &inventory);
    }
    let host = HostFacts {
        running,
        overlays: fact("mounts").map(|mounts| {
            let MountedOverlays { overlays, links } = MountedOverlays::parse(&mounts);
            let links = links.into_iter().filter(|link| link.of_root);
            HostOverlays { unnamed: links.map(|link| link.path).collect(), ..overlays }
        }),
        block: fact("arm").map(|arm| BlockValues {
            arm: Field::parse(&arm),
            committed: Committed { b: field("committed"), ..Committed::default() },
            ..BlockValues::default()
        }),
        slot: fact("slot").map(|slot| if slot == "A" { Slot::A } else { Slot::B }),
        rejected: Ok(text("rejected").and_then(|abi| Abi::parse(&abi)).into_iter().collect()),
        initramfs_log: text("log").unwrap_or_default(),
        runtime: text("runtime"),
    };
    let record = DeployRecord::parse(value["record"].to_string().as_bytes()).ok();
    for container in &inventory.containers {
        for (since_boot, ran_by) in [
            (None, None),
            (Some(false), None),
            (Some(true), Some(&RegisteredBinary::SameVersion)),
            (Some(true), Some(&RegisteredBinary::Another)),
        ] {
            let evidence = Evidence { since_boot, record: Ok(record.as_ref()), ran_by };
            let explanation = verdict::explain(container, evidence, &host);
            assert_printable(&explanation.sentence);
            assert_printable(&explanation.next);
            assert!(!explanation.next.is_empty());
        }
        assert!(container.labels.claims().compare(&host.running).len() <= 3);
    }
}

fn inventory(value: &Value) -> Inventory {
    let mut inventory = Inventory::default();
    for listed in value["containers"].as_array().into_iter().flatten() {
        inventory.add_container(&raw(listed));
    }
    for listed in value["images"].as_array().into_iter().flatten() {
        inventory.add_image(&raw(listed));
    }
    if let Ok(listed) = serde_json::from_slice(value["volumes"].to_string().as_bytes()) {
        inventory.add_volumes(&listed);
    }
    let mut inventory = inventory.without_intermediates();
    for container in &mut inventory.containers {
        let inspected = value["inspected"][&container.id].clone();
        let inspected = serde_json::from_value::<InspectedContainer>(inspected);
        if let Ok(Ok(summary)) = inspected.map(|inspected| inspected.summary(Errors::Kept)) {
            summary.add_to(container);
        }
    }
    inventory
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a value is JSON")
}

fn check_decision(decision: &Decision, inventory: &Inventory, window: Window<'_>, index: usize) {
    let Fate::Remove { reason, how } = &decision.fate else {
        let Fate::Keep(kept) = &decision.fate else { unreachable!() };
        return assert_printable(&kept.to_string());
    };
    assert_printable(&reason.to_string());
    // Nothing is stale before the update has committed.
    let committed = matches!(window, Window::Committed(_));
    assert!(committed || reason.code() != "stale");
    match (decision.object.kind, how) {
        (ObjectKind::Container, Removal::Container { deactivate }) => {
            let container = &inventory.containers[index];
            assert_eq!(container.id, decision.object.id);
            assert!(container.labels.is_extension());
            let volumes: Vec<&str> = container.volumes().collect();
            assert!(deactivate.iter().all(|one| volumes.contains(&one.volume.as_str())));
        }
        (ObjectKind::Image, Removal::Image { names }) => {
            assert!(committed && !names.is_empty());
            assert!(!inventory.foreign.images.contains(decision.object.id.as_str()));
        }
        (ObjectKind::Volume, Removal::Volume { claimants }) => {
            // A fabricated volume is not stale: it goes with the containers that claimed it.
            assert!(committed || reason.code() == "unclaimed");
            let is_known = |id: &String| inventory.containers.iter().any(|one| one.id == *id);
            assert!(claimants.iter().all(is_known));
            assert!(!inventory.foreign.volumes.contains(&decision.object.id));
        }
        (kind, how) => panic!("{kind} is removed as {how:?}"),
    }
}

fn assert_nothing_in_use_is_removed(plan: &[Decision], inventory: &Inventory) {
    let is_removed = |image: &str| {
        plan.iter().any(|decision| {
            decision.object.kind == ObjectKind::Image
                && decision.object.id == image
                && matches!(decision.fate, Fate::Remove { .. })
        })
    };
    let kept = inventory.images.iter().map(|image| &image.id).filter(|image| !is_removed(image));
    for child in kept.chain(&inventory.foreign_children) {
        let parent = inventory.parents.get(child);
        // No engine has two images with one id.
        assert!(parent.is_none_or(|parent| !is_removed(parent) || parent == child));
    }
    let (mut images, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    for (container, decision) in inventory.containers.iter().zip(plan) {
        if matches!(decision.fate, Fate::Keep(_)) {
            images.insert(container.image_id.as_str());
            volumes.extend(container.volumes());
        }
    }
    for decision in plan.iter().filter(|one| matches!(one.fate, Fate::Remove { .. })) {
        let id = decision.object.id.as_str();
        assert!(decision.object.kind != ObjectKind::Image || !images.contains(id));
        assert!(decision.object.kind != ObjectKind::Volume || !volumes.contains(id));
    }
}
