//! Decides the verdict about an extension: whether it is applied, and why not. A source that cannot be read leads
//! to `unknown`, never to a guess. Every reason, with its code, verdict and next step, is a row of the table below;
//! docs/manager.md explains them, and a test compares the two.

use crate::model::container::deploy_record::{DeployRecord, Deployed};
use crate::model::engine::inventory::{Detail, EngineContainer, EngineState, Labels, LastRun};
use crate::model::engine::runtimes::RanBy;
use crate::model::extension::claim::{self, Judgement, Mismatch, Running};
use crate::model::extension::labels::REQUIRES_REBOOT;
use crate::model::kernel::mounts::HostOverlays;
use crate::model::text::cause;
use crate::model::text::short_id::short_id;
use serde::Serialize;

/// The state of an extension, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Applied,
    PendingReboot,
    Refused,
    Failed,
    Skipped,
    Stale,
    Dead,
    Unknown,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::PendingReboot => "pending-reboot",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Stale => "stale",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
        }
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
    RequiresReboot "requires-reboot" PendingReboot "reboot the device",
    NoHooks "no-hooks" PendingReboot "reboot the device",
    KernelArmed "kernel-armed" PendingReboot "reboot the device into the extension's kernel",
    KernelRejected "kernel-rejected" Refused
        "ship a kernel that boots and stays healthy; this one is not tried again",
    RefusedByRuntime "refused-by-runtime" Refused
        "read the reason: balena-extension-manager logs {id}",
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
    /// The ABI of the kernel that the boot environment block names for the next boot; `None` if it names none,
    /// or if there is no block.
    pub(crate) armed: Result<Option<String>, String>,
    /// The ABIs of the kernels that are not tried again.
    pub(crate) rejected: Result<Vec<String>, String>,
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
    pub(crate) ran_by: RanBy,
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

fn decide(
    container: &EngineContainer,
    evidence: Evidence<'_>,
    host: &HostFacts,
) -> (VerdictReason, String) {
    let is = |reason, sentence: &str| (reason, sentence.to_owned());
    let restart = match &container.detail {
        Detail::Known(last_run) => last_run.restart.as_str(),
        Detail::NotAsked | Detail::Unreadable(_) => "",
    };
    match container.state {
        EngineState::Dead => {
            is(VerdictReason::EngineDead, "an earlier removal by the engine did not complete")
        }
        EngineState::Removing => is(VerdictReason::BeingRemoved, "the engine is removing it"),
        EngineState::Running | EngineState::Paused => is(
            VerdictReason::Deploying,
            "its container is running, as it does for a moment during a deploy",
        ),
        EngineState::Restarting => {
            let text =
                format!("the engine restarts it again and again (restart policy {restart:?})");
            (VerdictReason::Restarting, text)
        }
        EngineState::Other => is(
            VerdictReason::StrangeState,
            "the engine reports a state that this program does not know",
        ),
        EngineState::Created | EngineState::Exited => match &container.detail {
            Detail::Known(last_run) => ended(container, last_run, evidence, host),
            Detail::Unreadable(why) => (VerdictReason::NotInspected, why.clone()),
            Detail::NotAsked => {
                is(VerdictReason::NotInspected, "the engine was not asked about it")
            }
        },
    }
}

fn ended(
    container: &EngineContainer,
    last_run: &LastRun,
    evidence: Evidence<'_>,
    host: &HostFacts,
) -> (VerdictReason, String) {
    let abi = container.labels.claims().abi;
    let is_rejected = |abi: &&str| {
        host.rejected.as_ref().is_ok_and(|all| all.iter().any(|rejected| rejected == abi))
    };
    if let Some(abi) = abi.filter(is_rejected) {
        let text = format!("its kernel {} was tried and rejected", short_id(abi));
        return (VerdictReason::KernelRejected, text);
    }
    if let Some(failed) = failure(last_run, evidence) {
        return failed;
    }
    if let Some(bad) = bad_exit(container, last_run, evidence, host) {
        return bad;
    }
    if let (Some(_), Err(why)) = (abi, &host.rejected) {
        return (VerdictReason::RejectedUnreadable, why.clone());
    }
    match container.labels.claims().judge(&host.running) {
        Judgement::Violated(mismatches) => violated(&mismatches, host),
        Judgement::Unknown(why) => (VerdictReason::SystemUnreadable, why.join("; ")),
        Judgement::Unclaimed | Judgement::Holds => effect(container, last_run, evidence, host),
    }
}

/// A create or start that failed, by the runtime's record or the engine's error.
fn failure(last_run: &LastRun, evidence: Evidence<'_>) -> Option<(VerdictReason, String)> {
    let reason_of = |verb: &str| match verb {
        "start" => VerdictReason::StartFailed,
        _ => VerdictReason::CreateFailed,
    };
    let recorded = evidence.record.ok().flatten().and_then(DeployRecord::last_error);
    // The engine's error contains the runtime's, with text around it.
    if let Some((verb, error)) = recorded {
        return Some((reason_of(verb), error.to_owned()));
    }
    let error = last_run.failure()?;
    let verb = if error.contains("start failed") { "start" } else { "create" };
    Some((reason_of(verb), error.to_owned()))
}

/// A state or an exit status that shows that the extension is not applied.
fn bad_exit(
    container: &EngineContainer,
    last_run: &LastRun,
    evidence: Evidence<'_>,
    host: &HostFacts,
) -> Option<(VerdictReason, String)> {
    let is = |reason, sentence: &str| Some((reason, sentence.to_owned()));
    if container.state == EngineState::Created {
        return match (&last_run.error, evidence.record) {
            (None, Err(why)) => Some((VerdictReason::RecordUnreadable, why.to_owned())),
            (None, Ok(None)) => is(
                VerdictReason::OutcomeUnknown,
                "the engine does not report whether it failed, and the runtime has recorded nothing about it since \
                 the host booted",
            ),
            (_, _) => is(VerdictReason::NeverStarted, "it was created, but never started"),
        };
    }
    if evidence.ran_by == RanBy::Another && evidence.record.is_ok_and(|record| record.is_none()) {
        return ran_by_another(container, last_run, evidence, host);
    }
    match last_run.exit_code {
        Some(0) => None,
        Some(1) => {
            let reason = evidence.record.ok().flatten().and_then(DeployRecord::refusal);
            let text = match reason {
                Some(reason) => format!("the runtime refused to start it: {reason}"),
                None => "the runtime refused to start it (exit status 1)".to_owned(),
            };
            Some((VerdictReason::RefusedByRuntime, text))
        }
        // 128 plus the number of the signal, as shells report it. signal(7): there are 64.
        Some(code @ 129..=192) => Some((
            VerdictReason::Killed,
            format!("its process was killed by signal {}", code - 128),
        )),
        Some(code) => {
            let text = format!("it exited with status {code}, which this runtime never gives");
            Some((VerdictReason::BadExit, text))
        }
        None => is(VerdictReason::NotInspected, "the engine does not report its exit status"),
    }
}

/// Another runtime ran no hook, but the boot may have layered the extension all the same.
fn ran_by_another(
    container: &EngineContainer,
    last_run: &LastRun,
    evidence: Evidence<'_>,
    host: &HostFacts,
) -> Option<(VerdictReason, String)> {
    let overlays = match &host.overlays {
        Ok(overlays) => overlays,
        Err(why) => return Some((VerdictReason::MountsUnreadable, why.clone())),
    };
    if is_layered(container, last_run, host) {
        return None;
    }
    let is_unnamed = !overlays.unnamed.is_empty() || last_run.layers.is_none();
    if overlays.root && is_unnamed && evidence.since_boot != Some(true) {
        return Some(before_boot(last_run, overlays));
    }
    let text = format!("another runtime, {:?}, ran it, so no hook ran", last_run.runtime);
    Some((VerdictReason::OtherRuntime, text))
}

fn is_layered(container: &EngineContainer, last_run: &LastRun, host: &HostFacts) -> bool {
    let layers = last_run.layers.iter().flatten().map(String::as_str);
    let mut parts = layers.chain(container.volumes());
    host.overlays.as_ref().is_ok_and(|overlays| parts.any(|part| overlays.layers.contains(part)))
}

/// Claims do not hold. The claim on a kernel will hold after the reboot if that kernel is set to boot next.
fn violated(mismatches: &[Mismatch], host: &HostFacts) -> (VerdictReason, String) {
    if let [Mismatch::KernelAbi { claimed, .. }] = mismatches {
        match &host.armed {
            Ok(Some(armed)) if armed == claimed => {
                let text = "its kernel is set to boot next; the current one runs until the reboot";
                return (VerdictReason::KernelArmed, text.to_owned());
            }
            Ok(_) => {}
            Err(why) => return (VerdictReason::BootEnvironmentUnreadable, why.clone()),
        }
    }
    let code = match mismatches.first() {
        Some(Mismatch::KernelVersion { .. }) => VerdictReason::KernelVersionMismatch,
        Some(Mismatch::OsVersion { .. }) => VerdictReason::OsVersionMismatch,
        Some(Mismatch::KernelAbi { .. }) | None => VerdictReason::KernelAbiMismatch,
    };
    let texts: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
    (code, texts.join("; "))
}

/// Its hooks ran and it is meant for this system: whether it is in effect.
fn effect(
    container: &EngineContainer,
    last_run: &LastRun,
    evidence: Evidence<'_>,
    host: &HostFacts,
) -> (VerdictReason, String) {
    let is = |reason, sentence: &str| (reason, sentence.to_owned());
    let overlays = match &host.overlays {
        Ok(overlays) => overlays,
        Err(why) => return (VerdictReason::MountsUnreadable, why.clone()),
    };
    if is_layered(container, last_run, host) {
        return is(VerdictReason::Layered, "its content is layered over the host");
    }
    let record = match evidence.record {
        Ok(record) => record,
        Err(why) => return (VerdictReason::RecordUnreadable, why.to_owned()),
    };
    if let Some(hook) = record.and_then(DeployRecord::hook_in_unknown_namespace) {
        let text = format!(
            "cannot determine whether {hook} ran in the mount namespace of process 1, so its mounts may not be \
             on the host"
        );
        return (VerdictReason::MountNamespaceUnknown, text);
    }
    match (record.map(DeployRecord::deployed), evidence.since_boot) {
        (Some(Deployed::WithHooks), _) if requires_reboot(&container.labels) => is(
            VerdictReason::RequiresReboot,
            "its hooks ran, but it takes effect only after a reboot",
        ),
        (Some(Deployed::WithHooks), _) => {
            is(VerdictReason::HooksRan, "its hooks ran since the host booted")
        }
        (Some(Deployed::WithoutHooks), _) => is(
            VerdictReason::NoHooks,
            "it has no hooks; the next boot layers its files over the host",
        ),
        (Some(Deployed::Unfinished), _) => is(
            VerdictReason::NotRecorded,
            "it has exited, but the runtime has not recorded a start",
        ),
        (None, Some(true)) => is(
            VerdictReason::NotRecorded,
            "it was started since the host booted, but the runtime has recorded nothing about it",
        ),
        (None, Some(false)) => before_boot(last_run, overlays),
        (None, None) => {
            let text = format!("cannot determine when it was started ({:?})", last_run.started);
            (VerdictReason::StartTimeUnknown, text)
        }
    }
}

/// It was deployed before the host booted, and no mount shows its content.
fn before_boot(last_run: &LastRun, overlays: &HostOverlays) -> (VerdictReason, String) {
    if !overlays.root {
        let text = "its hooks ran before the last boot, and no mount of the host shows its content";
        return (VerdictReason::NotVisible, text.to_owned());
    }
    match (overlays.unnamed.first(), &last_run.layers) {
        (Some(path), _) => {
            let count = overlays.unnamed.len();
            let text = format!(
                "it may be one of {count} layers of the root filesystem whose names are unknown, such as {path}"
            );
            (VerdictReason::LayersUnnamed, text)
        }
        (None, None) => {
            let text = "the engine does not name its layers, so they cannot be found in the root filesystem";
            (VerdictReason::LayersUnnamed, text.to_owned())
        }
        (None, Some(_)) => {
            let text = "it was deployed before the last boot, but the initramfs did not include it in the root overlay";
            (VerdictReason::NotLayered, text.to_owned())
        }
    }
}

/// Whether the labels ask for a reboot.
pub(crate) fn requires_reboot(labels: &Labels) -> bool {
    REQUIRES_REBOOT.iter().any(|name| {
        let text = labels.value(name).unwrap_or_default().trim();
        !matches!(text, "" | "0" | "false" | "no")
    })
}

/// A claim with the running system's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimView {
    claim: &'static str,
    claimed: String,
    /// `None` if it cannot be read, or if the OS's stock kernel runs, which has no ABI.
    running: Option<String>,
    /// `None` if it cannot be judged.
    holds: Option<bool>,
}

/// All claims of an extension, each with the running system's value.
pub(crate) fn claims(labels: &Labels, running: &Running) -> Vec<ClaimView> {
    let all = labels.claims();
    let version = running.kernel_release.as_deref().map(claim::version_of).ok();
    let one = |claim, claimed: Option<&str>, now: Option<&str>, single: claim::Claims<'_>| {
        let claimed = claimed?.to_owned();
        let holds = match single.judge(running) {
            // The label is not empty, but malformed.
            Judgement::Unclaimed if single.malformed().is_some() => None,
            Judgement::Unclaimed | Judgement::Holds => Some(true),
            Judgement::Violated(_) => Some(false),
            Judgement::Unknown(_) => None,
        };
        Some(ClaimView { claim, claimed, running: now.map(str::to_owned), holds })
    };
    let none = claim::Claims::default();
    let abi = running.abi.as_ref().ok().and_then(Option::as_deref);
    let os = running.os_version.as_deref().ok();
    [
        one("kernelAbi", all.abi, abi, claim::Claims { abi: all.abi, ..none }),
        one(
            "kernelVersion",
            all.kernel_version,
            version,
            claim::Claims { kernel_version: all.kernel_version, ..none },
        ),
        one("osVersion", all.os_version, os, claim::Claims { os_version: all.os_version, ..none }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
