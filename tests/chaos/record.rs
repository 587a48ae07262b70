//! What the database has on record of a run, as the checker wants it.

use std::collections::BTreeMap;

use tokio_postgres::{Client as Session, Error, Row};

use super::history::{Effect, Ending, Micros, Run, Sample, Scope};

/// The last attempts of ended tasks; one that ended while it waited has no node, and its last attempt is on record elsewhere.
/// The function's begin is its effect's or what its error says.
const FINISHED: &str = "
    select f.id, f.attempt, f.definition, f.queue, f.outcome, (extract(epoch from f.started_at) * 1000000)::bigint,
        coalesce((select (extract(epoch from min(e.began)) * 1000000)::bigint from public.effect e where e.task_id = f.id and e.attempt = f.attempt),
            case when f.outcome = 'failed' and f.error ->> 'message' ~ '^[0-9]+$' then (f.error ->> 'message')::bigint end),
        (extract(epoch from f.finished_at) * 1000000)::bigint
    from rowbeat.finished_task f
    where f.node is not null and ($1::bigint is null or f.id = $1)";

const ATTEMPTS: &str = "
    select a.task_id, a.attempt, a.definition, coalesce(t.queue, f.queue), a.outcome, (extract(epoch from a.started_at) * 1000000)::bigint,
        case when a.outcome = 'failed' and a.error ->> 'message' ~ '^[0-9]+$' then (a.error ->> 'message')::bigint end,
        (extract(epoch from a.ended_at) * 1000000)::bigint
    from rowbeat.attempt a
    left join rowbeat.task t on t.id = a.task_id
    left join rowbeat.finished_task f on f.id = a.task_id
    where coalesce(t.queue, f.queue) is not null";

const LIVE: &str = "
    select t.id, concat_ws(', ', t.definition, t.state, t.parked, 'attempt ' || t.attempt, 'key ' || t.serial_key, 'by ' || t.claimed_by,
        (select string_agg(x.reason || ' (' || x.detail || ')', '; ') from rowbeat.explain_task(t.id) x))
    from rowbeat.task t order by t.id limit 200";

const RUNNING: &str = "
    select 'd', t.definition, count(*) from rowbeat.task t where t.state = 'running' group by t.definition
    union all select 'q', t.queue, count(*) from rowbeat.task t where t.state = 'running' group by t.queue
    union all select 'b', t.definition, count(*) from rowbeat.task t group by t.definition
    union all select 'p', t.parked, t.id from rowbeat.task t where t.parked in ('isolated', 'quarantined')";

fn run(row: &Row) -> Run {
    Run {
        task: row.get(0),
        attempt: row.get(1),
        definition: row.get(2),
        queue: row.get(3),
        outcome: row.get(4),
        from: row.get(5),
        began: row.get(6),
        to: row.get(7),
    }
}

/// The database's clock.
pub async fn now(session: &Session) -> Result<Micros, Error> {
    Ok(session.query_one("select (extract(epoch from rowbeat.now_()) * 1000000)::bigint", &[]).await?.get(0))
}

/// Attempts that ended their tasks, of one task or all.
pub async fn runs_of_finished(session: &Session, task: Option<i64>) -> Result<Vec<Run>, Error> {
    Ok(session.query(FINISHED, &[&task]).await?.iter().map(run).collect())
}

/// Attempts that did not end their tasks.
pub async fn other_runs(session: &Session) -> Result<Vec<Run>, Error> {
    Ok(session.query(ATTEMPTS, &[]).await?.iter().map(run).collect())
}

/// What was done.
pub async fn effects(session: &Session) -> Result<Vec<Effect>, Error> {
    let rows = session
        .query(
            "select task_id, attempt, (extract(epoch from began) * 1000000)::bigint, (extract(epoch from ended) * 1000000)::bigint
             from public.effect",
            &[],
        )
        .await?;
    let effect =
        |row: &Row| Effect { task: row.get(0), attempt: row.get(1), from: row.get(2), to: row.get(3) };
    Ok(rows.iter().map(effect).collect())
}

/// Where every task is.
pub async fn endings(session: &Session) -> Result<BTreeMap<i64, Ending>, Error> {
    let ended = session.query("select id, state, attempt from rowbeat.finished_task", &[]).await?;
    let mut endings: BTreeMap<i64, Ending> = ended
        .iter()
        .map(|row| {
            let ending = match row.get(1) {
                "completed" => Ending::Completed(row.get(2)),
                "failed" => Ending::Failed,
                _ => Ending::Cancelled,
            };
            (row.get(0), ending)
        })
        .collect();
    let live = session.query(LIVE, &[]).await?;
    endings.extend(live.iter().map(|row| (row.get(0), Ending::Live(row.get(1)))));
    Ok(endings)
}

/// One look at the task table.
#[derive(Default)]
pub struct Look {
    pub running: Vec<Sample>,
    /// Live tasks by definition.
    pub backlog: Vec<(String, i64)>,
    /// Tasks that nodes died with: isolated or quarantined, and which.
    pub suspects: Vec<(String, i64)>,
}

/// What there is at one instant.
pub async fn look(session: &Session) -> Result<Look, Error> {
    let mut look = Look::default();
    for row in session.query(RUNNING, &[]).await? {
        let (kind, name, count): (&str, String, i64) = (row.get(0), row.get(1), row.get(2));
        let running = usize::try_from(count).unwrap();
        match kind {
            "d" => look.running.push(Sample { scope: Scope::Definition(name), running }),
            "q" => look.running.push(Sample { scope: Scope::Queue(name), running }),
            "b" => look.backlog.push((name, count)),
            _ => look.suspects.push((name, count)),
        }
    }
    Ok(look)
}
