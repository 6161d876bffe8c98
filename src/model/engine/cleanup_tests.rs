//! Tests of the plan: one row a case, and generated stores on which a plan is carried out.

use super::*;
use crate::model::engine::inventory::{ExtensionImage, Labels, LastRun, Mounted, Uses};
use crate::model::extension::claim::tests::running;
use crate::model::extension::labels::{ABI, CLASS, KERNEL_VERSION, OS_VERSION, SERVICE_NAME};
use crate::model::kernel::volume::BootVolume;
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter().chain([&(CLASS, "overlay")]);
    let map: serde_json::Map<String, serde_json::Value> =
        pairs.map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
    serde_json::from_value(map.into()).unwrap()
}

fn container(state: EngineState, error: &str, pairs: &[(&str, &str)]) -> EngineContainer {
    let asked = matches!(state, EngineState::Created | EngineState::Exited);
    let last_run = LastRun { error: Some(error.to_owned()), ..LastRun::default() };
    EngineContainer {
        id: "c".to_owned(),
        name: "ext".to_owned(),
        image: "img".to_owned(),
        image_id: "sha256:i".to_owned(),
        state,
        labels: labels(pairs),
        mounts: Vec::new(),
        detail: if asked { Detail::Known(last_run) } else { Detail::NotAsked },
    }
}

/// The objects about which no decision is possible, and why.
fn undecided(plan: &Plan) -> Vec<(&Object, String)> {
    let why = |decision: &'_ Decision| match &decision.fate {
        Fate::Keep(Kept::Undecided(why)) => Some(why.clone()),
        Fate::Keep(_) | Fate::Remove { .. } => None,
    };
    plan.0.iter().filter_map(|one| Some((&one.object, why(one)?))).collect()
}

const FRESH: (&str, &str) = (KERNEL_VERSION, "6.1.0");
const STALE: (&str, &str) = (KERNEL_VERSION, "5.10.0");

/// The service of all containers that bring a kernel.
const SERVICE: (&str, &str) = (SERVICE_NAME, "kernel");
/// A kernel that is not the running one.
const BRINGS_KERNEL: (&str, &str) = (ABI, "ab");

fn image_id(digit: usize) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

/// The name of the volume for [`SERVICE`].
fn fabricated(image: usize) -> String {
    format!("ext_kernel_{}_boot", image.to_string().repeat(12))
}

fn code_of(container: EngineContainer, window: Window<'_>) -> &'static str {
    let inventory = Inventory { containers: vec![container], ..Inventory::default() };
    let plan = plan(&inventory, window);
    match &plan.0[0].fate {
        Fate::Remove { reason, .. } => reason.code(),
        Fate::Keep(kept) => kept.code(),
    }
}

#[test]
fn every_state_of_a_container_has_its_fate() {
    use EngineState::{Created, Dead, Exited, Other, Paused, Removing, Restarting, Running};
    for (state, error, claim, before, after) in [
        (Exited, "", FRESH, "sound", "sound"),
        (Exited, "", STALE, "sound", "stale"),
        (Exited, "no", FRESH, "failed", "failed"),
        (Exited, "no", STALE, "failed", "failed"),
        (Created, "", FRESH, "sound", "sound"),
        (Created, "", STALE, "sound", "stale"),
        (Created, "no", FRESH, "failed", "failed"),
        (Dead, "", FRESH, "dead", "dead"),
        (Dead, "", STALE, "dead", "dead"),
        (Removing, "", STALE, "going-already", "going-already"),
        (Running, "", FRESH, "busy", "busy"),
        (Running, "", STALE, "busy", "stale"),
        (Paused, "", FRESH, "busy", "busy"),
        (Restarting, "", STALE, "busy", "stale"),
        (Other, "", FRESH, "busy", "busy"),
    ] {
        let of = |window| code_of(container(state, error, &[claim]), window);
        assert_eq!(of(Window::RollbackPossible), before, "{state:?} {error} {claim:?}");
        assert_eq!(of(Window::Committed(&running())), after, "{state:?} {error} {claim:?}");
    }
}

#[test]
fn a_container_that_could_not_be_inspected_stays_and_is_a_failure() {
    let unreadable = EngineContainer {
        detail: Detail::Unreadable("status 500".to_owned()),
        ..container(EngineState::Exited, "", &[FRESH])
    };
    let inventory = Inventory { containers: vec![unreadable], ..Inventory::default() };
    let plan = plan(&inventory, Window::RollbackPossible);
    assert_eq!(plan.removals().count(), 0);
    let (object, why) = &undecided(&plan)[0];
    assert_eq!((object.id.as_str(), why.as_str()), ("c", "status 500"));
}

/// They go to terminals, and an error or a label may have anything in it.
#[test]
fn reasons_are_printable() {
    let clear = "\u{1b}[2J";
    let failed = Reason::Failed(clear.to_owned()).to_string();
    assert_eq!(failed, "it failed: \\u{1b}[2J");
    let stale = container(EngineState::Exited, "", &[(KERNEL_VERSION, clear)]);
    let Judgement::Violated(mismatches) = stale.labels.claims().judge(&running()) else { panic!() };
    for text in [Reason::Stale(mismatches).to_string(), Kept::Undecided(clear.into()).to_string()] {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

#[test]
fn a_system_that_cannot_be_read_removes_nothing_and_is_a_failure() {
    let blind = Running { os_version: Err("no VERSION_ID".to_owned()), ..running() };
    let claim = (OS_VERSION, "1.*");
    let inventory = Inventory {
        containers: vec![container(EngineState::Exited, "", &[claim])],
        volumes: vec![Volume { name: "v".to_owned(), labels: labels(&[claim]), bytes: None }],
        ..Inventory::default()
    };
    let blind_plan = plan(&inventory, Window::Committed(&blind));
    assert_eq!(blind_plan.removals().count(), 0);
    assert_eq!(undecided(&blind_plan).len(), 2);
    assert_eq!(plan(&inventory, Window::Committed(&running())).removals().count(), 2);
}

fn mount(volume: Option<&str>, source: &str) -> Mounted {
    let volume = volume.map(str::to_owned);
    Mounted { volume, source: source.to_owned(), destination: "/x".to_owned() }
}

#[test]
fn stale_containers_are_deactivated_whatever_the_headline_and_failed_ones_are_not() {
    for (error, claim, expected) in [("", STALE, 1), ("no", STALE, 1), ("no", FRESH, 0)] {
        let mut container = container(EngineState::Exited, error, &[claim]);
        container.mounts = vec![mount(Some("v"), "/vol/v/_data"), mount(None, "/etc")];
        let inventory = Inventory { containers: vec![container], ..Inventory::default() };
        let plan = plan(&inventory, Window::Committed(&running()));
        let Fate::Remove { how: Removal::Container { deactivate }, .. } = &plan.0[0].fate else {
            panic!("{plan:?}")
        };
        assert_eq!(deactivate.len(), expected, "{error} {claim:?}");
        assert!(deactivate.iter().all(|found| found.path == "/vol/v/_data"));
    }
}

#[test]
fn images_and_volumes_go_when_stale_and_free() {
    let image = |id: &str, claim| ExtensionImage {
        id: id.to_owned(),
        names: vec!["a:1".to_owned(), "a:2".to_owned()],
        labels: labels(&[claim]),
        bytes: Some(7),
    };
    let volume =
        |name: &str, claim| Volume { name: name.to_owned(), labels: labels(&[claim]), bytes: None };
    let mut kept = container(EngineState::Exited, "", &[FRESH]);
    kept.mounts = vec![mount(Some("used"), "/u")];
    let mut gone = container(EngineState::Exited, "", &[STALE]);
    gone.image_id = "sha256:gone".into();
    gone.mounts = vec![mount(Some("freed"), "/f")];
    let inventory = Inventory {
        containers: vec![kept, gone],
        images: vec![
            image("sha256:i", STALE),
            image("sha256:gone", STALE),
            image("sha256:foreign", STALE),
            image("sha256:fresh", FRESH),
        ],
        volumes: ["used", "freed", "foreign", "free"].map(|name| volume(name, STALE)).into(),
        foreign: Uses {
            mounts: Vec::new(),
            images: ["sha256:foreign".into()].into(),
            volumes: ["foreign".to_owned()].into(),
        },
        ..Inventory::default()
    };
    let codes = |window| -> Vec<String> {
        let plan = plan(&inventory, window);
        let code = |decision: &Decision| match &decision.fate {
            Fate::Remove { reason, .. } => reason.code(),
            Fate::Keep(kept) => kept.code(),
        };
        plan.0.iter().map(|decision| format!("{} {}", decision.object.id, code(decision))).collect()
    };
    let running = running();
    assert_eq!(
        codes(Window::Committed(&running)),
        [
            "c sound",
            "c stale",
            "sha256:i in-use",
            "sha256:gone stale",
            "sha256:foreign in-use",
            "sha256:fresh sound",
            "used in-use",
            "freed stale",
            "foreign in-use",
            "free stale",
        ]
    );
    assert!(codes(Window::RollbackPossible).iter().all(|line| line.ends_with("sound")));
    let plan = plan(&inventory, Window::Committed(&running));
    let names = plan.removals().find_map(|decision| match &decision.fate {
        Fate::Remove { how: Removal::Image { names }, .. } => Some(names.clone()),
        Fate::Remove { .. } | Fate::Keep(_) => None,
    });
    assert_eq!(names.unwrap(), ["a:1", "a:2"]);
}

#[test]
fn an_image_that_another_one_was_built_on_stays_as_long_as_that() {
    let image = |id: &str, claim| ExtensionImage {
        id: id.to_owned(),
        names: vec![id.to_owned()],
        labels: labels(&[claim]),
        bytes: None,
    };
    // What stands between two images is known by its id alone.
    let parents = [("child", "layer"), ("layer", "parent"), ("parent", "base"), ("alone", "free")];
    let codes = |child, foreign: &[&str]| -> Vec<&'static str> {
        let inventory = Inventory {
            images: vec![
                image("base", STALE),
                image("parent", STALE),
                image("child", child),
                image("free", STALE),
            ],
            parents: parents.map(|(child, parent)| (child.to_owned(), parent.to_owned())).into(),
            foreign_children: foreign.iter().map(|&id| id.to_owned()).collect(),
            ..Inventory::default()
        };
        let running = running();
        let plan = plan(&inventory, Window::Committed(&running));
        let code = |decision: &Decision| match &decision.fate {
            Fate::Remove { reason, .. } => reason.code(),
            Fate::Keep(kept) => kept.code(),
        };
        plan.0.iter().map(code).collect()
    };
    assert_eq!(codes(STALE, &[]), ["stale", "stale", "stale", "stale"]);
    assert_eq!(codes(FRESH, &[]), ["in-use", "in-use", "sound", "stale"]);
    assert_eq!(codes(STALE, &["alone"]), ["stale", "stale", "stale", "in-use"]);
}

#[test]
fn nothing_that_an_unreadable_container_may_use_is_removed() {
    let image = ExtensionImage {
        id: "i".to_owned(),
        names: vec!["i:1".to_owned()],
        labels: labels(&[STALE]),
        bytes: None,
    };
    let volume = Volume { name: "v".to_owned(), labels: labels(&[STALE]), bytes: None };
    let inventory = Inventory {
        containers: vec![container(EngineState::Exited, "no", &[STALE])],
        images: vec![image],
        volumes: vec![volume],
        unreadable: vec!["a container that makes no sense".to_owned()],
        ..Inventory::default()
    };
    let running = running();
    let plan = plan(&inventory, Window::Committed(&running));
    assert_eq!(plan.removals().count(), 1, "the container that can be read goes");
    assert!(undecided(&plan).iter().all(|(_, why)| why.contains("makes no sense")));
    assert_eq!(undecided(&plan).len(), 2);
}

#[test]
fn a_volume_that_is_mounted_twice_is_deactivated_once() {
    let mut container = container(EngineState::Exited, "", &[STALE]);
    container.mounts = vec![mount(Some("v"), "/v"), mount(Some("v"), "/v"), mount(Some("w"), "/w")];
    let inventory = Inventory { containers: vec![container], ..Inventory::default() };
    let plan = plan(&inventory, Window::Committed(&running()));
    let Fate::Remove { how: Removal::Container { deactivate }, .. } = &plan.0[0].fate else {
        panic!("{plan:?}")
    };
    assert_eq!(deactivate.iter().map(|one| one.volume.as_str()).collect::<Vec<_>>(), ["v", "w"]);
}

#[test]
fn a_fabricated_volume_goes_with_the_last_container_that_claims_it() {
    use EngineState::{Created, Dead, Exited, Removing};
    let running = running();
    let (before, after) = (Window::RollbackPossible, Window::Committed(&running));
    let claiming = |state, error| {
        let mut claiming = container(state, error, &[BRINGS_KERNEL, SERVICE]);
        claiming.image_id = image_id(1);
        claiming
    };
    let mounts_it = |mut user: EngineContainer| {
        user.mounts = vec![mount(Some(&fabricated(1)), "/v")];
        user
    };
    let without_image = |mut claiming: EngineContainer| {
        claiming.image_id = String::new();
        claiming
    };
    let gone = || container(Exited, "no", &[FRESH]);
    for (window, containers, expected, claimants) in [
        (before, vec![], "unclaimed", 0),
        (before, vec![container(Exited, "", &[FRESH])], "unclaimed", 0),
        (before, vec![claiming(Exited, "")], "in-use", 0),
        (after, vec![claiming(Exited, "")], "unclaimed", 1),
        (before, vec![claiming(Created, "no")], "unclaimed", 1),
        (before, vec![claiming(Dead, "")], "unclaimed", 1),
        (before, vec![claiming(Removing, "")], "in-use", 0),
        (before, vec![claiming(Created, "no"), claiming(Exited, "")], "in-use", 0),
        (after, vec![claiming(Created, "no"), claiming(Exited, "")], "unclaimed", 2),
        (before, vec![mounts_it(container(Exited, "", &[FRESH]))], "in-use", 0),
        (before, vec![mounts_it(gone())], "unclaimed", 0),
        (before, vec![without_image(claiming(Exited, ""))], "undecided", 0),
        (before, vec![without_image(claiming(Created, "no"))], "unclaimed", 1),
    ] {
        // Its labels are those of its container; they do not count.
        for labels in [labels(&[BRINGS_KERNEL]), labels(&[FRESH]), labels(&[(OS_VERSION, "[")])] {
            let volume = Volume { name: fabricated(1), labels, bytes: None };
            let inventory = Inventory {
                containers: containers.clone(),
                volumes: vec![volume],
                ..Inventory::default()
            };
            let plan = plan(&inventory, window);
            let (code, how) = match &plan.0.last().unwrap().fate {
                Fate::Remove { reason, how } => (reason.code(), Some(how)),
                Fate::Keep(kept) => (kept.code(), None),
            };
            assert_eq!(code, expected, "{window:?} {containers:?}");
            let ids = vec!["c".to_owned(); claimants];
            let how = how.cloned().unwrap_or(Removal::Volume { claimants: ids.clone() });
            assert_eq!(how, Removal::Volume { claimants: ids }, "{containers:?}");
        }
    }
}

#[test]
fn an_unreadable_container_may_claim_a_fabricated_volume() {
    let inventory = Inventory {
        volumes: vec![Volume { name: fabricated(1), labels: labels(&[]), bytes: None }],
        unreadable: vec!["a container that makes no sense".to_owned()],
        ..Inventory::default()
    };
    let plan = plan(&inventory, Window::RollbackPossible);
    assert!(undecided(&plan)[0].1.contains("makes no sense"));
}

#[test]
fn a_reason_is_a_sentence_with_both_sides() {
    let inventory = Inventory {
        containers: vec![container(EngineState::Exited, "", &[STALE, (OS_VERSION, "2.112.*")])],
        ..Inventory::default()
    };
    let plan = plan(&inventory, Window::Committed(&running()));
    let Fate::Remove { reason, .. } = &plan.0[0].fate else { panic!() };
    assert_eq!(
        reason.to_string(),
        "it was built for kernel 5.10.0, but 6.1.0 is running; \
         it was built for OS version 2.112.*, but this is 2.113.4"
    );
}

/// A generated store, and an engine's rules about what may be removed.
fn stores() -> impl Strategy<Value = Inventory> {
    let claim = prop_oneof![
        Just(vec![]),
        Just(vec![FRESH]),
        Just(vec![STALE]),
        Just(vec![(OS_VERSION, "2.113.*")]),
        Just(vec![(OS_VERSION, "1.*"), FRESH]),
        Just(vec![(OS_VERSION, "[")]),
        Just(vec![BRINGS_KERNEL, SERVICE]),
        Just(vec![BRINGS_KERNEL, FRESH, SERVICE]),
    ];
    let state = prop_oneof![
        4 => Just(EngineState::Exited),
        2 => Just(EngineState::Created),
        1 => Just(EngineState::Dead),
        1 => Just(EngineState::Removing),
        1 => Just(EngineState::Running),
    ];
    let error = prop_oneof![3 => Just(""), 1 => Just("no")];
    let one =
        (state, error, claim.clone(), 0..4_usize, proptest::collection::vec(0..5_usize, 0..3));
    let containers = proptest::collection::vec(one, 0..12);
    let images = proptest::collection::vec(claim.clone(), 4);
    let volumes = proptest::collection::vec(claim, 5);
    let foreign = (proptest::bool::ANY, proptest::bool::ANY);
    (containers, images, volumes, foreign).prop_map(|(containers, images, volumes, foreign)| {
        let mut inventory = Inventory::default();
        for (index, (state, error, claims, image, mounts)) in containers.into_iter().enumerate() {
            let mut container = container(state, error, &claims);
            container.id = format!("c{index}");
            container.image_id = image_id(image);
            let volumes = mounts.into_iter().map(|volume| format!("v{volume}"));
            container.mounts = volumes.map(|name| mount(Some(&name), "/v")).collect();
            inventory.containers.push(container);
        }
        for (index, claims) in images.iter().enumerate() {
            let (id, labels) = (image_id(index), labels(claims));
            inventory.images.push(ExtensionImage { id, names: Vec::new(), labels, bytes: Some(1) });
        }
        for (index, claims) in volumes.iter().enumerate() {
            let (name, labels) = (format!("v{index}"), labels(claims));
            inventory.volumes.push(Volume { name, labels, bytes: None });
        }
        for image in 0..4 {
            let (name, labels) = (fabricated(image), labels(&[BRINGS_KERNEL]));
            inventory.volumes.push(Volume { name, labels, bytes: None });
        }
        if foreign.0 {
            inventory.foreign.images.insert(image_id(0));
        }
        if foreign.1 {
            inventory.foreign.volumes.insert("v0".to_owned());
        }
        inventory
    })
}

/// Carries a plan out as an engine would: it refuses to remove what is in use.
fn carry_out(inventory: &Inventory, plan: &Plan) -> Inventory {
    let mut after = inventory.clone();
    for decision in plan.removals() {
        let id = &decision.object.id;
        match decision.object.kind {
            ObjectKind::Container => after.containers.retain(|container| container.id != *id),
            ObjectKind::Image => {
                let used = after.containers.iter().any(|container| *container.image_id == **id);
                assert!(!used && !after.foreign.images.contains(id.as_str()), "{id} is in use");
                after.images.retain(|image| image.id != *id);
            }
            ObjectKind::Volume => {
                let users = after.containers.iter();
                let used = users.flat_map(EngineContainer::volumes).any(|volume| volume == id);
                assert!(!used && !after.foreign.volumes.contains(id), "{id} is in use");
                let claims = |container: &EngineContainer| {
                    let label = |name: &str| container.labels.value(name);
                    let volume = BootVolume::of(label, &container.id, Some(&container.image_id));
                    label(ABI).is_some() && volume.unwrap().as_str() == id
                };
                assert!(!after.containers.iter().any(claims), "{id} is claimed");
                after.volumes.retain(|volume| volume.name != *id);
            }
        }
    }
    after
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_plan_can_be_carried_out_and_then_nothing_is_left_to_do(inventory in stores()) {
        for window in [Window::RollbackPossible, Window::Committed(&running())] {
            let planned = plan(&inventory, window);
            prop_assert_eq!(&planned, &plan(&inventory, window), "the same again");
            prop_assert_eq!(
                planned.0.len(),
                inventory.containers.len() + inventory.images.len() + inventory.volumes.len(),
                "everything has a decision"
            );
            let after = carry_out(&inventory, &planned);
            prop_assert_eq!(plan(&after, window).removals().count(), 0);
        }
    }

    #[test]
    fn before_the_update_is_committed_nothing_goes_for_being_stale(inventory in stores()) {
        let planned = plan(&inventory, Window::RollbackPossible);
        for decision in planned.removals() {
            let Fate::Remove { reason, .. } = &decision.fate else { unreachable!() };
            prop_assert!(!matches!(reason, Reason::Stale(_)));
        }
    }

    #[test]
    fn what_goes_before_the_commit_goes_after_it_too(inventory in stores()) {
        let ids = |window| -> std::collections::BTreeSet<String> {
            let planned = plan(&inventory, window);
            planned.removals().map(|decision| decision.object.id.clone()).collect()
        };
        prop_assert!(ids(Window::RollbackPossible).is_subset(&ids(Window::Committed(&running()))));
    }
}
