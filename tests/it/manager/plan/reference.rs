//! The rules of the initramfs, written again for the tests: which extensions are layered, in which order, and where the
//! page ends.

use std::cmp::Ordering;

use super::stores::{Defect, Extension, Generated, KERNELS, Layering, System};

/// The modules that an extension's merged layers have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Modules {
    /// Any release.
    pub(crate) any: bool,
    /// The release that will boot.
    pub(crate) of_release: bool,
    /// Its `/boot` has the kernel that will boot.
    pub(crate) with_kernel: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Selected,
    Dropped(&'static str),
    Unknown,
}

/// What the initramfs makes of one extension.
pub(crate) fn fate(extension: &Extension, modules: &Modules, system: &System) -> Fate {
    match system.layering {
        Layering::On => {}
        Layering::DataNotMounted => return Fate::Unknown,
        Layering::Word(_) | Layering::Purged => return Fate::Dropped("nothing-layered"),
    }
    if extension.ending.is_some() {
        return Fate::Dropped("being-removed");
    }
    match extension.driver {
        Some("overlay2") => {}
        Some(_) => return Fate::Dropped("storage-driver"),
        None => return Fate::Unknown,
    }
    if let Some(claimed) = extension.label("kernel-version") {
        match system.release {
            None => return Fate::Unknown,
            Some(release) if until_dash(release) != claimed => {
                return Fate::Dropped("kernel-version");
            }
            Some(_) => {}
        }
    }
    if extension.defect != Defect::None {
        return Fate::Unknown;
    }
    // First each is mounted alone, by the engine's links, whose names have 26 characters.
    let links = vec![
        "/tmp/mobynit-data/docker/overlay2/l/ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        extension.layers.len()
    ];
    let alone = format!("lowerdir={}", links.join(":"));
    if extension.layers.len() == 1 || alone.len() >= system.page - 1 {
        return Fate::Dropped("cannot-mount");
    }
    match (system.release, system.kernel) {
        (None, _) if modules.any => Fate::Unknown,
        (None, _) => Fate::Selected,
        (Some(_), _) if !modules.of_release => Fate::Selected,
        (Some(_), None) => Fate::Unknown,
        (Some(_), Some(None)) => Fate::Dropped("stock-kernel"),
        (Some(_), Some(Some(_))) if modules.with_kernel => Fate::Selected,
        (Some(_), Some(Some(_))) => Fate::Dropped("another-kernel"),
    }
}

/// Up to the first `-` that is not the first character.
fn until_dash(release: &str) -> &str {
    let end = release.char_indices().find(|(at, character)| *at > 0 && *character == '-');
    end.map_or(release, |(at, _)| &release[..at])
}

/// The claims of an extension: whether one is violated; and whether one, at least, cannot be judged.
pub(crate) fn claims(extension: &Extension, system: &System) -> (bool, bool) {
    let claim = |name| extension.label(name).filter(|text| !text.trim().is_empty());
    let (mut violated, mut unknown) = (false, false);
    let mut judge = |holds: Option<bool>| match holds {
        Some(true) => {}
        Some(false) => violated = true,
        None => unknown = true,
    };
    if let Some(claimed) = claim("kernel-abi-id") {
        judge(system.kernel.map(|kernel| kernel.map(|at| KERNELS[at].1) == Some(claimed)));
    }
    if let Some(claimed) = claim("kernel-version") {
        judge(system.release.map(|release| release.split('-').next() == Some(claimed)));
    }
    // A pattern that is malformed claims nothing.
    if let Some(claimed) = claim("os-version").filter(|claimed| *claimed != "[") {
        let versions: &[&str] = match claimed {
            "5.*" | "5.0.0" | "5.?.0," => &["5.0.0"],
            "4.*" | "[0-4].*" => &["4.3.1"],
            "*" | "4.*, 5.0.*" => &["5.0.0", "4.3.1"],
            other => panic!("{other:?} is not known here"),
        };
        judge(system.version.map(|version| versions.contains(&version)));
    }
    (violated, unknown)
}

/// A layer in the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InOverlay {
    Os(usize),
    /// By its number in the store.
    Layer(usize),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Composed {
    /// The extensions by their numbers.
    pub(crate) above: Vec<usize>,
    pub(crate) below: Vec<usize>,
    pub(crate) pruned: Vec<usize>,
    /// With the number of each one's link, the topmost first.
    pub(crate) layers: Vec<(InOverlay, usize)>,
    pub(crate) length: usize,
}

impl Composed {
    /// The option string with links in this directory.
    pub(crate) fn option(&self, links: &str) -> String {
        let paths: Vec<String> =
            self.layers.iter().map(|(_, number)| format!("{links}/{number}")).collect();
        format!("lowerdir={}", paths.join(":"))
    }

    pub(crate) fn place(&self, extension: usize) -> Option<&'static str> {
        [(&self.above, "above-os"), (&self.below, "below-os"), (&self.pruned, "pruned")]
            .into_iter()
            .find_map(|(all, place)| all.contains(&extension).then_some(place))
    }
}

/// The directory of the links, as the program writes it.
pub(crate) const LINKS: &str = "/tmp/mobynit-lowerNNNNNNNNNN";

/// Composes the overlay of these extensions, which are in the order of their ids.
pub(crate) fn compose(store: &Generated, members: &[usize]) -> Composed {
    let os = store.system.os_layers;
    // One link for each layer, in the order in which the extensions were found.
    let mut links: Vec<usize> = Vec::new();
    for member in members {
        for layer in &store.extensions[*member].layers {
            if !links.contains(layer) {
                links.push(*layer);
            }
        }
    }
    let number = |layer: &usize| os + links.iter().position(|other| other == layer).unwrap();
    let chain = |member: &usize| -> Vec<(InOverlay, usize)> {
        let layers = store.extensions[*member].layers.iter();
        layers.map(|layer| (InOverlay::Layer(*layer), number(layer))).collect()
    };
    let of_os: Vec<(InOverlay, usize)> = (0..os).map(|at| (InOverlay::Os(at), at)).collect();
    let length = |layers: &[(InOverlay, usize)]| {
        let all = Composed { layers: layers.to_vec(), ..Composed::default() };
        all.option(LINKS).len()
    };
    let is_override = |member: &&usize| store.extensions[**member].label("override").is_some();
    let mut overrides: Vec<usize> = members.iter().filter(is_override).copied().collect();
    overrides.sort_by(|one, other| by_priority(&store.extensions[*one], &store.extensions[*other]));
    let mut composed = Composed::default();
    let (mut left, mut is_full) = (Vec::new(), false);
    for member in overrides {
        let longer = [left.clone(), chain(&member)].concat();
        is_full =
            is_full || length(&[longer.clone(), of_os.clone()].concat()) >= store.system.page - 1;
        if is_full {
            composed.pruned.push(member);
        } else {
            left = longer;
            composed.above.push(member);
        }
    }
    let (mut all, mut is_full) = ([left, of_os].concat(), false);
    for member in members.iter().filter(|member| !is_override(member)) {
        let longer = [all.clone(), chain(member)].concat();
        is_full = is_full || length(&longer) >= store.system.page - 1;
        if is_full {
            composed.pruned.push(*member);
        } else {
            all = longer;
            composed.below.push(*member);
        }
    }
    composed.length = length(&all);
    let is_last = |at: usize| !all[at + 1..].contains(&all[at]);
    composed.layers = (0..all.len()).filter(|at| is_last(*at)).map(|at| all[at].clone()).collect();
    composed
}

fn by_priority(one: &Extension, other: &Extension) -> Ordering {
    priority(one.label("override").unwrap())
        .cmp(&priority(other.label("override").unwrap()))
        .then_with(|| one.name.cmp(&other.name))
}

/// What Go's `strconv.Atoi` makes of it on a machine of 64 bits; anything else is the last.
fn priority(text: &str) -> i128 {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: i128 = text.parse().unwrap_or(i128::MAX);
    let fits = number <= i128::from(i64::MAX) && number >= i128::from(i64::MIN);
    if is_number && fits { number } else { i128::from(i64::MAX) }
}
