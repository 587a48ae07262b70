//! Snapshot: whether a transaction that stays open (a report, a dump) slows the drain down, because the server must keep every
//! dead row for it.

use tokio_postgres::Client;

use crate::drain::by_daemon;
use crate::options::Options;
use crate::report::{Figure, progress};
use crate::server::{Server, define_noop, fill, session, settle};

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let (mut held, mut free) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        for (hold, rates) in [(true, &mut held), (false, &mut free)] {
            let how = if hold { "held" } else { "none" };
            progress(&format!("snapshot, run {run}: {how}"));
            rates.push(drain_after_warming(server, options, hold).await);
        }
    }
    let case = format!("{} tasks after {}", options.tasks / 4, options.tasks);
    vec![
        Figure::new(format!("{case}, snapshot held"), "tasks/s", held).to("no snapshot", &free, Some(0.95)),
        Figure::new(format!("{case}, no snapshot"), "tasks/s", free),
    ]
}

/// The rate of the tasks that come after others were worked off under the snapshot.
async fn drain_after_warming(server: &Server, options: &Options, hold: bool) -> f64 {
    let connector = server.database("drain").await;
    let client = session(&connector).await;
    let reader = session(&connector).await;
    if hold {
        reader.batch_execute(SNAPSHOT).await.unwrap();
    }
    define_noop(&client, "none").await;
    fill_and_drain(server, &client, options.tasks).await;
    fill_and_drain(server, &client, options.tasks / 4).await
}

async fn fill_and_drain(server: &Server, client: &Client, tasks: u64) -> f64 {
    fill(client, "noop", tasks).await;
    settle(client).await;
    by_daemon(server, client, tasks).await.started
}

/// A transaction with a snapshot, left open.
pub const SNAPSHOT: &str = "begin isolation level repeatable read; select count(*) from pg_catalog.pg_class";
