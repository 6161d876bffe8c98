//! `state.json`: the OCI state with OCI names, and in addition the values that start, kill and delete need, so that
//! changes of the bundle after create have no effect. `host/container/state_dir.rs` stores it.

use crate::model::container::lifecycle::{Duty, Phase, Status};
use crate::model::container::proxy::Identity;
use crate::model::container::salvage::Salvaged;
use crate::model::container::signal::{self, Signal};
use crate::model::container::spec::{Mount, OCI_VERSION, SpecHooks};
use crate::model::extension::hook::Verb;
use crate::model::text::json_object::only_objects;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything recorded of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
pub(crate) struct State {
    /// This and the identity of the proxy come first: a file that is cut off still shows that it is ours.
    pub(crate) role: RecordedRole,
    /// The proxy's pid, 0 while there is none.
    pub(crate) pid: i32,
    /// Start time of `pid` in clock ticks after boot.
    #[serde(default)]
    pub(crate) pid_start_time: u64,
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) status: Status,
    /// Absolute.
    pub(crate) bundle: String,
    /// Absolute.
    pub(crate) rootfs: String,
    /// RFC 3339.
    pub(crate) created: String,
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// If the image brings a kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<RecordedKernel>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<Mount>,
    #[serde(default)]
    pub(crate) hooks: SpecHooks,
    /// The leaf below the root of every cgroup hierarchy that the proxy was moved into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cgroup: Option<String>,
    /// The hierarchies in which the leaf existed before create. We did not make it, so it is not removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) foreign_cgroups: Vec<PathBuf>,
    /// Where create was told to write the pid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pid_file: Option<String>,
    #[serde(default)]
    pub(crate) phase: Phase,
    #[serde(default, skip_serializing_if = "StartOutput::is_usual")]
    pub(crate) start_output: StartOutput,
    /// Why start has not applied it, if that was not a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// The rootfs and its hooks as create saw them, after `hooks/create` had run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<SeenRootfs>,
}

only_objects!(; written: State);

/// The properties of a rootfs that must be unchanged when its next hook runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenRootfs {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// The hooks that it had.
    pub(crate) hooks: Vec<Verb>,
}

/// Where the kernel of an image is published from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RecordedKernel {
    /// The name of the volume with a copy of `/boot`.
    pub(crate) volume: String,
    /// The data root of the engine that has the volume; absolute.
    pub(crate) data_root: PathBuf,
}

impl RecordedKernel {
    /// The directory with the content of the volume.
    pub(crate) fn folder(&self) -> PathBuf {
        self.data_root.join("volumes").join(&self.volume).join("_data")
    }
}

/// The recorded kind of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RecordedRole {
    Extension,
    Sandbox,
}

/// Where `start` sends the output of `hooks/start`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StartOutput {
    /// To the streams of the proxy, which are the container's log.
    #[default]
    Proxy,
    /// To its own standard output, since the proxy has no stream that anybody reads.
    Caller,
}

impl StartOutput {
    fn is_usual(&self) -> bool {
        *self == Self::Proxy
    }
}

/// Whether the recorded proxy is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyIs {
    Alive,
    Gone,
}

/// What `state` prints and the spec's hooks read: the OCI fields, as runc orders them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StateView<'a> {
    oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) pid: i32,
    pub(crate) status: Status,
    pub(crate) bundle: &'a str,
    rootfs: &'a str,
    pub(crate) created: &'a str,
    /// Of what is both, the label: that is what the hooks are given.
    annotations: BTreeMap<&'a str, &'a str>,
}

/// The result of reading a `state.json`.
#[derive(Debug)]
pub(crate) enum Parsed {
    Ours(Box<State>),
    /// JSON of another runtime's: engines give all runtimes one state root.
    Foreign,
    /// Ours, and cut off or with fields that do not fit.
    Damaged {
        why: String,
        /// The proxy, if that much could be read.
        proxy: Option<Identity>,
    },
    /// Neither JSON nor recognizable as ours.
    Unidentified {
        why: String,
    },
}

impl State {
    /// Reads the bytes of a `state.json`.
    pub(crate) fn parse(bytes: &[u8]) -> Parsed {
        let error = match serde_json::from_slice::<Self>(bytes) {
            Ok(state) => return Parsed::Ours(Box::new(state)),
            Err(error) => error,
        };
        let salvaged = Salvaged::from(bytes);
        let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
        if salvaged.is_ours {
            Parsed::Damaged { why: error.to_string(), proxy: salvaged.proxy() }
        } else if is_json() {
            Parsed::Foreign
        } else {
            Parsed::Unidentified { why: error.to_string() }
        }
    }

    /// The bytes of a `state.json`.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// The recorded proxy, if create got as far as that.
    pub(crate) fn proxy(&self) -> Option<Identity> {
        (self.pid > 0).then_some(Identity { pid: self.pid, start_time: self.pid_start_time })
    }

    /// The status as it truly is: a container whose proxy is gone has stopped, whatever the file
    /// says, and one that says `stopped` is running until its proxy has ended. `creating` stays, for then
    /// no proxy is recorded yet; and it comes back if `create` died before it was complete, which took the
    /// proxy along.
    pub(crate) fn true_status(&self, proxy: ProxyIs) -> Status {
        match (self.status, proxy) {
            (Status::Created, ProxyIs::Gone) if self.phase == Phase::Completing => Status::Creating,
            (Status::Created | Status::Running, ProxyIs::Gone) => Status::Stopped,
            (Status::Stopped, ProxyIs::Alive) => Status::Running,
            (status, _) => status,
        }
    }

    /// Whether a new container may take the id over, if no command works on this one: its `create` died before it
    /// was complete, or its `delete` did not finish.
    pub(crate) fn may_be_taken_over(&self, proxy: ProxyIs) -> bool {
        self.phase.is_way_out() || self.true_status(proxy) == Status::Creating
    }

    /// The task of the proxy.
    pub(crate) fn duty(&self) -> Duty {
        match self.status {
            Status::Creating | Status::Created | Status::Running => Duty::Stay,
            Status::Stopped => Duty::End,
        }
    }

    /// The signal that makes the proxy exit.
    pub(crate) fn last_signal(&self) -> Signal {
        match self.refused {
            None => signal::STARTED,
            Some(_) => signal::REFUSED,
        }
    }

    /// The OCI state with the observed `status`; the pid is 0 if the proxy has exited.
    pub(crate) fn view(&self, status: Status) -> StateView<'_> {
        let died_in_create = status == Status::Creating && self.status != status;
        let gone = status == Status::Stopped || died_in_create;
        StateView {
            oci_version: OCI_VERSION,
            id: &self.id,
            pid: if gone { 0 } else { self.pid },
            status,
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: self.annotations.iter().chain(&self.labels).map(as_strs).collect(),
        }
    }
}

fn as_strs<'a>((name, text): (&'a String, &'a String)) -> (&'a str, &'a str) {
    (name, text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A state as `create` leaves it.
    pub(crate) fn created() -> State {
        State {
            oci_version: OCI_VERSION.to_owned(),
            id: "x".to_owned(),
            pid: 7,
            status: Status::Created,
            bundle: "/b".to_owned(),
            rootfs: "/b/rootfs".to_owned(),
            created: "2026-01-02T03:04:05Z".to_owned(),
            annotations: BTreeMap::new(),
            pid_start_time: 99,
            role: RecordedRole::Extension,
            labels: BTreeMap::new(),
            image: None,
            kernel: None,
            mounts: Vec::new(),
            hooks: SpecHooks::default(),
            cgroup: None,
            foreign_cgroups: Vec::new(),
            pid_file: None,
            phase: Phase::InUse,
            start_output: StartOutput::Proxy,
            refused: None,
            seen: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let state = created();
        let bytes = state.to_bytes().unwrap();
        match State::parse(&bytes) {
            Parsed::Ours(read) => assert_eq!(*read, state),
            Parsed::Foreign | Parsed::Damaged { .. } | Parsed::Unidentified { .. } => {
                panic!("not read as ours")
            }
        }
    }

    #[test]
    fn the_phase_is_read_as_earlier_versions_wrote_it() {
        let text = String::from_utf8(created().to_bytes().unwrap()).unwrap();
        for (written, phase) in [
            (r#","phase":"inuse""#, Phase::InUse),
            (r#","phase":"deleting""#, Phase::Deleting),
            ("", Phase::InUse),
        ] {
            let text = text.replace(r#","phase":"inuse""#, written);
            let Parsed::Ours(read) = State::parse(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(read.phase, phase, "{text}");
        }
    }

    #[test]
    fn every_truncation_is_damage_or_cannot_be_identified_and_is_never_half_believed() {
        let bytes = created().to_bytes().unwrap();
        let ours = r#"{"role":"#.len();
        let proxy = r#"{"role":"extension","pid":7,"pidStartTime":99,"#.len();
        for len in 0..bytes.len() {
            match State::parse(&bytes[..len]) {
                Parsed::Damaged { proxy: found, .. } => {
                    assert!(len >= ours, "{len}");
                    assert_eq!(found.is_some(), len >= proxy, "{len}");
                }
                Parsed::Unidentified { .. } => assert!(len < ours, "{len}"),
                Parsed::Ours(_) | Parsed::Foreign => panic!("{len}"),
            }
        }
    }

    #[test]
    fn whose_a_state_is_depends_on_the_keys_that_only_ours_has() {
        for foreign in [
            r#"{"id":"x","init_process_pid":1,"config":{}}"#,
            r#"{"ociVersion":"1.0.0","id":"x","status":"created","pid":7}"#,
            r#"{"config":{"role":"extension"}}"#,
            "[]",
            "{}",
            "7",
        ] {
            assert!(matches!(State::parse(foreign.as_bytes()), Parsed::Foreign), "{foreign}");
        }
        for damaged in [
            r#"{"ociVersion":"1.0.0","id":"x","status":"created","pid":"7","role":"extension"}"#,
            r#"{"role":"extension"}"#,
            r#"{"pidStartTime":1}"#,
            r#"{"pidStartTime":1}x"#,
        ] {
            assert!(
                matches!(State::parse(damaged.as_bytes()), Parsed::Damaged { .. }),
                "{damaged}"
            );
        }
        for neither in ["", "\0\0\0", "{", r#"{"id":"x","sta"#, "garbage", "\u{1}{\"role\":1}"] {
            assert!(
                matches!(State::parse(neither.as_bytes()), Parsed::Unidentified { .. }),
                "{neither}"
            );
        }
    }

    #[test]
    fn a_container_whose_proxy_is_gone_has_stopped() {
        let with = |status| State { status, ..created() };
        for (written, proxy, truth) in [
            (Status::Creating, ProxyIs::Gone, Status::Creating),
            (Status::Created, ProxyIs::Alive, Status::Created),
            (Status::Created, ProxyIs::Gone, Status::Stopped),
            (Status::Running, ProxyIs::Alive, Status::Running),
            (Status::Running, ProxyIs::Gone, Status::Stopped),
            (Status::Stopped, ProxyIs::Gone, Status::Stopped),
        ] {
            assert_eq!(with(written).true_status(proxy), truth);
        }
        let completing = State { phase: Phase::Completing, ..created() };
        assert_eq!(completing.true_status(ProxyIs::Alive), Status::Created);
        assert_eq!(completing.true_status(ProxyIs::Gone), Status::Creating);
        assert_eq!(completing.view(Status::Creating).pid, 0);
        assert_eq!(created().view(Status::Stopped).pid, 0);
        assert_eq!(created().view(Status::Created).pid, 7);
    }

    #[test]
    fn only_an_unfinished_create_or_delete_is_taken_over() {
        use ProxyIs::{Alive, Gone};
        for (status, phase, alive, gone) in [
            (Status::Creating, Phase::InUse, true, true),
            (Status::Created, Phase::Completing, false, true),
            (Status::Created, Phase::InUse, false, false),
            (Status::Running, Phase::InUse, false, false),
            (Status::Stopped, Phase::InUse, false, false),
            (Status::Created, Phase::Ending, true, true),
            (Status::Stopped, Phase::Deleting, true, true),
        ] {
            let state = State { status, phase, ..created() };
            let may = (state.may_be_taken_over(Alive), state.may_be_taken_over(Gone));
            assert_eq!(may, (alive, gone), "{status} {phase:?}");
        }
    }

    #[test]
    fn the_annotations_of_a_view_are_those_of_the_spec_and_the_labels() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let state = State {
            annotations: map(&[("a", "spec"), ("b", "spec")]),
            labels: map(&[("b", "label"), ("c", "label")]),
            ..created()
        };
        let view = serde_json::to_value(state.view(Status::Created)).unwrap();
        let expected = serde_json::json!({ "a": "spec", "b": "label", "c": "label" });
        assert_eq!(view["annotations"], expected);
    }

    #[test]
    fn a_container_whose_proxy_has_not_ended_yet_is_running() {
        let stopped = State { status: Status::Stopped, ..created() };
        assert_eq!(stopped.true_status(ProxyIs::Alive), Status::Running);
        assert_eq!(stopped.view(Status::Running).pid, 7);
        assert_eq!(stopped.duty(), Duty::End);
        let sandbox = State { status: Status::Running, ..created() };
        assert_eq!((sandbox.duty(), created().duty()), (Duty::Stay, Duty::Stay));
    }
}
