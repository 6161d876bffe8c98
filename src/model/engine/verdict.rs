//! The verdict: what became of an extension, and why, from everything that is known. What cannot be read
//! is `unknown`, never guessed. docs/manager.md explains every code; a test compares the two.

use crate::model::container::deploy_record::{Deployed, Record};
use crate::model::engine::inventory::{Container, Detail, Labels, Outcome, Phase};
use crate::model::engine::runtimes::RanBy;
use crate::model::extension::claim::{self, Judgement, Mismatch, Running};
use crate::model::kernel::mounts::Layering;
use crate::model::text::cause;
use serde::Serialize;

/// The labels by which an extension says that it takes effect after a reboot only.
pub(crate) const REQUIRES_REBOOT: [&str; 2] =
    ["io.balena.image.requires-reboot", "io.balena.update.requires-reboot"];
/// The label with its priority above the root filesystem.
pub(crate) const OVERRIDE: &str = "io.balena.image.override";

/// What became of an extension.
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

/// A reason with its verdict and the usual next step.
macro_rules! codes {
    ($($name:ident $code:literal $verdict:ident $next:literal,)*) => {
        /// Why a verdict was given.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $($name,)* }

        impl Code {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable word for programs.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What it means.
            pub(crate) fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)* }
            }

            /// What to do about it; `{id}` is the container.
            fn next(self) -> &'static str {
                match self { $(Self::$name => $next,)* }
            }
        }
    };
}

codes! {
    Layered "layered-at-boot" Applied "nothing",
    HooksRan "hooks-ran" Applied "nothing",
    RequiresReboot "requires-reboot" PendingReboot "reboot the device",
    NoHooks "no-hooks" PendingReboot "reboot the device",
    KernelArmed "kernel-armed" PendingReboot "reboot the device into the extension's kernel",
    KernelRejected "kernel-rejected" Refused
        "ship a kernel that boots and stays healthy; this one is not tried again",
    RefusedByRuntime "refused-by-runtime" Refused
        "read the reason: balena-extension-manager logs {id}",
    CreateFailed "create-failed" Failed
        "mend the cause and deploy again; the whole story: balena-extension-manager logs {id}",
    StartFailed "start-failed" Failed
        "mend the cause and deploy again; the whole story: balena-extension-manager logs {id}",
    BadExit "bad-exit" Failed
        "deploy again; the whole story: balena-extension-manager logs {id}",
    Killed "killed" Failed "deploy again",
    OtherRuntime "other-runtime" Failed "docker rm {id}, and docker run --runtime {runtime} …",
    NeverStarted "never-started" Skipped "start it: docker start {id}",
    NotLayered "not-layered" Skipped
        "read why in {log}, and deploy again a version that the initramfs takes",
    KernelAbiMismatch "kernel-abi-mismatch" Stale
        "ship a version for the kernel that runs; balena-extension-manager cleanup --stale-os removes this one",
    KernelVersionMismatch "kernel-version-mismatch" Stale
        "ship a version for the kernel that runs; balena-extension-manager cleanup --stale-os removes this one",
    OsVersionMismatch "os-version-mismatch" Stale
        "ship a version for the OS that runs; balena-extension-manager cleanup --stale-os removes this one",
    EngineDead "engine-dead" Dead "remove it: balena-extension-manager cleanup",
    BeingRemoved "being-removed" Dead "wait; if it stays so, restart the engine",
    Deploying "deploying" Unknown "ask again in a moment; an extension does not keep running",
    Restarting "restarting" Unknown
        "take the restart policy away: docker update --restart no {id}; an extension that has ended has done its work",
    StrangeState "strange-state" Unknown "ask the engine: docker inspect {id}",
    NotInspected "not-inspected" Unknown "look at the engine's log, and ask again",
    SystemUnreadable "system-unreadable" Unknown "make it readable: balena-extension-manager doctor",
    BootEnvironmentUnreadable "boot-environment-unreadable" Unknown
        "make it readable: balena-extension-manager doctor",
    RejectedUnreadable "rejected-unreadable" Unknown
        "mount /mnt/state, make override-rejected in it readable, and run it as root",
    MountsUnreadable "mounts-unreadable" Unknown "run it as root, with /proc mounted",
    StartTimeUnknown "start-time-unknown" Unknown "deploy it again to be sure",
    MountNamespaceUnknown "mount-namespace-unknown" Unknown
        "make /proc/1 readable to the engine, then deploy it again",
    NotVisible "not-visible" Unknown "deploy it again to be sure",
    LayersUnnamed "layers-unnamed" Unknown "deploy it again to be sure",
    NotRecorded "not-recorded" Unknown "deploy it again to be sure",
    RecordUnreadable "record-unreadable" Unknown "run it as root; or remove the record, and deploy again",
    OutcomeUnknown "outcome-unknown" Unknown "deploy it again to be sure",
}

/// A verdict with its reason, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) code: Code,
    pub(crate) sentence: String,
    pub(crate) next: String,
}

/// What is known of the host.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) running: Running,
    pub(crate) layering: Result<Layering, String>,
    /// The ABI of the kernel that will be booted next, by the boot environment block; `None` without
    /// one, or without a block.
    pub(crate) arm: Result<Option<String>, String>,
    /// The ABIs of the kernels that are not tried again.
    pub(crate) rejected: Result<Vec<String>, String>,
    /// The initramfs' log, where it is to be found.
    pub(crate) initramfs_log: String,
    /// The name by which the engine knows this runtime.
    pub(crate) runtime: Option<String>,
}

/// What is known of an extension beside its container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// Whether it was started after the host booted, by the clock, which devices without a battery set
    /// long after they have booted.
    pub(crate) since_boot: Option<bool>,
    /// What the runtime recorded of its deploy, or why that cannot be read. Every deploy is recorded, and
    /// no record outlives the boot.
    pub(crate) record: Result<Option<&'a Record>, &'a str>,
    pub(crate) ran_by: RanBy,
}

/// Decides. The order is that of what matters: what stands in the way first.
pub(crate) fn find(container: &Container, known: Known<'_>, host: &Host) -> Finding {
    let (code, sentence) = decide(container, known, host);
    let id: String = container.id.chars().take(12).collect();
    let runtime = host.runtime.as_deref().unwrap_or("extension");
    let next = code.next().replace("{id}", &id).replace("{runtime}", runtime);
    let next = next.replace("{log}", &host.initramfs_log);
    Finding { code, sentence: cause::sentence(&sentence), next: cause::sentence(&next) }
}

fn decide(container: &Container, known: Known<'_>, host: &Host) -> (Code, String) {
    let is = |code, sentence: &str| (code, sentence.to_owned());
    let restart = match &container.detail {
        Detail::Known(outcome) => outcome.restart.as_str(),
        Detail::NotAsked | Detail::Unreadable(_) => "",
    };
    match container.phase {
        Phase::Dead => is(Code::EngineDead, "the engine could not remove it completely"),
        Phase::Removing => is(Code::BeingRemoved, "the engine is removing it"),
        Phase::Running | Phase::Paused => {
            is(Code::Deploying, "its container runs, so it is being deployed at this moment")
        }
        Phase::Restarting => {
            let text = format!("the engine starts it again and again (restart policy {restart:?})");
            (Code::Restarting, text)
        }
        Phase::Other => {
            is(Code::StrangeState, "the engine gives it a state that is not known here")
        }
        Phase::Created | Phase::Exited => match &container.detail {
            Detail::Known(outcome) => ended(container, outcome, known, host),
            Detail::Unreadable(why) => (Code::NotInspected, why.clone()),
            Detail::NotAsked => is(Code::NotInspected, "the engine was not asked about it"),
        },
    }
}

fn ended(
    container: &Container,
    outcome: &Outcome,
    known: Known<'_>,
    host: &Host,
) -> (Code, String) {
    let abi = container.labels.claims().abi;
    if let (Some(abi), Ok(rejected)) = (abi, &host.rejected)
        && rejected.iter().any(|rejected| rejected == abi)
    {
        let abi: String = abi.chars().take(12).collect();
        return (Code::KernelRejected, format!("its kernel {abi} was tried and rejected"));
    }
    if let Some(failed) = failure(outcome, known) {
        return failed;
    }
    if let Some(bad) = exit(container, outcome, known, host) {
        return bad;
    }
    if let (Some(_), Err(why)) = (abi, &host.rejected) {
        return (Code::RejectedUnreadable, why.clone());
    }
    match container.labels.claims().judge(&host.running) {
        Judgement::Violated(mismatches) => violated(&mismatches, host),
        Judgement::Unknown(why) => (Code::SystemUnreadable, why.join("; ")),
        Judgement::Unclaimed | Judgement::Holds => effective(container, outcome, known, host),
    }
}

/// A create or start that failed, as the engine or the runtime's record has it.
fn failure(outcome: &Outcome, known: Known<'_>) -> Option<(Code, String)> {
    let code_of = |verb: &str| if verb == "start" { Code::StartFailed } else { Code::CreateFailed };
    let recorded = known.record.ok().flatten().and_then(Record::last_error);
    // The runtime's own words, where the engine's have a good deal around them.
    if let Some((verb, error)) = recorded {
        return Some((code_of(verb), error.to_owned()));
    }
    let error = outcome.failure()?;
    let verb = if error.contains("start failed") { "start" } else { "create" };
    Some((code_of(verb), error.to_owned()))
}

/// What its exit status says against it.
fn exit(
    container: &Container,
    outcome: &Outcome,
    known: Known<'_>,
    host: &Host,
) -> Option<(Code, String)> {
    let is = |code, sentence: &str| Some((code, sentence.to_owned()));
    if container.phase == Phase::Created {
        return match (&outcome.error, known.record) {
            (None, Err(why)) => Some((Code::RecordUnreadable, why.to_owned())),
            (None, Ok(None)) => is(
                Code::OutcomeUnknown,
                "the engine does not keep whether it failed, and nothing is recorded of it since the host \
                 booted",
            ),
            (_, _) => is(Code::NeverStarted, "it was created and never started"),
        };
    }
    if known.ran_by == RanBy::Another && known.record.is_ok_and(|record| record.is_none()) {
        return by_another(container, outcome, known, host);
    }
    match outcome.exit_code {
        Some(0) => None,
        Some(1) => {
            let reason = known.record.ok().flatten().and_then(Record::refusal);
            let reason = reason.unwrap_or("it ended with exit status 1");
            Some((Code::RefusedByRuntime, format!("the runtime refused it at start: {reason}")))
        }
        // Shells and engines tell a signal so (signal(7): there are 64).
        Some(code @ 129..=192) => {
            Some((Code::Killed, format!("its process was killed by signal {}", code - 128)))
        }
        Some(code) => Some((Code::BadExit, format!("it ended with exit status {code}"))),
        None => is(Code::NotInspected, "the engine does not say how it ended"),
    }
}

/// Whatever its process did, no hook has run; but at boot it may have been layered all the same.
fn by_another(
    container: &Container,
    outcome: &Outcome,
    known: Known<'_>,
    host: &Host,
) -> Option<(Code, String)> {
    let layering = match &host.layering {
        Ok(layering) => layering,
        Err(why) => return Some((Code::MountsUnreadable, why.clone())),
    };
    if is_layered(container, outcome, host) {
        return None;
    }
    let is_unnamed = !layering.unnamed.is_empty() || outcome.layers.is_none();
    if layering.root && is_unnamed && known.since_boot != Some(true) {
        return Some(before_boot(outcome, layering));
    }
    let text = format!("it was run with another runtime, {:?}, so no hook ran", outcome.runtime);
    Some((Code::OtherRuntime, text))
}

fn is_layered(container: &Container, outcome: &Outcome, host: &Host) -> bool {
    let layers = outcome.layers.iter().flatten().map(String::as_str);
    let mut parts = layers.chain(container.volumes());
    host.layering.as_ref().is_ok_and(|layering| parts.any(|part| layering.layers.contains(part)))
}

/// Claims do not hold; that of a kernel which is to be booted next may come to hold.
fn violated(mismatches: &[Mismatch], host: &Host) -> (Code, String) {
    if let [Mismatch::KernelAbi { claimed, .. }] = mismatches {
        match &host.arm {
            Ok(Some(arm)) if arm == claimed => {
                let text = "its kernel is armed, and another one runs until the next boot";
                return (Code::KernelArmed, text.to_owned());
            }
            Ok(_) => {}
            Err(why) => return (Code::BootEnvironmentUnreadable, why.clone()),
        }
    }
    let code = match mismatches.first() {
        Some(Mismatch::KernelVersion { .. }) => Code::KernelVersionMismatch,
        Some(Mismatch::OsVersion { .. }) => Code::OsVersionMismatch,
        Some(Mismatch::KernelAbi { .. }) | None => Code::KernelAbiMismatch,
    };
    let texts: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
    (code, texts.join("; "))
}

/// Its hooks ran and it is meant for this system: is it in effect?
fn effective(
    container: &Container,
    outcome: &Outcome,
    known: Known<'_>,
    host: &Host,
) -> (Code, String) {
    let is = |code, sentence: &str| (code, sentence.to_owned());
    let layering = match &host.layering {
        Ok(layering) => layering,
        Err(why) => return (Code::MountsUnreadable, why.clone()),
    };
    if is_layered(container, outcome, host) {
        return is(Code::Layered, "its content is layered over the host");
    }
    let record = match known.record {
        Ok(record) => record,
        Err(why) => return (Code::RecordUnreadable, why.to_owned()),
    };
    if let Some(hook) = record.and_then(Record::hook_in_unknown_namespace) {
        let text = format!(
            "it cannot be told whether {hook} ran in the mount namespace of process 1, so what it mounted \
             may not be on the host"
        );
        return (Code::MountNamespaceUnknown, text);
    }
    match (record.map(Record::deployed), known.since_boot) {
        (Some(Deployed::WithHooks), _) if requires_reboot(&container.labels) => {
            is(Code::RequiresReboot, "its hooks ran, and it takes effect after a reboot only")
        }
        (Some(Deployed::WithHooks), _) => is(Code::HooksRan, "its hooks ran since the host booted"),
        (Some(Deployed::WithoutHooks), _) => is(
            Code::NoHooks,
            "it has no hooks: its files are layered over the host at the next boot",
        ),
        (Some(Deployed::Unfinished), _) => {
            is(Code::NotRecorded, "nothing is recorded of a start, though it has ended")
        }
        (None, Some(true)) => is(
            Code::NotRecorded,
            "it was started since the host booted, and the runtime has recorded nothing of it",
        ),
        (None, Some(false)) => before_boot(outcome, layering),
        (None, None) => {
            let text = format!("it cannot be told when it was started ({:?})", outcome.started);
            (Code::StartTimeUnknown, text)
        }
    }
}

/// It was deployed before the host booted, and nothing shows that the boot layered it.
fn before_boot(outcome: &Outcome, layering: &Layering) -> (Code, String) {
    if !layering.root {
        let text = "its hooks ran before the last boot, and no mount of the host shows its content";
        return (Code::NotVisible, text.to_owned());
    }
    match (layering.unnamed.first(), &outcome.layers) {
        (Some(path), _) => {
            let count = layering.unnamed.len();
            let text = format!(
                "{count} of the layers of the root filesystem cannot be named, such as {path}, so it may \
                 be among them"
            );
            (Code::LayersUnnamed, text)
        }
        (None, None) => {
            let text = "the engine does not name its layers, so they cannot be looked for in the root \
                        filesystem";
            (Code::LayersUnnamed, text.to_owned())
        }
        (None, Some(_)) => {
            let text = "the last boot layered others over the host, and not this one";
            (Code::NotLayered, text.to_owned())
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

/// A claim beside what runs, for whoever reads the whole story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimView {
    claim: &'static str,
    claimed: String,
    /// None where it cannot be read, or where the OS's own kernel has no ABI.
    running: Option<String>,
    /// `None` where it cannot be judged.
    holds: Option<bool>,
}

/// All claims of an extension beside the running system.
pub(crate) fn claims(labels: &Labels, running: &Running) -> Vec<ClaimView> {
    let all = labels.claims();
    let version = running.kernel_release.as_deref().map(claim::version_of).ok();
    let one = |claim, claimed: Option<&str>, now: Option<&str>, single: claim::Claims<'_>| {
        let claimed = claimed?.to_owned();
        let holds = match single.judge(running) {
            // It claims something, or it would not be here; but nobody can read what.
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
