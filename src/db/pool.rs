//! The pool of sessions, opened by the [`Connector`].
//!
//! Its three limits are always set: without them a half-open socket would hold a caller for minutes. The driver's error type
//! cannot be made from outside, so that a failure to find a server travels inside of one (see [`carry`]).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::connect::{ConnectError, Connector, FailureCause};

/// How long a caller waits for a free session.
const WAIT: Duration = Duration::from_secs(30);

/// How long a returned session may take to prove that it is alive.
const RECYCLE: Duration = Duration::from_secs(5);

impl Connector {
    /// A pool of at most `size` sessions. `session_setup` (statements without parameters, or nothing) runs once in each new one.
    pub fn pool(&self, size: usize, recycling: RecyclingMethod, session_setup: &'static str) -> Pool {
        let connect = PoolConnect { connector: self.clone(), session_setup };
        let manager = Manager::from_connect(
            tokio_postgres::Config::new(),
            connect,
            ManagerConfig { recycling_method: recycling },
        );
        let hosts = u32::try_from(self.config().targets.len()).unwrap_or(u32::MAX);
        let create = self.config().connect_timeout.map(|limit| limit.saturating_mul(hosts.saturating_mul(2)));
        Pool::builder(manager)
            .max_size(size.max(1))
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(create.unwrap_or(Duration::from_secs(60))))
            .recycle_timeout(Some(RECYCLE))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a pool with a runtime can always be built")
    }
}

struct PoolConnect {
    connector: Connector,
    session_setup: &'static str,
}

type Connected = Result<(Client, JoinHandle<()>), tokio_postgres::Error>;

impl Connect for PoolConnect {
    fn connect(&self, _: &tokio_postgres::Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        Box::pin(async move {
            match self.connector.connect_with("", self.session_setup).await {
                Ok((client, connection)) => {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "the pool owns this task and ends it with the session"
                    )]
                    let task = tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(error = %error, "a pooled session ended");
                        }
                    });
                    Ok((client, task))
                }
                Err(error) => Err(into_driver_error(error).await),
            }
        })
    }
}

/// The driver's own error where there is one alone, else ours inside of one.
async fn into_driver_error(mut error: ConnectError) -> tokio_postgres::Error {
    if error.failures.len() == 1 && error.sqlstate().is_some() {
        match error.failures.remove(0).cause {
            FailureCause::Postgres(inner) => return inner,
            cause => return carry(std::io::Error::other(cause)).await,
        }
    }
    carry(std::io::Error::other(error)).await
}

/// A driver error whose source is the given one: the driver is made to meet it while it reads.
async fn carry(error: std::io::Error) -> tokio_postgres::Error {
    let mut config = tokio_postgres::Config::new();
    config.user("nobody").ssl_mode(tokio_postgres::config::SslMode::Disable);
    match config.connect_raw(Failing(Some(error)), NoTls).await {
        Err(carrier) => carrier,
        Ok(_) => unreachable!("a stream that only fails gives no session"),
    }
}

/// A stream that takes everything and answers with one error.
struct Failing(Option<std::io::Error>);

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(self.0.take().unwrap_or_else(|| std::io::ErrorKind::NotConnected.into())))
    }
}

impl AsyncWrite for Failing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
