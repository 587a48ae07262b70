//! Live: a steady load under a snapshot that is held all the time. Dead rows pile up, and neither the wait of a task nor what
//! the server reads for one may grow with them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rowbeat::db::connect::Connector;
use tokio_postgres::Client;

use crate::options::Options;
use crate::report::{Figure, percentile, progress};
use crate::server::{Server, define_noop, session};
use crate::snapshot::SNAPSHOT;
use crate::tally::{Waits, prepare_insert};

const WRITERS: u64 = 8;
/// The load is looked at in so many parts of the same length.
const PARTS: u64 = 6;

/// What one run showed.
struct Load {
    waits: Vec<f64>,
    /// Blocks of the task table and its indexes that were looked at for each task, by part.
    blocks: Vec<f64>,
}

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let seconds = options.secs(60).max(PARTS);
    let mut loads = Vec::new();
    for run in 1..=options.runs {
        progress(&format!("live, run {run}: {} tasks/s for {seconds} s", options.rate));
        loads.push(load(server, options.rate, seconds).await);
    }
    let waits = |share| loads.iter().map(|load| percentile(&load.waits, share)).collect::<Vec<f64>>();
    // The waits are in order of start, at a steady rate: the last sixth is the last part.
    let last_part = |load: &Load| load.waits[load.waits.len() * 5 / 6..].to_vec();
    let last = loads.iter().map(|load| percentile(&last_part(load), 0.99)).collect();
    let blocks =
        |part: fn(&Vec<f64>) -> f64| loads.iter().map(|load| part(&load.blocks)).collect::<Vec<f64>>();
    let (early_blocks, last_blocks) = (blocks(|parts| parts[1]), blocks(|parts| parts[parts.len() - 1]));
    let case = format!("{} tasks/s of {WRITERS} for {seconds} s", options.rate);
    vec![
        Figure::new(format!("{case}, p50"), "ms", waits(0.5)),
        Figure::new(format!("{case}, p99"), "ms", waits(0.99)).at_most(50.0),
        Figure::new("p99 in the last sixth of it", "ms", last),
        Figure::new("buffers per task in the last sixth", "blocks", last_blocks).to(
            "the second sixth",
            &early_blocks,
            None,
        ),
        Figure::new("buffers per task in the second sixth", "blocks", early_blocks),
    ]
}

async fn load(server: &Server, rate: u64, seconds: u64) -> Load {
    let connector = server.database("live").await;
    let client = session(&connector).await;
    define_noop(&client, "none").await;
    let reader = session(&connector).await;
    reader.batch_execute(SNAPSHOT).await.unwrap();
    let waits = Waits::new();
    let daemon = server.daemon("live", waits.handlers(), "").await;
    let length = Duration::from_secs(seconds);
    let pause = Duration::from_secs(WRITERS).div_f64(rate as f64);
    let connector = Arc::new(connector);
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| tokio::spawn(write(Arc::clone(&connector), waits.clone(), pause, length)))
        .collect();
    let mut blocks = Vec::new();
    let (mut read, mut started) = (blocks_looked_at(&client).await, waits.count());
    for _ in 0..PARTS {
        tokio::time::sleep(length / u32::try_from(PARTS).unwrap()).await;
        let (now_read, now_started) = (blocks_looked_at(&client).await, waits.count());
        blocks.push((now_read - read) / (now_started - started).max(1) as f64);
        (read, started) = (now_read, now_started);
    }
    let mut sent = 0;
    for writer in writers {
        sent += writer.await.unwrap();
    }
    let waits = waits.all(sent).await;
    daemon.stop().await;
    Load { waits, blocks }
}

/// One writer; how many tasks it enqueued.
async fn write(connector: Arc<Connector>, waits: Waits, pause: Duration, length: Duration) -> usize {
    let client = session(&connector).await;
    let insert = prepare_insert(&client).await;
    let mut ticks = tokio::time::interval(pause);
    let until = Instant::now() + length;
    let mut sent = 0;
    while Instant::now() < until {
        ticks.tick().await;
        waits.enqueue(&client, &insert).await;
        sent += 1;
    }
    sent
}

async fn blocks_looked_at(client: &Client) -> f64 {
    let sum = "select (s.heap_blks_hit + s.heap_blks_read + s.idx_blks_hit + s.idx_blks_read)::float8
        from pg_catalog.pg_statio_user_tables s where s.relid = 'rowbeat.task'::regclass";
    client.query_one(sum, &[]).await.unwrap().get(0)
}
