//! What can be seen of a running process, as `/proc` shows it.

use std::path::PathBuf;

/// A process to look at.
pub(crate) struct Process(pub(crate) i32);

impl Process {
    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(format!("/proc/{}/{file}", self.0)).unwrap()
    }

    fn link(&self, name: &str) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/{name}", self.0)).unwrap()
    }

    /// Its argument vector.
    pub(crate) fn arguments(&self) -> Vec<String> {
        strings(&self.read("cmdline"))
    }

    /// Its environment as it was given to execve(2), in order.
    pub(crate) fn environment(&self) -> Vec<String> {
        strings(&self.read("environ"))
    }

    /// The line `name:` of its status.
    pub(crate) fn status(&self, name: &str) -> String {
        let status = String::from_utf8(self.read("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().trim().to_owned()
    }

    /// The set of signals `name` of its status as a bit mask, the first signal lowest; without 32 and
    /// 33, which glibc's posix_spawn(3) keeps to itself.
    pub(crate) fn signals(&self, name: &str) -> u64 {
        signals(&self.status(name))
    }

    /// The field of `/proc/PID/stat` with this number in proc_pid_stat(5), above 2.
    pub(crate) fn stat(&self, number: usize) -> i32 {
        let stat = String::from_utf8(self.read("stat")).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.split(' ').nth(number - 3).unwrap().parse().unwrap()
    }

    /// The numbers of its open descriptors.
    pub(crate) fn descriptors(&self) -> Vec<i32> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let mut numbers: Vec<i32> =
            entries.map(|entry| name(entry).to_str().unwrap().parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// What its descriptor `number` leads to.
    pub(crate) fn descriptor(&self, number: i32) -> PathBuf {
        self.link(&format!("fd/{number}"))
    }

    pub(crate) fn working_directory(&self) -> PathBuf {
        self.link("cwd")
    }

    /// Which namespace of `kind` it is in.
    pub(crate) fn namespace(&self, kind: &str) -> PathBuf {
        self.link(&format!("ns/{kind}"))
    }

    /// The paths of its cgroups, one a hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<String> {
        let text = String::from_utf8(self.read("cgroup")).unwrap();
        text.lines().map(|line| line.splitn(3, ':').nth(2).unwrap().to_owned()).collect()
    }
}

/// A set of signals as `/proc/PID/status` has it, as [`Process::signals`] returns it.
pub(crate) fn signals(hexadecimal: &str) -> u64 {
    u64::from_str_radix(hexadecimal, 16).unwrap() & !(0b11 << 31)
}

/// Zero-terminated strings, as `/proc` has them.
pub(crate) fn strings(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}
