//! Tests of the predictions.

use super::*;
use crate::model::engine::inventory::{Detail, EngineState, Labels};
use crate::model::extension::claim::tests::running;
use crate::model::extension::labels::{CLASS, KERNEL_VERSION, OS_VERSION};
use proptest::prelude::*;

/// What a test says about an extension; by default it is layered below the OS.
#[derive(Clone, Debug)]
struct Case {
    labels: Vec<(&'static str, &'static str)>,
    storage: StoredLayers,
    modules: Result<BroughtModules, String>,
    now: Verdict,
}

impl Default for Case {
    fn default() -> Self {
        let layers = named("own image");
        let driver = Some("overlay2".to_owned());
        Self {
            labels: vec![],
            storage: StoredLayers { is_ending: false, driver, layers },
            modules: Ok(BroughtModules::Unrelated),
            now: Verdict::Applied,
        }
    }
}

impl Case {
    fn labelled(label: &'static str, value: &'static str) -> Self {
        Self { labels: vec![(label, value)], ..Self::default() }
    }

    fn stored(storage: impl FnOnce(&mut StoredLayers)) -> Self {
        let mut case = Self::default();
        storage(&mut case.storage);
        case
    }

    fn with_modules(modules: BroughtModules) -> Self {
        Self { modules: Ok(modules), ..Self::default() }
    }
}

/// The names of layers.
fn named(names: &str) -> Result<Vec<String>, String> {
    Ok(names.split(' ').map(str::to_owned).collect())
}

fn target() -> BootTarget {
    BootTarget { system: running(), nothing_layered: Ok(None), os_layers: 1, page: 4096 }
}

fn container(number: usize, labels: &[(&str, &str)]) -> EngineContainer {
    let all = [(CLASS, "overlay")].iter().chain(labels);
    let pairs: Vec<String> = all.map(|(label, value)| format!("{label:?}:{value:?}")).collect();
    let labels: Labels = serde_json::from_str(&format!("{{{}}}", pairs.join(","))).unwrap();
    EngineContainer {
        id: format!("{number:064}"),
        name: format!("ext{number}"),
        image: String::new(),
        image_id: String::new(),
        state: EngineState::Exited,
        labels,
        mounts: vec![],
        detail: Detail::NotAsked,
    }
}

fn predicted(cases: &[Case], target: &BootTarget) -> BootPlan {
    let containers: Vec<EngineContainer> =
        (0..).zip(cases).map(|(number, case)| container(number, &case.labels)).collect();
    let planned: Vec<PlannedExtension<'_>> = containers
        .iter()
        .zip(cases)
        .map(|(container, case)| PlannedExtension {
            container,
            storage: &case.storage,
            modules: &case.modules,
            now: case.now,
        })
        .collect();
    predict(&planned, target)
}

fn only(case: Case, target: &BootTarget) -> Prediction {
    predicted(&[case], target).predictions.remove(0)
}

#[test]
fn each_reason_has_a_case() {
    let stock = BootTarget { system: Running { abi: Ok(None), ..running() }, ..target() };
    let unread = || Err("unread".to_owned());
    let none = BootTarget { nothing_layered: Ok(Some("word".to_owned())), ..target() };
    let blind = BootTarget { system: Running { os_version: unread(), ..running() }, ..target() };
    let full = BootTarget { os_layers: 200, ..target() };
    let rows = [
        (PlanReason::AboveOs, Case::labelled(OVERRIDE, "1"), target()),
        (PlanReason::BelowOs, Case::default(), target()),
        (PlanReason::BeingRemoved, Case::stored(|it| it.is_ending = true), target()),
        (
            PlanReason::StorageDriver,
            Case::stored(|it| it.driver = Some("vfs".to_owned())),
            target(),
        ),
        (PlanReason::CannotMount, Case::stored(|it| it.layers = named("own")), target()),
        // A claim that the initramfs reads in another way: to it, this label is the version of another kernel.
        (PlanReason::KernelVersion, Case::labelled(KERNEL_VERSION, " "), target()),
        (PlanReason::StockKernel, Case::with_modules(BroughtModules::KernelInBoot), stock),
        (PlanReason::AnotherKernel, Case::with_modules(BroughtModules::KernelMissing), target()),
        (PlanReason::NothingLayered, Case::default(), none),
        (PlanReason::NoRoom, Case::default(), full),
        (PlanReason::OtherSystem, Case::labelled(OS_VERSION, "1.*"), target()),
        (PlanReason::ClaimsUnknown, Case::labelled(OS_VERSION, "2.*"), blind),
        (PlanReason::Unpredictable, Case::stored(|it| it.layers = Err("no".to_owned())), target()),
    ];
    let mut seen = vec![PlanReason::RoomUnknown];
    for (reason, case, target) in rows {
        let found = only(case, &target);
        assert_eq!(found.reason, reason, "{found:?}");
        let is_layered = reason.outcome() == PlanOutcome::Layered;
        assert_eq!(found.is_lost, !is_layered, "{found:?}");
        seen.push(reason);
    }
    for reason in PlanReason::ALL {
        assert!(seen.contains(reason), "{reason:?} has no case");
    }
}

#[test]
fn every_reason_is_explained_in_the_document() {
    let document = include_str!("../../../docs/plan.md");
    for reason in PlanReason::ALL {
        let row = format!("| `{}` | `{}` |", reason.outcome(), reason.code());
        assert!(document.contains(&row), "docs/plan.md has no row {row}");
    }
}

#[test]
fn an_unknown_extension_makes_the_room_of_those_behind_it_unknown() {
    let unknown =
        Case { modules: Err("unread".to_owned()), ..Case::stored(|it| it.layers = named("a b")) };
    let cases = [unknown, Case::stored(|it| it.layers = named("c d"))];
    use PlanReason::{BelowOs, NoRoom, RoomUnknown, Unpredictable};
    // A page has room for 127 layers.
    assert_eq!(reasons(&cases, 123), [Unpredictable, BelowOs]);
    assert_eq!(reasons(&cases, 124), [Unpredictable, RoomUnknown]);
    assert_eq!(reasons(&cases, 126), [Unpredictable, NoRoom]);
}

/// The reasons, in the order of `cases`.
fn reasons(cases: &[Case], os_layers: usize) -> Vec<PlanReason> {
    let mut found = predicted(cases, &BootTarget { os_layers, ..target() }).predictions;
    found.sort_by_key(|one| one.number);
    found.iter().map(|one| one.reason).collect()
}

#[test]
fn two_unknown_extensions_may_leave_room_that_one_of_them_would_take() {
    let unknown = |priority, layers| Case {
        labels: vec![(OVERRIDE, priority)],
        modules: Err("unread".to_owned()),
        ..Case::stored(|it| it.layers = named(layers))
    };
    let last =
        Case { labels: vec![(OVERRIDE, "3")], ..Case::stored(|it| it.layers = named("c1 c2 c3")) };
    let cases = [
        unknown("1", "a1 a2"),
        unknown("2", "b1 b2"),
        last,
        Case::stored(|it| it.layers = named("d1 d2")),
    ];
    // Beside none of the two, or beside both, the last one has room: with both, the third is left out.
    use PlanReason::{RoomUnknown, Unpredictable};
    assert_eq!(reasons(&cases, 121), [Unpredictable, Unpredictable, RoomUnknown, RoomUnknown]);
}

#[test]
fn a_stale_extension_is_layered_until_it_is_removed_and_takes_its_room() {
    let cases = [Case::labelled(OS_VERSION, "1.*"), Case::default()];
    let plan = predicted(&cases, &target());
    let places: Vec<_> = plan.predictions.iter().map(|one| one.place).collect();
    assert_eq!(places, [Some(OverlayPlace::BelowOs); 2]);
    let stale = &plan.predictions[0];
    assert_eq!(stale.reason.outcome(), PlanOutcome::Stale);
    assert!(stale.sentence.ends_with("until cleanup --stale-os removes it"), "{stale:?}");
    // The same layers, so they are there once, and belong to the second.
    let members: Vec<_> = plan.overlay.layers.iter().map(|layer| layer.member).collect();
    assert_eq!(members, [None, Some(1), Some(1)]);
}

#[test]
fn only_what_is_applied_or_may_be_can_be_lost() {
    for (now, is_lost) in [
        (Verdict::Applied, true),
        (Verdict::OnTrial, true),
        (Verdict::Unknown, true),
        (Verdict::PendingReboot, false),
        (Verdict::Refused, false),
        (Verdict::Failed, false),
        (Verdict::Skipped, false),
        (Verdict::Stale, false),
        (Verdict::Dead, false),
    ] {
        let ending = Case { now, ..Case::stored(|it| it.is_ending = true) };
        assert_eq!(only(ending, &target()).is_lost, is_lost, "{now}");
        assert!(!only(Case { now, ..Case::default() }, &target()).is_lost, "{now}");
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let labels = prop_oneof![
        4 => Just(vec![]),
        1 => Just(vec![(OVERRIDE, "1")]),
        1 => Just(vec![(OVERRIDE, "x")]),
        1 => Just(vec![(OVERRIDE, "-2"), (OS_VERSION, "1.*")]),
        1 => Just(vec![(KERNEL_VERSION, "5.0.0")]),
    ];
    // Some of the layers are those of others, too.
    let layers = proptest::collection::vec(0..60_u32, 0..24)
        .prop_map(|all| Ok(all.iter().map(|one| format!("layer{one}")).collect::<Vec<_>>()));
    let layers = prop_oneof![9 => layers, 1 => Just(Err("unread".to_owned()))];
    let modules = prop_oneof![
        5 => Just(Ok(BroughtModules::Unrelated)),
        1 => Just(Ok(BroughtModules::KernelInBoot)),
        1 => Just(Ok(BroughtModules::KernelMissing)),
        2 => Just(Err("unread".to_owned())),
    ];
    let driver = prop_oneof![9 => Just(Some("overlay2".to_owned())), 1 => Just(None)];
    let storage = (any::<bool>(), driver, layers).prop_map(|(is_ending, driver, layers)| {
        StoredLayers { is_ending: is_ending && layers.is_err(), driver, layers }
    });
    (labels, storage, modules).prop_map(|(labels, storage, modules)| Case {
        labels,
        storage,
        modules,
        ..Case::default()
    })
}

proptest! {
    #[test]
    fn every_plan_has_each_extension_once_and_no_more_than_a_page(
        cases in proptest::collection::vec(any_case(), 0..9),
        os_layers in 1..120_usize,
    ) {
        let target = BootTarget { os_layers, ..target() };
        let plan = predicted(&cases, &target);
        let mut numbers: Vec<usize> = plan.predictions.iter().map(|one| one.number).collect();
        numbers.sort_unstable();
        prop_assert!(numbers.into_iter().eq(0..cases.len()));
        let of_os = compose(os_layers, &[], target.page).measured;
        prop_assert!(plan.overlay.measured <= (target.page - 2).max(of_os));
        prop_assert!(plan.overlay.option.len() <= plan.overlay.measured);
        let mut links: Vec<&str> = plan.overlay.layers.iter().map(|it| it.link.as_str()).collect();
        links.sort_unstable();
        prop_assert!(links.windows(2).all(|pair| pair[0] != pair[1]), "{links:?}");
        let is_known = |case: &Case| {
            case.storage.layers.is_ok() && case.storage.driver.is_some() && case.modules.is_ok()
        };
        for prediction in &plan.predictions {
            let is_unknown = prediction.reason.outcome() == PlanOutcome::Unknown;
            prop_assert!(!(is_unknown && cases.iter().all(is_known)), "{prediction:?}");
        }
    }

    #[test]
    fn whatever_becomes_of_unknown_extensions_what_is_predicted_of_the_others_holds(
        cases in proptest::collection::vec(any_case(), 1..9),
        os_layers in 1..120_usize,
        unread in 2..=64_usize,
    ) {
        let target = BootTarget { os_layers, ..target() };
        let plan = predicted(&cases, &target);
        let unknown: Vec<usize> = plan
            .predictions
            .iter()
            .filter(|one| one.reason == PlanReason::Unpredictable)
            .map(|one| one.number)
            .collect();
        for chosen in 0..1_u32 << unknown.len() {
            let mut cases = cases.clone();
            for (at, number) in unknown.iter().enumerate() {
                // Either it is left out, or the boot finds nothing against it.
                let case = &mut cases[*number];
                case.storage.is_ending = chosen & (1 << at) == 0;
                case.storage.driver = Some("overlay2".to_owned());
                case.modules = Ok(BroughtModules::Unrelated);
                if case.storage.layers.is_err() {
                    case.storage.layers = Ok((0..unread).map(|at| format!("{number}-{at}")).collect());
                }
            }
            let resolved = predicted(&cases, &target);
            for prediction in &plan.predictions {
                if !matches!(prediction.reason, PlanReason::Unpredictable | PlanReason::RoomUnknown) {
                    let same = resolved.predictions.iter().find(|it| it.number == prediction.number);
                    prop_assert_eq!(same.map(|it| it.reason), Some(prediction.reason));
                }
            }
        }
    }
}
