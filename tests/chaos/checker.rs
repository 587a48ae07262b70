//! The checker: from a history and the rules of the run to the list of what is wrong. Pure; it knows no database, and each of
//! its rules is tested with a planted fault.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::history::{Effect, Ending, Enqueued, History, Micros, Rules, Run};

/// The rules that a history can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A committed task is nowhere.
    Lost,
    /// A task did not end though everything was done that it should.
    Stuck,
    /// A task has more than one effect.
    Doubled,
    /// A completed task has no effect, or one of another attempt than its record says.
    Unperformed,
    /// A task that did not complete has an effect.
    Unrecorded,
    /// There are traces of a task that nobody committed.
    Ghost,
    /// More tasks at an instant than a limit allows.
    Concurrency,
    /// More starts within a period than a rate allows.
    Rate,
    /// Two tasks of a serial key at the same time.
    SerialOverlap,
    /// A task of a serial key ran before one that was enqueued earlier.
    SerialOrder,
    /// Two attempts of one task at the same time, an attempt number used twice, or an effect outside of its claim.
    Fence,
    /// A task that had ended, as a client was told, is something else now.
    Revived,
    /// A task was started during a pause.
    Paused,
    /// An attempt failed or timed out by no fault of its function.
    Blamed,
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Everything that is wrong with a history.
pub fn check(history: &History, rules: &Rules) -> Vec<Violation> {
    let mut found = Found(Vec::new());
    accounted(history, rules, &mut found);
    ghosts(history, &mut found);
    fences(history, &mut found);
    concurrency(history, rules, &mut found);
    rates(history, rules, &mut found);
    serial(history, &mut found);
    told(history, &mut found);
    pauses(history, &mut found);
    blamed(history, &mut found);
    found.0
}

struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, rule: Rule, what: String) {
        self.0.push(Violation { rule, what });
    }
}

/// Every committed task has ended, and its effects are what its ending says.
fn accounted(history: &History, rules: &Rules, found: &mut Found) {
    let silent: BTreeSet<i64> = history
        .runs
        .iter()
        .filter(|run| rules.silent.contains(&run.definition))
        .map(|run| run.task)
        .collect();
    let mut effects: HashMap<i64, Vec<&Effect>> = HashMap::new();
    for effect in &history.effects {
        effects.entry(effect.task).or_default().push(effect);
    }
    let tasks: BTreeSet<i64> = history.enqueued.iter().map(|e| e.task).collect();
    for task in tasks {
        let effects = effects.get(&task).map_or(&[][..], Vec::as_slice);
        if effects.len() > 1 {
            found.add(Rule::Doubled, format!("task {task} has {} effects: {effects:?}", effects.len()));
        }
        match history.endings.get(&task) {
            None => found.add(Rule::Lost, format!("task {task} is nowhere")),
            Some(Ending::Live(why)) => found.add(Rule::Stuck, format!("task {task} did not end: {why}")),
            Some(Ending::Completed(attempt)) => {
                if !silent.contains(&task) && !effects.iter().any(|effect| effect.attempt == *attempt) {
                    found.add(
                        Rule::Unperformed,
                        format!("task {task} was completed by attempt {attempt}, its effects: {effects:?}"),
                    );
                }
            }
            Some(Ending::Failed | Ending::Cancelled) => {}
        }
        if !effects.is_empty() && !matches!(history.endings.get(&task), Some(Ending::Completed(_))) {
            found.add(Rule::Unrecorded, format!("task {task} did not complete but has effects: {effects:?}"));
        }
    }
}

/// What was never committed leaves no trace.
fn ghosts(history: &History, found: &mut Found) {
    let known: BTreeSet<i64> = history.enqueued.iter().map(|e| e.task).collect();
    let traces = history.effects.iter().map(|e| e.task).chain(history.runs.iter().map(|r| r.task));
    let strangers: BTreeSet<i64> =
        traces.chain(history.endings.keys().copied()).filter(|task| !known.contains(task)).collect();
    for task in strangers {
        found.add(Rule::Ghost, format!("nobody committed task {task}"));
    }
}

/// The attempts of a task come one after the other, each number once, and what one did lies within its claim.
fn fences(history: &History, found: &mut Found) {
    let mut runs: BTreeMap<i64, Vec<&Run>> = BTreeMap::new();
    for run in &history.runs {
        runs.entry(run.task).or_default().push(run);
    }
    for effect in &history.effects {
        let mut claims = runs.get(&effect.task).into_iter().flatten();
        if let Some(run) = claims.find(|run| run.attempt == effect.attempt)
            && (effect.from < run.from || effect.to > run.to)
        {
            found.add(Rule::Fence, format!("{effect:?} is not within {run:?}"));
        }
    }
    for (task, mut runs) in runs {
        runs.sort_by_key(|run| run.attempt);
        for pair in runs.windows(2) {
            if pair[0].attempt == pair[1].attempt || pair[0].to > pair[1].from {
                found.add(Rule::Fence, format!("attempts of task {task}: {:?} and {:?}", pair[0], pair[1]));
            }
        }
    }
}

/// At no instant more than allowed: by the attempts on record, and by what was seen in the task table.
fn concurrency(history: &History, rules: &Rules, found: &mut Found) {
    for (scope, most) in &rules.concurrency {
        let mut steps: Vec<(Micros, i32, &Run)> = Vec::new();
        for run in history.runs.iter().filter(|run| scope.holds(run)) {
            steps.push((run.from, 1, run));
            steps.push((run.to, -1, run));
        }
        // Endings before claims of the same instant.
        steps.sort_by_key(|(at, step, _)| (*at, *step));
        let mut running = 0;
        for (n, (at, step, run)) in steps.iter().enumerate() {
            running += step;
            if *step > 0 && running > i32::try_from(*most).unwrap_or(i32::MAX) {
                let (task, attempt) = (run.task, run.attempt);
                let until = steps[n..].iter().find(|(_, step, _)| *step < 0).map_or(0, |(to, ..)| to - at);
                found.add(
                    Rule::Concurrency,
                    format!(
                        "{running} of {scope:?} at {at} for {until} µs, {most} allowed; task {task} attempt {attempt} came last"
                    ),
                );
            }
        }
        for sample in history.samples.iter().filter(|s| s.scope == *scope && s.running > *most) {
            found
                .add(Rule::Concurrency, format!("{} of {scope:?} were seen, {most} allowed", sample.running));
        }
    }
}

/// In no period more starts than allowed.
fn rates(history: &History, rules: &Rules, found: &mut Found) {
    for (definition, (rate, period)) in &rules.rate {
        let mut starts: Vec<Micros> =
            history.runs.iter().filter(|run| run.definition == *definition).map(|run| run.from).collect();
        starts.sort_unstable();
        for window in starts.windows(rate + 1) {
            let took = window[*rate] - window[0];
            if took < *period {
                found.add(
                    Rule::Rate,
                    format!("{} of {definition} within {took} of {period} µs, from {}", rate + 1, window[0]),
                );
            }
        }
    }
}

/// Tasks of a serial key run one at a time, and who was committed before another one was enqueued runs before it.
fn serial(history: &History, found: &mut Found) {
    let mut keys: BTreeMap<&str, BTreeMap<i64, &Enqueued>> = BTreeMap::new();
    for enqueued in &history.enqueued {
        if let Some(key) = &enqueued.serial_key {
            keys.entry(key).or_default().insert(enqueued.task, enqueued);
        }
    }
    let mut spans: HashMap<i64, Vec<(Micros, Micros)>> = HashMap::new();
    for run in &history.runs {
        spans.entry(run.task).or_default().extend(run.began.map(|began| (began, run.to)));
    }
    for (key, tasks) in keys {
        let mut line: Vec<(Micros, Micros, i64)> = tasks
            .keys()
            .flat_map(|task| spans.get(task).into_iter().flatten().map(|(from, to)| (*from, *to, *task)))
            .collect();
        line.sort_unstable();
        let mut latest: Option<(Micros, i64)> = None;
        for (from, to, task) in &line {
            if let Some((until, other)) = latest.filter(|(until, other)| until > from && other != task) {
                found.add(
                    Rule::SerialOverlap,
                    format!("key {key}: task {task} began at {from}, task {other} ended at {until}"),
                );
            }
            latest = latest.max(Some((*to, *task)));
        }
        // Who was brought back to life lost its place.
        let mut passed: Option<&Enqueued> = None;
        for (_, _, task) in line.iter().filter(|(_, _, task)| !history.retried.contains(task)) {
            let enqueued = tasks[task];
            if let Some(earlier) = passed.filter(|p| p.called > enqueued.committed) {
                found.add(
                    Rule::SerialOrder,
                    format!("key {key}: task {} ran before task {task}", earlier.task),
                );
            }
            if passed.is_none_or(|p| p.called < enqueued.called) {
                passed = Some(enqueued);
            }
        }
    }
}

/// An ending that a client was told of stands, until somebody retries the task.
fn told(history: &History, found: &mut Found) {
    for (task, told) in &history.told {
        let is = history.endings.get(task);
        let stands = match (told, is) {
            (Ending::Completed(_), Some(Ending::Completed(_))) => true,
            (Ending::Completed(_), _) => false,
            (told, is) => Some(told) == is || history.retried.contains(task),
        };
        if !stands {
            found.add(Rule::Revived, format!("task {task} had ended as {told:?}, now it is {is:?}"));
        }
    }
}

/// From the answer of a pause to the call of its resume nothing is claimed.
fn pauses(history: &History, found: &mut Found) {
    for pause in &history.pauses {
        let started = history
            .runs
            .iter()
            .filter(|run| pause.scope.holds(run) && (pause.from..pause.to).contains(&run.from));
        for run in started {
            found.add(
                Rule::Paused,
                format!("task {} was claimed at {}, during {pause:?}", run.task, run.from),
            );
        }
    }
}

/// A function that fails says so, and none takes long: whatever else happens to an attempt is no failure.
fn blamed(history: &History, found: &mut Found) {
    for run in &history.runs {
        let own = run.outcome == "failed" && run.began.is_some();
        if !own && !["done", "lost", "cancelled", "interrupted", "snoozed"].contains(&run.outcome.as_str()) {
            found.add(Rule::Blamed, format!("{run:?}"));
        }
    }
}
