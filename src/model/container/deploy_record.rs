//! The record of a deploy: which hooks ran at the last `create`, `start` and `delete` of a container, and what
//! they and the runtime said. It outlives the container's state, because an engine forgets a create that
//! failed. Every deploy is recorded, however silent: a record is the evidence that one was made since the host
//! booted, which no clock of a device without a battery can give.

use crate::model::text::cut;
use serde::{Deserialize, Serialize};

/// The version of the record.
const VERSION: u32 = 1;
/// How much of a hook's output is kept, in bytes from its end.
const OUTPUT_MAX: usize = 8 * 1024;
/// How much of a warning. An error is kept as it was reported.
const WARNING_MAX: usize = 4 * 1024;
/// How many steps, hooks in a step and warnings in a step.
const COUNT_MAX: usize = 16;

/// The record of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeployRecord {
    version: u32,
    pub(crate) id: String,
    /// The oldest first; a create begins a new record.
    pub(crate) steps: Vec<RecordedCall>,
}

/// How far a deploy came, as the record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deployed {
    /// It was started, and hooks of the image ran.
    WithHooks,
    /// It was started, and the image has no hooks.
    WithoutHooks,
    /// No start is recorded that succeeded, or not what came before it.
    Unfinished,
}

/// The hooks of an image that apply it.
const APPLYING: [&str; 2] = ["hooks/create", "hooks/start"];

/// One call of the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedCall {
    /// `create`, `start` or `delete`.
    pub(crate) verb: String,
    /// RFC 3339.
    pub(crate) time: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Why a start that did not fail has not applied the extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) hooks: Vec<HookOutput>,
}

/// A hook that ran, and what it printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HookOutput {
    pub(crate) hook: String,
    pub(crate) output: String,
    #[serde(rename = "mountNamespace", default, skip_serializing_if = "MountNamespace::is_host")]
    pub(crate) mount_namespace: MountNamespace,
}

/// The mount namespace in which a hook ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountNamespace {
    /// The one it belongs into: for a hook of the image that of process 1, so its mounts are the host's.
    #[default]
    Host,
    /// It could not be determined whether it was that of process 1, so its mounts may not be on the host.
    Unknown,
}

impl MountNamespace {
    fn is_host(&self) -> bool {
        *self == Self::Host
    }
}

impl HookOutput {
    /// Keeps the end of what `hook` printed.
    pub(crate) fn new(hook: &str, output: &[u8], mount_namespace: MountNamespace) -> Self {
        let from = output.len().saturating_sub(OUTPUT_MAX);
        let output = String::from_utf8_lossy(output.get(from..).unwrap_or_default());
        let hook = cut::value(hook).into();
        Self { hook, output: output.into_owned(), mount_namespace }
    }
}

impl RecordedCall {
    /// Whether the call is worth recording.
    pub(crate) fn says_something(&self) -> bool {
        self.error.is_some()
            || self.refused.is_some()
            || !self.warnings.is_empty()
            || self.hooks.iter().any(|heard| {
                !heard.output.is_empty() || heard.mount_namespace == MountNamespace::Unknown
            })
    }

    /// Whether it neither failed nor refused the extension.
    fn has_applied(&self) -> bool {
        self.error.is_none() && self.refused.is_none()
    }

    fn bounded(mut self) -> Self {
        self.error = self.error.map(|error| cut::middle(&error, 0, cut::SENTENCE_MAX).into());
        let middle = |reason: String| cut::middle(&reason, 0, cut::SENTENCE_MAX).into();
        self.refused = self.refused.map(middle);
        self.warnings.truncate(COUNT_MAX);
        for warning in &mut self.warnings {
            *warning = cut::middle(warning, 0, WARNING_MAX).into();
        }
        self.hooks.truncate(COUNT_MAX);
        self
    }
}

impl DeployRecord {
    /// Begins a record, or continues that of the same deploy.
    pub(crate) fn after(known: Option<Self>, id: &str, step: RecordedCall) -> Self {
        let mut record = match known {
            Some(known) if step.verb != "create" && known.id == id => known,
            Some(_) | None => Self { version: VERSION, id: id.to_owned(), steps: Vec::new() },
        };
        // A container that is restarted for ever must not make a record without end.
        let excess = (record.steps.len() + 1).saturating_sub(COUNT_MAX);
        record.steps.drain(..excess);
        record.steps.push(step.bounded());
        record
    }

    /// The error of the last step that failed, if no later one succeeded with the same verb.
    pub(crate) fn last_error(&self) -> Option<(&str, &str)> {
        let last = self.steps.iter().rfind(|step| step.verb != "delete")?;
        Some((last.verb.as_str(), last.error.as_deref()?))
    }

    /// The hook that may have run in another mount namespace than the host's, if there was one.
    pub(crate) fn hook_in_unknown_namespace(&self) -> Option<&str> {
        let steps = self.steps.iter().filter(|step| step.verb != "delete");
        let mut hooks = steps.flat_map(|step| &step.hooks);
        let found = hooks.find(|heard| heard.mount_namespace == MountNamespace::Unknown)?;
        Some(&found.hook)
    }

    /// How far the last deploy came.
    pub(crate) fn deployed(&self) -> Deployed {
        let create = self.steps.iter().rposition(|step| step.verb == "create");
        let steps = self.steps.get(create.unwrap_or_default()..).unwrap_or_default();
        let is_started = steps.iter().any(|step| step.verb == "start" && step.has_applied());
        let mut hooks = steps.iter().flat_map(|step| &step.hooks);
        let with_hooks = hooks.any(|heard| APPLYING.contains(&heard.hook.as_str()));
        match (is_started, with_hooks, create) {
            (true, true, _) => Deployed::WithHooks,
            (true, false, Some(_)) => Deployed::WithoutHooks,
            (true, false, None) | (false, _, _) => Deployed::Unfinished,
        }
    }

    /// Why the last start has not applied the extension, if it did not fail either.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.steps.iter().rfind(|step| step.verb == "start")?.refused.as_deref()
    }

    /// Reads a record.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The bytes of a record.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(verb: &str, error: Option<&str>) -> RecordedCall {
        RecordedCall {
            verb: verb.to_owned(),
            time: "2026-01-01T00:00:00Z".to_owned(),
            error: error.map(str::to_owned),
            refused: None,
            warnings: Vec::new(),
            hooks: Vec::new(),
        }
    }

    #[test]
    fn a_create_begins_anew_and_the_others_go_on() {
        let record = DeployRecord::after(None, "x", step("create", None));
        let record = DeployRecord::after(Some(record), "x", step("start", Some("no")));
        assert_eq!(record.steps.len(), 2);
        assert_eq!(record.last_error(), Some(("start", "no")));
        let record = DeployRecord::after(Some(record), "x", step("delete", None));
        assert_eq!(record.last_error(), Some(("start", "no")), "a delete mends nothing");
        let record = DeployRecord::after(Some(record), "x", step("create", None));
        assert_eq!((record.steps.len(), record.last_error()), (1, None));
        let other = DeployRecord::after(Some(record), "y", step("start", None));
        assert_eq!((other.id.as_str(), other.steps.len()), ("y", 1));
    }

    #[test]
    fn a_record_tells_how_far_a_deploy_came_and_whether_there_were_hooks() {
        let with = |verb, hook: &str| RecordedCall {
            hooks: vec![HookOutput::new(hook, b"", MountNamespace::Host)],
            ..step(verb, None)
        };
        let (create, start) = (|| step("create", None), || step("start", None));
        let refused = RecordedCall { refused: Some("no".to_owned()), ..start() };
        for (steps, expected) in [
            (vec![], Deployed::Unfinished),
            (vec![create()], Deployed::Unfinished),
            (vec![create(), step("start", Some("no"))], Deployed::Unfinished),
            (vec![create(), refused], Deployed::Unfinished),
            (vec![with("create", "hooks/create")], Deployed::Unfinished),
            (vec![start()], Deployed::Unfinished),
            (vec![with("start", "hooks/start")], Deployed::WithHooks),
            (vec![create(), start()], Deployed::WithoutHooks),
            (vec![create(), start(), with("delete", "hooks/delete")], Deployed::WithoutHooks),
            (vec![with("create", "hooks.prestart[0] (/x)"), start()], Deployed::WithoutHooks),
            (
                vec![create(), with("start", "hooks/start"), step("delete", None)],
                Deployed::WithHooks,
            ),
            (vec![with("create", "hooks/create"), start()], Deployed::WithHooks),
            (vec![create(), start(), create()], Deployed::Unfinished),
        ] {
            let record = DeployRecord { steps, ..DeployRecord::default() };
            assert_eq!(record.deployed(), expected, "{record:?}");
        }
    }

    #[test]
    fn a_record_is_bounded_whatever_is_said() {
        let loud = RecordedCall {
            warnings: vec!["w".repeat(10_000); 100],
            hooks: vec![
                HookOutput::new(
                    &"h".repeat(100_000),
                    &[b'x'; 100_000],
                    MountNamespace::Host
                );
                100
            ],
            ..step("start", Some(&format!("{}: cause", "e".repeat(100_000))))
        };
        let mut record = None;
        for _ in 0..100 {
            record = Some(DeployRecord::after(record.take(), "x", loud.clone()));
        }
        let record = record.unwrap();
        assert_eq!(record.steps.len(), COUNT_MAX);
        assert!(record.last_error().unwrap().1.ends_with(": cause"));
        let most = COUNT_MAX * (COUNT_MAX * (OUTPUT_MAX + WARNING_MAX) + cut::SENTENCE_MAX);
        assert!(record.to_bytes().unwrap().len() < 2 * most);
        assert_eq!(DeployRecord::parse(&record.to_bytes().unwrap()).unwrap(), record);
    }

    #[test]
    fn the_end_of_an_output_is_kept() {
        let heard = HookOutput::new(
            "hooks/start",
            &[&[b'a'; 9000][..], b"the end"].concat(),
            MountNamespace::Host,
        );
        assert!(heard.output.len() == OUTPUT_MAX && heard.output.ends_with("the end"));
        assert!(
            !RecordedCall {
                hooks: vec![HookOutput::new("h", b"", MountNamespace::Host)],
                ..step("start", None)
            }
            .says_something()
        );
        assert!(RecordedCall { hooks: vec![heard], ..step("start", None) }.says_something());
    }
}
