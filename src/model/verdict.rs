//! The verdict: what became of an extension, and why, from everything that is known. What cannot be read
//! is `unknown`, never guessed. docs/manager.md explains every code; a test compares the two.

use crate::model::cause;
use crate::model::claim::{self, Judgement, Mismatch, Running};
use crate::model::deploy::Record;
use crate::model::inventory::{Container, Detail, Labels, Outcome, Phase};
use crate::model::mounts::Layering;
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
    NeverStarted "never-started" Skipped "start it: docker start {id}",
    NotLayered "not-layered" Skipped
        "look at the initramfs' messages in dmesg, or deploy it again",
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
}

/// What is known of an extension beside its container.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known<'a> {
    /// Whether its hooks ran after the host booted.
    pub(crate) since_boot: Option<bool>,
    /// What the runtime recorded. Records do not outlive the boot.
    pub(crate) record: Option<&'a Record>,
}

/// Decides. The order is that of what matters: what stands in the way first.
pub(crate) fn find(container: &Container, known: Known<'_>, host: &Host) -> Finding {
    let (code, sentence) = decide(container, known, host);
    let id: String = container.id.chars().take(12).collect();
    let next = code.next().replace("{id}", &id);
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
    let recorded = known.record.and_then(Record::last_error);
    if !outcome.error.is_empty() {
        let started = outcome.error.contains("start failed");
        let code = if started { Code::StartFailed } else { Code::CreateFailed };
        // The runtime's own words, where the engine's have a good deal around them.
        let cause = recorded.map_or(outcome.error.as_str(), |(_, error)| error);
        return (code, cause.to_owned());
    }
    match (container.phase, outcome.exit_code) {
        (Phase::Created, _) => {
            return (Code::NeverStarted, "it was created and never started".to_owned());
        }
        (_, 0) => {}
        (_, 1) => {
            let text = "the runtime refused it at start: it ended with exit status 1";
            return (Code::RefusedByRuntime, text.to_owned());
        }
        (_, code) if code > 128 => {
            let signal = code - 128;
            return (Code::Killed, format!("its process was killed by signal {signal}"));
        }
        (_, code) => return (Code::BadExit, format!("it ended with exit status {code}")),
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
    let parts = outcome.layers.iter().map(String::as_str).chain(container.volumes());
    if parts.into_iter().any(|part| layering.layers.contains(part)) {
        return is(Code::Layered, "its content is layered over the host");
    }
    if let Some(hook) = known.record.and_then(Record::hook_in_unknown_namespace) {
        let text = format!(
            "it cannot be told whether {hook} ran in the mount namespace of process 1, so what it mounted \
             may not be on the host"
        );
        return (Code::MountNamespaceUnknown, text);
    }
    match known.since_boot {
        Some(true) if requires_reboot(&container.labels) => {
            is(Code::RequiresReboot, "its hooks ran, and it takes effect after a reboot only")
        }
        Some(true) => is(Code::HooksRan, "its hooks ran since the host booted"),
        Some(false) if layering.root => {
            is(Code::NotLayered, "the last boot layered others over the host, and not this one")
        }
        Some(false) => is(
            Code::NotVisible,
            "its hooks ran before the last boot, and no mount of the host shows its content",
        ),
        None => {
            let text = format!("it cannot be told when it was started ({:?})", outcome.started);
            (Code::StartTimeUnknown, text)
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
