//! Reads the state of a process from `/proc`.

use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process, by its pid.
#[derive(Clone, Copy)]
pub(crate) struct Process(pub(crate) i32);

impl std::fmt::Debug for Process {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "process {} {}", self.0, self.command_line())
    }
}

/// All processes that have not ended.
pub(crate) fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.map(Process).filter(|process: &Process| process.is_alive()).collect()
}

impl Process {
    /// A file of the process in `/proc`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    /// Empty if the process has ended.
    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).unwrap_or_default()
    }

    fn link(&self, name: &str) -> PathBuf {
        std::fs::read_link(self.path(name)).unwrap()
    }

    /// The fields of `/proc/PID/stat` behind the name, which may contain anything. The first field is the
    /// state. Empty if there is no such process.
    fn fields(&self) -> String {
        fields(&self.path("stat"))
    }

    /// Whether it exists and has not ended. A zombie has ended.
    pub(crate) fn is_alive(&self) -> bool {
        let fields = self.fields();
        !fields.is_empty() && !fields.starts_with(['Z', 'X'])
    }

    /// Whether all its threads are stopped by a signal.
    pub(crate) fn has_stopped(&self) -> bool {
        let mut threads = std::fs::read_dir(self.path("task")).unwrap();
        threads.all(|thread| fields(&thread.unwrap().path().join("stat")).starts_with('T'))
    }

    /// When it was started, in clock ticks since boot; 0 if there is no such process.
    pub(crate) fn start_time(&self) -> u64 {
        let fields = self.fields();
        let field = fields.split_ascii_whitespace().nth(19);
        field.and_then(|field| field.parse().ok()).unwrap_or_default()
    }

    /// Its command line; its name in parentheses if it has none, and nothing if it has ended.
    pub(crate) fn command_line(&self) -> String {
        let line = self.arguments().join(" ");
        let name = || String::from_utf8_lossy(&self.read("comm")).trim().to_owned();
        if line.is_empty() { format!("({})", name()) } else { line }
    }

    /// Its argument vector.
    pub(crate) fn arguments(&self) -> Vec<String> {
        strings(&self.read("cmdline"))
    }

    /// Its environment as it was given to execve(2), in order.
    pub(crate) fn environment(&self) -> Vec<String> {
        strings(&self.read("environ"))
    }

    /// The line `name:` of its status; empty if it has ended.
    pub(crate) fn status(&self, name: &str) -> String {
        let status = String::from_utf8(self.read("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// The set of signals `name` of its status as a bit mask, the first signal lowest; without 32 and
    /// 33, which glibc's posix_spawn(3) keeps to itself.
    pub(crate) fn signals(&self, name: &str) -> u64 {
        signals(&self.status(name))
    }

    /// The field of `/proc/PID/stat` with this number in proc_pid_stat(5), above 2.
    pub(crate) fn stat(&self, number: usize) -> i32 {
        self.fields().split(' ').nth(number - 3).unwrap().parse().unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0), signal)
            .unwrap_or_else(|error| panic!("{signal} to {self:?}: {error}"));
    }

    /// The numbers of its open descriptors.
    pub(crate) fn descriptors(&self) -> Vec<i32> {
        let entries = std::fs::read_dir(self.path("fd")).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let mut numbers: Vec<i32> =
            entries.map(|entry| name(entry).to_str().unwrap().parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The file of its descriptor `number`.
    pub(crate) fn descriptor(&self, number: i32) -> PathBuf {
        self.link(&format!("fd/{number}"))
    }

    pub(crate) fn working_directory(&self) -> PathBuf {
        self.link("cwd")
    }

    /// Its namespace of `kind`.
    pub(crate) fn namespace(&self, kind: &str) -> PathBuf {
        self.link(&format!("ns/{kind}"))
    }

    /// The paths of its cgroups, one per hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<String> {
        let text = String::from_utf8(self.read("cgroup")).unwrap();
        text.lines().map(|line| line.splitn(3, ':').nth(2).unwrap().to_owned()).collect()
    }
}

/// The fields of a `stat` file, as [`Process::fields`] returns them.
fn fields(path: &std::path::Path) -> String {
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    stat.rsplit_once(") ").map(|(_, fields)| fields.to_owned()).unwrap_or_default()
}

/// Parses a set of signals from `/proc/PID/status`, as [`Process::signals`] returns it.
pub(crate) fn signals(hexadecimal: &str) -> u64 {
    u64::from_str_radix(hexadecimal, 16).unwrap() & !(0b11 << 31)
}

/// Splits zero-terminated strings, as `/proc` has them.
pub(crate) fn strings(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.split_terminator('\0').map(str::to_owned).collect()
}
