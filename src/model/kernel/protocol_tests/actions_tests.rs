//! What can happen next.

use super::world::{
    Call, CheckEnd, Claims, Functions, KERNELS, Killed, Nature, Progress, Stage, Update, World, abi,
};
use crate::model::kernel::transition::Event;

/// Something that happens to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// The initramfs boots the stock kernel if it cannot determine the claims.
    Boot(Claims),
    /// The power is cut, or somebody reboots the device.
    PowerCut,
    /// A container is created. It claims this kernel.
    Deploy(usize),
    /// A container is removed.
    Remove(usize),
    /// The OS update installs into the other slot and opens its window.
    UpdateBegins,
    /// The OS update rolls back: the next boot takes the other slot.
    TakeOtherSlot,
    /// The OS update closes its window.
    WindowCloses,
    /// A program runs, and is killed after so many steps unless this is `None`.
    Run(Order, Option<usize>),
}

/// What a program is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The next stage of a call of `validate`.
    Validate(usize, Claims),
    CheckEnds(usize, CheckEnd),
    /// The container with this kernel is started.
    Activate(usize),
    HupCommit,
    HupReject,
    Forget(usize),
    Retry(usize),
}

/// Everything that can happen in `world`.
pub(super) fn happenings(world: &World, functions: &Functions, found: &mut Vec<Happening>) {
    if !world.is_on {
        found.push(Happening::Boot(Claims::Known));
        if world.records.values.arm.abi().is_some() {
            found.push(Happening::Boot(Claims::Unknown));
        }
        return;
    }
    found.push(Happening::PowerCut);
    let mut orders = Vec::new();
    for (which, stage) in world.validates.iter().enumerate() {
        match stage {
            Stage::Health(abi) => {
                let ends: &[CheckEnd] = match world.nature(abi) {
                    Nature::Healthy => &[CheckEnd::Passed],
                    Nature::Fickle => &[CheckEnd::Passed, CheckEnd::Failed],
                    Nature::Unhealthy | Nature::NeverBoots | Nature::CannotLoad => {
                        &[CheckEnd::Failed]
                    }
                };
                orders.extend(ends.iter().map(|end| Order::CheckEnds(which, *end)));
                orders.push(Order::CheckEnds(which, CheckEnd::Stopped));
            }
            Stage::Sweep => {
                orders.push(Order::Validate(which, Claims::Known));
                orders.push(Order::Validate(which, Claims::Unknown));
            }
            Stage::Begin | Stage::Relay | Stage::Judge => {
                orders.push(Order::Validate(which, Claims::Known));
            }
        }
    }
    match &world.update {
        Some(update) => {
            let is_running = update.slot == world.slot;
            let mut running = world.records.running.iter();
            let is_healthy = running.all(|abi| world.nature(abi) == Nature::Healthy);
            match update.progress {
                Progress::Installed if is_running && is_healthy => {
                    orders.extend([Order::HupCommit, Order::HupReject]);
                }
                Progress::Installed if is_running => orders.push(Order::HupReject),
                Progress::Rejected if is_running => {
                    orders.push(Order::HupReject);
                    found.push(Happening::TakeOtherSlot);
                }
                Progress::Installed | Progress::Rejected | Progress::Left => {}
            }
            found.push(Happening::WindowCloses);
        }
        None if world.left.updates > 0 && world.is_validated => found.push(Happening::UpdateBegins),
        None => {}
    }
    if world.left.changes > 0 {
        for kernel in 0..KERNELS {
            match world.claims.contains(&abi(kernel)) {
                false => found.push(Happening::Deploy(kernel)),
                true => {
                    found.push(Happening::Remove(kernel));
                    orders.push(Order::Activate(kernel));
                }
            }
            if world.records.recorded().contains(&abi(kernel)) {
                orders.push(Order::Forget(kernel));
            }
            if world.records.rejected.contains(&abi(kernel)) {
                orders.push(Order::Retry(kernel));
            }
        }
    }
    for order in orders {
        found.push(Happening::Run(order, None));
        if world.left.kills > 0 {
            let (_, steps) = run(world, functions, order, None);
            // After no step, the kill changes no record; and after all, it comes too late.
            found.extend((1..steps).map(|after| Happening::Run(order, Some(after))));
        }
    }
}

/// The world after `happening`.
pub(super) fn after(world: &World, functions: &Functions, happening: Happening) -> World {
    let mut world = world.clone();
    match happening {
        Happening::Boot(claims) => world.boot(claims),
        Happening::PowerCut => world.turn_off(),
        Happening::Deploy(kernel) => {
            world.left.changes -= 1;
            world.claims.insert(abi(kernel));
        }
        Happening::Remove(kernel) => {
            world.left.changes -= 1;
            world.claims.remove(&abi(kernel));
        }
        Happening::UpdateBegins => {
            world.left.updates -= 1;
            world.records.values.update_window = true;
            world.boots = 0;
            world.next_slot = world.slot.other();
            world.update = Some(Update { slot: world.next_slot, progress: Progress::Installed });
        }
        Happening::TakeOtherSlot => {
            // The failed boots were those of the slot that is left. If their count remained, the initramfs would lead
            // back to that slot.
            world.boots = 0;
            world.next_slot = world.slot.other();
        }
        Happening::WindowCloses => {
            world.records.values.update_window = false;
            world.update = None;
            world.boots = 0;
            world.next_slot = world.slot;
        }
        Happening::Run(order, killed) => {
            match order {
                Order::Activate(_) | Order::Forget(_) | Order::Retry(_) => world.left.changes -= 1,
                Order::Validate(..)
                | Order::CheckEnds(..)
                | Order::HupCommit
                | Order::HupReject => {}
            }
            world.left.kills -= u8::from(killed.is_some());
            world = run(&world, functions, order, killed).0;
        }
    }
    world
}

/// The world after a program has run, and how many steps it has carried out.
fn run(
    world: &World,
    functions: &Functions,
    order: Order,
    killed: Option<usize>,
) -> (World, usize) {
    let slot = (functions.slot)(world.slot);
    let mut call = Call::new(world.clone(), functions, killed);
    let ended = match order {
        Order::Validate(which, claims) => call.validate(which, claims),
        Order::CheckEnds(which, end) => call.check_ends(which, end),
        Order::HupCommit => {
            call.world.past.note_hup_commit(world.slot, world.records.running.as_ref());
            call.hup(&Event::HupCommit { slot })
        }
        Order::HupReject => call.hup(&Event::HupReject { slot }),
        Order::Activate(kernel) => {
            call.settle(&Event::Activate { abi: &abi(kernel), target: "" }).map(drop)
        }
        Order::Forget(kernel) => call.settle(&Event::Forget { abi: &abi(kernel) }).map(drop),
        Order::Retry(kernel) => call.settle(&Event::Retry { abi: &abi(kernel) }).map(drop),
    };
    match ended {
        Ok(()) | Err(Killed) => (call.world, call.steps),
    }
}
