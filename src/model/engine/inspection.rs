//! A container as the engine's inspection shows it: whether it failed, how it ended, which layers it has. The
//! lists are in `model/engine/inventory.rs`.

use crate::model::engine::inventory::{Container, Detail, ListedMount, Mounted, Outcome, Phase};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Whether an engine keeps why a container could not be created or started (`State.Error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errors {
    Kept,
    /// Podman's field is always empty.
    NotKept,
}

/// A container as its inspection shows it.
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
    status: Option<String>,
    exit_code: Option<i64>,
    error: Option<String>,
    started_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    data: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Debug, Deserialize)]
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
    pub(crate) fn phase(&self) -> Phase {
        let status = self.state.as_ref().and_then(|state| state.status.as_deref());
        Phase::parse(status.unwrap_or_default())
    }

    /// Whether it did not fail, or not any more. `recorded` is the failure that the runtime has recorded.
    pub(crate) fn has_recovered(&self, recorded: Option<&str>) -> bool {
        let failed = |state: &InspectedState| state.error.as_ref().is_some_and(|it| !it.is_empty());
        match self.phase() {
            Phase::Created | Phase::Exited => {
                recorded.is_none() && !self.state.as_ref().is_some_and(failed)
            }
            Phase::Running | Phase::Paused | Phase::Restarting => true,
            Phase::Removing | Phase::Dead | Phase::Other => false,
        }
    }

    /// What of it is kept.
    ///
    /// # Errors
    /// The state is missing, by which everything is decided.
    pub(crate) fn told(mut self, errors: Errors) -> Result<Told, NoState> {
        if self.state.as_ref().is_none_or(|state| state.status.is_none()) {
            return Err(NoState);
        }
        let mounts = self.mounts.take();
        Ok(Told {
            phase: self.phase(),
            mounts: mounts.map(|all| all.into_iter().map(ListedMount::into_mounted).collect()),
            outcome: self.into_outcome(errors),
        })
    }

    fn into_outcome(self, errors: Errors) -> Outcome {
        let state = self.state.unwrap_or_default();
        let data = self.graph_driver.and_then(|driver| driver.data).unwrap_or_default();
        // The container's own layer and the topmost of its image; images share those below.
        let layers = ["UpperDir", "LowerDir"].map(|key| {
            let paths = data.get(key).and_then(Option::as_deref).unwrap_or_default();
            paths.split(':').find_map(layer_of)
        });
        // All content is in its own one, or below it.
        let [own, topmost] = layers;
        let layers = own.map(|own| std::iter::once(own).chain(topmost).collect());
        let (policy, runtime) = match self.host_config {
            Some(host) => (host.restart_policy, host.runtime),
            None => (None, None),
        };
        let error = match errors {
            Errors::Kept => state.error,
            Errors::NotKept => state.error.filter(|error| !error.is_empty()),
        };
        Outcome {
            exit_code: state.exit_code,
            error,
            started: state.started_at.unwrap_or_default(),
            layers,
            restart: policy.and_then(|policy| policy.name).unwrap_or_default(),
            runtime: runtime.unwrap_or_default(),
        }
    }
}

/// An inspection that does not say what the container does.
#[derive(Debug, thiserror::Error)]
#[error("the engine's answer has no State")]
pub(crate) struct NoState;

/// What an inspection tells beyond the list.
#[derive(Debug)]
pub(crate) struct Told {
    phase: Phase,
    mounts: Option<Vec<Mounted>>,
    pub(crate) outcome: Outcome,
}

impl Told {
    /// Adds it to what the list told. The list is made from a snapshot: in it, a container whose removal
    /// failed says `removing` for ever, while it is `dead`, and a volume without a name of its own has no
    /// path.
    pub(crate) fn complete(self, container: &mut Container) {
        if self.phase != Phase::Other {
            container.phase = self.phase;
        }
        if let Some(mounts) = self.mounts {
            container.mounts = mounts;
        }
        container.detail = Detail::Known(Box::new(self.outcome));
    }
}

/// The layer that a path of an overlay belongs to: `…/overlay2/<layer>/diff`.
fn layer_of(path: &str) -> Option<String> {
    let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
    let last = parts.next()?;
    let layer = if matches!(last, "diff" | "merged") { parts.next()? } else { return None };
    // Made for every container, and so proof of nothing.
    Some(layer.to_owned()).filter(|layer| !layer.ends_with("-init"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::engine::inventory::Collector;

    #[test]
    fn an_inspection_tells_error_and_layers() {
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
        inspected.told(Errors::Kept).unwrap().complete(&mut container);
        assert_eq!((container.phase, container.mounts[0].source.as_str()), (Phase::Dead, "/v"));
        let Detail::Known(outcome) = container.detail else { panic!() };
        assert_eq!((outcome.exit_code, outcome.failure()), (Some(127), Some("no")));
        assert_eq!(outcome.layers, Some(vec!["c".to_owned(), "i".to_owned()]));
        assert_eq!((outcome.restart.as_str(), outcome.runtime.as_str()), ("always", "extension"));
        let bare: InspectedContainer =
            serde_json::from_str(r#"{"State":null,"GraphDriver":{"Data":null}}"#).unwrap();
        assert!(bare.told(Errors::Kept).is_err(), "nothing can be decided by it");
    }

    #[test]
    fn what_an_inspection_does_not_tell_is_unknown_and_not_good() {
        let outcome = |text: &str, errors| {
            let inspected: InspectedContainer = serde_json::from_str(text).unwrap();
            inspected.told(errors).unwrap().outcome
        };
        let silent = outcome(r#"{"State":{"Status":"exited"}}"#, Errors::Kept);
        assert_eq!((silent.exit_code, silent.error, silent.layers), (None, None, None));
        let podman = r#"{"State":{"Status":"created","Error":"","ExitCode":0},
                     "GraphDriver":{"Data":{"LowerDir":"/s/overlay/i/diff"}}}"#;
        let podman = outcome(podman, Errors::NotKept);
        assert_eq!((podman.error, podman.layers), (None, None), "its own layer is not named");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct NoState;
}
