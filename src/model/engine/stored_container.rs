//! Parses a container's record in the engine's store on disk (`config.v2.json`), for when the engine is down.

use crate::model::engine::inventory::{
    Detail, EngineContainer, EngineState, Labels, LastRun, ListedMount, Mounted,
};
use serde::Deserialize;
use serde::de::Error as _;
use std::collections::BTreeMap;

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

/// Parses a record. `None` if the container is not an extension.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<EngineContainer>, serde_json::Error> {
    let stored: StoredContainer = serde_json::from_slice(bytes)?;
    let config =
        stored.config.ok_or_else(|| serde_json::Error::custom("the record has no Config"))?;
    if !config.labels.is_extension() {
        return Ok(None);
    }
    let mounts = stored.mount_points.unwrap_or_default().into_iter();
    let mounts = mounts.map(|(destination, mount)| Mounted { destination, ..mount.into_mounted() });
    Ok(Some(EngineContainer {
        id: stored.id,
        name: stored.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        image_id: stored.image.unwrap_or_default(),
        state: engine_state(stored.state.as_ref()),
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
    }))
}

/// The state, in the engine's own order (Moby's `State.StateString`).
fn engine_state(state: Option<&StoredState>) -> EngineState {
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

    fn record(state: &str, class: &str) -> Option<EngineContainer> {
        let text = format!(
            r#"{{"ID":"abc","Name":"/ext","Image":"sha256:1","State":{state},
                "Config":{{"Image":"img","Labels":{{"io.balena.image.class":"{class}"}}}},
                "MountPoints":{{"/boot":{{"Type":"volume","Name":"v","Source":"/s"}},
                                "/etc":{{"Type":"bind","Name":"","Source":"/h"}}}}}}"#
        );
        parse(text.as_bytes()).unwrap()
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
    fn the_fields_that_status_needs_are_read_and_other_containers_are_left_out() {
        let container = record(r#"{"ExitCode":128,"Error":"no"}"#, "overlay").unwrap();
        assert_eq!(container.name, "ext");
        assert_eq!(container.volumes().collect::<Vec<_>>(), ["v"]);
        let Detail::Known(last_run) = &container.detail else { panic!() };
        assert_eq!((last_run.exit_code, last_run.error.as_deref()), (Some(128), Some("no")));
        assert!(record("{}", "volume").is_none());
        assert!(parse(b"{").is_err());
        for text in ["{}", r#"{"ID":"a"}"#, r#"{"ID":"a","Config":null}"#] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(matches!(record("null", "overlay").unwrap().detail, Detail::Unreadable(_)));
    }
}
