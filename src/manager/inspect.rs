//! `inspect ID`: everything that is known about an extension, as JSON.

use super::inspected::inspected;
use super::readable::Read;
use super::status::ExtensionView;
use super::{Failure, ManagerExit, Session, print_json, space};
use crate::cli::manager::InspectArguments;
use crate::model::container::deploy_record::DeployRecord;
use crate::model::kernel::abi::Abi;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InspectDocument<'a> {
    schema: u32,
    command: &'static str,
    extension: ExtensionView<'a>,
    labels: BTreeMap<String, String>,
    error: Option<&'a str>,
    started: Option<&'a str>,
    restart_policy: Option<&'a str>,
    /// `None` if the engine does not name them.
    layers: Option<&'a [String]>,
    runtime: Option<&'a str>,
    host: HostDocument<'a>,
    deploy: Read<Option<&'a DeployRecord>>,
}

/// The facts that claims are compared with; `{"unreadable": why}` for a fact that cannot be read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostDocument<'a> {
    kernel_release: Read<&'a str>,
    kernel_abi: Read<Option<&'a str>>,
    os_version: Read<&'a str>,
    armed_kernel_abi: Read<Option<&'a str>>,
    rejected_kernel_abis: Read<&'a BTreeSet<Abi>>,
    root_is_layered: Read<bool>,
}

fn read<'a, S, T>(source: &'a Result<S, String>, value: impl FnOnce(&'a S) -> T) -> Read<T> {
    match source {
        Ok(source) => Read::Value(value(source)),
        Err(why) => Read::Unreadable { unreadable: why.clone() },
    }
}

pub(super) fn inspect(
    session: &Session,
    request: &InspectArguments,
) -> Result<ManagerExit, Failure> {
    let inspected = inspected(session, std::slice::from_ref(&request.id))?;
    let sizes = space::of_extensions(session, &inspected)?;
    inspected.log_requests(session);
    let (containers, view) = (&inspected.containers, &inspected.host);
    let Some(container) = containers.first() else {
        return Err(Failure::NoSuchExtension { name: request.id.clone() });
    };
    let (host, last_run) = (&view.facts, container.last_run());
    let record = view.records.of(&container.id);
    print_json(&InspectDocument {
        schema: 1,
        command: "inspect",
        extension: ExtensionView::new(container, view, sizes.space(container)),
        labels: container.labels.to_map(),
        error: last_run.and_then(|last_run| last_run.failure()),
        started: last_run.map(|last_run| last_run.started.as_str()),
        restart_policy: last_run.map(|last_run| last_run.restart.as_str()),
        layers: last_run.and_then(|last_run| last_run.layers.as_deref()),
        runtime: last_run.map(|last_run| last_run.runtime.as_str()).filter(|name| !name.is_empty()),
        host: HostDocument {
            kernel_release: read(&host.running.kernel_release, String::as_str),
            kernel_abi: read(&host.running.abi, Option::as_deref),
            os_version: read(&host.running.os_version, String::as_str),
            armed_kernel_abi: read(&host.block, |block| block.arm.abi().map(Abi::as_str)),
            rejected_kernel_abis: read(&host.rejected, |rejected| rejected),
            root_is_layered: read(&host.overlays, |overlays| overlays.root),
        },
        deploy: read(&record, Option::as_ref),
    })?;
    Ok(ManagerExit::Done)
}
