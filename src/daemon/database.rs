//! The daemon and its database, at the beginning and at the end: the private server, the schema, signing off.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::{DaemonError, PRIVATE_DATABASE};
use crate::db::connect::Connector;
use crate::db::embedded::{Options, PrivatePostgres};
use crate::db::migrate;
use crate::db::query::Db;
use crate::shutdown;
use crate::task::Node;
use crate::task::store::Store;

const LONGEST_WAIT: Duration = Duration::from_secs(5);

pub(super) async fn start_private(options: Options) -> Result<PrivatePostgres, DaemonError> {
    shutdown::tell_status("starting the private Postgres");
    let private = PrivatePostgres::start(options).await?;
    private.create_database(PRIVATE_DATABASE).await?;
    tracing::info!(folder = %private.data_dir().display(), "private Postgres started");
    Ok(private)
}

/// Waits for the end of the daemon, and meanwhile restarts the private Postgres when it dies.
pub(super) async fn keep_private(private: &mut Option<PrivatePostgres>, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)), if private.is_some() => {}
        }
        if let Some(private) = private {
            match private.run_once().await {
                Ok(false) => {}
                Ok(true) => tracing::warn!("the private Postgres had ended; it was started again"),
                Err(error) => tracing::error!(%error, "the private Postgres cannot be kept running"),
            }
        }
    }
}

/// Waits for the database, for ever, then sees to the schema.
pub(super) async fn reach_schema(connector: &Connector, private: bool) -> Result<(), DaemonError> {
    let mut pause = Duration::from_millis(100);
    let mut silent = false;
    loop {
        let seen_to = if private {
            migrate::migrate(connector).await.map(drop)
        } else {
            migrate::install_or_check(connector).await
        };
        let error = match seen_to {
            Ok(()) => return Ok(()),
            Err(error) if error.is_outage() => error,
            Err(error) => return Err(error.into()),
        };
        if !silent {
            tracing::warn!(%error, "waiting for the database");
            silent = true;
        }
        shutdown::tell(&[
            NotifyState::Status(&format!("waiting for the database: {error}")),
            NotifyState::ExtendTimeoutUsec(30_000_000),
        ]);
        tokio::time::sleep(pause.mul_f32(0.75 + fastrand::f32() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_WAIT);
    }
}

/// Gives back whatever the database still says this node has, then signs off. Without the first there is no second: a
/// node that just falls silent is taken over when its lease is over.
pub(super) async fn leave(store: &Store, db: &Db, node: &Node) {
    match store.release_unknown(node.id(), &[]).await {
        Ok(released) => {
            if released > 0 {
                tracing::warn!(released, "gave back tasks whose attempts could not be ended");
            }
            let _ = db.row("node.stop", &[&node.id()]).await;
        }
        Err(error) => {
            tracing::warn!(%error, "could not sign off; the others will take over what is left")
        }
    }
}
