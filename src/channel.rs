//! Channels to tasks: what the listener hears on a channel enqueues that channel's definition. Best effort by nature.

use tokio::sync::mpsc;

use crate::db::doorbell::{Bell, Topic};
use crate::db::listener::Heard;
use crate::db::query::{Db, DbError};

const MOST: usize = 500;

/// How many notifications may wait to be written.
pub const BACKLOG: usize = 10_000;

/// Enqueues what is heard, until the listener is gone; what cannot be written because the database is away is tried again.
pub async fn enqueue_heard(db: Db, bell: Bell, mut heard: mpsc::Receiver<Heard>) {
    let mut batch = Vec::with_capacity(MOST);
    while heard.recv_many(&mut batch, MOST).await > 0 {
        loop {
            match enqueue(&db, &batch).await {
                Ok(tasks) => {
                    tracing::debug!(heard = batch.len(), tasks, "channels");
                    bell.wake(Topic::Task);
                    break;
                }
                Err(error) if error.is_outage() && !heard.is_closed() => {
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
                Err(error) => {
                    tracing::error!(%error, lost = batch.len(), "notifications could not be enqueued");
                    break;
                }
            }
        }
        batch.clear();
    }
}

async fn enqueue(db: &Db, batch: &[Heard]) -> Result<i64, DbError> {
    let channels: Vec<&str> = batch.iter().map(|heard| heard.channel.as_str()).collect();
    let payloads: Vec<&str> = batch.iter().map(|heard| heard.payload.as_str()).collect();
    let pids: Vec<i32> = batch.iter().map(|heard| heard.pid).collect();
    let row = db.row("channel.enqueue_heard", &[&channels, &payloads, &pids]).await?;
    Ok(row.map_or(0, |row| row.get(0)))
}
