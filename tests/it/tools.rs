//! Tests of `tools/`: what a machine without the right compiler, packages or network is told, and what is installed
//! there. The machine is a directory of fake programs, which is all of PATH; nothing is downloaded or compiled.

mod build;
mod demo;
mod need;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::capture;
use crate::finished::Finished;

/// Programs that every system has, and that the scripts call.
const REAL: &str = "ar awk bash cat chmod cmp cp cut dirname env getent git grep head ln mkdir mktemp mv paste readelf \
     rm sed sh sleep sort stat tail touch tr";

/// A machine: what its fake programs do, and a log of their calls.
struct Machine(TempDir);

impl Machine {
    /// A machine with these lines in os-release, where user `uid` calls.
    fn new(os_release: &str, uid: u32) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        fs::create_dir(machine.path("bin")).unwrap();
        fs::write(machine.path("os-release"), os_release).unwrap();
        for name in REAL.split(' ').filter(|name| !name.is_empty()) {
            let directories = ["/usr/bin", "/bin"].map(Path::new);
            let real = directories.map(|at| at.join(name)).into_iter().find(|path| path.exists());
            symlink(real.unwrap_or_else(|| panic!("no {name} here")), machine.bin(name)).unwrap();
        }
        machine.has("id", &format!("echo {uid}"));
        machine.has("uname", "echo x86_64");
        machine.has("getconf", "echo 64");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn bin(&self, name: &str) -> PathBuf {
        self.path("bin").join(name)
    }

    /// Gives it a program, by the shell script that it runs. `$top` is the machine's directory. Calls are logged.
    fn has(&self, name: &str, script: &str) {
        let top = self.0.path().display();
        let log = format!("echo \"{name} $*\" >>{top}/calls");
        let file = self.bin(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        // Never written through a link to a program of the system.
        let _ = fs::remove_file(&file);
        let mut new = File::options().write(true).create_new(true).open(&file).unwrap();
        new.write_all(format!("#!/bin/sh\ntop={top}\n{log}\n{script}\n").as_bytes()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs a script of `tools/` with these arguments and variables.
    #[track_caller]
    fn run(&self, tool: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(tool);
        let mut command = Command::new(tool);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.path("home"));
        command.env("OS_RELEASE", self.path("os-release")).env("DEBIAN_ROOT", self.0.path());
        command.env("CARGO_TARGET_DIR", self.path("target")).env("OUT", self.path("out"));
        command.env("TMPDIR", self.0.path());
        capture::run(command.envs(variables.iter().copied()))
    }

    /// The calls of its programs so far that begin with `program`.
    fn calls(&self, program: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().filter(|call| call.starts_with(program)).map(str::to_owned).collect()
    }
}

const UBUNTU_24: &str = "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\n";
const DEBIAN_12: &str = "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";
