//! Parses the inspection of a container: whether it failed, how it ended, which layers it has. The lists are in
//! `model/engine/inventory.rs`.

use crate::model::engine::inventory::{
    Detail, EngineContainer, EngineState, LastRun, ListedMount, Mounted,
};
use serde::Deserialize;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::engine::inventory::Collector;

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
        let mut collector = Collector::default();
        collector.container(serde_json::from_str(item).unwrap());
        let mut container = collector.inventory().containers.remove(0);
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
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct NoState;
}
