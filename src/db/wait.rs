//! Waiting for a database that is not there yet: asks, sleeps, asks again, ever more slowly.
//!
//! Answering means that a query ran, not that a port is open.

use std::time::Duration;

use tokio::time::Instant;

use super::connect::{ConnectError, Connector};

/// The sleeps between two questions: 1, 2, 4 … 32, then 60 seconds for ever.
pub fn delays() -> impl Iterator<Item = Duration> {
    (0..).map(|step: u32| Duration::from_secs(if step < 6 { 1 << step } else { 60 }))
}

/// Runs `select 1` until it works, for ever or until `timeout` is over; then the last error is returned.
///
/// `on_wait` hears of every failure before its sleep: how many there were, how long the sleep is, and why.
pub async fn wait_for_db(
    connector: &Connector,
    timeout: Option<Duration>,
    mut on_wait: impl FnMut(u32, Duration, &ConnectError),
) -> Result<(), ConnectError> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    for (attempt, delay) in (1..).zip(delays()) {
        let question = Box::pin(connector.connect_with("wait-for-db", "select 1"));
        let answer = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, question)
                .await
                .unwrap_or_else(|_| Err(ConnectError::timed_out(connector, timeout.unwrap_or_default()))),
            None => question.await,
        };
        let Err(error) = answer.map(drop) else { break };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // The last sleep is cut short, so that the end of the time sees one more question.
        let delay = left.map_or(delay, |left| delay.min(left));
        if delay.is_zero() {
            return Err(error);
        }
        on_wait(attempt, delay, &error);
        tokio::time::sleep(delay).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sleeps_double_up_to_a_minute() {
        let seconds: Vec<_> = delays().take(9).map(|delay| delay.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
