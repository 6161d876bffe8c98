//! Decides the verdict about an extension: whether it is applied, and why not. A source that cannot be read leads
//! to `unknown`, never to a guess. Every reason, with its code, verdict and next step, is a row of the table below;
//! docs/manager.md explains them, and a test compares the two.

use crate::model::container::deploy_record::{DeployRecord, Deployed};
use crate::model::engine::doctor::RegisteredBinary;
use crate::model::engine::inventory::{Detail, EngineContainer, EngineState, Labels, LastRun};
use crate::model::extension::claim::{ClaimedFact, ComparedClaim, Judgement, Running};
use crate::model::extension::labels::REQUIRES_REBOOT;
use crate::model::kernel::abi::Abi;
use crate::model::kernel::mounts::HostOverlays;
use crate::model::kernel::records::{BlockValues, Slot, TRIAL_LIMIT};
use crate::model::text::cause;
use crate::model::text::cut::short_id;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// The state of an extension, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Applied,
    OnTrial,
    PendingReboot,
    Refused,
    Failed,
    Skipped,
    Stale,
    Dead,
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// Makes [`VerdictReason`] from rows of name, code, verdict and next step.
macro_rules! reasons {
    ($($name:ident $code:literal $verdict:ident $next:literal,)*) => {
        /// Why a verdict was given.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum VerdictReason { $($name,)* }

        impl VerdictReason {
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code for programs.
            pub(crate) fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            pub(crate) fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)* }
            }

            /// The next step for the user. `{id}` is the container, `{runtime}` the name of this runtime, `{log}`
            /// the initramfs' log.
            fn next(self) -> &'static str {
                match self { $(Self::$name => $next,)* }
            }
        }
    };
}

reasons! {
    Layered "layered-at-boot" Applied "none",
    HooksRan "hooks-ran" Applied "none",
    KernelOnTrial "kernel-on-trial" OnTrial
        "wait: after its health check, validate keeps the kernel or rejects it; details: \
         balena-extension-manager override status",
    KernelTrialOver "kernel-trial-over" OnTrial
        "wait: validate rejects the kernel, or resets its trial count; details: \
         balena-extension-manager override status",
    RequiresReboot "requires-reboot" PendingReboot "reboot the device",
    NoHooks "no-hooks" PendingReboot "reboot the device",
    KernelArmed "kernel-armed" PendingReboot "reboot the device into the extension's kernel",
    KernelRejected "kernel-rejected" Refused
        "ship a kernel that boots and stays healthy; this one is not tried again",
    RefusedByRuntime "refused-by-runtime" Refused
        "ship an image that the runtime accepts; details: balena-extension-manager logs {id}",
    CreateFailed "create-failed" Failed
        "fix the cause and deploy again; details: balena-extension-manager logs {id}",
    StartFailed "start-failed" Failed
        "fix the cause and deploy again; details: balena-extension-manager logs {id}",
    BadExit "bad-exit" Failed
        "deploy it again; to see which runtime ran it: docker inspect -f '{{.HostConfig.Runtime}}' {id}",
    Killed "killed" Failed "deploy it again",
    OtherRuntime "other-runtime" Failed
        "remove it: docker rm {id}; then deploy it with: docker run --runtime {runtime} IMAGE",
    NeverStarted "never-started" Skipped "start it: docker start {id}",
    NotLayered "not-layered" Skipped
        "read the reason in {log}, and deploy a version that the initramfs accepts",
    KernelAbiMismatch "kernel-abi-mismatch" Stale
        "ship a version for the running kernel; to remove this one: balena-extension-manager cleanup --stale-os",
    KernelVersionMismatch "kernel-version-mismatch" Stale
        "ship a version for the running kernel; to remove this one: balena-extension-manager cleanup --stale-os",
    OsVersionMismatch "os-version-mismatch" Stale
        "ship a version for the running OS; to remove this one: balena-extension-manager cleanup --stale-os",
    EngineDead "engine-dead" Dead "remove it: balena-extension-manager cleanup",
    BeingRemoved "being-removed" Dead "wait; if the removal does not end, restart the engine",
    Deploying "deploying" Unknown "ask again in a moment: balena-extension-manager status {id}",
    Restarting "restarting" Unknown
        "remove the restart policy: docker update --restart no {id} (an extension exits as soon as it is applied)",
    StrangeState "strange-state" Unknown "ask the engine: docker inspect {id}",
    NotInspected "not-inspected" Unknown
        "read the engine's log, and ask again: balena-extension-manager status {id}",
    SystemUnreadable "system-unreadable" Unknown
        "run balena-extension-manager doctor: it says what cannot be read and how to fix that",
    BootEnvironmentUnreadable "boot-environment-unreadable" Unknown
        "run balena-extension-manager doctor: it says what cannot be read and how to fix that",
    RejectedUnreadable "rejected-unreadable" Unknown
        "as root, mount /mnt/state and make /mnt/state/override-rejected readable",
    SlotUnknown "slot-unknown" Unknown
        "run balena-extension-manager override status: it says what cannot be determined",
    MountsUnreadable "mounts-unreadable" Unknown "run this command as root, with /proc mounted",
    StartTimeUnknown "start-time-unknown" Unknown "deploy it again",
    MountNamespaceUnknown "mount-namespace-unknown" Unknown
        "make /proc/1 readable to the engine, then deploy it again",
    NotVisible "not-visible" Unknown "deploy it again",
    LayersUnnamed "layers-unnamed" Unknown "deploy it again",
    NotRecorded "not-recorded" Unknown "deploy it again",
    RecordUnreadable "record-unreadable" Unknown
        "run this command as root; or remove the record, and deploy it again",
    OutcomeUnknown "outcome-unknown" Unknown "deploy it again",
}

/// The reason for a verdict, in words, and the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explanation {
    pub(crate) reason: VerdictReason,
    pub(crate) sentence: String,
    pub(crate) next: String,
}

/// The facts about the host.
#[derive(Clone, Debug)]
pub(crate) struct HostFacts {
    pub(crate) running: Running,
    pub(crate) overlays: Result<HostOverlays, String>,
    /// What the boot environment block says about kernels; nothing if there is no block.
    pub(crate) block: Result<BlockValues, String>,
    /// The root filesystem slot that runs.
    pub(crate) slot: Result<Slot, String>,
    /// The kernels that are not tried again.
    pub(crate) rejected: Result<BTreeSet<Abi>, String>,
    /// The path of the initramfs' log.
    pub(crate) initramfs_log: String,
    /// The name by which the engine knows this runtime.
    pub(crate) runtime: Option<String>,
}

/// The facts about an extension that its container does not show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence<'a> {
    /// Whether it was started after the host booted. This compares clock times, and a device without a battery
    /// may set its clock long after it has booted.
    pub(crate) since_boot: Option<bool>,
    /// The runtime's record of its deploy, or why it cannot be read. Every deploy is recorded, and no record
    /// survives a reboot.
    pub(crate) record: Result<Option<&'a DeployRecord>, &'a str>,
    /// The program of the runtime that ran it; `None` if that is unknown.
    pub(crate) ran_by: Option<&'a RegisteredBinary>,
}

/// Finds the first reason that applies: what prevents the extension's effect comes before what shows it.
pub(crate) fn explain(
    container: &EngineContainer,
    evidence: Evidence<'_>,
    host: &HostFacts,
) -> Explanation {
    let (reason, sentence) = decide(container, evidence, host);
    let runtime = host.runtime.as_deref().unwrap_or("extension");
    let next = reason.next().replace("{id}", short_id(&container.id));
    let next = next.replace("{runtime}", runtime).replace("{log}", &host.initramfs_log);
    Explanation { reason, sentence: cause::sentence(&sentence), next: cause::sentence(&next) }
}

type Finding = (VerdictReason, String);

fn because(reason: VerdictReason, sentence: impl Into<String>) -> Finding {
    (reason, sentence.into())
}

fn decide(container: &EngineContainer, evidence: Evidence<'_>, host: &HostFacts) -> Finding {
    match container.state {
        EngineState::Dead => {
            because(VerdictReason::EngineDead, "an earlier removal by the engine did not complete")
        }
        EngineState::Removing => because(VerdictReason::BeingRemoved, "the engine is removing it"),
        EngineState::Running | EngineState::Paused => because(
            VerdictReason::Deploying,
            "its container is running, as it does for a moment during a deploy",
        ),
        EngineState::Restarting => {
            let policy = container.last_run().map_or("", |last_run| &last_run.restart);
            because(
                VerdictReason::Restarting,
                format!("the engine restarts it again and again (restart policy {policy:?})"),
            )
        }
        EngineState::Other => because(
            VerdictReason::StrangeState,
            "the engine reports a state that this program does not know",
        ),
        EngineState::Created | EngineState::Exited => match &container.detail {
            Detail::Known(last_run) => Ended { container, last_run, evidence, host }.explain(),
            Detail::Unreadable(why) => because(VerdictReason::NotInspected, why),
            Detail::NotAsked => {
                because(VerdictReason::NotInspected, "the engine was not asked about it")
            }
        },
    }
}

/// An extension that was created and maybe started, with everything that shows what became of it.
struct Ended<'a> {
    container: &'a EngineContainer,
    last_run: &'a LastRun,
    evidence: Evidence<'a>,
    host: &'a HostFacts,
}

impl Ended<'_> {
    fn explain(&self) -> Finding {
        let claims = self.container.labels.claims();
        let rejected = self.host.rejected.as_ref();
        let is_rejected =
            |abi: &&str| rejected.is_ok_and(|all| all.iter().any(|one| one.as_str() == *abi));
        if let Some(abi) = claims.abi.filter(is_rejected) {
            let text = format!("its kernel {} was tried and rejected", short_id(abi));
            return because(VerdictReason::KernelRejected, text);
        }
        if let Some(finding) = self.failure().or_else(|| self.bad_exit()) {
            return finding;
        }
        if let (Some(_), Err(why)) = (claims.abi, rejected) {
            return because(VerdictReason::RejectedUnreadable, why);
        }
        match claims.judge(&self.host.running) {
            Judgement::Violated(mismatches) => violated(&mismatches, self.host),
            Judgement::Unknown(why) => because(VerdictReason::SystemUnreadable, why.join("; ")),
            Judgement::Unclaimed | Judgement::Holds => {
                let trial = claims.abi.and_then(|abi| on_trial(abi, self.host));
                trial.unwrap_or_else(|| self.effect())
            }
        }
    }

    /// The runtime's record of the deploy, if there is one that can be read.
    fn record(&self) -> Option<&DeployRecord> {
        self.evidence.record.ok().flatten()
    }

    /// A create or start that failed, by the runtime's record or the engine's error.
    fn failure(&self) -> Option<Finding> {
        let by_engine = || {
            let error = self.last_run.failure()?;
            Some((if error.contains("start failed") { "start" } else { "create" }, error))
        };
        // The engine's error contains the runtime's, with text around it.
        let recorded = self.record().and_then(DeployRecord::last_error);
        let (verb, error) = recorded.or_else(by_engine)?;
        let reason = match verb {
            "start" => VerdictReason::StartFailed,
            _ => VerdictReason::CreateFailed,
        };
        Some(because(reason, error))
    }

    /// A state or an exit status that shows that the extension is not applied.
    fn bad_exit(&self) -> Option<Finding> {
        let Self { last_run, evidence, .. } = self;
        if self.container.state == EngineState::Created {
            return Some(match (&last_run.error, evidence.record) {
                (None, Err(why)) => because(VerdictReason::RecordUnreadable, why),
                (None, Ok(None)) => because(
                    VerdictReason::OutcomeUnknown,
                    "the engine does not report whether it failed, and the runtime has recorded nothing about it \
                     since the host booted",
                ),
                (_, _) => because(VerdictReason::NeverStarted, "it was created, but never started"),
            });
        }
        if evidence.ran_by == Some(&RegisteredBinary::Another)
            && evidence.record.is_ok_and(|record| record.is_none())
        {
            return self.ran_by_another();
        }
        let (reason, text) = match last_run.exit_code {
            Some(0) => return None,
            Some(1) => (
                VerdictReason::RefusedByRuntime,
                match self.record().and_then(DeployRecord::refusal) {
                    Some(reason) => format!("the runtime refused to start it: {reason}"),
                    None => "the runtime refused to start it (exit status 1)".to_owned(),
                },
            ),
            // 128 plus the number of the signal, as shells report it. signal(7): there are 64.
            Some(code @ 129..=192) => {
                (VerdictReason::Killed, format!("its process was killed by signal {}", code - 128))
            }
            Some(code) => (
                VerdictReason::BadExit,
                format!("it exited with status {code}, which this runtime never gives"),
            ),
            None => (
                VerdictReason::NotInspected,
                "the engine does not report its exit status".to_owned(),
            ),
        };
        Some((reason, text))
    }

    /// Another runtime ran no hook, but the boot may have layered the extension all the same.
    fn ran_by_another(&self) -> Option<Finding> {
        let Self { last_run, evidence, host, .. } = self;
        let overlays = match &host.overlays {
            Ok(overlays) => overlays,
            Err(why) => return Some(because(VerdictReason::MountsUnreadable, why)),
        };
        if self.is_layered(overlays) {
            return None;
        }
        let is_unnamed = !overlays.unnamed.is_empty() || last_run.layers.is_none();
        if overlays.root && is_unnamed && evidence.since_boot != Some(true) {
            return Some(self.before_boot(overlays));
        }
        let text = format!("another runtime, {:?}, ran it, so no hook ran", last_run.runtime);
        Some(because(VerdictReason::OtherRuntime, text))
    }

    fn is_layered(&self, overlays: &HostOverlays) -> bool {
        let layers = self.last_run.layers.iter().flatten().map(String::as_str);
        layers.chain(self.container.volumes()).any(|part| overlays.layers.contains(part))
    }

    /// Its hooks ran and it is meant for this system: whether it is in effect.
    fn effect(&self) -> Finding {
        let evidence = &self.evidence;
        let overlays = match &self.host.overlays {
            Ok(overlays) => overlays,
            Err(why) => return because(VerdictReason::MountsUnreadable, why),
        };
        if self.is_layered(overlays) {
            return because(VerdictReason::Layered, "its content is layered over the host");
        }
        let record = match evidence.record {
            Ok(record) => record,
            Err(why) => return because(VerdictReason::RecordUnreadable, why),
        };
        if let Some(hook) = record.and_then(DeployRecord::hook_in_unknown_namespace) {
            let text = format!(
                "cannot determine whether {hook} ran in the mount namespace of process 1, so its mounts may not be \
                 on the host"
            );
            return because(VerdictReason::MountNamespaceUnknown, text);
        }
        let (reason, text) = match (record.map(DeployRecord::deployed), evidence.since_boot) {
            (Some(Deployed::WithHooks), _) if requires_reboot(&self.container.labels) => (
                VerdictReason::RequiresReboot,
                "its hooks ran, but it takes effect only after a reboot",
            ),
            (Some(Deployed::WithHooks), _) => {
                (VerdictReason::HooksRan, "its hooks ran since the host booted")
            }
            (Some(Deployed::WithoutHooks), _) => (
                VerdictReason::NoHooks,
                "it has no hooks; the next boot layers its files over the host",
            ),
            (Some(Deployed::Unfinished), _) => (
                VerdictReason::NotRecorded,
                "it has exited, but the runtime has not recorded a start",
            ),
            (None, Some(true)) => (
                VerdictReason::NotRecorded,
                "it was started since the host booted, but the runtime has recorded nothing about it",
            ),
            (None, Some(false)) => return self.before_boot(overlays),
            (None, None) => {
                let started = &self.last_run.started;
                let text = format!("cannot determine when it was started ({started:?})");
                return because(VerdictReason::StartTimeUnknown, text);
            }
        };
        because(reason, text)
    }

    /// It was deployed before the host booted, and no mount shows its content.
    fn before_boot(&self, overlays: &HostOverlays) -> Finding {
        if !overlays.root {
            let text =
                "its hooks ran before the last boot, and no mount of the host shows its content";
            return because(VerdictReason::NotVisible, text);
        }
        match (overlays.unnamed.first(), &self.last_run.layers) {
            (Some(path), _) => {
                let count = overlays.unnamed.len();
                let text = format!(
                    "it may be one of {count} layers of the root filesystem whose names are unknown, such as {path}"
                );
                because(VerdictReason::LayersUnnamed, text)
            }
            (None, None) => because(
                VerdictReason::LayersUnnamed,
                "the engine does not name its layers, so they cannot be found in the root filesystem",
            ),
            (None, Some(_)) => because(
                VerdictReason::NotLayered,
                "it was deployed before the last boot, but the initramfs did not include it in the root overlay",
            ),
        }
    }
}

fn is_armed(values: &BlockValues, abi: &str) -> bool {
    values.arm.abi().is_some_and(|arm| arm.as_str() == abi)
}

/// The kernel that runs is one that the extension claims: whether it is on trial. The prestate is no evidence, because a
/// crash leaves it.
fn on_trial(abi: &str, host: &HostFacts) -> Option<Finding> {
    let values = match &host.block {
        Ok(values) => values,
        Err(why) => return Some(because(VerdictReason::BootEnvironmentUnreadable, why)),
    };
    if !is_armed(values, abi) {
        return None;
    }
    let Some(is_on_trial) = values.is_on_trial_in(host.slot.as_ref().ok().copied()) else {
        let why = host.slot.as_ref().err().cloned().unwrap_or_default();
        return Some(because(VerdictReason::SlotUnknown, why));
    };
    let boots = values.boots();
    is_on_trial.then(|| {
        let text = format!("its kernel runs on trial (booted {boots} of {TRIAL_LIMIT} times)");
        because(VerdictReason::KernelOnTrial, text)
    })
}

/// Claims do not hold. The claim on a kernel will hold after the reboot if that kernel is set to boot next.
fn violated(mismatches: &[ComparedClaim], host: &HostFacts) -> Finding {
    if let [ComparedClaim { fact: ClaimedFact::KernelAbi, claimed, .. }] = mismatches {
        match &host.block {
            Ok(values) if is_armed(values, claimed) => {
                let boots = values.boots();
                let tried =
                    format!("it was booted {boots} of {TRIAL_LIMIT} times and does not run");
                let text = "its kernel is set to boot next; the current one runs until the reboot";
                return match boots {
                    0 => because(VerdictReason::KernelArmed, text),
                    1..TRIAL_LIMIT => {
                        because(VerdictReason::KernelArmed, format!("{text}; {tried}"))
                    }
                    // No reboot helps.
                    TRIAL_LIMIT.. => because(
                        VerdictReason::KernelTrialOver,
                        format!("the next boot does not try its kernel: {tried}"),
                    ),
                };
            }
            Ok(_) => {}
            Err(why) => return because(VerdictReason::BootEnvironmentUnreadable, why),
        }
    }
    let reason = match mismatches.first().map(|mismatch| mismatch.fact) {
        Some(ClaimedFact::KernelVersion) => VerdictReason::KernelVersionMismatch,
        Some(ClaimedFact::OsVersion) => VerdictReason::OsVersionMismatch,
        Some(ClaimedFact::KernelAbi) | None => VerdictReason::KernelAbiMismatch,
    };
    let texts: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
    because(reason, texts.join("; "))
}

/// Whether the labels ask for a reboot.
pub(crate) fn requires_reboot(labels: &Labels) -> bool {
    REQUIRES_REBOOT.iter().any(|name| {
        let text = labels.value(name).unwrap_or_default().trim();
        !matches!(text, "" | "0" | "false" | "no")
    })
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
