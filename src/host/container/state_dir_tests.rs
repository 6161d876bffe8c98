//! Tests of the state root: who has an id, and what is taken over.

use super::*;
use crate::model::container::lifecycle::Phase;

fn created(id: &str) -> State {
    State { id: id.to_owned(), ..crate::model::container::state::tests::created() }
}

fn root() -> (tempfile::TempDir, StateRoot, ContainerId) {
    let folder = tempfile::tempdir().unwrap();
    let root = StateRoot::new(folder.path().join("a/b"));
    (folder, root, ContainerId::parse("x").unwrap())
}

#[test]
fn one_container_has_an_id_and_it_is_free_again_afterwards() {
    let (_folder, root, id) = root();
    let (held, left) = root.reserve(&id).unwrap();
    assert!(left.is_none());
    assert!(matches!(root.reserve(&id), Err(Error::Exists { .. })), "locked");
    held.save(&created("x")).unwrap();
    drop(held);
    assert!(matches!(root.reserve(&id), Err(Error::Exists { .. })), "created");
    let Locked::Held(held) = root.lock(&id, Duration::ZERO).unwrap() else { panic!() };
    held.remove().unwrap();
    assert!(matches!(root.load(&id).unwrap(), Loaded::Unknown));
    assert!(root.reserve(&id).is_ok());
}

#[test]
fn what_a_dead_create_left_is_taken_over_and_what_another_runtime_keeps_is_not() {
    let (_folder, root, id) = root();
    let (held, _) = root.reserve(&id).unwrap();
    drop(held);
    let (held, _) = root.reserve(&id).expect("an empty folder");
    held.save(&State { status: Status::Creating, ..created("x") }).unwrap();
    drop(held);
    let (held, left) = root.reserve(&id).expect("a dead create");
    assert_eq!(left.unwrap().status, Status::Creating);
    held.save(&State { phase: Phase::Deleting, ..created("x") }).unwrap();
    drop(held);
    let (held, _) = root.reserve(&id).expect("an interrupted delete");
    held.save(&State { phase: Phase::Completing, pid: i32::MAX, ..created("x") }).unwrap();
    drop(held);
    let (held, _) = root.reserve(&id).expect("a create that died with its proxy at the very end");
    let path = held.path.join(FILE);
    drop(held);
    let mut file = File::create(&path).unwrap();
    io::Write::write_all(&mut file, br#"{"id":"x","init_process_pid":1}"#).unwrap();
    assert!(matches!(root.reserve(&id), Err(Error::Exists { .. })));
    assert!(matches!(root.load(&id).unwrap(), Loaded::Unknown));
    let mut file = File::create(&path).unwrap();
    io::Write::write_all(&mut file, br#"{"role":"exten"#).unwrap();
    assert!(matches!(root.load(&id).unwrap(), Loaded::Damaged { .. }));
    assert!(matches!(root.reserve(&id), Err(Error::Exists { .. })));
    file.set_len(0).unwrap();
    assert!(matches!(root.load(&id), Err(Error::Unidentified { .. })));
    assert!(matches!(root.reserve(&id), Err(Error::Taken { .. })));
}

#[test]
fn of_many_that_reserve_one_id_at_once_one_wins() {
    let (_folder, root, id) = root();
    for _ in 0..50 {
        let barrier = std::sync::Barrier::new(8);
        let winners: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let reserved = root.reserve(&id);
                        if let Ok((held, _)) = &reserved {
                            held.save(&created("x")).unwrap();
                        }
                        usize::from(reserved.is_ok())
                    })
                })
                .collect();
            tries.into_iter().map(|handle| handle.join().unwrap()).sum()
        });
        assert_eq!(winners, 1);
        let Locked::Held(held) = root.lock(&id, Duration::ZERO).unwrap() else { panic!() };
        held.remove().unwrap();
    }
}
