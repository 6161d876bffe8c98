//! A generated store on disk, and the system that will boot it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use serde_json::Value;

use super::kernel::{Overlay, Seen, bind, merged};
use super::reference::{Fate, Modules, compose, fate};
use super::stores::{Defect, Extension, Generated, Given, KERNELS, Layering, Node, write_nodes};
use crate::capture::run;
use crate::manager::host::bare;

/// A store on disk and the system that will boot it.
pub(crate) struct Machine {
    pub(crate) top: PathBuf,
    pub(crate) store: Generated,
    /// How to repeat it.
    pub(crate) shown: String,
    modules: Vec<Modules>,
}

impl Machine {
    pub(crate) fn write(top: &Path, mut store: Generated, shown: &str) -> Self {
        let (host, data) = (top.join("host"), top.join("data"));
        store.write(&data.join("docker"));
        let write = |name: &str, text: &str| {
            let path = host.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let system = store.system.clone();
        let stated = system.given == Given::Options;
        let abi = system.kernel.flatten().filter(|_| !stated);
        let token =
            abi.map(|at| format!(" balena_kernel_abi={}", KERNELS[at].1)).unwrap_or_default();
        let word = match system.layering {
            Layering::Word(word) => word,
            Layering::On | Layering::Purged | Layering::DataNotMounted => "quiet",
        };
        write("proc/cmdline", &format!("root=/dev/sda {word}{token}\n"));
        let release = system.release.filter(|_| !stated).unwrap_or("3.3.3-x");
        write("proc/sys/kernel/osrelease", &format!("{release}\n"));
        let mounted = match system.layering {
            Layering::DataNotMounted => "",
            Layering::On | Layering::Purged | Layering::Word(_) => {
                "/dev/sdb /mnt/data ext4 rw 0 0\n"
            }
        };
        write(
            "proc/mounts",
            &format!("/dev/sda / ext4 ro 0 0\n/dev/sda1 /mnt/boot vfat rw 0 0\n{mounted}"),
        );
        fs::create_dir_all(host.join("mnt/data")).unwrap();
        bind(&data, &host.join("mnt/data"));
        if !matches!(system.layering, Layering::Purged | Layering::DataNotMounted) {
            fs::write(data.join("remove_me_to_reset"), "").unwrap();
        }
        if let Some(at) = abi.filter(|_| system.given == Given::Running) {
            // Armed, and it runs already.
            let arm = format!("# GRUB Environment Block\nkernel_override_abi={}\n", KERNELS[at].1);
            write("mnt/boot/bootenv", &format!("{arm:#<1024}"));
            fs::create_dir(data.join("boot-by-abi")).unwrap();
            fs::write(data.join("boot-by-abi").join(KERNELS[at].1), KERNELS[at].0).unwrap();
            let is_broken =
                |one: &Extension| matches!(one.defect, Defect::Garbage | Defect::UnreadableRecord);
            let hides_claims =
                matches!(system.layering, Layering::Purged | Layering::DataNotMounted);
            if hides_claims || store.extensions.iter().any(is_broken) {
                // Whether any extension claims the armed kernel cannot be seen.
                (store.system.kernel, store.system.release) = (None, None);
            }
        }
        let version = system.version.filter(|_| !stated).unwrap_or("1.1.1");
        let os = if system.given == Given::Directory { top.join("os") } else { host.clone() };
        if system.given == Given::Directory {
            write("etc/os-release", "VERSION_ID=1.1.1\n");
        }
        store.os.retain(|(path, node)| path != "etc" || matches!(node, Node::Directory));
        write_nodes(&os, &store.os, "os");
        fs::create_dir_all(os.join("etc")).unwrap();
        fs::write(os.join("etc/os-release"), format!("VERSION_ID={version}\n")).unwrap();
        let mut machine =
            Self { top: top.to_owned(), store, shown: shown.to_owned(), modules: Vec::new() };
        machine.modules =
            (0..machine.store.extensions.len()).map(|at| machine.modules_of(at)).collect();
        machine.choose_page();
        machine
    }

    pub(crate) fn data_root(&self) -> PathBuf {
        self.top.join("host/mnt/data/docker")
    }

    pub(crate) fn os(&self) -> PathBuf {
        let name = if self.store.system.given == Given::Directory { "os" } else { "host" };
        self.top.join(name)
    }

    /// The directories of an extension's layers; of the OS's if there is no number.
    pub(crate) fn chain(&self, extension: Option<usize>) -> Vec<PathBuf> {
        let Some(at) = extension else { return vec![self.os()] };
        let layers = self.store.extensions[at].layers.iter();
        layers.map(|layer| self.store.directory(&self.data_root(), *layer)).collect()
    }

    pub(crate) fn alone(&self, extension: Option<usize>) -> (Overlay, BTreeMap<String, Seen>) {
        merged(&self.chain(extension), &self.top.join("empty"), &self.top.join("alone"))
    }

    /// Looks for modules and kernels in an extension as the kernel merges its layers.
    fn modules_of(&self, extension: usize) -> Modules {
        let (_overlay, _) = self.alone(Some(extension));
        let view = openat2(
            CWD,
            self.top.join("alone"),
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
            ResolveFlags::empty(),
        )
        .unwrap();
        let open =
            |path: &str, flags| openat2(&view, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        let names = |path: &str| -> Vec<String> {
            let Ok(directory) = open(path, OFlags::RDONLY | OFlags::DIRECTORY) else {
                return Vec::new();
            };
            let entries =
                rustix::fs::Dir::read_from(directory).unwrap().map(|entry| entry.unwrap());
            let names = entries.map(|entry| entry.file_name().to_str().unwrap().to_owned());
            names.filter(|name| name != "." && name != "..").collect()
        };
        let system = &self.store.system;
        let release = system.release.map(|release| format!("lib/modules/{release}"));
        let kernel = system.kernel.flatten().map(|at| KERNELS[at].0);
        let is_kernel = |name: &String| {
            let path = self.top.join("alone/boot").join(name);
            fs::symlink_metadata(&path).is_ok_and(|found| found.is_file())
                && Some(fs::read_to_string(path).unwrap().as_str()) == kernel
        };
        Modules {
            any: !names("lib/modules").is_empty(),
            of_release: release.is_some_and(|path| open(&path, OFlags::PATH).is_ok()),
            with_kernel: names("boot").iter().any(is_kernel),
        }
    }

    pub(crate) fn fate(&self, extension: usize) -> Fate {
        fate(&self.store.extensions[extension], &self.modules[extension], &self.store.system)
    }

    /// The extensions with records.
    pub(crate) fn recorded(&self) -> Vec<usize> {
        let is_read = |at: &usize| {
            let defect = self.store.extensions[*at].defect;
            !matches!(defect, Defect::Garbage | Defect::UnreadableRecord)
        };
        (0..self.store.extensions.len()).filter(is_read).collect()
    }

    pub(crate) fn certain(&self) -> Vec<usize> {
        self.recorded().into_iter().filter(|at| self.fate(*at) == Fate::Selected).collect()
    }

    /// Those that may be there and whose layers are known.
    pub(crate) fn possible(&self) -> Vec<usize> {
        let may_be = |at: &usize| {
            self.fate(*at) == Fate::Unknown && self.store.extensions[*at].defect == Defect::None
        };
        self.recorded().into_iter().filter(may_be).collect()
    }

    /// In every second store, the page ends near a chain.
    fn choose_page(&mut self) {
        let all = compose(&self.store, &self.certain());
        let (number, sum) = (self.store.extensions.len(), self.store.layers.len());
        self.store.system.page = match (number + sum) % 4 {
            0 => all.length + 2,
            1 => all.length + 1,
            2 => all.length.saturating_sub(40 * (sum % 11)),
            _ => 4096,
        };
        self.store.system.page = self.store.system.page.max(1024);
    }

    pub(crate) fn plan(&self) -> (i32, Value) {
        let system = &self.store.system;
        let mut command = bare(&["plan", "--files", "--format", "json"]);
        command.arg("--host-root").arg(self.top.join("host")).arg("--host=unix:///nowhere.sock");
        command.arg(format!("--page-size={}", system.page));
        command.arg(format!("--os-layers={}", system.os_layers));
        self.state(&mut command);
        let finished = run(&mut command);
        assert!(matches!(finished.code(), 0 | 1), "{}: {finished}", self.shown);
        (finished.code(), finished.json())
    }

    fn state(&self, command: &mut Command) {
        let system = &self.store.system;
        if system.given == Given::Directory {
            command.arg("--os-root").arg(self.os());
        }
        if system.given == Given::Running {
            return;
        }
        let kernel = system.kernel.map(|kernel| kernel.map_or("none", |at| KERNELS[at].1));
        command.args(kernel.map(|kernel| format!("--kernel-abi={kernel}")));
        command.args(system.release.map(|release| format!("--kernel-release={release}")));
        if system.given == Given::Options {
            command.args(system.version.map(|version| format!("--os-version={version}")));
        }
    }
}
