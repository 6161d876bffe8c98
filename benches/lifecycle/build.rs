//! The programs under test: the builds of this checkout, and the runtime of an older commit.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::goal::Goal;

/// A C library that the programs can be linked with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Libc {
    Musl,
    Glibc,
}

impl Libc {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Musl => "musl",
            Self::Glibc => "glibc",
        }
    }
}

/// What this checkout builds to with one C library, and the goals of that build.
pub(super) struct Build {
    pub(super) libc: Libc,
    /// The directory of both programs and of `noop`.
    dir: PathBuf,
    pub(super) life_at_most_floors: f64,
    pub(super) at_least_times_runc: Option<f64>,
    pub(super) private_at_most_kib: Option<u64>,
    runtime_at_most_bytes: u64,
    manager_at_most_bytes: u64,
}

impl Build {
    /// The builds that `tools/bench` could make, and those that it could not.
    pub(super) fn all(dir: &Path) -> (Vec<Self>, Vec<Libc>) {
        let musl = Self {
            libc: Libc::Musl,
            dir: dir.join("musl"),
            life_at_most_floors: 3.0,
            at_least_times_runc: Some(25.0),
            private_at_most_kib: Some(40),
            runtime_at_most_bytes: 600_000,
            manager_at_most_bytes: 1_300_000,
        };
        let glibc = Self {
            libc: Libc::Glibc,
            dir: dir.join("glibc"),
            life_at_most_floors: 1.5,
            at_least_times_runc: None,
            private_at_most_kib: None,
            runtime_at_most_bytes: 1_500_000,
            manager_at_most_bytes: 2_500_000,
        };
        let (made, missing): (Vec<_>, Vec<_>) =
            [musl, glibc].into_iter().partition(|build| build.runtime().exists());
        (made, missing.into_iter().map(|build| build.libc).collect())
    }

    pub(super) fn name(&self) -> String {
        format!("extension runtime, {}", self.libc.name())
    }

    pub(super) fn runtime(&self) -> PathBuf {
        self.dir.join("balena-extension-runtime")
    }

    pub(super) fn noop(&self) -> PathBuf {
        self.dir.join("noop")
    }

    /// Prints the sizes of both programs, and compares them with the goals.
    pub(super) fn print_sizes(&self) -> Result<Vec<Goal>> {
        let libc = self.libc.name();
        let mut goals = Vec::new();
        for (program, limit) in
            [("runtime", self.runtime_at_most_bytes), ("manager", self.manager_at_most_bytes)]
        {
            let path = self.dir.join(format!("balena-extension-{program}"));
            let size = std::fs::metadata(path)?.len();
            println!("{:<28}{size:>9}", format!("extension {program}, {libc}"));
            goals.push(Goal::new(
                format!("{libc}: {program} at most {limit} bytes"),
                format!("{size} bytes"),
                size <= limit,
            ));
        }
        Ok(goals)
    }
}

/// The runtime of the commit that `BASELINE` was built from. `tools/bench` copies it beside the builds, so that
/// the page cache holds all of them in the same way.
pub(super) fn baseline(dir: &Path) -> Option<PathBuf> {
    let path = dir.join("baseline/balena-extension-runtime");
    path.exists().then_some(path)
}
