//! Two hundred generated stores: `plan` predicts what the rules of the initramfs, as `reference.rs` has them, make of
//! each, and what a composed overlay then shows on the kernel of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::kernel::{in_own_mounts, unbind};
use super::machine::Machine;
use super::reference::{Composed, Fate, InOverlay, LINKS, claims, compose};
use super::stores::{Defect, Generated};
use crate::numbers::Numbers;

const STORES: u64 = 200;
const SEED: u64 = 20_261_128_000;
/// A stale extension whose room was unknown was said to be layered.
const FOUND: [u64; 2] = [729_548, 4_221_827];

#[test]
fn a_plan_is_what_a_boot_makes_of_generated_stores() {
    let seed = std::env::var("PLAN_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds: Vec<u64> =
        seed.map_or((SEED..SEED + STORES).chain(FOUND).collect(), |seed| vec![seed]);
    in_own_mounts(move |top| {
        let mut counts = BTreeMap::<String, usize>::new();
        for seed in seeds {
            let at = top.join("store");
            let store = Generated::new(&mut Numbers(seed));
            let shown = format!("PLAN_SEED={seed} repeats it");
            let machine = Machine::write(&at, store, &shown);
            machine.check(&mut counts);
            unbind(&at.join("host/mnt/data"));
            fs::remove_dir_all(&at).unwrap();
        }
        if seed.is_none() {
            for seen in [
                "above-os",
                "below-os",
                "no-room",
                "room-unknown",
                "other-system",
                "stock-kernel",
                "another-kernel",
                "kernel-version",
                "being-removed",
                "storage-driver",
                "cannot-mount",
                "nothing-layered",
                "unpredictable",
                "claims-unknown",
                "hidden file",
                "hidden directory",
                "hidden by the OS",
                "hidden of the OS",
                "shared",
            ] {
                assert!(
                    counts.get(seen).is_some_and(|count| *count > 1),
                    "too few {seen:?} in {counts:?}"
                );
            }
        }
    });
}

impl Machine {
    fn check(&self, counts: &mut BTreeMap<String, usize>) {
        let (code, document) = self.plan();
        let composed = compose(&self.store, &self.certain());
        self.check_outcomes(&document, &composed, counts);
        self.check_overlay(&document, &composed);
        self.check_exit(code, &document);
        self.check_mount(&document, &composed, counts);
    }

    /// Whether more may be called unknown than has to be: several are unknown, or one of which not even the number of
    /// layers can be seen.
    fn has_gaps(&self) -> bool {
        let is_broken = |at: usize| self.store.extensions[at].defect != Defect::None;
        let mut recorded = self.recorded().into_iter();
        self.possible().len() > 1
            || recorded.any(|at| self.fate(at) == Fate::Unknown && is_broken(at))
    }

    /// The places that an extension has in all overlays that are possible.
    fn places(&self, extension: usize) -> BTreeSet<Option<&'static str>> {
        let (certain, possible) = (self.certain(), self.possible());
        let of = |chosen: u64| {
            let chosen = possible.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0);
            let mut members: Vec<usize> =
                certain.iter().chain(chosen.map(|(_, at)| at)).copied().collect();
            members.sort_unstable();
            compose(&self.store, &members).place(extension)
        };
        let all = (1_u64 << possible.len()) - 1;
        // Of many that are unknown, not every choice is tried.
        let step = 1 + usize::try_from(all / 500).unwrap();
        (0..=all).step_by(step).chain([all]).map(of).collect()
    }

    fn check_outcomes(
        &self,
        document: &Value,
        composed: &Composed,
        counts: &mut BTreeMap<String, usize>,
    ) {
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
            let is_careful = seen == "room-unknown" && self.has_gaps();
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
                None => assert!(!is_there || self.has_gaps(), "{}", why()),
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
            assert_eq!(
                extension["layers"].as_u64(),
                known.map(|count| u64::try_from(count).unwrap()),
                "{}",
                why()
            );
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
        let found: Vec<Option<&str>> = document["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["directory"].as_str())
            .collect();
        let directory = |layer: &InOverlay| match layer {
            InOverlay::Os(_) => None,
            InOverlay::Layer(at) => Some(self.store.directory(&self.data_root(), *at)),
        };
        let expected: Vec<Option<PathBuf>> =
            composed.layers.iter().map(|(layer, _)| directory(layer)).collect();
        let expected: Vec<Option<&str>> =
            expected.iter().map(|path| path.as_ref().map(|path| path.to_str().unwrap())).collect();
        assert_eq!(found, expected, "{}", self.shown);
    }

    fn check_exit(&self, code: i32, document: &Value) {
        let lost: Vec<&str> =
            document["lost"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        let may_be_lost = |one: &&Value| {
            matches!(one["now"].as_str().unwrap(), "applied" | "on-trial" | "unknown")
                && one["plan"] != "layered"
        };
        let extensions = document["extensions"].as_array().unwrap().iter();
        let expected: Vec<&str> =
            extensions.filter(may_be_lost).map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(lost, expected, "{}", self.shown);
        let is_safe = lost.is_empty() && document["unreadable"].as_array().unwrap().is_empty();
        assert_eq!(code, i32::from(!is_safe), "{}: {document:#}", self.shown);
    }
}
