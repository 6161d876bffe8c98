//! Generated stores of an engine with extensions, and the system that will boot.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};
use rustix::fs::{XattrFlags, setxattr};
use serde_json::{Map, json};

use crate::numbers::Numbers;

/// Two kernels: their contents and the ABI, the SHA-256 of those.
pub(crate) const KERNELS: [(&str, &str); 2] = [
    ("a", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
    ("b", "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"),
];
const RELEASES: [&str; 4] = ["6.1.0-18", "6.1.0", "6.6.20-yocto-standard", "-odd"];
/// In directories that extensions share with the OS and with each other.
const PATHS: [&str; 17] = [
    "etc",
    "etc/a",
    "etc/b",
    "etc/d",
    "etc/d/a",
    "opt",
    "opt/a",
    "opt/b",
    "opt/d/a",
    "opt/d/b",
    "opt/d/e/a",
    "usr/bin",
    "usr/bin/a",
    "usr/bin/b",
    "var/a",
    "var/lib/a",
    "var/lib/b",
];
const DIRECTORIES: [&str; 6] = ["etc", "etc/d", "opt", "opt/d", "usr/bin", "var/lib"];
const OVERRIDES: [&str; 12] = [
    "",
    "0",
    "+1",
    "-3",
    "x",
    "10",
    "2",
    "1_0",
    "99999999999999999999",
    "9223372036854775807",
    " 1",
    "-0",
];
const OS_VERSIONS: [&str; 9] =
    ["5.*", "4.*", "*", "5.0.0", "4.*, 5.0.*", "[", "", "5.?.0,", "[0-4].*"];

#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(String),
    Directory,
    Opaque,
    Whiteout,
    Link(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) nodes: Vec<(String, Node)>,
}

/// What is wrong with the engine's files about an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    Garbage,
    UnreadableRecord,
    NoMountId,
    NoLower,
    NoLink,
    DanglingLayer,
}

#[derive(Clone, Debug)]
pub(crate) struct Extension {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) driver: Option<&'static str>,
    /// The field of its state that says that it is being removed.
    pub(crate) ending: Option<&'static str>,
    /// By their numbers in the store, its own first.
    pub(crate) layers: Vec<usize>,
    pub(crate) defect: Defect,
}

impl Extension {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        let name = format!("io.balena.image.{name}");
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, text)| text.as_str())
    }
}

/// How the system that will boot is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Running,
    /// A directory with the OS.
    Directory,
    /// Nothing but options.
    Options,
}

/// Whether anything is layered at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layering {
    On,
    Word(&'static str),
    Purged,
    DataNotMounted,
}

/// The system that will boot. `None` is unknown.
#[derive(Clone, Debug)]
pub(crate) struct System {
    pub(crate) given: Given,
    pub(crate) release: Option<&'static str>,
    /// The kernel, by its number; the inner `None` is the OS's own.
    pub(crate) kernel: Option<Option<usize>>,
    pub(crate) version: Option<&'static str>,
    pub(crate) layering: Layering,
    pub(crate) os_layers: usize,
    pub(crate) page: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Generated {
    pub(crate) layers: Vec<Layer>,
    /// In the order of their ids.
    pub(crate) extensions: Vec<Extension>,
    pub(crate) os: Vec<(String, Node)>,
    pub(crate) system: System,
}

impl Generated {
    pub(crate) fn new(numbers: &mut Numbers) -> Self {
        let mut store = Self {
            layers: Vec::new(),
            extensions: Vec::new(),
            os: nodes(numbers, 8, false),
            system: system(numbers),
        };
        // The ends of chains, which several images may have in common.
        let bases: Vec<Vec<usize>> = (0..numbers.below(4))
            .map(|at| store.chain(numbers, &format!("base{at}-"), 2))
            .collect();
        let count = if numbers.one_in(4) { numbers.below(24) } else { numbers.below(9) };
        for _ in 0..count {
            store.add_extension(numbers, &bases);
        }
        if let (Given::Running, Some(Some(at))) = (store.system.given, store.system.kernel) {
            // Without one that claims it, the armed kernel would not boot.
            store.add_extension(numbers, &bases);
            let claiming = store.extensions.last_mut().unwrap();
            claiming.labels = vec![("io.balena.image.kernel-abi-id", KERNELS[at].1.to_owned())];
            (claiming.ending, claiming.defect) = (None, Defect::None);
        }
        store.extensions.sort_by(|one, other| one.id.cmp(&other.id));
        store
    }

    fn chain(&mut self, numbers: &mut Numbers, prefix: &str, most: usize) -> Vec<usize> {
        let mut add = |at: usize, numbers: &mut Numbers| {
            let nodes = nodes(numbers, 7, true);
            self.layers.push(Layer { name: format!("{prefix}{at}"), nodes });
            self.layers.len() - 1
        };
        let count = 1 + numbers.below(most);
        (0..count).map(|at| add(at, numbers)).collect()
    }

    fn add_extension(&mut self, numbers: &mut Numbers, bases: &[Vec<usize>]) {
        let id: String = (0..64).map(|_| char::from(numbers.one_of(b"017acf"))).collect();
        let short = &id[..12];
        self.layers.push(Layer {
            name: format!("own-{short}"),
            nodes: vec![(format!("mark-{short}"), Node::File("mark".to_owned()))],
        });
        let mut layers = vec![self.layers.len() - 1];
        match numbers.below(30) {
            0 => {}
            1 => layers.extend(self.chain(numbers, &format!("image-{short}-"), 30)),
            _ => layers.extend(self.chain(numbers, &format!("image-{short}-"), 3)),
        }
        if !bases.is_empty() && numbers.one_in(2) {
            layers.extend(numbers.one_of(bases));
        }
        if layers.len() > 1 && numbers.one_in(4) {
            let of_image = &layers[1..];
            let modules = numbers.one_of(of_image);
            let directory = numbers.one_of(&["lib", "usr/lib"]);
            let release = numbers.one_of(&RELEASES);
            self.add(
                modules,
                &format!("{directory}/modules/{release}/x.ko"),
                Node::File("ko".to_owned()),
            );
            if directory == "usr/lib" {
                self.add(numbers.one_of(&layers[1..]), "lib", Node::Link("usr/lib"));
            }
            let (kernel, _) = numbers.one_of(&KERNELS);
            match numbers.below(5) {
                0 => {}
                1 => {
                    self.add(modules, "opt/kernel", Node::File(kernel.to_owned()));
                    self.add(modules, "boot/vmlinuz", Node::Link("../opt/kernel"));
                }
                2 => {
                    self.add(modules, "boot/vmlinuz", Node::File(kernel.to_owned()));
                    self.add(layers[1], "boot/vmlinuz", Node::Whiteout);
                }
                _ => self.add(modules, "boot/vmlinuz", Node::File(kernel.to_owned())),
            }
        }
        let labels = labels(numbers);
        // Beside one that cannot be read, what has room is often unknown.
        let defect = match numbers.below(160) {
            0 => Defect::Garbage,
            1 => Defect::UnreadableRecord,
            2 => Defect::NoMountId,
            3 => Defect::NoLower,
            4 => Defect::NoLink,
            5 => Defect::DanglingLayer,
            _ => Defect::None,
        };
        self.extensions.push(Extension {
            name: format!("{}{}", numbers.word("a b z ab x-1 B"), self.extensions.len()),
            labels,
            driver: if numbers.one_in(12) {
                numbers.one_of(&[Some("vfs"), None])
            } else {
                Some("overlay2")
            },
            ending: if numbers.one_in(16) {
                Some(numbers.word("Dead RemovalInProgress"))
            } else {
                None
            },
            layers,
            defect,
            id,
        });
    }

    /// Adds a file, unless the layer has something there.
    fn add(&mut self, layer: usize, path: &str, node: Node) {
        add(&mut self.layers[layer].nodes, path, node);
    }

    /// The directory of a layer's files in the data root.
    pub(crate) fn directory(&self, data_root: &Path, layer: usize) -> PathBuf {
        data_root.join("overlay2").join(&self.layers[layer].name).join("diff")
    }

    /// Writes the store.
    pub(crate) fn write(&self, data_root: &Path) {
        let store = data_root.join("overlay2");
        fs::create_dir_all(store.join("l")).unwrap();
        fs::create_dir_all(data_root.join("containers")).unwrap();
        let short = |at: usize| format!("{at:0>26}").replace('-', "X");
        for (at, layer) in self.layers.iter().enumerate() {
            write_nodes(&store.join(&layer.name).join("diff"), &layer.nodes, &layer.name);
            fs::write(store.join(&layer.name).join("link"), short(at)).unwrap();
            symlink(format!("../{}/diff", layer.name), store.join("l").join(short(at))).unwrap();
        }
        for extension in &self.extensions {
            let own = &self.layers[extension.layers[0]].name;
            let init = format!("INIT{}", &extension.id[..12]).to_uppercase();
            fs::create_dir_all(store.join(format!("{own}-init/diff/dev"))).unwrap();
            symlink(format!("../{own}-init/diff"), store.join("l").join(&init)).unwrap();
            let lower: Vec<String> =
                extension.layers[1..].iter().map(|&at| format!(":l/{}", short(at))).collect();
            let record = data_root.join("image/overlay2/layerdb/mounts").join(&extension.id);
            fs::create_dir_all(&record).unwrap();
            if extension.defect != Defect::NoMountId {
                fs::write(record.join("mount-id"), own).unwrap();
            }
            if extension.defect != Defect::NoLower {
                fs::write(store.join(own).join("lower"), format!("l/{init}{}", lower.concat()))
                    .unwrap();
            }
            match extension.defect {
                Defect::NoLink => fs::remove_file(store.join(own).join("link")).unwrap(),
                Defect::DanglingLayer => {
                    let last = format!("l/{init}{}:l/GONE", lower.concat());
                    fs::write(store.join(own).join("lower"), last).unwrap();
                }
                Defect::None
                | Defect::Garbage
                | Defect::UnreadableRecord
                | Defect::NoMountId
                | Defect::NoLower => {}
            }
            self.write_record(data_root, extension);
        }
    }

    fn write_record(&self, data_root: &Path, extension: &Extension) {
        let mut labels = Map::new();
        labels.insert("io.balena.image.class".to_owned(), "overlay".into());
        labels.extend(
            extension.labels.iter().map(|(name, text)| ((*name).to_owned(), text.as_str().into())),
        );
        let mut state = json!({ "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": 0 });
        if let Some(field) = extension.ending {
            state[field] = true.into();
        }
        let mut record = json!({
            "ID": extension.id, "Name": format!("/{}", extension.name), "State": state, "Image": "sha256:1",
            "Config": { "Image": "image", "Labels": labels },
        });
        if let Some(driver) = extension.driver {
            record["Driver"] = driver.into();
        }
        let path = data_root.join("containers").join(&extension.id).join("config.v2.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match extension.defect {
            Defect::Garbage => fs::write(path, "{\"ID\":").unwrap(),
            Defect::UnreadableRecord => fs::create_dir(path).unwrap(),
            Defect::None
            | Defect::NoMountId
            | Defect::NoLower
            | Defect::NoLink
            | Defect::DanglingLayer => fs::write(path, record.to_string()).unwrap(),
        }
    }
}

fn system(numbers: &mut Numbers) -> System {
    let given = numbers.one_of(&[Given::Running, Given::Running, Given::Directory, Given::Options]);
    let known = |numbers: &mut Numbers| given != Given::Options || !numbers.one_in(6);
    let layering = match numbers.below(30) {
        0 => Layering::Word("systemd.unit=emergency.target"),
        1 => Layering::Word("mobynit.no_overlays"),
        2 => Layering::Purged,
        3 => Layering::DataNotMounted,
        _ => Layering::On,
    };
    let release = known(numbers).then(|| numbers.one_of(&RELEASES));
    let kernel = known(numbers).then(|| numbers.one_of(&[None, Some(0), Some(1)]));
    // Something is stated, since otherwise it would be the running system.
    let is_needed = release.is_none() && kernel.is_none();
    let version = known(numbers).then(|| numbers.one_of(&["5.0.0", "4.3.1"]));
    System {
        given,
        release,
        kernel,
        version: version.or(is_needed.then_some("5.0.0")),
        layering,
        os_layers: if numbers.one_in(3) { 1 + numbers.below(12) } else { 1 },
        page: 4096,
    }
}

fn labels(numbers: &mut Numbers) -> Vec<(&'static str, String)> {
    let mut labels = Vec::new();
    if numbers.one_in(2) {
        labels.push(("io.balena.image.override", numbers.one_of(&OVERRIDES).to_owned()));
    }
    if numbers.one_in(5) {
        let versions = ["6.1.0", "6.1.0-18", "6.6.20", "", " ", "-odd"];
        labels.push(("io.balena.image.kernel-version", numbers.one_of(&versions).to_owned()));
    }
    if numbers.one_in(4) {
        labels.push(("io.balena.image.os-version", numbers.one_of(&OS_VERSIONS).to_owned()));
    }
    if numbers.one_in(8) {
        let abi = numbers.one_of(&[KERNELS[0].1, KERNELS[1].1, ""]);
        labels.push(("io.balena.image.kernel-abi-id", abi.to_owned()));
    }
    labels
}

/// Random contents of a layer.
fn nodes(numbers: &mut Numbers, most: usize, may_hide: bool) -> Vec<(String, Node)> {
    let mut nodes = Vec::new();
    for _ in 0..numbers.below(most) {
        let path = numbers.one_of(&PATHS);
        match numbers.below(if may_hide { 10 } else { 7 }) {
            0 => add(&mut nodes, numbers.one_of(&DIRECTORIES), Node::Directory),
            1 => add(&mut nodes, path, Node::Link("a")),
            2..=6 => add(&mut nodes, path, Node::File(String::new())),
            7 | 8 => add(&mut nodes, path, Node::Whiteout),
            _ => {
                let directory = numbers.one_of(&DIRECTORIES);
                add(&mut nodes, directory, Node::Opaque);
                add(&mut nodes, &format!("{directory}/new"), Node::File(String::new()));
            }
        }
    }
    nodes
}

/// Adds a file, unless there is something at its path, or something else than a directory on the way.
fn add(nodes: &mut Vec<(String, Node)>, path: &str, node: Node) {
    let is_taken = |(other, kind): &(String, Node)| {
        let is_below = |below: &str, above: &str| {
            below.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
        };
        let is_directory = matches!(kind, Node::Directory | Node::Opaque);
        other == path
            || is_below(other, path) && !matches!(node, Node::Directory)
            || is_below(path, other) && !is_directory
    };
    if !nodes.iter().any(is_taken) {
        nodes.push((path.to_owned(), node));
    }
}

/// Writes the contents of a layer. A file without a text contains its path and `owner`.
pub(crate) fn write_nodes(top: &Path, nodes: &[(String, Node)], owner: &str) {
    fs::create_dir_all(top).unwrap();
    for (name, node) in nodes {
        let path = top.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match node {
            Node::File(text) if text.is_empty() => {
                fs::write(path, format!("{owner} {name}")).unwrap()
            }
            Node::File(text) => fs::write(path, text).unwrap(),
            Node::Directory => fs::create_dir_all(path).unwrap(),
            Node::Opaque => {
                fs::create_dir_all(&path).unwrap();
                setxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
            }
            Node::Whiteout => mknod(&path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap(),
            Node::Link(target) => symlink(target, path).unwrap(),
        }
    }
}
