//! A model of the override protocol: the initramfs, the runtime, `validate`, the OS update, deployments, people, and
//! programs that are killed or lose power between any two of their steps. stateright explores every interleaving up to
//! the bounds that each test states. The decisions are the program's own functions, so there is no second description
//! of them.
//!
//! A power cut needs no event of its own between two steps: a program that is killed there, followed by a power cut,
//! leaves the same records. Activations, sweeps and verdicts hold the operation lock, so their steps do not interleave;
//! a health check does not hold it.
//!
//! The initramfs may refuse to load a kernel, or may not be able to determine the claims; the stock kernel is booted then.
//!
//! What is assumed of the OS: an update begins after `validate` has judged; `hup commit` and `hup reject` run in the new
//! slot only; a rollback starts the count of failed boots again; a kernel that is unhealthy is not committed by an update.

#[path = "protocol_tests/actions_tests.rs"]
mod actions;
#[path = "protocol_tests/faults_tests.rs"]
mod faults;
#[path = "protocol_tests/properties_tests.rs"]
mod properties;
#[path = "protocol_tests/world_tests.rs"]
mod world;

use crate::model::kernel::records::OverrideRecords;
use crate::model::kernel::transition::{Event, RefusedOverride, Transition, decide};
use crate::model::kernel::verdict::{Cause, OverrideVerdict};
use actions::{Happening, Order};
use properties::*;
use stateright::{Checker as _, HasDiscoveries, Model, Property};
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use world::{Call, CheckEnd, Claims, EventsLeft, Functions, KERNELS, Nature, Stage, World};

/// A device that does not come to rest within so many boots never does.
const BOOTS_TO_REST: usize = 10;

struct Protocol {
    functions: Functions,
    left: EventsLeft,
    natures: Vec<[Nature; KERNELS]>,
    validates: usize,
    /// What was found about the worlds that boots can start from.
    convergence: Mutex<HashMap<World, Option<&'static str>>>,
}

/// How the OS update ends if its window is open.
#[derive(Clone, Copy, Debug)]
enum UpdateEnd {
    Commit,
    RollBack,
}

impl Protocol {
    /// The property that boots from these records violate, if nothing disturbs them any more.
    fn violated_by_boots(&self, world: &World) -> Option<&'static str> {
        let start = properties::durable(world);
        if let Some(known) = self.convergence.lock().unwrap().get(&start) {
            return *known;
        }
        let ends: &[UpdateEnd] = match start.records.values.update_window {
            true => &[UpdateEnd::Commit, UpdateEnd::RollBack],
            false => &[UpdateEnd::Commit],
        };
        let found = if !self.boots_what_is_proven(&start) {
            Some(P2_BOOTS)
        } else if !ends.iter().all(|end| self.comes_to_rest(&start, *end)) {
            Some(P5)
        } else {
            None
        };
        self.convergence.lock().unwrap().insert(start, found);
        found
    }

    fn comes_to_rest(&self, start: &World, end: UpdateEnd) -> bool {
        let mut world = start.clone();
        for _ in 0..BOOTS_TO_REST {
            let before = properties::durable(&world);
            world.turn_off();
            world.boot(Claims::Known);
            if !world.is_on {
                continue;
            }
            if world.records.values.update_window {
                world = self.end_of_update(world, end);
            }
            if world.is_on {
                world = self.validate(world);
            }
            if world.is_on && properties::durable(&world) == before {
                return properties::unsettled(&world).is_none();
            }
        }
        false
    }

    fn end_of_update(&self, world: World, end: UpdateEnd) -> World {
        let run =
            |world, order| actions::after(&world, &self.functions, Happening::Run(order, None));
        let runs_healthy =
            world.records.running.as_ref().is_none_or(|abi| world.nature(abi) == Nature::Healthy);
        match end {
            UpdateEnd::Commit if runs_healthy => {
                let world = run(world, Order::HupCommit);
                actions::after(&world, &self.functions, Happening::WindowCloses)
            }
            // Its slot is left; the window closes in the other one, which is healthy or runs the stock kernel.
            UpdateEnd::RollBack | UpdateEnd::Commit => {
                let mut world = run(world, Order::HupReject);
                world.next_slot = world.slot.other();
                world.turn_off();
                world.boot(Claims::Known);
                match world.is_on {
                    true => actions::after(&world, &self.functions, Happening::WindowCloses),
                    false => world,
                }
            }
        }
    }

    /// One whole call of `validate`.
    fn validate(&self, world: World) -> World {
        let mut call = Call::new(world, &self.functions, None);
        for _ in 0..4 {
            if call.world.is_on {
                let _ = call.validate(0, Claims::Known);
            }
        }
        if let Stage::Health(abi) = call.world.validates[0].clone() {
            let end = match call.world.nature(&abi) {
                Nature::Healthy | Nature::Fickle => CheckEnd::Passed,
                Nature::Unhealthy | Nature::NeverBoots | Nature::CannotLoad => CheckEnd::Failed,
            };
            let _ = call.check_ends(0, end);
        }
        call.world
    }

    fn boots_what_is_proven(&self, start: &World) -> bool {
        let Some(proven) = properties::proven(start) else { return true };
        let mut world = start.clone();
        world.boot(Claims::Known);
        let mut world = self.validate(world);
        world.turn_off();
        world.boot(Claims::Known);
        world.records.running == proven
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Happening;

    fn init_states(&self) -> Vec<World> {
        let world = |natures: &_| World::new(*natures, self.left, self.validates);
        let mut worlds: Vec<_> = self.natures.iter().map(world).collect();
        if let Some(mut damaged) = worlds.first().cloned() {
            damaged.records.values = properties::malformed();
            worlds.push(damaged);
        }
        worlds
    }

    fn actions(&self, world: &World, found: &mut Vec<Happening>) {
        actions::happenings(world, &self.functions, found);
    }

    fn next_state(&self, world: &World, happening: Happening) -> Option<World> {
        Some(actions::after(world, &self.functions, happening)).filter(|after| after != world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // A condition is a plain function, which cannot be handed a name.
        macro_rules! by_steps {
            ($($name:ident),*) => {
                vec![$(Property::always($name, |_: &Self, world: &World| {
                    world.past.violated != Some($name)
                })),*]
            };
        }
        let mut properties = by_steps![P1, P2_LOST, P2_PROVEN, P3_CAUSE, P7_HUP, P7_WINDOW];
        properties.extend([
            Property::always(P2_LINK, |_, world| properties::is_published(world)),
            Property::always(P2_BOOTS, |model: &Self, world| {
                model.violated_by_boots(world) != Some(P2_BOOTS)
            }),
            Property::always(P3, |_, world| properties::is_left_in_time(world)),
            Property::always(P4, |_, world| properties::is_verified(world)),
            Property::always(P5, |model: &Self, world| model.violated_by_boots(world) != Some(P5)),
            Property::always(PRESTATE, |_, world| properties::has_prestate(world)),
        ]);
        properties
    }
}

const NATURES: [Nature; 4] =
    [Nature::Healthy, Nature::Unhealthy, Nature::NeverBoots, Nature::CannotLoad];

/// Every pair of kernels. Which of the two is the first makes no difference.
fn all_natures() -> Vec<[Nature; KERNELS]> {
    let pairs = (0..4).flat_map(|first| (first..4).map(move |second| [first, second]));
    pairs.map(|pair| pair.map(|nature| NATURES[nature])).collect()
}

fn protocol(functions: Functions, left: EventsLeft) -> Protocol {
    Protocol {
        functions,
        left,
        natures: all_natures(),
        validates: 1,
        convergence: Mutex::default(),
    }
}

/// What the explored calls have decided.
static DECIDED: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// Everything that can be decided.
const DECISIONS: [&str; 16] = [
    "allowed",
    "armed",
    "committed",
    "forgotten",
    "nothing",
    "pending",
    "refused",
    "rejected by boots",
    "rejected by health",
    "rejection finished",
    "relay consumed",
    "restored",
    "rolled back",
    "scrubbed",
    "swept",
    "trial",
];

/// Our decision, of which a note is made.
fn noted(records: &OverrideRecords, event: &Event<'_>) -> Result<Transition, RefusedOverride> {
    let decision = decide(records, event);
    let name = match decision.as_ref().map(|Transition { verdict, .. }| verdict) {
        Err(_) => "refused",
        Ok(OverrideVerdict::Nothing) => "nothing",
        Ok(OverrideVerdict::Scrubbed) => "scrubbed",
        Ok(OverrideVerdict::RelayConsumed { .. }) => "relay consumed",
        Ok(OverrideVerdict::Swept { .. }) => "swept",
        Ok(OverrideVerdict::Restored { .. }) => "restored",
        Ok(OverrideVerdict::Forgotten { .. }) => "forgotten",
        Ok(OverrideVerdict::Pending { .. }) => "pending",
        Ok(OverrideVerdict::Trial { .. }) => "trial",
        Ok(OverrideVerdict::Committed { .. }) => "committed",
        Ok(OverrideVerdict::Rejected { by: Cause::Health, .. }) => "rejected by health",
        Ok(OverrideVerdict::Rejected { by: Cause::Boots(_), .. }) => "rejected by boots",
        Ok(OverrideVerdict::RejectionFinished { .. }) => "rejection finished",
        Ok(OverrideVerdict::Armed { .. }) => "armed",
        Ok(OverrideVerdict::RolledBack { .. }) => "rolled back",
        Ok(OverrideVerdict::Allowed { .. }) => "allowed",
    };
    DECIDED.lock().unwrap().insert(name);
    decision
}

/// Explores everything that these events can lead to, which is at least so many states.
#[expect(clippy::print_stdout, reason = "the size of what was explored is a result")]
fn explore(
    [changes, updates, kills]: [u8; 3],
    natures: Vec<[Nature; KERNELS]>,
    validates: usize,
    least: usize,
) {
    let left = EventsLeft { changes, updates, kills };
    let functions = Functions { decide: noted, ..Functions::OURS };
    let protocol = Protocol { natures, validates, ..protocol(functions, left) };
    let begun = std::time::Instant::now();
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!(
        "{left:?}, {validates} of validate: {} states, {} transitions, depth {}, boots from {} of them, {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        checker.model().convergence.lock().unwrap().len(),
        begun.elapsed(),
    );
    checker.assert_properties();
    assert!(checker.unique_state_count() >= least, "{left:?}");
    assert!(checker.model().convergence.lock().unwrap().len() >= least / 200, "{left:?}");
}

#[test]
fn the_protocol_holds_its_properties() {
    explore([2, 0, 1], all_natures(), 1, 50_000);
    explore([1, 1, 1], all_natures(), 1, 100_000);
    explore([1, 0, 1], vec![[Nature::Fickle, Nature::NeverBoots]], 2, 2_500);
    assert_eq!(*DECIDED.lock().unwrap(), BTreeSet::from(DECISIONS));
}

/// `make model` explores this.
#[test]
#[ignore = "takes minutes"]
fn the_protocol_holds_its_properties_over_more_events() {
    explore([3, 0, 2], all_natures(), 1, 400_000);
    explore([2, 1, 1], all_natures(), 1, 1_600_000);
    explore([3, 1, 0], all_natures(), 1, 3_500_000);
    explore([2, 0, 1], all_natures(), 2, 200_000);
    explore([1, 2, 0], all_natures(), 1, 160_000);
}
