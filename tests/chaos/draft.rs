//! What a client is about to enqueue.

use fastrand::Rng;
use serde_json::{Value, json};
use tokio_postgres::{Client as Session, Error};

const PLAIN: &str = "insert into rowbeat.task (definition, payload, run_at, queue, max_attempts, serial_key)
    values ($1, $2, clock_timestamp() + $3::bigint * interval '1 millisecond', $4, $5, $6) returning id";
const BY_FUNCTION: &str =
    "select rowbeat.enqueue($1, $2, clock_timestamp() + $3::bigint * interval '1 millisecond', p_queue => $4,
    p_max_attempts => $5, p_serial_key => $6, p_unique_key => $7, p_replace => $8)";

/// A task to be enqueued.
#[derive(Default)]
pub struct Draft {
    pub definition: &'static str,
    pub payload: Value,
    pub run_in_ms: Option<i64>,
    pub queue: Option<&'static str>,
    pub max_attempts: Option<i32>,
    pub unique_key: Option<String>,
    pub serial_key: Option<String>,
}

/// A task at random; rarely, if that is wanted, one that kills its daemon.
pub fn random(rng: &mut Rng, client: usize, harsh: bool) -> Draft {
    if rng.u32(0..2000) == 0 && harsh {
        return Draft { definition: "poison", ..Draft::default() };
    }
    let work = |ms: u32, fail: i32| json!({ "ms": ms, "fail": fail });
    let short = rng.u32(0..5);
    let mut draft = match rng.u32(0..100) {
        0..24 => Draft { definition: "plain", payload: work(short, 0), ..Draft::default() },
        24..27 => Draft { definition: "settled", ..Draft::default() },
        27..30 => Draft { definition: "program", ..Draft::default() },
        30..40 => {
            let run_in_ms = Some(rng.i64(20..600));
            Draft { definition: "later", payload: work(short, 0), run_in_ms, ..Draft::default() }
        }
        40..50 => Draft { definition: "slow", payload: work(rng.u32(1..50), 0), ..Draft::default() },
        50..60 => Draft { definition: "flaky", payload: work(short, 1), ..Draft::default() },
        60..63 => Draft {
            definition: "flaky",
            payload: work(short, 1000),
            max_attempts: Some(2),
            ..Draft::default()
        },
        63..73 => Draft { definition: "limited", payload: work(rng.u32(1..30), 0), ..Draft::default() },
        73..78 => Draft { definition: "rated", payload: work(short, 0), ..Draft::default() },
        78..83 => Draft { definition: "narrow_a", payload: work(rng.u32(1..30), 0), ..Draft::default() },
        83..88 => Draft {
            definition: "narrow_b",
            payload: work(rng.u32(1..30), i32::from(short == 0)),
            ..Draft::default()
        },
        88..91 => Draft {
            definition: "limited",
            payload: work(short, 0),
            queue: Some("narrow"),
            ..Draft::default()
        },
        _ => {
            let unique_key = Some(format!("u{}", rng.u32(0..40)));
            Draft { definition: "unique", payload: work(short, 0), unique_key, ..Draft::default() }
        }
    };
    if draft.unique_key.is_none() {
        draft.serial_key = match rng.u32(0..100) {
            0..12 => Some(format!("client-{client}")),
            12..15 => Some(format!("shared-{}", rng.u32(0..4))),
            _ => None,
        };
    }
    draft
}

impl Draft {
    /// Enqueues it, by a plain insert or by the function, and returns its id.
    pub async fn insert(&self, session: &Session, plain: bool) -> Result<i64, Error> {
        let row = if plain {
            let attempts = self.max_attempts.map(|most| i16::try_from(most).unwrap());
            session
                .query_one(
                    PLAIN,
                    &[
                        &self.definition,
                        &self.payload,
                        &self.run_in_ms,
                        &self.queue,
                        &attempts,
                        &self.serial_key,
                    ],
                )
                .await?
        } else {
            let replace: &[&str] = if self.unique_key.is_some() { &["payload"] } else { &[] };
            session
                .query_one(
                    BY_FUNCTION,
                    &[
                        &self.definition,
                        &self.payload,
                        &self.run_in_ms,
                        &self.queue,
                        &self.max_attempts,
                        &self.serial_key,
                        &self.unique_key,
                        &replace,
                    ],
                )
                .await?
        };
        Ok(row.get(0))
    }

    /// It as an element of what `enqueue_many` takes.
    pub fn document(&self) -> Value {
        json!({ "definition": self.definition, "payload": self.payload, "queue": self.queue, "max_attempts": self.max_attempts,
            "unique_key": self.unique_key, "serial_key": self.serial_key })
    }
}
