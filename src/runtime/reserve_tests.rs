//! Tests of reserving an id: who gets it, and what is taken over.

use super::*;
use crate::host::container::state_dir::{Error as StateError, Locking};
use crate::model::container::lifecycle::{Phase, Status};
use crate::model::container::state::State;
use std::fs::File;
use std::time::Duration;

fn created(id: &str) -> State {
    State { id: id.to_owned(), ..crate::model::container::state::tests::created() }
}

fn root() -> (tempfile::TempDir, StateRoot, ContainerId) {
    let directory = tempfile::tempdir().unwrap();
    let root = StateRoot::new(directory.path().join("a/b"));
    (directory, root, ContainerId::parse("x").unwrap())
}

fn is_taken(root: &StateRoot, id: &ContainerId) -> bool {
    matches!(reserve(root, id), Err(Error::State(StateError::Exists { .. })))
}

#[test]
fn one_container_has_an_id_and_it_is_free_again_afterwards() {
    let (_directory, root, id) = root();
    let Reserved { locked, leftover } = reserve(&root, &id).unwrap();
    assert!(leftover.is_none());
    assert!(is_taken(&root, &id), "locked");
    locked.save(&created("x")).unwrap();
    drop(locked);
    assert!(is_taken(&root, &id), "created");
    let Locking::Locked(locked) = root.lock(&id, Duration::ZERO).unwrap() else { panic!() };
    locked.remove().unwrap();
    assert!(matches!(root.load(&id).unwrap(), Loaded::Unknown));
    assert!(reserve(&root, &id).is_ok());
}

#[test]
fn what_a_dead_create_left_is_taken_over_and_what_another_runtime_keeps_is_not() {
    let (_directory, root, id) = root();
    drop(reserve(&root, &id).unwrap());
    let Reserved { locked, .. } = reserve(&root, &id).expect("an empty directory");
    locked.save(&State { status: Status::Creating, ..created("x") }).unwrap();
    drop(locked);
    let Reserved { locked, leftover } = reserve(&root, &id).expect("a dead create");
    assert_eq!(leftover.unwrap().state.status, Status::Creating);
    locked.save(&State { phase: Phase::Deleting, ..created("x") }).unwrap();
    drop(locked);
    let Reserved { locked, .. } = reserve(&root, &id).expect("an interrupted delete");
    locked.save(&State { phase: Phase::Completing, pid: i32::MAX, ..created("x") }).unwrap();
    drop(locked);
    reserve(&root, &id).expect("a create that died with its proxy at the very end");
    let path = root.path_of(&id).join("state.json");
    let mut file = File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, br#"{"id":"x","init_process_pid":1}"#).unwrap();
    assert!(is_taken(&root, &id));
    assert!(matches!(root.load(&id).unwrap(), Loaded::Unknown));
    let mut file = File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, br#"{"role":"exten"#).unwrap();
    assert!(matches!(root.load(&id).unwrap(), Loaded::Damaged { .. }));
    assert!(is_taken(&root, &id));
    file.set_len(0).unwrap();
    assert!(matches!(root.load(&id), Err(StateError::Unidentified { .. })));
    assert!(matches!(reserve(&root, &id), Err(Error::State(StateError::Taken { .. }))));
}

#[test]
fn of_many_that_reserve_one_id_at_once_one_wins() {
    let (_directory, root, id) = root();
    for _ in 0..50 {
        let barrier = std::sync::Barrier::new(8);
        let winners: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let reserved = reserve(&root, &id);
                        if let Ok(Reserved { locked, .. }) = &reserved {
                            locked.save(&created("x")).unwrap();
                        }
                        usize::from(reserved.is_ok())
                    })
                })
                .collect();
            tries.into_iter().map(|handle| handle.join().unwrap()).sum()
        });
        assert_eq!(winners, 1);
        let Locking::Locked(locked) = root.lock(&id, Duration::ZERO).unwrap() else { panic!() };
        locked.remove().unwrap();
    }
}
