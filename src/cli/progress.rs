//! What a statement says while it runs, on standard error: notices are lines as soon as they are raised, and those that tell a share of
//! the work move a bar, on a terminal and nowhere else. Standard output is left to what was committed.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Connection, Socket};

use crate::db::connect::TlsStream;

/// What has been shown so far.
#[derive(Default)]
pub(super) struct Progress {
    bar: OnceCell<ProgressBar>,
}

impl Progress {
    /// Drives a connection to its end and shows its notices.
    pub(super) async fn follow(&self, mut connection: Connection<Socket, TlsStream>) {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                self.show(&notice);
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }

    fn show(&self, notice: &DbError) {
        let Some((done, of)) = notice.detail().and_then(share) else {
            // Nobody may be reading; the work goes on.
            let say = || drop(writeln!(std::io::stderr(), "{}", notice.message()));
            return match self.bar.get() {
                Some(bar) => bar.suspend(say),
                None => say(),
            };
        };
        let bar = self.bar.get_or_init(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {percent}%, {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(of).with_style(style)
        });
        bar.set_message(notice.message().to_owned());
        bar.set_length(of);
        bar.set_position(done);
    }
}

/// `30/100`.
fn share(detail: &str) -> Option<(u64, u64)> {
    let (done, of) = detail.split_once('/')?;
    Some((done.parse().ok()?, of.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_numbers_are_a_share() {
        assert_eq!(share("30/100"), Some((30, 100)));
        for other in ["", "/", "3 of 4", "-1/2", "1/2/3", "half/1"] {
            assert_eq!(share(other), None, "{other}");
        }
    }
}
