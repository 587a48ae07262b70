//! What happened in a run, as the clients and the database tell it. Plain data: the checker judges it, the recorder fills it.
//!
//! Two clocks: claims, endings and effects are on the database's, enqueues on the clients' (one process, so they can be
//! compared among each other). Nothing compares one with the other. All times are in microseconds.

use std::collections::{BTreeMap, BTreeSet};

pub type Micros = i64;

/// A task that a client committed.
#[derive(Debug, Clone)]
pub struct Enqueued {
    pub task: i64,
    pub serial_key: Option<String>,
    /// Just before the client began the transaction, on the clients' clock.
    pub called: Micros,
    /// Just after its commit was answered, on the clients' clock.
    pub committed: Micros,
}

/// An attempt on record: from its claim to its ending.
#[derive(Debug, Clone)]
pub struct Run {
    pub task: i64,
    pub attempt: i32,
    pub definition: String,
    pub queue: String,
    pub outcome: String,
    pub from: Micros,
    /// When its function began, where it could say so.
    pub began: Option<Micros>,
    pub to: Micros,
}

/// What a task's function wrote and committed.
#[derive(Debug, Clone)]
pub struct Effect {
    pub task: i64,
    pub attempt: i32,
    pub from: Micros,
    pub to: Micros,
}

/// Where a task is at the end of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By this attempt.
    Completed(i32),
    Failed,
    Cancelled,
    /// It lives still, and this is why.
    Live(String),
}

/// Tasks that a limit or a pause speaks of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Definition(String),
    Queue(String),
}

impl Scope {
    /// Whether it speaks of this attempt.
    pub fn holds(&self, run: &Run) -> bool {
        match self {
            Self::Definition(name) => *name == run.definition,
            Self::Queue(name) => *name == run.queue,
        }
    }
}

/// At one instant so many tasks of the scope were running, says the task table.
#[derive(Debug, Clone)]
pub struct Sample {
    pub scope: Scope,
    pub running: usize,
}

/// The scope was paused for all this time, on the database's clock.
#[derive(Debug, Clone)]
pub struct Pause {
    pub scope: Scope,
    pub from: Micros,
    pub to: Micros,
}

/// What the run allowed.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// At most so many at any instant.
    pub concurrency: BTreeMap<Scope, usize>,
    /// At most so many starts within any period, by definition.
    pub rate: BTreeMap<String, (usize, Micros)>,
    /// Definitions whose tasks have no effect but their record.
    pub silent: BTreeSet<String>,
}

/// The whole run.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub enqueued: Vec<Enqueued>,
    pub runs: Vec<Run>,
    pub effects: Vec<Effect>,
    pub endings: BTreeMap<i64, Ending>,
    pub samples: Vec<Sample>,
    pub pauses: Vec<Pause>,
    /// Tasks of which a client was told by `cancel` that they have ended, and how.
    pub told: Vec<(i64, Ending)>,
    /// Tasks that somebody brought back to life after they had ended.
    pub retried: BTreeSet<i64>,
}
