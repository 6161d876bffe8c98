//! Claims: the labels that say which system an extension was built for, and whether the running system
//! matches them. All claims must match; an absent label is not a claim.

use crate::model::extension::glob::{Glob, Malformed};
use crate::model::extension::labels::{ABI, KERNEL_VERSION, Labels, OS_VERSION};
use crate::model::text::cause;
use crate::model::text::cut::short_id;
use serde::Serialize;
use std::fmt;

/// The initramfs adds this to the kernel's command line.
const ABI_TOKEN: &str = "balena_kernel_abi=";

/// The running system, or why a part of it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    /// `uname -r`, whole.
    pub(crate) kernel_release: Result<String, String>,
    /// The ABI that the initramfs booted; `None` for the OS's stock kernel.
    pub(crate) abi: Result<Option<String>, String>,
    /// `VERSION_ID` of os-release.
    pub(crate) os_version: Result<String, String>,
}

/// The ABI on a kernel command line (proc_cmdline(5)): the first such token counts.
pub(crate) fn abi_of(cmdline: &str) -> Option<String> {
    let mut tokens = cmdline.split_ascii_whitespace();
    let abi = tokens.find_map(|token| token.strip_prefix(ABI_TOKEN))?;
    Some(abi.to_owned()).filter(|abi| !abi.is_empty())
}

/// The claims of an extension, as [`Claims::of`] reads them: an empty label is not a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claims<'a> {
    pub(crate) abi: Option<&'a str>,
    pub(crate) kernel_version: Option<&'a str>,
    pub(crate) os_version: Option<&'a str>,
}

/// The fact of the running system that a claim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ClaimedFact {
    KernelAbi,
    KernelVersion,
    OsVersion,
}

/// A claim, compared with the running system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComparedClaim {
    #[serde(rename = "claim")]
    pub(crate) fact: ClaimedFact,
    pub(crate) claimed: String,
    /// `None` if it cannot be read, or if the OS's stock kernel runs, which has no ABI.
    running: Option<String>,
    /// `None` if the claim is malformed, or if the fact cannot be read.
    holds: Option<bool>,
    /// Why the fact cannot be read.
    #[serde(skip)]
    unread: Option<String>,
}

/// Whether the claims match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// There are no claims.
    Unclaimed,
    Holds,
    /// At least one does not match; these are all of those.
    Violated(Vec<ComparedClaim>),
    /// No mismatch is known, but at least one claim cannot be judged, for these reasons.
    Unknown(Vec<String>),
}

impl Labels {
    pub(crate) fn claims(&self) -> Claims<'_> {
        Claims::of(|name| self.value(name))
    }
}

impl<'a> Claims<'a> {
    /// Reads the claims from labels.
    pub(crate) fn of(label: impl Fn(&str) -> Option<&'a str>) -> Self {
        let claim = |name| label(name).filter(|text| !text.trim().is_empty());
        Self {
            abi: claim(ABI),
            kernel_version: claim(KERNEL_VERSION),
            os_version: claim(OS_VERSION).filter(|text| patterns(text).next().is_some()),
        }
    }

    /// Why a claim is malformed, and so ignored.
    pub(crate) fn malformed(&self) -> Option<String> {
        let claimed = self.os_version?;
        let why = globs(claimed).err()?;
        Some(cause::sentence(&format!(
            "its label {OS_VERSION} is malformed, so it claims nothing: {why}"
        )))
    }

    /// Compares every claim with the running system.
    pub(crate) fn compare(&self, running: &Running) -> Vec<ComparedClaim> {
        let version = running.kernel_release.as_deref().map(|release| Some(version_of(release)));
        let claims = [
            (ClaimedFact::KernelAbi, self.abi, running.abi.as_ref().map(Option::as_deref)),
            (ClaimedFact::KernelVersion, self.kernel_version, version),
            (ClaimedFact::OsVersion, self.os_version, running.os_version.as_deref().map(Some)),
        ];
        let one = |(fact, claimed, running): (_, Option<&str>, Result<Option<&str>, &String>)| {
            let claimed = claimed?;
            let (running, unread) = match running {
                Ok(running) => (running, None),
                Err(why) => (None, Some(why.clone())),
            };
            let matches = match fact {
                ClaimedFact::KernelAbi | ClaimedFact::KernelVersion => Ok(running == Some(claimed)),
                ClaimedFact::OsVersion => globs(claimed).map(|globs| {
                    globs.iter().any(|glob| running.is_some_and(|version| glob.matches(version)))
                }),
            };
            // A malformed claim keeps the extension; `check` reports it to the author.
            let unread = unread.filter(|_| matches.is_ok());
            let holds = matches.ok().filter(|_| unread.is_none());
            let (claimed, running) = (claimed.to_owned(), running.map(str::to_owned));
            Some(ComparedClaim { fact, claimed, running, holds, unread })
        };
        claims.into_iter().filter_map(one).collect()
    }

    /// Whether the running system matches all claims. One mismatch decides even if another claim cannot be judged,
    /// because all must match.
    pub(crate) fn judge(&self, running: &Running) -> Judgement {
        let (violated, others): (Vec<_>, Vec<_>) =
            self.compare(running).into_iter().partition(|claim| claim.holds == Some(false));
        if !violated.is_empty() {
            return Judgement::Violated(violated);
        }
        let any_holds = others.iter().any(|claim| claim.holds == Some(true));
        let unread: Vec<String> = others.into_iter().filter_map(|claim| claim.unread).collect();
        match (unread.is_empty(), any_holds) {
            (false, _) => Judgement::Unknown(unread),
            (true, true) => Judgement::Holds,
            (true, false) => Judgement::Unclaimed,
        }
    }
}

/// The part of `uname -r` that `kernel-version` claims: up to the first `-`.
pub(crate) fn version_of(release: &str) -> &str {
    release.split('-').next().unwrap_or_default()
}

/// Reads the patterns of an `os-version` label.
pub(crate) fn globs(label: &str) -> Result<Vec<Glob<'_>>, Malformed> {
    patterns(label).map(Glob::parse).collect()
}

fn patterns(label: &str) -> impl Iterator<Item = &str> {
    label.split(',').map(str::trim).filter(|pattern| !pattern.is_empty())
}

/// Which system the claims are compared with, for sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JudgedSystem {
    Running,
    Planned,
}

impl ComparedClaim {
    /// How the system differs from the claim.
    pub(crate) fn mismatch(&self, system: JudgedSystem) -> String {
        let (claimed, found) = (&self.claimed, self.running.as_deref());
        let (runs, this) = match system {
            JudgedSystem::Running => ("is running", "this is"),
            JudgedSystem::Planned => ("will run", "the next OS is"),
        };
        match self.fact {
            ClaimedFact::KernelAbi => {
                let found = match found {
                    Some(abi) => format!("the kernel with ABI {}", short_id(abi)),
                    None => "the OS's stock kernel".to_owned(),
                };
                let claimed = short_id(claimed);
                format!("it needs the kernel with ABI {claimed}, but {found} {runs}")
            }
            ClaimedFact::KernelVersion => {
                let found = found.unwrap_or_default();
                format!("it was built for kernel {claimed}, but {found} {runs}")
            }
            ClaimedFact::OsVersion => {
                let found = found.unwrap_or_default();
                format!("it was built for OS version {claimed}, but {this} {found}")
            }
        }
    }
}

impl fmt::Display for ComparedClaim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.mismatch(JudgedSystem::Running))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn running() -> Running {
        Running {
            kernel_release: Ok("6.1.0-18-amd64".to_owned()),
            abi: Ok(Some("aa".repeat(32))),
            os_version: Ok("2.113.4".to_owned()),
        }
    }

    fn claims<'a>(pairs: &'a [(&'a str, &'a str)]) -> Claims<'a> {
        Claims::of(|name| pairs.iter().find(|(label, _)| *label == name).map(|(_, text)| *text))
    }

    #[test]
    fn each_claim_holds_or_not_by_itself() {
        let abi = "aa".repeat(32);
        for (label, text, holds) in [
            (ABI, abi.as_str(), true),
            (ABI, "AA", false),
            (KERNEL_VERSION, "6.1.0", true),
            (KERNEL_VERSION, "6.1.0-18-amd64", false),
            (KERNEL_VERSION, "6.1", false),
            (OS_VERSION, "2.113.4", true),
            (OS_VERSION, "2.112.*, 2.113.*", true),
            (OS_VERSION, "2.112.*,", false),
            (OS_VERSION, "*", true),
        ] {
            let judgement = claims(&[(label, text)]).judge(&running());
            assert_eq!(judgement == Judgement::Holds, holds, "{label}={text}: {judgement:?}");
            assert_eq!(matches!(judgement, Judgement::Violated(_)), !holds, "{label}={text}");
        }
    }

    #[test]
    fn no_claim_and_an_unreadable_claim_keep() {
        for pairs in [
            &[][..],
            &[(OS_VERSION, "")],
            &[(OS_VERSION, " , ,")],
            &[(OS_VERSION, "2.112.*,[")],
            &[(ABI, ""), (KERNEL_VERSION, " ")],
            &[("io.balena.image.class", "overlay")],
        ] {
            assert_eq!(claims(pairs).judge(&running()), Judgement::Unclaimed, "{pairs:?}");
        }
    }

    #[test]
    fn a_malformed_pattern_is_named() {
        let malformed = |text| claims(&[(OS_VERSION, text)]).malformed();
        for text in ["2.112.*,[", "[", "a\\"] {
            let why = malformed(text).unwrap();
            assert!(why.contains("os-version is malformed"), "{why}");
        }
        for text in ["2.*", "", "2.*,", "*"] {
            assert_eq!(malformed(text), None, "{text}");
        }
    }

    #[test]
    fn without_the_token_an_abi_claim_cannot_hold() {
        let stock = Running { abi: Ok(None), ..running() };
        let Judgement::Violated(mismatches) = claims(&[(ABI, "aa")]).judge(&stock) else {
            panic!()
        };
        assert_eq!(
            mismatches[0].to_string(),
            "it needs the kernel with ABI aa, but the OS's stock kernel is running"
        );
    }

    #[test]
    fn what_cannot_be_read_is_unknown_unless_another_claim_is_violated() {
        let blind = Running { os_version: Err("no os-release".to_owned()), ..running() };
        let os = (OS_VERSION, "2.*");
        assert_eq!(
            claims(&[os]).judge(&blind),
            Judgement::Unknown(vec!["no os-release".to_owned()])
        );
        assert!(matches!(
            claims(&[os, (KERNEL_VERSION, "5.0.0")]).judge(&blind),
            Judgement::Violated(_)
        ));
        assert_eq!(claims(&[(KERNEL_VERSION, "6.1.0")]).judge(&blind), Judgement::Holds);
    }

    #[test]
    fn the_first_token_of_the_command_line_counts() {
        assert_eq!(abi_of("quiet balena_kernel_abi=ab balena_kernel_abi=cd\n").unwrap(), "ab");
        assert_eq!(abi_of("x_balena_kernel_abi=ab"), None);
        assert_eq!(abi_of("balena_kernel_abi= root=/"), None);
        assert_eq!(abi_of(""), None);
    }
}
