//! The files that the composed overlay shows on the kernel of this machine, compared with what `plan` reports as hidden.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use serde_json::Value;

use super::kernel::{Overlay, Seen, walk};
use super::machine::Machine;
use super::reference::{Composed, InOverlay};
use super::stores::Given;

impl Machine {
    /// Mounts what the reference has composed, and looks for every file.
    pub(crate) fn check_mount(
        &self,
        document: &Value,
        composed: &Composed,
        counts: &mut BTreeMap<String, usize>,
    ) {
        let knows_os = self.store.system.given != Given::Options;
        assert_eq!(
            document["unknownFiles"].as_array().unwrap().is_empty(),
            knows_os,
            "{}",
            self.shown
        );
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
            let detail = extension["detail"].as_str().unwrap();
            let is_unsure = extension["reason"] == "room-unknown"
                || detail.contains("; the boot may layer it all the same");
            assert!(extension["place"].is_null() || !is_unsure, "{}: {extension:#}", self.shown);
            let may_be = !extension["place"].is_null() || is_unsure;
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
        let mirrored: BTreeSet<_> =
            hidden.iter().map(|(of, path, by)| (by.clone(), path.clone(), of.clone())).collect();
        let both = |all: &BTreeSet<(Option<String>, String, Option<String>)>| {
            all.iter()
                .filter(|(one, _, other)| one.is_some() && other.is_some())
                .cloned()
                .collect::<Vec<_>>()
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
            Some(_) => pairs(extensions, "hidden")
                .into_iter()
                .filter(|(of, _, _)| *of == id(owner))
                .map(|(_, path, by)| (path, by))
                .collect(),
            None => pairs(extensions, "hides")
                .into_iter()
                .filter(|(_, _, of)| of.is_none())
                .map(|(by, path, _)| (path, by))
                .collect(),
        };
        let why = |path: &str| {
            format!("{}: {path} of {:?}; reported: {reported:#?}", self.shown, id(owner))
        };
        let files = own.iter().filter(|(_, seen)| !seen.is_directory);
        let expected: BTreeSet<&String> = files
            .clone()
            .filter(|(path, seen)| shown.get(*path) != Some(*seen))
            .map(|(path, _)| path)
            .collect();
        let mut found = BTreeSet::new();
        for (path, by) in &reported {
            let other = owners
                .iter()
                .copied()
                .find(|other| id(*other) == *by)
                .unwrap_or_else(|| panic!("{}", why(path)));
            let plain = path.trim_end_matches('/');
            let at = own.get(plain).unwrap_or_else(|| panic!("it has no such file: {}", why(path)));
            assert_eq!(at.is_directory, path.ends_with('/'), "{}", why(path));
            if at.is_directory {
                *counts.entry("hidden directory".to_owned()).or_default() += 1;
                found.extend(
                    files.clone().map(|(path, _)| path).filter(|file| file.starts_with(path)),
                );
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
    fn check_hider(
        &self,
        path: &str,
        by: Option<usize>,
        shown: &BTreeMap<String, Seen>,
        why: &str,
    ) {
        let chain = self.chain(by);
        let stat = |path: &str| -> Vec<u64> {
            let at =
                chain.iter().filter_map(|layer| fs::symlink_metadata(layer.join(&path[1..])).ok());
            at.map(|found| found.ino()).collect()
        };
        match shown.get(path) {
            Some(seen) if !seen.is_directory => {
                assert!(stat(path).contains(&seen.number), "by: {why}")
            }
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
            let key =
                (text(&extension["id"]), text(&path["path"]).unwrap(), text(&path["extension"]));
            // With the fields of what is hidden, the first is who has lost it.
            pairs.insert(key);
        }
    }
    pairs
}
