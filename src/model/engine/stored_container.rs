//! A container as the engine's store on disk has it (`config.v2.json`), for when the engine is down.

use crate::model::engine::inventory::{Container, Detail, Labels, Mounted, Outcome, Phase};
use serde::Deserialize;
use serde::de::Error as _;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name")]
    name: Option<String>,
    #[serde(rename = "Image")]
    image: Option<String>,
    #[serde(rename = "Config")]
    config: Option<RawConfig>,
    #[serde(rename = "State")]
    state: Option<RawState>,
    #[serde(rename = "MountPoints")]
    mounts: Option<BTreeMap<String, RawMount>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    image: Option<String>,
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawState {
    running: bool,
    paused: bool,
    restarting: bool,
    removal_in_progress: bool,
    dead: bool,
    exit_code: Option<i64>,
    error: Option<String>,
    started_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawMount {
    #[serde(rename = "Type")]
    kind: Option<String>,
    name: Option<String>,
    source: Option<String>,
}

/// Go's zero time: it never started.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Reads a record. `None` if the container is no extension.
///
/// # Errors
/// Line and column where the JSON is no such record.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Container>, serde_json::Error> {
    let raw: Raw = serde_json::from_slice(bytes)?;
    let config = raw.config.ok_or_else(|| serde_json::Error::custom("it has no Config"))?;
    if !config.labels.is_extension() {
        return Ok(None);
    }
    let is_told = raw.state.is_some();
    let state = raw.state.unwrap_or_default();
    let phase = phase(&state);
    let outcome = Outcome {
        exit_code: state.exit_code,
        error: Some(state.error.unwrap_or_default()),
        started: state.started_at.unwrap_or_default(),
        layers: None,
        restart: String::new(),
        runtime: String::new(),
    };
    let mounts = raw.mounts.unwrap_or_default().into_iter();
    let mounts = mounts.map(|(destination, mount)| {
        let is_volume = mount.kind.as_deref() == Some("volume");
        Mounted {
            volume: mount.name.filter(|name| is_volume && !name.is_empty()),
            source: mount.source.unwrap_or_default(),
            destination,
        }
    });
    Ok(Some(Container {
        id: raw.id,
        name: raw.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        image_id: raw.image.unwrap_or_default().into(),
        phase,
        labels: Arc::new(config.labels),
        mounts: mounts.collect(),
        detail: match is_told {
            true => Detail::Known(Box::new(outcome)),
            false => Detail::Unreadable("the engine's record of it has no State".to_owned()),
        },
    }))
}

/// The engine's own order (Moby's `State.StateString`).
fn phase(state: &RawState) -> Phase {
    let never = state.started_at.as_deref().is_none_or(|time| time.is_empty() || time == NEVER);
    match state {
        RawState { paused: true, running: true, .. } => Phase::Paused,
        RawState { restarting: true, .. } => Phase::Restarting,
        RawState { running: true, .. } => Phase::Running,
        RawState { removal_in_progress: true, .. } => Phase::Removing,
        RawState { dead: true, .. } => Phase::Dead,
        _ if never => Phase::Created,
        _ => Phase::Exited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &str, class: &str) -> Option<Container> {
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
        for (state, phase) in [
            ("null".to_owned(), Phase::Created),
            ("{}".to_owned(), Phase::Created),
            (format!(r#"{{"StartedAt":"{NEVER}"}}"#), Phase::Created),
            (format!("{{{started}}}"), Phase::Exited),
            (format!(r#"{{{started},"Running":true}}"#), Phase::Running),
            (format!(r#"{{{started},"Running":true,"Paused":true}}"#), Phase::Paused),
            (format!(r#"{{{started},"Running":true,"Restarting":true}}"#), Phase::Restarting),
            (format!(r#"{{{started},"Dead":true}}"#), Phase::Dead),
            (format!(r#"{{{started},"Dead":true,"RemovalInProgress":true}}"#), Phase::Removing),
        ] {
            assert_eq!(record(&state, "overlay").unwrap().phase, phase, "{state}");
        }
    }

    #[test]
    fn what_status_needs_is_read_and_others_are_left_out() {
        let container = record(r#"{"ExitCode":128,"Error":"no"}"#, "overlay").unwrap();
        assert_eq!(container.name, "ext");
        assert_eq!(container.volumes().collect::<Vec<_>>(), ["v"]);
        let Detail::Known(outcome) = &container.detail else { panic!() };
        assert_eq!((outcome.exit_code, outcome.error.as_deref()), (Some(128), Some("no")));
        assert!(record("{}", "volume").is_none());
        assert!(parse(b"{").is_err());
        for text in ["{}", r#"{"ID":"a"}"#, r#"{"ID":"a","Config":null}"#] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(matches!(record("null", "overlay").unwrap().detail, Detail::Unreadable(_)));
    }
}
