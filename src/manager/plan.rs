//! `plan`: what the next boot will make of every extension. `next_boot.rs` gathers the facts,
//! `model/engine/boot_plan.rs` predicts, and `plan_view.rs` prints.

use super::inspected::{Inspected, inspected};
use super::next_boot::{NextBoot, os_stack};
use super::plan_view::{PlanView, Prospect};
use super::{Failure, ManagerExit, Session, print, print_json, space};
use crate::cli::plan::PlanArguments;
use crate::cli::values::OutputFormat;
use crate::host::engine::layer_store;
use crate::host::engine::merged_layers::{HiddenPath, LayerDirectory, hidden};
use crate::host::engine::stored_containers::{self, DataRoot, StoredExtensions};
use crate::model::engine::boot_plan::{BootPlan, PlannedExtension, predict};
use crate::model::engine::inspection::StoredExtension;
use crate::model::engine::inventory::EngineContainer;
use crate::model::text::cause::in_words;
use crate::model::text::cut::short_id;

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
    let (mut stack, mut unknown, mut has_os) = (Vec::new(), Vec::new(), false);
    for layer in &plan.overlay.layers {
        let opened = match layer.member {
            Some(owner) => layer_store::open(root, &layer.name)
                .map(|directory| vec![LayerDirectory { owner, directory }]),
            None if has_os => continue,
            None => {
                has_os = true;
                next.os.as_ref().map_err(Clone::clone).and_then(|os| os_stack(os))
            }
        };
        match opened {
            Ok(layers) => stack.extend(layers),
            Err(why) => unknown.push(why),
        }
    }
    let found = hidden(stack).unwrap_or_else(|error| {
        unknown.push(format!("the layers cannot be compared: {}", in_words(&error)));
        Vec::new()
    });
    (found, unknown)
}
