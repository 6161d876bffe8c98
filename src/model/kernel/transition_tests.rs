//! The decision table, row by row, with the exact steps; and what each step changes in the block.

use super::*;
use crate::model::kernel::block_change::Applied;
use crate::model::kernel::records::{Committed, Field};
use OverrideStep::{
    AppendRejected, Reboot, RemovePrestate, RemoveRejected, SavePrestate, Unpublish,
};

fn abi(digit: char) -> Abi {
    Abi::parse(&digit.to_string().repeat(64)).unwrap()
}

/// `-` is empty, `!` is malformed, and any other letter is an ABI of that digit.
fn field(letter: char) -> Field {
    match letter {
        '-' => Field::Empty,
        '!' => Field::Malformed,
        digit => Field::Abi(abi(digit)),
    }
}

fn abis(digits: &str) -> BTreeSet<Abi> {
    digits.chars().map(abi).collect()
}

/// `text` is the arm, committed A, committed B, the trial count and the relay.
fn values(text: &str) -> BlockValues {
    let [arm, a, b, trial, relay] = text.chars().collect::<Vec<_>>().try_into().unwrap();
    BlockValues {
        arm: field(arm),
        committed: Committed { a: field(a), b: field(b) },
        trial: trial.to_digit(10),
        relay: field(relay),
        update_window: false,
    }
}

fn records(text: &str, published: &str, rejected: &str, running: char) -> OverrideRecords {
    OverrideRecords {
        values: values(text),
        published: abis(published),
        rejected: abis(rejected),
        running: field(running).abi().cloned(),
    }
}

fn audit(boots: Option<u32>, from: char, to: char, slot: Slot) -> OverrideStep {
    OverrideStep::Audit(Audit { boots, from: abi(from), to: field(to).abi().cloned(), slot })
}

fn block(change: BlockChange) -> OverrideStep {
    OverrideStep::Block(change)
}

#[track_caller]
fn assert_decided(
    records: &OverrideRecords,
    event: &Event<'_>,
    verdict: OverrideVerdict,
    steps: &[OverrideStep],
) {
    let decided = decide(records, event).unwrap();
    assert_eq!(decided, Transition { verdict, steps: steps.to_vec() }, "{records:?} {event:?}");
}

const SLOT: Slot = Slot::A;
const JUDGE: Event<'_> = Event::Judge { slot: SLOT, tried: &BTreeSet::new() };

fn reject_steps(from: char, to: char, boots: Option<u32>) -> Vec<OverrideStep> {
    vec![
        AppendRejected(abi(from)),
        audit(boots, from, to, SLOT),
        block(BlockChange::Reject { slot: SLOT, abi: abi(from) }),
        Unpublish(abi(from)),
        RemovePrestate,
    ]
}

#[test]
fn an_arm_that_is_committed_is_left_alone() {
    for (text, running) in [("-----", '-'), ("-----", 'a'), ("aa---", 'a'), ("aab--", '-')] {
        assert_decided(&records(text, "ab", "", running), &JUDGE, OverrideVerdict::Nothing, &[]);
    }
}

#[test]
fn a_committed_kernel_is_armed_again_and_its_arm_has_no_trial_count() {
    for text in ["-a---", "-a-3-", "aa-0-", "aa-3-"] {
        let verdict = OverrideVerdict::Restored { abi: abi('a'), slot: SLOT };
        let steps = [block(BlockChange::Restore(SLOT))];
        assert_decided(&records(text, "a", "", '-'), &JUDGE, verdict, &steps);
    }
}

#[test]
fn an_arm_that_does_not_run_is_forgotten_pending_or_rejected() {
    let forgotten = OverrideVerdict::Forgotten { abi: abi('b') };
    let steps = [block(BlockChange::Forget(abis("b"))), Unpublish(abi('b')), RemovePrestate];
    assert_decided(&records("b--2-", "", "", '-'), &JUDGE, forgotten.clone(), &steps);
    assert_decided(&records("ba-3-", "a", "", 'a'), &JUDGE, forgotten, &steps);
    for (text, boots) in [("b----", 0), ("b--0-", 0), ("ba-2-", 2)] {
        let verdict = OverrideVerdict::Pending { abi: abi('b'), boots };
        assert_decided(&records(text, "ab", "", '-'), &JUDGE, verdict, &[]);
    }
    for (text, to, boots) in [("b--3-", '-', 3), ("ba-3-", 'a', 3), ("ba-7-", 'a', 7)] {
        let by = Cause::Boots(boots);
        let verdict = OverrideVerdict::Rejected { abi: abi('b'), by, to: field(to).abi().cloned() };
        let steps = reject_steps('b', to, Some(boots));
        assert_decided(&records(text, "ab", "", '-'), &JUDGE, verdict, &steps);
    }
}

#[test]
fn an_arm_that_runs_is_on_trial_whatever_its_link_and_its_count() {
    for (text, published) in [("b----", "b"), ("ba-3-", ""), ("ba-9-", "ab")] {
        let verdict = OverrideVerdict::Trial { abi: abi('b') };
        assert_decided(&records(text, published, "", 'b'), &JUDGE, verdict, &[]);
    }
}

#[test]
fn health_decides_between_commit_and_reject() {
    let checked = |health| (records("ba-1-", "ab", "", 'b'), health);
    let b = abi('b');
    let (before, health) = checked(Health::Passed);
    let commit = BlockChange::Commit { slot: SLOT, abi: abi('b') };
    assert_decided(
        &before,
        &Event::Checked { slot: SLOT, abi: &b, health },
        OverrideVerdict::Committed { abi: abi('b'), slot: SLOT },
        &[block(commit), RemovePrestate],
    );
    let (before, health) = checked(Health::Failed);
    let mut steps = reject_steps('b', 'a', None);
    steps.push(Reboot);
    assert_decided(
        &before,
        &Event::Checked { slot: SLOT, abi: &b, health },
        OverrideVerdict::Rejected { abi: abi('b'), by: Cause::Health, to: Some(abi('a')) },
        &steps,
    );
}

#[test]
fn a_check_that_ends_late_finds_what_has_changed_meanwhile() {
    let b = abi('b');
    // Another call has written the list, and was killed.
    let finished = [
        block(BlockChange::FinishRejection { slot: SLOT, abis: abis("b") }),
        Unpublish(abi('b')),
        RemovePrestate,
        Reboot,
    ];
    assert_decided(
        &records("ba-1-", "ab", "b", 'b'),
        &Event::Checked { slot: SLOT, abi: &b, health: Health::Passed },
        OverrideVerdict::RejectionFinished { abis: abis("b") },
        &finished,
    );
    // An update window is never judged.
    let mut window = records("ba-3-", "a", "a", 'b');
    window.values.update_window = true;
    for health in [Health::Passed, Health::Failed] {
        let event = Event::Checked { slot: SLOT, abi: &b, health };
        assert_decided(&window, &event, OverrideVerdict::Nothing, &[]);
    }
    assert_decided(&window, &JUDGE, OverrideVerdict::Nothing, &[]);
    // Another call has committed the kernel, and maybe a third one has been armed.
    for text in ["bb---", "ab---"] {
        for health in [Health::Passed, Health::Failed] {
            let event = Event::Checked { slot: SLOT, abi: &b, health };
            let committed = records(text, "ab", "", 'b');
            assert_decided(&committed, &event, OverrideVerdict::Nothing, &[]);
        }
    }
}

#[test]
fn a_link_of_a_rejected_kernel_that_cannot_be_removed_keeps_no_other_from_being_judged() {
    let tried = abis("a");
    let event = Event::Judge { slot: SLOT, tried: &tried };
    let trial = OverrideVerdict::Trial { abi: abi('b') };
    assert_decided(&records("b--1-", "ab", "a", 'b'), &event, trial, &[]);
}

#[test]
fn a_rejection_that_was_interrupted_is_finished_as_far_as_it_is_left() {
    let finish = |digits| block(BlockChange::FinishRejection { slot: SLOT, abis: abis(digits) });
    let unpublish = Unpublish(abi('b'));
    for (text, published, running, steps) in [
        ("ba-1-", "ab", 'b', vec![finish("b"), unpublish.clone(), RemovePrestate, Reboot]),
        ("ba-3-", "ab", '-', vec![finish("b"), unpublish.clone(), RemovePrestate]),
        ("aab--", "a", 'a', vec![finish("b"), unpublish.clone()]),
        ("aa---", "ab", 'a', vec![unpublish.clone()]),
    ] {
        let verdict = OverrideVerdict::RejectionFinished { abis: abis("b") };
        assert_decided(&records(text, published, "b", running), &JUDGE, verdict, &steps);
    }
    assert_decided(&records("aa---", "a", "b", 'a'), &JUDGE, OverrideVerdict::Nothing, &[]);
}

#[test]
fn malformed_values_are_removed_and_a_relay_is_consumed() {
    for text in ["!----", "-!---", "--!--", "----!"] {
        let before = records(text, "", "", '-');
        assert_decided(
            &before,
            &Event::Begin,
            OverrideVerdict::Scrubbed,
            &[block(BlockChange::Scrub)],
        );
    }
    assert_decided(&records("ab-2a", "", "", '-'), &Event::Begin, OverrideVerdict::Nothing, &[]);
    let consumed =
        [block(BlockChange::ConsumeRelay(abi('b'))), Unpublish(abi('b')), RemovePrestate];
    let verdict = OverrideVerdict::RelayConsumed { abi: abi('b') };
    let mut before = records("aa-2b", "a", "", '-');
    for update_window in [false, true] {
        before.values.update_window = update_window;
        assert_decided(&before, &Event::Relay, verdict.clone(), &consumed);
    }
    assert_decided(&records("aa---", "", "", '-'), &Event::Relay, OverrideVerdict::Nothing, &[]);
}

#[test]
fn what_no_container_claims_is_swept() {
    let claims = abis("a");
    let event = Event::Sweep { claims: &claims };
    let forget = |digits| block(BlockChange::Forget(abis(digits)));
    for (text, published, swept, steps) in [
        ("ba---", "ab", "b", vec![forget("b"), Unpublish(abi('b')), RemovePrestate]),
        ("b----", "", "b", vec![forget("b"), RemovePrestate]),
        ("aac--", "ac", "c", vec![forget("c"), Unpublish(abi('c'))]),
        ("aa---", "ad", "d", vec![Unpublish(abi('d'))]),
    ] {
        let verdict = OverrideVerdict::Swept { abis: abis(swept) };
        assert_decided(&records(text, published, "", '-'), &event, verdict, &steps);
    }
    assert_decided(&records("aa---", "a", "b", 'b'), &event, OverrideVerdict::Nothing, &[]);
}

#[test]
fn activation_publishes_before_it_arms_and_refuses_a_rejected_kernel() {
    let b = abi('b');
    let event = Event::Activate { abi: &b, target: "../k" };
    let armed = [
        OverrideStep::Publish { abi: abi('b'), target: "../k".to_owned() },
        SavePrestate,
        block(BlockChange::Arm(abi('b'))),
    ];
    let verdict = OverrideVerdict::Armed { abi: abi('b') };
    for text in ["-----", "aa-2-", "bb-2-", "----b"] {
        assert_decided(&records(text, "", "a", '-'), &event, verdict.clone(), &armed);
    }
    // Later, it would drop the trial count and the prestate of the kernel that is armed now.
    let mut steps =
        vec![block(BlockChange::ConsumeRelay(abi('c'))), Unpublish(abi('c')), RemovePrestate];
    steps.extend(armed);
    assert_decided(&records("----c", "c", "", 'c'), &event, verdict, &steps);
    let refused = decide(&records("-----", "", "b", '-'), &event);
    assert_eq!(refused, Err(RefusedOverride::Rejected { abi: abi('b') }));
}

#[test]
fn the_os_update_commits_what_is_armed_and_runs() {
    let commit = block(BlockChange::Commit { slot: SLOT, abi: abi('b') });
    let event = Event::HupCommit { slot: SLOT };
    let verdict = OverrideVerdict::Committed { abi: abi('b'), slot: SLOT };
    assert_decided(&records("ba-1-", "b", "", 'b'), &event, verdict, &[commit]);
    for (text, rejected, running) in [("-----", "", 'b'), ("ba-1-", "", 'a'), ("b--1-", "b", 'b')] {
        assert_decided(
            &records(text, "b", rejected, running),
            &event,
            OverrideVerdict::Nothing,
            &[],
        );
    }
}

#[test]
fn the_os_update_rolls_back_to_what_the_other_slot_has_committed() {
    let event = Event::HupReject { slot: SLOT };
    for (text, rejected, running, to, relay) in [
        ("ba-1-", "", 'b', '-', true),
        ("bac1-", "", 'b', 'c', true),
        ("bac1-", "", '-', 'c', false),
        ("b-b1-", "", 'b', 'b', false),
        ("bac1-", "c", 'b', '-', true),
    ] {
        let to_abi = field(to).abi().cloned();
        let change = BlockChange::RollBack { from: abi('b'), to: to_abi.clone(), relay };
        let steps = [audit(None, 'b', to, Slot::B), block(change)];
        let verdict = OverrideVerdict::RolledBack { from: abi('b'), to: to_abi };
        assert_decided(&records(text, "abc", rejected, running), &event, verdict, &steps);
    }
    assert_decided(&records("-ac1-", "", "", 'b'), &event, OverrideVerdict::Nothing, &[]);
}

#[test]
fn people_forget_and_allow_kernels() {
    let b = abi('b');
    let (forget, retry) = (Event::Forget { abi: &b }, Event::Retry { abi: &b });
    let forgotten = [block(BlockChange::Forget(abis("b"))), Unpublish(abi('b'))];
    let with_prestate = [forgotten.as_slice(), &[RemovePrestate]].concat();
    let verdict = OverrideVerdict::Forgotten { abi: abi('b') };
    assert_decided(&records("aab--", "ab", "", 'a'), &forget, verdict.clone(), &forgotten);
    assert_decided(&records("ba-1-", "ab", "", 'b'), &forget, verdict, &with_prestate);
    let unknown = decide(&records("aa---", "a", "b", 'b'), &forget);
    assert_eq!(unknown, Err(RefusedOverride::NotRecorded { abi: abi('b') }));

    let verdict = OverrideVerdict::Allowed { abi: abi('b') };
    let allowed = [RemoveRejected(abi('b'))];
    assert_decided(&records("aa---", "a", "b", 'a'), &retry, verdict.clone(), &allowed);
    // A rejection is half done, and would be finished otherwise.
    let steps = [with_prestate.as_slice(), &allowed].concat();
    assert_decided(&records("ba-3-", "ab", "b", 'a'), &retry, verdict, &steps);
    let unknown = decide(&records("ba-3-", "ab", "a", 'a'), &retry);
    assert_eq!(unknown, Err(RefusedOverride::NotRejected { abi: abi('b') }));
}

#[test]
fn only_removals_that_a_later_sweep_repeats_may_fail() {
    let may_fail = [Unpublish(abi('a')), RemovePrestate];
    assert!(may_fail.iter().all(OverrideStep::may_fail));
    let must_succeed = [
        OverrideStep::Publish { abi: abi('a'), target: String::new() },
        SavePrestate,
        AppendRejected(abi('a')),
        RemoveRejected(abi('a')),
        audit(None, 'a', '-', SLOT),
        block(BlockChange::Scrub),
        Reboot,
    ];
    assert!(!must_succeed.iter().any(OverrideStep::may_fail));
    assert!(RemovePrestate.belongs_to_the_arm() && !Unpublish(abi('a')).belongs_to_the_arm());
}

/// Whether the arm moved.
const MOVED: bool = true;
const SAME: bool = false;

#[test]
fn each_change_writes_these_values() {
    use BlockChange::{
        Arm, Commit, ConsumeRelay, FinishRejection, Forget, Reject, Restore, RollBack, Scrub,
    };
    let (slot, b) = (SLOT, abi('b'));
    let roll_back =
        |to: char, relay| RollBack { from: abi('b'), to: field(to).abi().cloned(), relay };
    for (change, before, after, arm_moved) in [
        (Scrub, "!!!2!", "-----", SAME),
        (Scrub, "b!-2-", "b--2-", SAME),
        (Scrub, "bac2d", "bac2d", SAME),
        (ConsumeRelay(abi('b')), "bbb2b", "-----", SAME),
        (ConsumeRelay(abi('b')), "a-b2b", "a----", SAME),
        (ConsumeRelay(abi('b')), "bb-2c", "bb-2c", SAME),
        (Forget(abis("b")), "bba2-", "--a--", SAME),
        (Forget(abis("bc")), "abc2-", "a--2-", MOVED),
        (Forget(abis("b")), "-ab2-", "-a-2-", SAME),
        (Restore(slot), "-ab2-", "aab--", SAME),
        (Restore(slot), "aab3-", "aab--", SAME),
        (Restore(slot), "cab2-", "cab2-", MOVED),
        (Restore(slot), "!a-2-", "!a-2-", MOVED),
        (Commit { slot, abi: b.clone() }, "ba-2-", "bb---", SAME),
        (Commit { slot, abi: b.clone() }, "ca-2-", "ca-2-", MOVED),
        (Commit { slot, abi: b.clone() }, "-a-2-", "-a-2-", MOVED),
        (Reject { slot, abi: b.clone() }, "bab2-", "aa---", SAME),
        (Reject { slot, abi: b.clone() }, "b--2-", "-----", SAME),
        (Reject { slot, abi: b.clone() }, "cab2-", "cab2-", MOVED),
        (FinishRejection { slot, abis: abis("b") }, "bab2-", "aa---", SAME),
        (FinishRejection { slot, abis: abis("bc") }, "bcb2-", "-----", SAME),
        (FinishRejection { slot, abis: abis("b") }, "cab2-", "ca-2-", MOVED),
        (FinishRejection { slot, abis: abis("b") }, "-ab2-", "-a-2-", SAME),
        (Arm(abi('b')), "aa-2-", "ba---", SAME),
        (Arm(abi('b')), "ba-2-", "ba-2-", SAME),
        (Arm(abi('b')), "---2-", "b----", SAME),
        (roll_back('c', true), "bac2-", "cac2b", SAME),
        (roll_back('-', true), "ba-2-", "-a-2b", SAME),
        (roll_back('c', false), "bac2d", "cac-d", SAME),
        (roll_back('b', false), "bab2-", "bab2-", SAME),
        (roll_back('c', true), "dac2-", "dac2-", MOVED),
    ] {
        let expected = Applied { values: values(after), arm_moved };
        assert_eq!(change.apply(&values(before)), expected, "{change:?} of {before}");
    }
}
