//! `plan`: what the next boot will make of every extension. `next_boot.rs` gathers the facts,
//! `model/engine/boot_plan.rs` predicts, and `plan_view.rs` prints.

use super::inspected::{Inspected, inspected};
use super::next_boot::{NextBoot, OS, os_stack};
use super::plan_view::{PlanView, Prospect};
use super::{Failure, ManagerExit, Session, print, print_json, space};
use crate::cli::plan::PlanArguments;
use crate::cli::values::OutputFormat;
use crate::host::engine::hidden_files::{HiddenPath, OverlayOwner, hidden};
use crate::host::engine::layer_store;
use crate::host::engine::merged_layers::LayerDirectory;
use crate::host::engine::stored_containers::{self, DataRoot, StoredExtensions};
use crate::model::engine::boot_overlay::OverlayPlace;
use crate::model::engine::boot_plan::{BootPlan, PlannedExtension, predict};
use crate::model::engine::inspection::StoredExtension;
use crate::model::engine::inventory::EngineContainer;
use crate::model::text::cause::in_words;
use crate::model::text::cut::short_id;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn plan(session: &Session, arguments: &PlanArguments) -> Result<ManagerExit, Failure> {
    let running = inspected(session, &[])?;
    let root = running.host.data_root(session);
    let StoredExtensions { extensions, mut unreadable } = stored_containers::load(&root)?;
    unreadable.extend(not_in_store(&running, &extensions, &root));
    let next = NextBoot::read(session, &arguments.system, &root, &extensions);
    let system = &next.target.system;
    let (sizes, stale_os) = space::of_device(session, &running, system)?;
    running.log_requests(session);
    let verdict = |container: &EngineContainer| {
        let known = running.containers.iter().find(|one| one.id == container.id);
        running.host.explain(known.unwrap_or(container)).reason.verdict()
    };
    let facts = extensions.iter().zip(&next.storage).zip(&next.modules);
    let planned: Vec<PlannedExtension<'_>> = facts
        .map(|((stored, storage), modules)| PlannedExtension {
            container: &stored.container,
            storage,
            modules,
            now: verdict(&stored.container),
        })
        .collect();
    let plan = predict(&planned, &next.target);
    let (hidden, unknown_files) = hidden_files(&plan, &next, &root);
    let prospect = Prospect {
        planned: &planned,
        plan: &plan,
        next: &next,
        root: &root,
        sizes: &sizes,
        hidden: &hidden,
        unknown_files,
        unreadable: &unreadable,
        source: running.source(),
        stale_os,
        most_paths: if arguments.files { usize::MAX } else { 10 },
    };
    let view = PlanView::new(prospect);
    let is_safe = view.is_safe();
    match arguments.format {
        OutputFormat::Json => print_json(&view)?,
        OutputFormat::Table => print(&view.text())?,
    }
    Ok(if is_safe { ManagerExit::Done } else { ManagerExit::Failed })
}

/// The extensions that the engine lists but whose records were not found: the store may be another engine's.
fn not_in_store(
    inspected: &Inspected,
    extensions: &[StoredExtension],
    root: &DataRoot,
) -> Vec<String> {
    let is_stored = |id: &String| extensions.iter().any(|stored| stored.container.id == *id);
    let missing = inspected.containers.iter().filter(|container| !is_stored(&container.id));
    let path = root.host.display_path(&root.path);
    let why = |container: &EngineContainer| {
        format!(
            "the engine lists the extension {}, but the store {path:?} has no record of it (is --docker-root right?)",
            short_id(&container.id)
        )
    };
    missing.map(why).collect()
}

/// The paths that extensions hide, and why some may be missing.
fn hidden_files(
    plan: &BootPlan,
    next: &NextBoot,
    root: &DataRoot,
) -> (Vec<HiddenPath>, Vec<String>) {
    let (mut stack, mut unknown) = (Vec::new(), Vec::new());
    let mut os = OverlayOwner { number: OS, layers: BTreeSet::new() };
    // The numbers of the extensions' layers by name.
    let mut numbers = BTreeMap::new();
    let mut has_os = false;
    for layer in &plan.overlay.layers {
        let first = stack.len();
        let opened = match layer.member {
            Some(_) => layer_store::open(root, &layer.name).map(|directory| {
                numbers.insert(layer.name.as_str(), first);
                vec![LayerDirectory { layer: first, directory }]
            }),
            None if has_os => continue,
            None => {
                has_os = true;
                let opened = next.os.as_ref().map_err(Clone::clone);
                let opened = opened.and_then(|layers| os_stack(layers, first));
                os.layers.extend(opened.iter().flatten().map(|layer| layer.layer));
                opened
            }
        };
        match opened {
            Ok(layers) => stack.extend(layers),
            Err(why) => unknown.push(why),
        }
    }
    let is_there = |place| matches!(place, OverlayPlace::AboveOs | OverlayPlace::BelowOs);
    let placed = plan.overlay.order.iter().filter(|(_, place)| is_there(*place));
    let extension = |number: usize| {
        let names = next.storage.get(number).and_then(|storage| storage.layers.as_ref().ok());
        let layers = names.into_iter().flatten().filter_map(|name| numbers.get(name.as_str()));
        OverlayOwner { number, layers: layers.copied().collect() }
    };
    let owners: Vec<OverlayOwner> =
        placed.map(|(number, _)| extension(*number)).chain([os]).collect();
    let found = hidden(&stack, &owners).unwrap_or_else(|error| {
        unknown.push(format!("the layers cannot be compared: {}", in_words(&error)));
        Vec::new()
    });
    (found, unknown)
}
