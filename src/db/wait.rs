//! Waiting for a database that is not there yet: asks, sleeps, asks again, ever more slowly.
//!
//! Answering means that a query ran, not that a port is open.

use std::time::Duration;

use tokio::time::Instant;

use super::connect::{ConnectError, Connector};

/// What the question at the end of the time is given.
const LAST_QUESTION: Duration = Duration::from_millis(500);

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
    let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let mut last = None;
    for (attempt, delay) in (1..).zip(delays()) {
        let question = Box::pin(connector.connect_with("wait-for-db", "select 1"));
        // The server that does not answer at all must not hold us longer than the caller wants to wait.
        let answer = match left() {
            Some(left) => tokio::time::timeout(left.max(LAST_QUESTION), question).await.ok(),
            None => Some(question.await),
        };
        let error = match answer {
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => error,
            None => {
                last.take().unwrap_or_else(|| ConnectError::timed_out(connector, timeout.unwrap_or_default()))
            }
        };
        // The last sleep is cut short, so that the end of the time sees one more question.
        let delay = left().map_or(delay, |left| delay.min(left));
        if delay.is_zero() {
            return Err(error);
        }
        on_wait(attempt, delay, &error);
        last = Some(error);
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
