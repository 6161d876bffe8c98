//! Root of a container that shares the PID namespace (`--pid=host`): user 0 with the default capabilities of
//! Docker, without CAP_SYS_PTRACE. Capabilities belong to threads, so here a thread has them. A real container
//! is in `tests/engines`.

use std::process::Command;

use nix::sys::ptrace;
use rustix::process::{PidfdFlags, PidfdGetfdFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// For setpriv(1): only the capability that the manager's boot unit keeps.
pub(crate) const AS_THE_UNIT: [&str; 6] =
    ["--bounding-set", "-all,+wake_alarm", "--inh-caps", "-all", "--no-new-privs", "--"];
/// For setpriv(1): no capability at all.
pub(crate) const WITHOUT_ANY: [&str; 6] =
    ["--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs", "--"];

fn of_docker() -> CapabilitySet {
    CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::SETPCAP
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::NET_RAW
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::MKNOD
        | CapabilitySet::AUDIT_WRITE
        | CapabilitySet::SETFCAP
}

/// The ways into process `pid` that are open to such a root.
pub(crate) fn ways_into(pid: i32) -> Vec<String> {
    let intruder = std::thread::spawn(move || {
        let (none, some) = (CapabilitySet::empty(), of_docker());
        let sets = CapabilitySets { effective: some, permitted: some, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        open_ways(pid)
    });
    intruder.join().unwrap()
}

fn open_ways(pid: i32) -> Vec<String> {
    let process = |name: &str| format!("/proc/{pid}/{name}");
    let links = ["root", "cwd", "exe", "fd/0", "fd/1", "ns/mnt", "ns/net", "ns/pid"];
    let mut open: Vec<String> = links
        .iter()
        .filter(|link| std::fs::read_link(process(link)).is_ok())
        .chain(["root/etc"].iter().filter(|name| std::fs::metadata(process(name)).is_ok()))
        .chain(
            ["environ", "mem", "maps"]
                .iter()
                .filter(|name| std::fs::File::open(process(name)).is_ok()),
        )
        .map(|name| (*name).to_owned())
        .collect();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    if rustix::process::pidfd_getfd(&pidfd, 1, PidfdGetfdFlags::empty()).is_ok() {
        open.push("pidfd_getfd".to_owned());
    }
    let traced = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
    if ptrace::attach(traced).is_ok() {
        open.push("ptrace".to_owned());
        nix::sys::wait::waitpid(traced, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
        ptrace::detach(traced, None).unwrap();
    }
    open
}

/// Starts a program that only waits, with setpriv(1) and these words.
pub(crate) fn idle(words: &[&str]) -> crate::process::Started {
    let mut idle =
        crate::process::start(Command::new("setpriv").args(words).args(["sleep", "1000"]));
    crate::process::wait_for("the program behind setpriv", || {
        let name = std::fs::read(format!("/proc/{}/comm", idle.pid())).unwrap();
        name.starts_with(b"sleep").then_some(())
    });
    assert!(idle.runs());
    idle
}

#[test]
fn a_program_without_capabilities_is_open_and_the_one_capability_of_the_unit_closes_it() {
    let open = idle(&WITHOUT_ANY);
    let ways = ways_into(open.pid());
    for way in ["root", "root/etc", "exe", "fd/1", "environ", "ns/mnt", "pidfd_getfd", "ptrace"] {
        assert!(ways.iter().any(|found| found == way), "{way} is not among {ways:?}");
    }
    let closed = idle(&AS_THE_UNIT);
    assert_eq!(ways_into(closed.pid()), [""; 0]);
}
