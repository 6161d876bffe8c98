//! Parses the documents about one container: the engine's inspection, which shows whether it failed, how it ended and
//! which layers it has; and the record in the engine's store, for when the engine is down. The lists are in
//! `model/engine/inventory.rs`.

use crate::model::engine::inventory::{
    Detail, EngineContainer, EngineState, Labels, LastRun, ListedMount, Mounted,
};
use serde::Deserialize;
use serde::de::Error as _;
use std::collections::BTreeMap;

/// Whether an engine keeps the reason why a container could not be created or started (`State.Error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errors {
    Kept,
    /// Podman's field is always empty.
    NotKept,
}

/// The answer of the engine about one container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct InspectedContainer {
    state: Option<InspectedState>,
    graph_driver: Option<GraphDriver>,
    host_config: Option<HostConfig>,
    mounts: Option<Vec<ListedMount>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    status: Option<EngineState>,
    exit_code: Option<i64>,
    error: Option<String>,
    started_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    data: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    restart_policy: Option<RestartPolicy>,
    runtime: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: Option<String>,
}

impl InspectedContainer {
    pub(crate) fn engine_state(&self) -> EngineState {
        self.state.as_ref().and_then(|state| state.status).unwrap_or_default()
    }

    /// Whether the container has not failed, or has been started since. `recorded` is the failure that the
    /// runtime has recorded.
    pub(crate) fn has_recovered(&self, recorded: Option<&str>) -> bool {
        let failed =
            |state: &InspectedState| state.error.as_ref().is_some_and(|error| !error.is_empty());
        match self.engine_state() {
            EngineState::Created | EngineState::Exited => {
                recorded.is_none() && !self.state.as_ref().is_some_and(failed)
            }
            EngineState::Running | EngineState::Paused | EngineState::Restarting => true,
            EngineState::Removing | EngineState::Dead | EngineState::Other => false,
        }
    }

    /// The fields we keep.
    pub(crate) fn summary(mut self, errors: Errors) -> Result<InspectionSummary, NoState> {
        if self.state.as_ref().is_none_or(|state| state.status.is_none()) {
            return Err(NoState);
        }
        let mounts = self.mounts.take();
        Ok(InspectionSummary {
            state: self.engine_state(),
            mounts: mounts.map(|all| all.into_iter().map(ListedMount::into_mounted).collect()),
            last_run: self.into_last_run(errors),
        })
    }

    fn into_last_run(self, errors: Errors) -> LastRun {
        let state = self.state.unwrap_or_default();
        let data = self.graph_driver.and_then(|driver| driver.data).unwrap_or_default();
        let [own, topmost] = ["UpperDir", "LowerDir"].map(|key| {
            let paths = data.get(key).and_then(Option::as_deref).unwrap_or_default();
            paths.split(':').find_map(layer_of)
        });
        // Without its own layer, the container's content may be anywhere. Images share the layers below
        // their topmost one.
        let layers = own.map(|own| std::iter::once(own).chain(topmost).collect());
        let HostConfig { restart_policy, runtime } = self.host_config.unwrap_or_default();
        let error = match errors {
            Errors::Kept => state.error,
            Errors::NotKept => state.error.filter(|error| !error.is_empty()),
        };
        LastRun {
            exit_code: state.exit_code,
            error,
            started: state.started_at.unwrap_or_default(),
            layers,
            restart: restart_policy.and_then(|policy| policy.name).unwrap_or_default(),
            runtime: runtime.unwrap_or_default(),
        }
    }
}

/// An inspection that does not report the container's state.
#[derive(Debug, thiserror::Error)]
#[error("the engine's answer has no State")]
pub(crate) struct NoState;

/// The facts that an inspection adds to the list.
#[derive(Debug)]
pub(crate) struct InspectionSummary {
    state: EngineState,
    mounts: Option<Vec<Mounted>>,
    pub(crate) last_run: LastRun,
}

impl InspectionSummary {
    /// Adds the facts to a listed container. The list is made from a snapshot: in it, a container whose removal
    /// failed stays `removing` although it is `dead`, and an anonymous volume has no path.
    pub(crate) fn add_to(self, container: &mut EngineContainer) {
        if self.state != EngineState::Other {
            container.state = self.state;
        }
        if let Some(mounts) = self.mounts {
            container.mounts = mounts;
        }
        container.detail = Detail::Known(self.last_run);
    }
}

/// The layer that a path of an overlay belongs to: `…/overlay2/<layer>/diff`.
fn layer_of(path: &str) -> Option<String> {
    let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
    let last = parts.next()?;
    let layer = if matches!(last, "diff" | "merged") { parts.next()? } else { return None };
    // Engines make an -init layer for every container, so it proves nothing.
    Some(layer.to_owned()).filter(|layer| !layer.ends_with("-init"))
}

/// The record of a container in the engine's store on disk (`config.v2.json`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StoredContainer {
    #[serde(rename = "ID")]
    id: String,
    name: Option<String>,
    image: Option<String>,
    config: Option<StoredConfig>,
    state: Option<StoredState>,
    mount_points: Option<BTreeMap<String, ListedMount>>,
    driver: Option<String>,
}

/// An extension in the engine's store.
#[derive(Clone, Debug)]
pub(crate) struct StoredExtension {
    pub(crate) container: EngineContainer,
    /// The storage driver; `None` if the record does not name it.
    pub(crate) driver: Option<String>,
    /// The engine is removing the container, or a removal failed.
    pub(crate) is_ending: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StoredConfig {
    image: Option<String>,
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StoredState {
    running: bool,
    paused: bool,
    restarting: bool,
    removal_in_progress: bool,
    dead: bool,
    exit_code: Option<i64>,
    error: Option<String>,
    started_at: Option<String>,
}

/// Go's zero time: the container never started.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Parses a record of the store. `None` if the container is not an extension.
pub(crate) fn parse_stored(bytes: &[u8]) -> Result<Option<StoredExtension>, serde_json::Error> {
    let stored: StoredContainer = serde_json::from_slice(bytes)?;
    let config =
        stored.config.ok_or_else(|| serde_json::Error::custom("the record has no Config"))?;
    if !config.labels.is_extension() {
        return Ok(None);
    }
    let mounts = stored.mount_points.unwrap_or_default().into_iter();
    let mounts = mounts.map(|(destination, mount)| Mounted { destination, ..mount.into_mounted() });
    let is_ending =
        stored.state.as_ref().is_some_and(|state| state.dead || state.removal_in_progress);
    let container = EngineContainer {
        id: stored.id,
        name: stored.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        image_id: stored.image.unwrap_or_default(),
        state: stored_state(stored.state.as_ref()),
        labels: config.labels,
        mounts: mounts.collect(),
        detail: match stored.state {
            Some(state) => Detail::Known(LastRun {
                exit_code: state.exit_code,
                error: Some(state.error.unwrap_or_default()),
                started: state.started_at.unwrap_or_default(),
                ..LastRun::default()
            }),
            None => Detail::Unreadable("the engine's record of it has no State".to_owned()),
        },
    };
    let driver = stored.driver.filter(|driver| !driver.is_empty());
    Ok(Some(StoredExtension { container, driver, is_ending }))
}

/// Replaces a listed container, about which the engine does not answer, by its record in the store.
///
/// An engine does not answer about a container while it starts it, so a record that shows no result yet shows nothing.
pub(crate) fn take_record(listed: &mut EngineContainer, stored: &[EngineContainer]) {
    let failed = |record: &EngineContainer| record.last_run().and_then(LastRun::failure).is_some();
    let record = stored.iter().find(|record| record.id == listed.id);
    if let Some(record) = record.filter(|one| one.state != EngineState::Created || failed(one)) {
        listed.clone_from(record);
    }
}

/// The state, in the engine's own order (Moby's `State.StateString`).
fn stored_state(state: Option<&StoredState>) -> EngineState {
    let Some(state) = state else { return EngineState::Created };
    let never = state.started_at.as_deref().is_none_or(|time| time.is_empty() || time == NEVER);
    match state {
        StoredState { paused: true, running: true, .. } => EngineState::Paused,
        StoredState { restarting: true, .. } => EngineState::Restarting,
        StoredState { running: true, .. } => EngineState::Running,
        StoredState { removal_in_progress: true, .. } => EngineState::Removing,
        StoredState { dead: true, .. } => EngineState::Dead,
        _ if never => EngineState::Created,
        _ => EngineState::Exited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::engine::inventory::Inventory;

    #[test]
    fn an_inspection_shows_error_and_layers() {
        let inspected: InspectedContainer = serde_json::from_str(
        r#"{"Mounts":[{"Type":"volume","Name":"v","Source":"/v","Destination":"/d"}],
            "State":{"Status":"dead","ExitCode":127,"Error":"no","StartedAt":"0001-01-01T00:00:00Z"},
            "GraphDriver":{"Data":{"LowerDir":"/d/overlay2/c-init/diff:/d/overlay2/i/diff:/d/overlay2/base/diff",
             "UpperDir":"/d/overlay2/c/diff","WorkDir":"/d/overlay2/c/work"},"Name":"overlay2"},
            "HostConfig":{"RestartPolicy":{"Name":"always"},"Runtime":"extension"}}"#,
    )
    .unwrap();
        let item = r#"{"Id":"1","State":"removing","Labels":{"io.balena.image.class":"overlay"}}"#;
        let mut inventory = Inventory::default();
        inventory.add_container(serde_json::from_str(item).unwrap());
        let mut container = inventory.without_intermediates().containers.remove(0);
        inspected.summary(Errors::Kept).unwrap().add_to(&mut container);
        assert_eq!(
            (container.state, container.mounts[0].source.as_str()),
            (EngineState::Dead, "/v")
        );
        let Detail::Known(last_run) = container.detail else { panic!() };
        assert_eq!((last_run.exit_code, last_run.failure()), (Some(127), Some("no")));
        assert_eq!(last_run.layers, Some(vec!["c".to_owned(), "i".to_owned()]));
        assert_eq!((last_run.restart.as_str(), last_run.runtime.as_str()), ("always", "extension"));
        let bare: InspectedContainer =
            serde_json::from_str(r#"{"State":null,"GraphDriver":{"Data":null}}"#).unwrap();
        assert!(bare.summary(Errors::Kept).is_err(), "no decision is possible");
    }

    #[test]
    fn a_fact_that_an_inspection_does_not_show_is_unknown_and_not_good() {
        let last_run = |text: &str, errors| {
            let inspected: InspectedContainer = serde_json::from_str(text).unwrap();
            inspected.summary(errors).unwrap().last_run
        };
        let silent = last_run(r#"{"State":{"Status":"exited"}}"#, Errors::Kept);
        assert_eq!((silent.exit_code, silent.error, silent.layers), (None, None, None));
        let podman = r#"{"State":{"Status":"created","Error":"","ExitCode":0},
                     "GraphDriver":{"Data":{"LowerDir":"/s/overlay/i/diff"}}}"#;
        let podman = last_run(podman, Errors::NotKept);
        assert_eq!((podman.error, podman.layers), (None, None), "its own layer is not named");
    }

    fn record(state: &str, class: &str) -> Option<EngineContainer> {
        let text = format!(
            r#"{{"ID":"abc","Name":"/ext","Image":"sha256:1","State":{state},
                "Config":{{"Image":"img","Labels":{{"io.balena.image.class":"{class}"}}}},
                "MountPoints":{{"/boot":{{"Type":"volume","Name":"v","Source":"/s"}},
                                "/etc":{{"Type":"bind","Name":"","Source":"/h"}}}}}}"#
        );
        parse_stored(text.as_bytes()).unwrap().map(|stored| stored.container)
    }

    #[test]
    fn the_state_is_derived_as_the_engine_does() {
        let started = r#""StartedAt":"2026-01-01T00:00:00Z""#;
        for (state, expected) in [
            ("null".to_owned(), EngineState::Created),
            ("{}".to_owned(), EngineState::Created),
            (format!(r#"{{"StartedAt":"{NEVER}"}}"#), EngineState::Created),
            (format!("{{{started}}}"), EngineState::Exited),
            (format!(r#"{{{started},"Running":true}}"#), EngineState::Running),
            (format!(r#"{{{started},"Running":true,"Paused":true}}"#), EngineState::Paused),
            (format!(r#"{{{started},"Running":true,"Restarting":true}}"#), EngineState::Restarting),
            (format!(r#"{{{started},"Dead":true}}"#), EngineState::Dead),
            (
                format!(r#"{{{started},"Dead":true,"RemovalInProgress":true}}"#),
                EngineState::Removing,
            ),
        ] {
            assert_eq!(record(&state, "overlay").unwrap().state, expected, "{state}");
        }
    }

    #[test]
    fn the_storage_driver_and_a_removal_are_read_also_of_a_running_container() {
        let text = |state: &str, driver: &str| {
            format!(
                r#"{{"ID":"a",{driver}"State":{state},
                    "Config":{{"Labels":{{"io.balena.image.class":"overlay"}}}}}}"#
            )
        };
        for (state, driver, expected) in [
            ("{}", r#""Driver":"overlay2","#, (false, Some("overlay2"))),
            (r#"{"Running":true,"RemovalInProgress":true}"#, r#""Driver":"","#, (true, None)),
            (r#"{"Dead":true}"#, "", (true, None)),
            ("null", "", (false, None)),
        ] {
            let stored = parse_stored(text(state, driver).as_bytes()).unwrap().unwrap();
            assert_eq!((stored.is_ending, stored.driver.as_deref()), expected, "{state}");
        }
    }

    #[test]
    fn the_fields_that_status_needs_are_read_and_other_containers_are_left_out() {
        let container = record(r#"{"ExitCode":128,"Error":"no"}"#, "overlay").unwrap();
        assert_eq!(container.name, "ext");
        assert_eq!(container.volumes().collect::<Vec<_>>(), ["v"]);
        let Detail::Known(last_run) = &container.detail else { panic!() };
        assert_eq!((last_run.exit_code, last_run.error.as_deref()), (Some(128), Some("no")));
        assert!(record("{}", "volume").is_none());
        assert!(parse_stored(b"{").is_err());
        for text in ["{}", r#"{"ID":"a"}"#, r#"{"ID":"a","Config":null}"#] {
            assert!(parse_stored(text.as_bytes()).is_err(), "{text}");
        }
        assert!(matches!(record("null", "overlay").unwrap().detail, Detail::Unreadable(_)));
    }

    #[test]
    fn a_record_replaces_its_container_if_it_shows_a_result() {
        let listed = EngineContainer {
            name: "listed".to_owned(),
            detail: Detail::Unreadable("no answer".to_owned()),
            ..record("{}", "overlay").unwrap()
        };
        for (state, is_taken) in [
            (r#"{"StartedAt":"2026-01-01T00:00:00Z"}"#, true),
            (r#"{"Error":"no"}"#, true),
            (r#"{"Dead":true}"#, true),
            (r#"{"Error":""}"#, false),
            ("{}", false),
            ("null", false),
        ] {
            let stored = record(state, "overlay").unwrap();
            let other = EngineContainer { id: "abcd".to_owned(), ..stored.clone() };
            let mut container = listed.clone();
            take_record(&mut container, &[other]);
            assert_eq!(container, listed, "the record of another container");
            take_record(&mut container, std::slice::from_ref(&stored));
            assert_eq!(container, if is_taken { stored } else { listed.clone() }, "{state}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct NoState;
}
