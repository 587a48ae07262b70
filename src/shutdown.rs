//! Stopping, and telling the service manager about it.
//!
//! The first SIGTERM or SIGINT drains, a second one stops waiting for what is still running. To systemd go READY, STATUS,
//! STOPPING, and WATCHDOG only while the loops make progress; without a service manager all of that is nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::service::Health;

/// The two stages of stopping.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take no new work; finish what runs.
    pub drain: CancellationToken,
    /// Do not wait for what runs.
    pub now: CancellationToken,
}

impl Shutdown {
    /// A shutdown that nobody has asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches the process's signals from now on.
    ///
    /// # Errors
    /// When the signals cannot be watched.
    pub fn on_signals(&self) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = self.clone();
        Ok(async move {
            for stage in [&shutdown.drain, &shutdown.now] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                stage.cancel();
            }
        })
    }
}

/// Tells the service manager, if there is one.
pub fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be reached");
    }
}

/// Tells the service manager in words what the daemon is doing.
pub fn tell_status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// Feeds the service manager's watchdog while every loop makes progress (a failed try is progress, a hung one is not).
pub async fn feed_watchdog(health: Health, limit: Duration, stop: CancellationToken) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut starved = false;
    loop {
        let hanging = health.hanging(limit);
        if hanging.is_empty() {
            tell(&[NotifyState::Watchdog]);
        } else if !starved {
            tracing::error!(loops = hanging.join(", "), "no progress; the watchdog is not fed");
        }
        starved = !hanging.is_empty();
        tokio::select! {
            () = tokio::time::sleep(period / 2) => {}
            () = stop.cancelled() => return,
        }
    }
}
