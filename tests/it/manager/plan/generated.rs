//! Two hundred generated stores: `plan` predicts what the rules of the initramfs, as `reference.rs` has them, make of
//! each, and what a composed overlay then shows on the kernel of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use serde_json::Value;

use super::kernel::{Overlay, Seen, bind, in_own_mounts, merged, unbind, walk};
use super::reference::{Composed, Fate, InOverlay, LINKS, Modules, claims, compose, fate};
use super::stores::{Defect, Extension, Generated, Given, KERNELS, Layering, Node, write_nodes};
use crate::capture::run;
use crate::manager::host::bare;
use crate::numbers::Numbers;

const STORES: u64 = 200;
const SEED: u64 = 20_261_128_000;

#[test]
fn a_plan_is_what_a_boot_makes_of_generated_stores() {
    let seed = std::env::var("PLAN_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds: Vec<u64> = seed.map_or((SEED..SEED + STORES).collect(), |seed| vec![seed]);
    in_own_mounts(move |top| {
        let mut counts = BTreeMap::<String, usize>::new();
        for seed in seeds {
            let at = top.join("store");
            let store = Generated::new(&mut Numbers(seed));
            let shown = format!("PLAN_SEED={seed} repeats it");
            let device = Device::write(&at, store, &shown);
            device.check(&mut counts);
            unbind(&at.join("host/mnt/data"));
            fs::remove_dir_all(&at).unwrap();
        }
        if seed.is_none() {
            for seen in ["above-os", "below-os", "no-room", "room-unknown", "other-system", "stock-kernel", "another-kernel",
                "kernel-version", "being-removed", "storage-driver", "nothing-layered", "unpredictable", "claims-unknown",
                "hidden file", "hidden directory", "hidden by the OS", "hidden of the OS", "shared"]
            {
                assert!(counts.get(seen).is_some_and(|count| *count > 1), "too few {seen:?} in {counts:?}");
            }
        }
    });
}

/// A store on disk and the system that will boot it.
struct Device {
    top: PathBuf,
    store: Generated,
    /// How to repeat it.
    shown: String,
    modules: Vec<Modules>,
}

impl Device {
    fn write(top: &Path, mut store: Generated, shown: &str) -> Self {
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
        let token = abi.map(|at| format!(" balena_kernel_abi={}", KERNELS[at].1)).unwrap_or_default();
        let word = match system.layering {
            Layering::Word(word) => word,
            _ => "quiet",
        };
        write("proc/cmdline", &format!("root=/dev/sda {word}{token}\n"));
        let release = system.release.filter(|_| !stated).unwrap_or("3.3.3-x");
        write("proc/sys/kernel/osrelease", &format!("{release}\n"));
        let mounted = match system.layering {
            Layering::DataNotMounted => "",
            _ => "/dev/sdb /mnt/data ext4 rw 0 0\n",
        };
        write("proc/mounts", &format!("/dev/sda / ext4 ro 0 0\n/dev/sda1 /mnt/boot vfat rw 0 0\n{mounted}"));
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
            let is_broken = |one: &Extension| {
                matches!(one.defect, Defect::Garbage | Defect::UnreadableRecord)
            };
            let hides_claims = matches!(system.layering, Layering::Purged | Layering::DataNotMounted);
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
        let mut device = Self { top: top.to_owned(), store, shown: shown.to_owned(), modules: Vec::new() };
        device.modules = (0..device.store.extensions.len()).map(|at| device.modules_of(at)).collect();
        device.choose_page();
        device
    }

    fn data_root(&self) -> PathBuf {
        self.top.join("host/mnt/data/docker")
    }

    fn os(&self) -> PathBuf {
        let name = if self.store.system.given == Given::Directory { "os" } else { "host" };
        self.top.join(name)
    }

    /// The directories of an extension's layers; of the OS's if there is no number.
    fn chain(&self, extension: Option<usize>) -> Vec<PathBuf> {
        let Some(at) = extension else { return vec![self.os()] };
        let layers = self.store.extensions[at].layers.iter();
        layers.map(|layer| self.store.directory(&self.data_root(), *layer)).collect()
    }

    fn alone(&self, extension: Option<usize>) -> (Overlay, BTreeMap<String, Seen>) {
        merged(&self.chain(extension), &self.top.join("empty"), &self.top.join("alone"))
    }

    /// Looks for modules and kernels in an extension as the kernel merges its layers.
    fn modules_of(&self, extension: usize) -> Modules {
        let (_overlay, _) = self.alone(Some(extension));
        let view = openat2(CWD, self.top.join("alone"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::empty())
            .unwrap();
        let open = |path: &str, flags| openat2(&view, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        let names = |path: &str| -> Vec<String> {
            let Ok(directory) = open(path, OFlags::RDONLY | OFlags::DIRECTORY) else { return Vec::new() };
            let entries = rustix::fs::Dir::read_from(directory).unwrap().map(|entry| entry.unwrap());
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

    fn fate(&self, extension: usize) -> Fate {
        fate(&self.store.extensions[extension], &self.modules[extension], &self.store.system)
    }

    /// The extensions with records.
    fn recorded(&self) -> Vec<usize> {
        let is_read = |at: &usize| {
            let defect = self.store.extensions[*at].defect;
            !matches!(defect, Defect::Garbage | Defect::UnreadableRecord)
        };
        (0..self.store.extensions.len()).filter(is_read).collect()
    }

    fn certain(&self) -> Vec<usize> {
        self.recorded().into_iter().filter(|at| self.fate(*at) == Fate::Selected).collect()
    }

    /// Those that may be there and whose layers are known.
    fn possible(&self) -> Vec<usize> {
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

    fn plan(&self) -> (i32, Value) {
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
            if kernel.is_none() && system.release.is_none() && system.version.is_none() {
                command.arg("--os-version=");
            }
        }
    }

    fn check(&self, counts: &mut BTreeMap<String, usize>) {
        let (code, document) = self.plan();
        let composed = compose(&self.store, &self.certain());
        self.check_outcomes(&document, &composed, counts);
        self.check_overlay(&document, &composed);
        self.check_exit(code, &document);
        self.check_mount(&document, &composed, counts);
    }

    /// The places that an extension has in all overlays that are possible.
    fn places(&self, extension: usize) -> BTreeSet<Option<&'static str>> {
        let (certain, possible) = (self.certain(), self.possible());
        assert!(possible.len() < 10, "{}: too many to try", self.shown);
        let of = |chosen: usize| {
            let chosen = possible.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0);
            let mut members: Vec<usize> = certain.iter().chain(chosen.map(|(_, at)| at)).copied().collect();
            members.sort_unstable();
            compose(&self.store, &members).place(extension)
        };
        (0..1 << possible.len()).map(of).collect()
    }

    fn check_outcomes(&self, document: &Value, composed: &Composed, counts: &mut BTreeMap<String, usize>) {
        let found = document["extensions"].as_array().unwrap();
        let recorded = self.recorded();
        assert_eq!(found.len(), recorded.len(), "{}: {document:#}", self.shown);
        let broken = self.store.extensions.len() - recorded.len();
        assert_eq!(document["unreadable"].as_array().unwrap().len(), broken, "{}", self.shown);
        let mut order = 0;
        for extension in found {
            let id = extension["id"].as_str().unwrap();
            let at = self.store.extensions.iter().position(|one| one.id == id).unwrap();
            let why = || format!("{}: {:?}\n{extension:#}", self.shown, self.store.extensions[at]);
            let (violated, unclear) = claims(&self.store.extensions[at], &self.store.system);
            let fate = self.fate(at);
            let place = composed.place(at);
            let is_sure = fate != Fate::Selected || self.places(at).len() == 1;
            let reason = match (&fate, place) {
                (Fate::Dropped("nothing-layered"), _) => "nothing-layered",
                _ if violated => "other-system",
                (Fate::Dropped(reason), _) => reason,
                (Fate::Unknown, _) => "unpredictable",
                (Fate::Selected, _) if !is_sure => "room-unknown",
                (Fate::Selected, Some("pruned")) => "no-room",
                (Fate::Selected, _) if unclear => "claims-unknown",
                (Fate::Selected, place) => place.unwrap(),
            };
            let seen = extension["reason"].as_str().unwrap();
            // With several that are unknown, more may be called unknown than has to be.
            let is_careful = seen == "room-unknown" && self.possible().len() > 1;
            assert!(seen == reason || is_careful, "expected {reason}: {}", why());
            let plan = match seen {
                "above-os" | "below-os" => "layered",
                "no-room" => "pruned",
                "other-system" => "stale",
                "unpredictable" | "room-unknown" | "claims-unknown" => "unknown",
                _ => "skipped",
            };
            assert_eq!(extension["plan"], plan, "{}", why());
            *counts.entry(seen.to_owned()).or_default() += 1;
            let is_there = matches!(place, Some("above-os" | "below-os")) && is_sure;
            match extension["place"].as_str() {
                Some(found) => assert_eq!((Some(found), is_sure), (place, true), "{}", why()),
                None => assert!(!is_there || self.possible().len() > 1, "{}", why()),
            }
            match extension["order"].as_u64() {
                Some(number) => {
                    order += 1;
                    assert!(is_there && number == order, "{}", why());
                }
                None => assert!(extension["place"].is_null(), "{}", why()),
            }
            let layers = &self.store.extensions[at];
            let known = (layers.defect == Defect::None).then_some(layers.layers.len());
            assert_eq!(extension["layers"].as_u64(), known.map(|count| u64::try_from(count).unwrap()), "{}", why());
        }
        // Those that are in the overlay are in its order.
        let placed = found.iter().filter(|one| !one["order"].is_null());
        let ids: Vec<&str> = placed.map(|one| one["id"].as_str().unwrap()).collect();
        let all = composed.above.iter().chain(&composed.below);
        let expected: Vec<&str> = all.map(|at| self.store.extensions[*at].id.as_str()).collect();
        let expected: Vec<&str> = expected.into_iter().filter(|id| ids.contains(id)).collect();
        assert_eq!(ids, expected, "{}", self.shown);
    }

    fn check_overlay(&self, document: &Value, composed: &Composed) {
        assert_eq!(document["lowerdir"], composed.option(LINKS), "{}", self.shown);
        assert_eq!(document["length"], composed.length, "{}", self.shown);
        assert_eq!(document["lengthMax"], self.store.system.page - 2, "{}", self.shown);
        let found: Vec<Option<&str>> =
            document["layers"].as_array().unwrap().iter().map(|layer| layer["directory"].as_str()).collect();
        let directory = |layer: &InOverlay| match layer {
            InOverlay::Os(_) => None,
            InOverlay::Layer(at) => Some(self.store.directory(&self.data_root(), *at)),
        };
        let expected: Vec<Option<PathBuf>> = composed.layers.iter().map(|(layer, _)| directory(layer)).collect();
        let expected: Vec<Option<&str>> =
            expected.iter().map(|path| path.as_ref().map(|path| path.to_str().unwrap())).collect();
        assert_eq!(found, expected, "{}", self.shown);
    }

    fn check_exit(&self, code: i32, document: &Value) {
        let lost: Vec<&str> =
            document["lost"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        let may_be_lost = |one: &&Value| {
            matches!(one["now"].as_str().unwrap(), "applied" | "on-trial" | "unknown") && one["plan"] != "layered"
        };
        let extensions = document["extensions"].as_array().unwrap().iter();
        let expected: Vec<&str> =
            extensions.filter(may_be_lost).map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(lost, expected, "{}", self.shown);
        let is_safe = lost.is_empty() && document["unreadable"].as_array().unwrap().is_empty();
        assert_eq!(code, i32::from(!is_safe), "{}: {document:#}", self.shown);
    }

    /// Mounts what the reference has composed, and looks for every file.
    fn check_mount(&self, document: &Value, composed: &Composed, counts: &mut BTreeMap<String, usize>) {
        let knows_os = self.store.system.given != Given::Options;
        assert_eq!(document["unknownFiles"].as_array().unwrap().is_empty(), knows_os, "{}", self.shown);
        let links = self.top.join("links");
        fs::create_dir_all(&links).unwrap();
        let mut names = Vec::new();
        for (layer, number) in &composed.layers {
            let target = match layer {
                InOverlay::Os(0) if knows_os => self.os(),
                InOverlay::Os(_) => self.top.join(format!("os-layer-{number}")),
                InOverlay::Layer(at) => self.store.directory(&self.data_root(), *at),
            };
            fs::create_dir_all(&target).unwrap();
            symlink(target, links.join(number.to_string())).unwrap();
            names.push(number.to_string());
        }
        fs::create_dir(links.join("none")).unwrap();
        names.push("none".to_owned());
        // The directory is another one than that of the initramfs, and so the string may be too long for the kernel.
        std::env::set_current_dir(&links).unwrap();
        let point = self.top.join("merged");
        let overlay = Overlay::mount(&point, &format!("lowerdir={}", names.join(":")));
        let overlay = overlay.unwrap_or_else(|error| panic!("{}: {error}: {names:?}", self.shown));
        let shown = walk(&point);
        drop(overlay);
        std::env::set_current_dir("/").unwrap();
        let extensions = document["extensions"].as_array().unwrap();
        for extension in extensions {
            let mark = format!("/mark-{}", &extension["id"].as_str().unwrap()[..12]);
            let is_there = shown.contains_key(&mark);
            let may_be = !extension["place"].is_null() || extension["reason"] == "room-unknown";
            let is_layered = extension["plan"] == "layered";
            assert!(if is_there { may_be } else { !is_layered }, "{}: {extension:#}", self.shown);
        }
        if composed.layers.len() < composed.above.len() + composed.below.len() {
            panic!("{}: each has a layer of its own", self.shown);
        }
        let members = composed.above.iter().chain(&composed.below).map(|at| Some(*at));
        let owners: Vec<Option<usize>> = members.chain(knows_os.then_some(None)).collect();
        for owner in &owners {
            self.check_hidden(document, *owner, &owners, &shown, counts);
        }
        // What hides and what is hidden are two sides of the same.
        let (hides, hidden) = (pairs(extensions, "hides"), pairs(extensions, "hidden"));
        let mirrored: BTreeSet<_> = hidden.iter().map(|(of, path, by)| (by.clone(), path.clone(), of.clone())).collect();
        let both = |all: &BTreeSet<(Option<String>, String, Option<String>)>| {
            all.iter().filter(|(one, _, other)| one.is_some() && other.is_some()).cloned().collect::<Vec<_>>()
        };
        assert_eq!(both(&hides), both(&mirrored), "{}", self.shown);
    }

    /// Compares what is reported as hidden of one member with what the mount does not show of it.
    fn check_hidden(
        &self,
        document: &Value,
        owner: Option<usize>,
        owners: &[Option<usize>],
        shown: &BTreeMap<String, Seen>,
        counts: &mut BTreeMap<String, usize>,
    ) {
        let (overlay, own) = self.alone(owner);
        drop(overlay);
        let id = |owner: Option<usize>| owner.map(|at| self.store.extensions[at].id.clone());
        let extensions = document["extensions"].as_array().unwrap();
        // The OS is no extension: what it loses stands at those that hide it.
        let reported: Vec<(String, Option<String>)> = match owner {
            Some(_) => pairs(extensions, "hidden").into_iter().filter(|(of, _, _)| *of == id(owner)).map(|(_, path, by)| (path, by)).collect(),
            None => pairs(extensions, "hides").into_iter().filter(|(_, _, of)| of.is_none()).map(|(by, path, _)| (path, by)).collect(),
        };
        let why = |path: &str| format!("{}: {path} of {:?}; reported: {reported:#?}", self.shown, id(owner));
        let files = own.iter().filter(|(_, seen)| !seen.is_directory);
        let expected: BTreeSet<&String> =
            files.clone().filter(|(path, seen)| shown.get(*path) != Some(*seen)).map(|(path, _)| path).collect();
        let mut found = BTreeSet::new();
        for (path, by) in &reported {
            let other = owners.iter().copied().find(|other| id(*other) == *by).unwrap_or_else(|| panic!("{}", why(path)));
            let plain = path.trim_end_matches('/');
            let at = own.get(plain).unwrap_or_else(|| panic!("it has no such file: {}", why(path)));
            assert_eq!(at.is_directory, path.ends_with('/'), "{}", why(path));
            if at.is_directory {
                *counts.entry("hidden directory".to_owned()).or_default() += 1;
                found.extend(files.clone().map(|(path, _)| path).filter(|file| file.starts_with(path)));
            } else {
                *counts.entry("hidden file".to_owned()).or_default() += 1;
                found.insert(own.get_key_value(plain).unwrap().0);
            }
            if other.is_none() {
                *counts.entry("hidden by the OS".to_owned()).or_default() += 1;
            }
            if owner.is_none() {
                *counts.entry("hidden of the OS".to_owned()).or_default() += 1;
            }
            self.check_hider(plain, other, shown, &why(path));
        }
        assert_eq!(found, expected, "{}", why(""));
        let shares = |other: &Option<usize>| {
            let layers = |at: usize| &self.store.extensions[at].layers;
            let (Some(one), Some(other)) = (owner, *other) else { return false };
            one != other && layers(one).iter().any(|layer| layers(other).contains(layer))
        };
        if !expected.is_empty() && owners.iter().any(shares) {
            *counts.entry("shared".to_owned()).or_default() += 1;
        }
    }

    /// The one that hides a path has the file that is seen there; or something on the way to it.
    fn check_hider(&self, path: &str, by: Option<usize>, shown: &BTreeMap<String, Seen>, why: &str) {
        let chain = self.chain(by);
        let stat = |path: &str| -> Vec<u64> {
            use std::os::unix::fs::MetadataExt as _;
            let at = chain.iter().filter_map(|layer| fs::symlink_metadata(layer.join(&path[1..])).ok());
            at.map(|found| found.ino()).collect()
        };
        match shown.get(path) {
            Some(seen) if !seen.is_directory => assert!(stat(path).contains(&seen.number), "by: {why}"),
            _ => {
                let mut way = Path::new(path).ancestors().filter(|part| *part != Path::new("/"));
                assert!(way.any(|part| !stat(part.to_str().unwrap()).is_empty()), "by: {why}");
            }
        }
    }
}

/// The extension, the path, and the other one, of all entries of a field. `None` is the OS.
fn pairs(extensions: &[Value], field: &str) -> BTreeSet<(Option<String>, String, Option<String>)> {
    let mut pairs = BTreeSet::new();
    for extension in extensions {
        let paths = extension[field]["paths"].as_array().unwrap();
        assert_eq!(extension[field]["count"], paths.len(), "{extension:#}");
        for path in paths {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let key = (text(&extension["id"]), text(&path["path"]).unwrap(), text(&path["extension"]));
            // With the fields of what is hidden, the first is who has lost it.
            pairs.insert(key);
        }
    }
    pairs
}
