//! `rowbeat postgres` (hidden): only the private Postgres, for tests and experiments.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::database::Context;
use super::failure::Failure;
use super::output;
use crate::daemon::PRIVATE_DATABASE;
use crate::db::embedded::{Options, PrivatePostgres};
use crate::shutdown::Shutdown;

/// Run only the private Postgres, until standard input closes or a signal comes.
///
/// When it is up, one line of JSON tells how to reach it: {"psql", "socket", "port"}.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rowbeat postgres --temporary --fast -c max_connections=200")]
pub(super) struct Arguments {
    /// Give up safety against a crash of the machine for speed.
    #[arg(long)]
    fast: bool,
    /// A setting of the server; may be repeated.
    #[arg(short = 'c', value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Folder of the server's programs.
    #[arg(long, value_name = "DIR")]
    bindir: Option<std::path::PathBuf>,
    /// Use a new directory that is removed in the end.
    #[arg(long, conflicts_with = "data_dir")]
    temporary: bool,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write name=value".into()),
    }
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let shutdown = Shutdown::new();
    let signals = shutdown.on_signals()?;
    let folder = if arguments.temporary { Some(temporary_folder()?) } else { None };
    let mut options = Options {
        durable: !arguments.fast,
        settings: arguments.settings,
        bindir: arguments.bindir,
        ..Options::default()
    };
    match &folder {
        Some(folder) => options.data_dir = Some(folder.join("pg")),
        None => options.data_dir = context.config()?.private_postgres.data_dir,
    }
    let ended = tokio::select! {
        ended = serve(options) => ended,
        () = signals => Ok(()),
        // Its start is given up: dropping it stops the server.
        () = shutdown.drain.cancelled() => Ok(()),
    };
    if let Some(folder) = folder {
        std::fs::remove_dir_all(folder)?;
    }
    ended
}

async fn serve(options: Options) -> Result<(), Failure> {
    let private = PrivatePostgres::start(options).await?;
    private.create_database(PRIVATE_DATABASE).await?;
    let server = private.server();
    output::line(
        json!({ "psql": private.psql_command(PRIVATE_DATABASE), "socket": server.socket_folder, "port": server.port })
            .to_string(),
    )?;
    let (sender, closed) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: a runtime would wait for the read when a signal ends the command.
    std::thread::spawn(move || {
        // Whatever it says: that it ended is what counts.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(sender);
    });
    let _ = closed.await;
    Ok(private.stop().await?)
}

/// A new folder that the server's account may pass through.
pub(super) fn temporary_folder() -> std::io::Result<std::path::PathBuf> {
    loop {
        let folder = std::env::temp_dir().join(format!("rowbeat-{:08x}", fastrand::u32(..)));
        match std::fs::create_dir(&folder) {
            Ok(()) => {
                std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
                return Ok(folder);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}
