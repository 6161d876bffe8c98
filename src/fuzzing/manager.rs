//! The entry points for the parsers of the manager: what the engine, the host and an image say.

use super::{assert_no_prefix, assert_one_line, assert_printable};
use crate::host::image::archive::{self, Archive};
use crate::model::check::{self, Machine, Subject, report, rule::Rule};
use crate::model::claim::{Claims, Judgement, Running, abi_of, globs};
use crate::model::cleanup::{Decision, Fate, Kind, Removal, Window, plan};
use crate::model::deploy::{Heard, Record, Step};
use crate::model::extension::CLASS;
use crate::model::glob::{Glob, documented};
use crate::model::grubenv::{Block, MAX_LEN};
use crate::model::inventory::{Collector, InspectedContainer, Inventory, ListedVolumes};
use crate::model::mounts::Layering;
use crate::model::verdict::{self, Host, Known};
use crate::model::{engine, os_release, stored};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// An `os-version` label and the running version, with a NUL between (`model/glob.rs`,
/// `model/claim.rs`).
pub fn os_version(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (label, version) = text.split_once('\0').unwrap_or((&text, "2.113.4"));
    let patterns: Vec<&str> =
        label.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
    let mut documented = Some(false);
    for pattern in &patterns {
        let expected = documented::matches(pattern, version);
        documented = documented.and_then(|sofar| Some(sofar | expected?));
        match Glob::parse(pattern) {
            // A star is not tried again behind a later one, which shows when a class takes a `/`.
            Ok(glob) if !(version.contains('/') && pattern.contains('[')) => {
                assert_eq!(Some(glob.matches(version)), expected, "{pattern:?} on {version:?}");
            }
            Ok(_) => assert!(expected.is_some(), "{pattern:?}"),
            Err(error) => {
                assert_eq!(expected, None, "{pattern:?}");
                assert_one_line(&error);
            }
        }
    }
    assert_eq!(globs(label).is_ok(), documented.is_some());
    let running = Running { os_version: Ok(version.to_owned()), ..unread() };
    let claims = Claims { os_version: Some(label), ..Claims::default() };
    let judgement = claims.judge(&running);
    match documented {
        // Absent, empty or malformed keeps.
        None => assert_eq!(judgement, Judgement::Unclaimed),
        Some(_) if patterns.is_empty() => assert_eq!(judgement, Judgement::Unclaimed),
        Some(_) if version.contains('/') => {}
        Some(true) => assert_eq!(judgement, Judgement::Holds),
        Some(false) => assert!(matches!(judgement, Judgement::Violated(_))),
    }
}

fn unread() -> Running {
    let why = || Err("it was not read".to_owned());
    Running { kernel_release: why(), abi: Err("it was not read".to_owned()), os_version: why() }
}

/// The boot environment block (`model/grubenv.rs`), and the kernel's command line.
pub fn boot_environment(bytes: &[u8]) {
    if let Some(abi) = abi_of(&String::from_utf8_lossy(bytes)) {
        assert!(!abi.is_empty() && !abi.contains(|found: char| found.is_ascii_whitespace()));
    }
    // Both as it is, and as the body of a block.
    let body = [b"# GRUB Environment Block\n", bytes, b"\n########"].concat();
    for bytes in [bytes, &body] {
        match Block::parse(bytes) {
            Ok(block) => check_block(bytes, &block),
            Err(error) => assert_one_line(&error),
        }
    }
}

fn check_block(bytes: &[u8], block: &Block) {
    assert!(bytes.len() <= MAX_LEN);
    assert!(bytes.starts_with(b"# GRUB Environment Block\n"));
    let used = bytes.len() - block.free;
    assert!(block.free > 0 && bytes[used] == b'#' && bytes[used - 1] == b'\n');
    let values = values_of_grub(bytes);
    for (key, value) in &values {
        let value = Some(value.as_str()).filter(|value| !value.is_empty());
        assert_eq!(block.value(key), value, "{key:?}");
    }
    let can_roll_back = values.get("upgrade_available").is_some_and(|value| value == "1");
    assert_eq!(block.can_roll_back(), can_roll_back);
    // Whatever is written behind the last value does not touch those before.
    if block.free > 1 {
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(values_of_grub(cut), values);
        let shorter = Block::parse(cut).expect("padding may have any length");
        assert_eq!(shorter.free, block.free - 1);
    }
}

/// As grub itself goes through a block (`grub_envblk_iterate`): a `\` quotes whatever follows, also
/// the end of a line.
fn values_of_grub(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut rest = bytes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        if first == b'\n' {
            continue;
        }
        let (mut line, mut equals) = (vec![first], None);
        if first == b'#' {
            rest.by_ref().find(|&byte| byte == b'\n');
            continue;
        }
        if first == b'=' {
            equals = Some(0);
        }
        while let Some(byte) = rest.next() {
            match byte {
                b'\n' => break,
                b'\\' if equals.is_some() => line.extend(rest.next()),
                b'=' if equals.is_none() => {
                    equals = Some(line.len());
                    line.push(byte);
                }
                byte => line.push(byte),
            }
        }
        let equals = equals.expect("an accepted block has values and comments");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        values.insert(text(&line[..equals]), text(&line[equals + 1..]));
    }
    values
}

/// os-release(5) (`model/os_release.rs`): as it is; and as a value that is written as the page says.
pub fn os_release(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(version) = os_release::version_id(&text) {
        assert!(!version.is_empty() && !version.contains('\n'));
        let assigned = text.lines().rfind(|line| line.trim().starts_with("VERSION_ID="));
        let assigned = assigned.expect("a version comes from somewhere");
        // It is the value without quotes and nothing else.
        let mut left = assigned.chars();
        assert!(version.chars().all(|wanted| left.any(|found| found == wanted)));
        let raw = assigned.trim().split_once('=').expect("it was assigned").1;
        let none_of: &[char] = match raw.chars().next() {
            _ if raw.contains('\\') => &[],
            Some('"') => &['"'],
            Some('\'') => &['\''],
            Some(_) | None => &['"', '\'', ' ', '\t'],
        };
        assert!(!version.contains(none_of), "{assigned:?}");
    }
    let value: String = text.chars().filter(|found| !found.is_control()).collect();
    let escaped: String = value.chars().flat_map(escape).collect();
    let mut forms = vec![format!("VERSION_ID=\"{escaped}\"")];
    if !value.contains('\'') {
        forms.push(format!("VERSION_ID='{value}'"));
    }
    if value.chars().all(|found| found.is_ascii_alphanumeric() || "._+-~^:".contains(found)) {
        forms.push(format!("VERSION_ID={value}"));
    }
    let expected = Some(value).filter(|value| !value.is_empty());
    for form in forms {
        let file = format!("VERSION_ID=0\nID=\"balena-os\"\n{form}\nVERSION=\"x\"\n");
        assert_eq!(os_release::version_id(&file), expected, "{form:?}");
    }
}

/// Shell special characters have a backslash before them.
fn escape(found: char) -> impl Iterator<Item = char> {
    let quote = matches!(found, '"' | '$' | '`' | '\\').then_some('\\');
    quote.into_iter().chain([found])
}

/// `/proc/mounts` (`model/mounts.rs`).
pub fn mounts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let layering = Layering::parse(&text);
    let overlays = || {
        let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.filter(|fields| fields.len() > 3 && fields[2] == "overlay")
    };
    assert_eq!(layering.root, overlays().any(|fields| fields[1] == "/"));
    for layer in &layering.layers {
        assert!(!layer.is_empty() && !layer.contains(['/', ' ', ',', ':']), "{layer:?}");
        let named = |fields: Vec<&str>| {
            let below = |last: &str| fields[3].contains(&format!("{layer}/{last}"));
            below("diff") || below("merged") || below("_data")
        };
        assert!(overlays().any(named), "{layer:?}");
    }
    // A mount of anything else tells nothing, wherever it stands, nor does an engine's own.
    let other = format!(
        "/dev/x /boot ext4 rw,lowerdir=/a/overlay2/zz/diff 0 0\n\
         overlay /d/overlay2/yy/merged overlay rw,lowerdir=/d/overlay2/xx/diff 0 0\n{text}"
    );
    assert_eq!(Layering::parse(&other), layering);
}

/// One answer of the engine, as any of those that are asked for (`model/inventory.rs`,
/// `model/engine.rs`, `model/stored.rs`).
pub fn engine_answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(message) = engine::message(bytes) {
        assert!(!message.is_empty() && message.chars().count() <= 601);
    }
    if let Err(error) = engine::negotiate(Some(&text)) {
        assert_one_line(&error);
    }
    let path = engine::in_path(&text);
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte)));
    assert_eq!(unescaped(&path), text.as_bytes());

    // The parsers do not look into what they do not need; this reader does, and knows no other texts.
    if std::str::from_utf8(bytes).is_err() {
        return;
    }
    let value = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    if let Some(items) = decoded::<Vec<Box<RawValue>>>(bytes) {
        let collected = |take: fn(&mut Collector, &RawValue)| {
            let mut collector = Collector::default();
            items.iter().for_each(|item| take(&mut collector, item));
            collector.inventory()
        };
        let containers = collected(Collector::container);
        containers.unreadable.iter().for_each(|told| assert_printable(told));
        if containers.unreadable.is_empty() {
            check_containers(&containers, &value);
        }
        let images = collected(Collector::image);
        images.unreadable.iter().for_each(|told| assert_printable(told));
        let listed = ids(&value, "Id");
        assert!(images.images.iter().all(|image| listed.contains(&image.id)));
        if images.unreadable.is_empty() && images.parents.is_empty() {
            assert_eq!(images.images.len(), listed.len());
        }
    }
    if let Some(listed) = decoded::<ListedVolumes>(bytes) {
        let mut collector = Collector::default();
        collector.volumes(&listed);
        let inventory = collector.inventory();
        inventory.unreadable.iter().for_each(|told| assert_printable(told));
        let found: Vec<String> = inventory.volumes.into_iter().map(|volume| volume.name).collect();
        let told = inventory.unreadable.is_empty() && !value["Volumes"].is_null();
        assert!(!told || found == ids(&value["Volumes"], "Name"));
    }
    if let Some(inspected) = decoded::<InspectedContainer>(bytes)
        && let Ok(told) = inspected.told()
    {
        let mut container = one_container();
        told.complete(&mut container);
        assert!(container.volumes().all(|volume| !volume.is_empty()));
    }
    match stored::parse(bytes) {
        Ok(Some(container)) => {
            assert_eq!(value["Config"]["Labels"][CLASS], "overlay");
            assert_eq!(value["ID"], container.id);
            assert_no_prefix(bytes, |prefix| stored::parse(prefix).is_ok());
        }
        Ok(None) => {}
        Err(error) => assert_one_line(&error),
    }
}

/// None for what is refused, which is told in one line; cut off, nothing is taken for a whole answer.
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
    // serde reads the fields of an object from a list too, by position, which nobody writes.
    if !value.as_array().is_some_and(|all| all.iter().all(Value::is_object)) {
        return;
    }
    let found: Vec<&str> = inventory.containers.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(found, ids(value, "Id"));
    let own = |one: &&Value| one["Labels"][CLASS] == "overlay";
    let extensions = value.as_array().unwrap().iter().filter(own);
    for (container, value) in inventory.containers.iter().zip(extensions) {
        assert_eq!(&*container.image_id, value["ImageID"].as_str().unwrap_or_default());
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

fn one_container() -> crate::model::inventory::Container {
    let mut collector = Collector::default();
    let listed = serde_json::json!({ "Id": "x", "Labels": { CLASS: "overlay" } });
    collector.container(&raw(&listed));
    collector.inventory().containers.remove(0)
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

/// A whole engine, what it answers to each question under a name: what `cleanup` plans and `status`
/// says (`model/cleanup.rs`, `model/verdict.rs`).
pub fn cleanup_plan(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let inventory = inventory(&value);
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let told = |name: &str| text(name).ok_or_else(|| format!("{name} was not read"));
    let running = Running {
        kernel_release: told("release"),
        abi: told("cmdline").map(|cmdline| abi_of(&cmdline)),
        os_version: told("os"),
    };
    for window in [Window::RollbackPossible, Window::Committed(&running)] {
        let plan = plan(&inventory, window);
        let objects = inventory.containers.len() + inventory.images.len() + inventory.volumes.len();
        assert_eq!(plan.0.len(), objects);
        assert!(plan.0.is_sorted_by_key(|decision| decision.object.kind));
        for (index, decision) in plan.0.iter().enumerate() {
            check_decision(decision, &inventory, window, index);
        }
        assert_nothing_in_use_goes(&plan.0, &inventory);
    }
    let host = Host {
        running,
        layering: told("mounts").map(|mounts| Layering::parse(&mounts)),
        arm: told("arm").map(Some),
        rejected: Ok(text("rejected").into_iter().collect()),
    };
    let record = Record::parse(value["record"].to_string().as_bytes()).ok();
    for container in &inventory.containers {
        for since_boot in [None, Some(false), Some(true)] {
            let known = Known { since_boot, record: record.as_ref() };
            let finding = verdict::find(container, known, &host);
            // It goes to terminals.
            assert_printable(&finding.sentence);
            assert_printable(&finding.next);
            assert!(!finding.next.is_empty());
        }
        assert!(verdict::claims(&container.labels, &host.running).len() <= 3);
    }
}

fn inventory(value: &Value) -> Inventory {
    let mut collector = Collector::default();
    for listed in value["containers"].as_array().into_iter().flatten() {
        collector.container(&raw(listed));
    }
    for listed in value["images"].as_array().into_iter().flatten() {
        collector.image(&raw(listed));
    }
    if let Ok(listed) = serde_json::from_slice(value["volumes"].to_string().as_bytes()) {
        collector.volumes(&listed);
    }
    let mut inventory = collector.inventory();
    for container in &mut inventory.containers {
        let inspected = value["inspected"][&container.id].clone();
        if let Ok(inspected) = serde_json::from_value::<InspectedContainer>(inspected)
            && let Ok(told) = inspected.told()
        {
            told.complete(container);
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
    // Only an update that has committed makes anything stale.
    let committed = matches!(window, Window::Committed(_));
    assert!(committed || reason.code() != "stale");
    match (decision.object.kind, how) {
        (Kind::Container, Removal::Container { deactivate }) => {
            let container = &inventory.containers[index];
            assert_eq!(container.id, decision.object.id);
            assert!(container.labels.is_extension());
            let volumes: Vec<&str> = container.volumes().collect();
            assert!(deactivate.iter().all(|one| volumes.contains(&one.volume.as_str())));
        }
        (Kind::Image, Removal::Image { names }) => {
            assert!(committed && !names.is_empty());
            assert!(!inventory.foreign.images.contains(decision.object.id.as_str()));
        }
        (Kind::Volume, Removal::Volume) => {
            assert!(committed);
            assert!(!inventory.foreign.volumes.contains(&decision.object.id));
        }
        (kind, how) => panic!("{kind} is removed as {how:?}"),
    }
}

fn assert_nothing_in_use_goes(plan: &[Decision], inventory: &Inventory) {
    let (mut images, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    for (container, decision) in inventory.containers.iter().zip(plan) {
        if matches!(decision.fate, Fate::Keep(_)) {
            images.insert(&*container.image_id);
            volumes.extend(container.volumes());
        }
    }
    for decision in plan.iter().filter(|one| matches!(one.fate, Fate::Remove { .. })) {
        let id = decision.object.id.as_str();
        assert!(decision.object.kind != Kind::Image || !images.contains(id));
        assert!(decision.object.kind != Kind::Volume || !volumes.contains(id));
    }
}

/// The record of a deploy (`model/deploy.rs`), and what a hook printed in one.
pub fn deploy_record(bytes: &[u8]) {
    let heard = Heard::new("hooks/start", bytes);
    let step = Step {
        verb: "start".to_owned(),
        time: "2026-01-02T03:04:05Z".to_owned(),
        error: Some(String::from_utf8_lossy(bytes).into_owned()),
        warnings: vec![String::from_utf8_lossy(bytes).into_owned(); 20],
        hooks: vec![heard; 20],
    };
    let known = match Record::parse(bytes) {
        Ok(known) => {
            assert_no_prefix(bytes, |prefix| Record::parse(prefix).is_ok());
            Some(known)
        }
        Err(error) => {
            assert_one_line(&error);
            None
        }
    };
    let id = known.as_ref().map(|known| known.id.clone()).unwrap_or_default();
    for record in [known.clone(), Some(Record::after(known, &id, step))].into_iter().flatten() {
        let written = record.to_bytes().expect("a record is JSON");
        assert_eq!(Record::parse(&written).expect("what was written is read"), record);
        assert_no_prefix(&written, |prefix| Record::parse(prefix).is_ok());
        let last = record.last_error().map(|(verb, _)| verb.to_owned());
        assert!(last.is_none_or(|verb| verb != "delete"));
    }
}

/// An archive of an image (`host/image/archive.rs`, `model/image.rs`), and every rule of `check` for
/// what is in it.
pub fn image_archive(bytes: &[u8]) {
    let subjects = match archive::read(bytes) {
        Ok(Archive::Images(images)) => {
            let subject = |image: archive::Image| Subject {
                tree: image.tree,
                labels: Some(image.configuration.labels),
                ..Subject::default()
            };
            images.into_iter().map(subject).collect()
        }
        Ok(Archive::Export(tree)) => vec![Subject { tree, ..Subject::default() }],
        Err(error) => return assert_one_line(&error),
    };
    let machine = Machine::new("x86_64", "this machine is x86_64");
    for subject in subjects {
        for (path, _) in subject.tree.iter() {
            let inside = |part: &str| !matches!(part, "" | "." | "..");
            assert!(path.split('/').all(inside), "{path:?}");
        }
        // The host has the same files, so that all rules have something to compare.
        let report = check::check(&subject, Some(&subject.tree), Some(&machine), &[]);
        for line in report.text().lines() {
            assert_printable(line);
        }
        report::json(std::slice::from_ref(&report)).expect("a report is JSON");
        let allowed = check::check(&subject, None, Some(&machine), Rule::ALL);
        assert_eq!(allowed.worst(), None);
    }
}
