//! `inspect ID`: everything that is known of an extension, as JSON.

use super::gather;
use super::status::{HostView, View};
use super::surroundings::Surroundings;
use super::{Context, Exit, Failure, print_json, resolve};
use crate::cli::manager::Inspect;
use crate::model::container::deploy_record::Record;
use crate::model::engine::inventory::Detail;
use serde::Serialize;
use std::collections::BTreeMap;

/// The version of the JSON.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    schema: u32,
    command: &'static str,
    extension: View<'a>,
    labels: BTreeMap<String, String>,
    error: Option<&'a str>,
    started: Option<&'a str>,
    restart_policy: Option<&'a str>,
    /// None where the engine does not name them.
    layers: Option<&'a [String]>,
    runtime: Option<&'a str>,
    host: HostDocument<'a>,
    deploy: Read<Option<Record>>,
}

/// What a claim was held against; `{"unreadable": why}` where it could not be read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostDocument<'a> {
    kernel_release: Read<&'a str>,
    kernel_abi: Read<Option<&'a str>>,
    os_version: Read<&'a str>,
    armed_kernel_abi: Read<Option<&'a str>>,
    rejected_kernel_abis: Read<&'a [String]>,
    root_is_layered: Read<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase", untagged)]
enum Read<T> {
    Value(T),
    Unreadable { unreadable: String },
}

fn read<'a, S, T>(source: &'a Result<S, String>, value: impl FnOnce(&'a S) -> T) -> Read<T> {
    match source {
        Ok(source) => Read::Value(value(source)),
        Err(why) => Read::Unreadable { unreadable: why.clone() },
    }
}

pub(super) fn inspect(context: &Context, request: &Inspect) -> Result<Exit, Failure> {
    let (containers, _) = gather::extensions(context)?;
    let one = resolve(&containers, &request.id, |one| (one.id.as_str(), one.name.as_str()))?;
    let mut asked = vec![one.clone()];
    let surroundings = if asked.iter().any(|one| one.detail == Detail::NotAsked) {
        let client = std::sync::Arc::new(context.connect()?);
        gather::inspect(context, &client, &mut asked, |_| {})?;
        Surroundings::read(context, Some(&client))
    } else {
        Surroundings::read(context, None)
    };
    // It has vanished between the two requests.
    let gone = || Failure::NoSuchExtension { name: request.id.clone() };
    let container = asked.first().ok_or_else(gone)?;
    let view = HostView::read(context, surroundings);
    let host = view.host();
    let outcome = match &container.detail {
        Detail::Known(outcome) => Some(outcome),
        Detail::NotAsked | Detail::Unreadable(_) => None,
    };
    print_json(&Document {
        schema: SCHEMA,
        command: "inspect",
        extension: view.view(container),
        labels: container.labels.to_map(),
        error: outcome.and_then(|outcome| outcome.failure()),
        started: outcome.map(|outcome| outcome.started.as_str()),
        restart_policy: outcome.map(|outcome| outcome.restart.as_str()),
        layers: outcome.and_then(|outcome| outcome.layers.as_deref()),
        runtime: outcome.map(|outcome| outcome.runtime.as_str()).filter(|name| !name.is_empty()),
        host: HostDocument {
            kernel_release: read(&host.running.kernel_release, String::as_str),
            kernel_abi: read(&host.running.abi, Option::as_deref),
            os_version: read(&host.running.os_version, String::as_str),
            armed_kernel_abi: read(&host.arm, Option::as_deref),
            rejected_kernel_abis: read(&host.rejected, Vec::as_slice),
            root_is_layered: read(&host.layering, |layering| layering.root),
        },
        deploy: match view.record(container) {
            Ok(record) => Read::Value(record),
            Err(unreadable) => Read::Unreadable { unreadable },
        },
    })?;
    Ok(Exit::Done)
}
