//! Planted faults: a sound history, spoiled in one way each, and the checker names exactly that.

use super::checker::{Rule, check};
use super::history::{Effect, Ending, Enqueued, History, Micros, Pause, Rules, Run, Sample, Scope};

fn enqueued(task: i64, serial_key: Option<&str>) -> Enqueued {
    Enqueued { task, serial_key: serial_key.map(str::to_owned), called: task * 10, committed: task * 10 + 5 }
}

fn run(task: i64, attempt: i32, from: Micros, to: Micros, outcome: &str) -> Run {
    Run {
        task,
        attempt,
        definition: "d".into(),
        queue: "q".into(),
        outcome: outcome.into(),
        from,
        began: Some(from + 1),
        to,
    }
}

/// Four tasks: two run side by side, the second at its second attempt; then two of a serial key, one after the other. A fifth was cancelled.
fn sound() -> History {
    let effect = |task, attempt, from, to| Effect { task, attempt, from, to };
    History {
        enqueued: vec![
            enqueued(1, None),
            enqueued(2, None),
            enqueued(3, Some("k")),
            enqueued(4, Some("k")),
            enqueued(5, None),
        ],
        runs: vec![
            run(1, 1, 100, 200, "done"),
            run(2, 1, 110, 150, "failed"),
            run(2, 2, 160, 220, "done"),
            run(3, 1, 300, 400, "done"),
            run(4, 1, 400, 500, "done"),
        ],
        effects: vec![
            effect(1, 1, 101, 199),
            effect(2, 2, 161, 219),
            effect(3, 1, 301, 399),
            effect(4, 1, 401, 499),
        ],
        endings: [
            (1, Ending::Completed(1)),
            (2, Ending::Completed(2)),
            (3, Ending::Completed(1)),
            (4, Ending::Completed(1)),
            (5, Ending::Cancelled),
        ]
        .into(),
        samples: vec![Sample { scope: Scope::Queue("q".into()), running: 2 }],
        pauses: vec![Pause { scope: Scope::Definition("d".into()), from: 230, to: 290 }],
        told: vec![(1, Ending::Completed(0)), (5, Ending::Cancelled)],
        retried: [].into(),
    }
}

fn rules() -> Rules {
    Rules {
        concurrency: [(Scope::Definition("d".into()), 2), (Scope::Queue("q".into()), 2)].into(),
        rate: [("d".into(), (3, 150))].into(),
        silent: ["s".into()].into(),
    }
}

/// The rules that the spoiled history breaks, each once.
fn broken(spoil: impl FnOnce(&mut History)) -> Vec<Rule> {
    let mut history = sound();
    spoil(&mut history);
    let mut rules: Vec<Rule> = check(&history, &rules()).into_iter().map(|v| v.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[test]
fn a_sound_history_breaks_no_rule() {
    assert_eq!(check(&sound(), &rules()), []);
}

#[test]
fn a_lost_task_is_found() {
    assert_eq!(broken(|h| drop((h.endings.remove(&5), h.told.pop()))), [Rule::Lost]);
}

#[test]
fn a_task_that_does_not_end_is_found() {
    let waiting = |h: &mut History| {
        h.endings.insert(5, Ending::Live("waiting".into()));
        h.told.pop();
    };
    assert_eq!(broken(waiting), [Rule::Stuck]);
}

#[test]
fn a_doubled_effect_is_found() {
    assert_eq!(
        broken(|h| h.effects.push(Effect { task: 2, attempt: 1, from: 111, to: 149 })),
        [Rule::Doubled]
    );
    assert_eq!(broken(|h| h.effects.push(h.effects[0].clone())), [Rule::Doubled]);
}

#[test]
fn a_completed_task_without_its_effect_is_found() {
    assert_eq!(broken(|h| h.effects.retain(|effect| effect.task != 1)), [Rule::Unperformed]);
    assert_eq!(
        broken(|h| h.effects[1] = Effect { task: 2, attempt: 1, from: 111, to: 149 }),
        [Rule::Unperformed]
    );
    let silent = |h: &mut History| {
        h.effects.remove(0);
        h.runs[0].definition = "s".into();
    };
    assert_eq!(broken(silent), []);
}

#[test]
fn an_effect_of_a_task_that_did_not_complete_is_found() {
    assert_eq!(
        broken(|h| h.effects.push(Effect { task: 5, attempt: 1, from: 100, to: 110 })),
        [Rule::Unrecorded]
    );
    assert_eq!(broken(|h| drop(h.endings.insert(4, Ending::Failed))), [Rule::Unrecorded]);
}

#[test]
fn traces_of_what_was_rolled_back_are_found() {
    assert_eq!(broken(|h| h.effects.push(Effect { task: 9, attempt: 1, from: 600, to: 610 })), [Rule::Ghost]);
    assert_eq!(broken(|h| h.runs.push(run(9, 1, 600, 610, "failed"))), [Rule::Ghost]);
    assert_eq!(broken(|h| drop(h.endings.insert(9, Ending::Cancelled))), [Rule::Ghost]);
}

#[test]
fn an_attempt_number_used_twice_is_found() {
    assert_eq!(broken(|h| h.runs.push(run(1, 1, 600, 610, "lost"))), [Rule::Fence]);
}

#[test]
fn an_effect_outside_of_its_claim_is_found() {
    assert_eq!(broken(|h| h.effects[2].from = 299), [Rule::Fence]);
    assert_eq!(broken(|h| h.effects[2].to = 401), [Rule::Fence]);
}

#[test]
fn two_attempts_of_a_task_at_once_are_found() {
    assert_eq!(broken(|h| h.runs[1].to = 165), [Rule::Concurrency, Rule::Fence]);
}

#[test]
fn one_too_many_at_an_instant_is_found() {
    let third = |h: &mut History| {
        h.enqueued.push(enqueued(6, None));
        h.endings.insert(6, Ending::Failed);
        h.runs.push(run(6, 1, 199, 290, "lost"));
        h.runs.remove(1);
    };
    assert_eq!(broken(third), [Rule::Concurrency]);
    let of_another_definition = broken(|h| {
        h.enqueued.push(enqueued(6, None));
        h.endings.insert(6, Ending::Failed);
        h.runs.push(Run { definition: "e".into(), ..run(6, 1, 120, 130, "lost") });
    });
    assert_eq!(of_another_definition, [Rule::Concurrency], "of the queue");
}

#[test]
fn who_starts_when_another_ends_exceeds_nothing() {
    let handed_over = broken(|h| {
        h.enqueued.push(enqueued(6, None));
        h.endings.insert(6, Ending::Failed);
        h.runs.push(run(6, 1, 500, 600, "lost"));
        h.enqueued.push(enqueued(7, None));
        h.endings.insert(7, Ending::Failed);
        h.runs.push(run(7, 1, 500, 600, "lost"));
    });
    assert_eq!(handed_over, []);
}

#[test]
fn one_too_many_that_was_seen_is_found() {
    assert_eq!(broken(|h| h.samples[0].running = 3), [Rule::Concurrency]);
}

#[test]
fn a_start_too_early_for_the_rate_is_found() {
    // 100, 110, 160 and 249: the fourth within 149.
    assert_eq!(
        broken(|h| {
            h.enqueued.push(enqueued(6, None));
            h.endings.insert(6, Ending::Failed);
            h.runs.push(run(6, 1, 249, 260, "lost"));
            h.pauses.clear();
        }),
        [Rule::Rate]
    );
}

#[test]
fn two_of_a_serial_key_at_once_are_found() {
    assert_eq!(
        broken(|h| {
            h.runs[4].from = 390;
            h.runs[4].began = Some(398);
        }),
        [Rule::SerialOverlap]
    );
}

#[test]
fn a_serial_overlap_with_a_short_one_in_between_is_found() {
    let between = |h: &mut History| {
        h.enqueued.push(enqueued(6, Some("k")));
        h.endings.insert(6, Ending::Failed);
        h.runs.push(run(6, 1, 600, 900, "failed"));
        h.enqueued.push(enqueued(7, Some("k")));
        h.endings.insert(7, Ending::Failed);
        h.runs.push(run(7, 1, 850, 860, "failed"));
        h.enqueued.push(enqueued(8, Some("k")));
        h.endings.insert(8, Ending::Failed);
        h.runs.push(run(8, 1, 870, 880, "failed"));
    };
    let mut history = sound();
    between(&mut history);
    let overlaps = check(&history, &Rules::default());
    assert_eq!(overlaps.len(), 2, "{overlaps:?}");
    assert!(overlaps.iter().all(|violation| violation.rule == Rule::SerialOverlap));
}

#[test]
fn a_serial_key_out_of_order_is_found() {
    let swapped = |h: &mut History| {
        h.runs[3] = run(3, 1, 520, 620, "done");
        h.effects[2] = Effect { task: 3, attempt: 1, from: 521, to: 619 };
    };
    assert_eq!(broken(swapped), [Rule::SerialOrder]);
    let retried = |h: &mut History| {
        swapped(h);
        h.retried.insert(3);
    };
    assert_eq!(broken(retried), [], "it lost its place");
    let at_the_same_time = |h: &mut History| {
        swapped(h);
        h.enqueued[3].called = h.enqueued[2].called;
    };
    assert_eq!(broken(at_the_same_time), [], "nobody knows which came first");
}

#[test]
fn an_ending_that_does_not_stand_is_found() {
    let revived = |h: &mut History| {
        h.endings.insert(5, Ending::Completed(1));
        h.effects.push(Effect { task: 5, attempt: 1, from: 600, to: 610 });
    };
    assert_eq!(broken(revived), [Rule::Revived]);
    let retried = |h: &mut History| {
        revived(h);
        h.retried.insert(5);
    };
    assert_eq!(broken(retried), []);
    let undone = |h: &mut History| {
        h.endings.insert(1, Ending::Cancelled);
        h.effects.remove(0);
        h.retried.insert(1);
    };
    assert_eq!(broken(undone), [Rule::Revived], "what is completed cannot be brought back");
}

#[test]
fn a_start_during_a_pause_is_found() {
    assert_eq!(broken(|h| h.pauses[0].to = 301), [Rule::Paused]);
}

#[test]
fn a_failure_without_a_cause_is_found() {
    assert_eq!(broken(|h| h.runs[1].outcome = "timed_out".into()), [Rule::Blamed]);
    assert_eq!(broken(|h| h.runs[1].began = None), [Rule::Blamed]);
}
