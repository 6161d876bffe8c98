//! The parts of the test, and which tests of `tests/it` run in them.

use std::time::Duration;

/// A part, which runs in the guest by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// `tools/demo`: the whole life of the sample extension.
    Sample,
    /// The same program with `KERNEL=1`: the life of kernels on a simulated device.
    Kernels,
    /// The tests of privileges, and of what is believed.
    Checks,
    /// Numbers that need more than 32 bits.
    LargeNumbers,
    /// The clock after January 2038.
    Clock,
    /// A representative part of the black-box tests.
    BlackBox,
    /// The unit tests of the library.
    Unit,
    /// The time of a life, for the documentation.
    Figures,
}

impl Part {
    pub(crate) const ALL: [Self; 8] = [
        Self::Sample,
        Self::Kernels,
        Self::Checks,
        Self::LargeNumbers,
        Self::Clock,
        Self::BlackBox,
        Self::Unit,
        Self::Figures,
    ];

    /// Those that `PARTS` names, of this machine's caller and of process 1 alike; all, if it is not there.
    pub(crate) fn wanted() -> Vec<Self> {
        let names = std::env::var("PARTS").unwrap_or_default();
        if names.is_empty() {
            return Self::ALL.to_vec();
        }
        let find = |name: &str| Self::ALL.into_iter().find(|part| part.short_name() == name);
        names
            .split(',')
            .map(|name| find(name).unwrap_or_else(|| panic!("PARTS={names}: there is no {name}")))
            .collect()
    }

    /// The name in `PARTS`.
    pub(crate) fn short_name(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Kernels => "kernels",
            Self::Checks => "checks",
            Self::LargeNumbers => "large-numbers",
            Self::Clock => "clock",
            Self::BlackBox => "black-box",
            Self::Unit => "unit",
            Self::Figures => "figures",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sample => "the_life_of_the_sample_extension",
            Self::Kernels => "the_life_of_kernels",
            Self::Checks => "the_checks_of_privileges_and_of_what_is_believed",
            Self::LargeNumbers => "numbers_beyond_32_bits",
            Self::Clock => "a_clock_beyond_2038",
            Self::BlackBox => "a_part_of_the_black_box_tests",
            Self::Unit => "the_unit_tests",
            Self::Figures => "the_figures_for_the_documentation",
        }
    }

    /// The time that it may take in the emulated machine, on a host that does other work too.
    pub(crate) fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Sample | Self::Kernels | Self::LargeNumbers | Self::Clock | Self::Figures => 300,
            Self::Checks => 900,
            Self::BlackBox | Self::Unit => 1800,
        })
    }
}

/// The tests of privileges: what the proxy has, who can get into it, who may call the programs, and whose files and
/// whose `/proc` they believe.
pub(crate) const CHECKS: [&str; 5] = [
    "runtime::proxy::",
    "runtime::privilege::",
    "runtime::hidden_proc::",
    "runtime::untrusted_files::",
    "intruder::",
];

pub(crate) const LARGE_NUMBERS: [&str; 1] = ["large_numbers::"];

/// The representative part: every verb, hooks, both forms of output, what a kernel can refuse, and the manager on a
/// recorded engine.
pub(crate) const BLACK_BOX: [&str; 21] = [
    "runtime::cgroup::",
    "runtime::concurrent_calls::",
    "runtime::console::",
    "runtime::create::",
    "runtime::delete::",
    "runtime::hook_output::",
    "runtime::hostile_images::",
    "runtime::kill::",
    "runtime::labels::",
    "runtime::lifecycle::",
    "runtime::list::",
    "runtime::log::",
    "runtime::mount_namespace::",
    "runtime::network::",
    "runtime::refused_kernel::",
    "runtime::refused_system_calls::",
    "runtime::run::",
    "runtime::start::",
    "runtime::state::",
    "manager::cleanup::",
    "manager::reports::",
];

/// Tests of the parts above that cannot run in the guest, each with the reason.
pub(crate) const CANNOT_RUN: [(&str, &str); 1] = [(
    "manager::reports::only_the_copy_of_a_host_is_read_wherever_its_links_lead",
    "it traces the manager with strace, which the guest does not have",
)];

/// What begins the lines that the guest prints for the host.
pub(crate) const MARK: &str = "@@@ ";
/// After all parts, whatever came of them, with their number.
pub(crate) const VERDICT: &str = "@@@ all parts have ended:";
