//! The command line: what can be asked, who answers, and the exit code.
//!
//! Each command is a module of its own. It gets the `Context` and its arguments, prints what was asked for to standard
//! output, and returns a `Failure` for standard error. Only this folder prints.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ContextKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub mod exit;

mod app;
mod argument;
mod backup;
mod change;
mod check;
mod database;
mod demo;
mod failure;
mod images;
mod kafka;
mod listen;
mod migrate;
mod names;
mod output;
mod pause;
mod plugin;
mod plugin_source;
mod postgres;
mod progress;
mod restore;
mod schedule;
mod start;
mod status;
mod task;
mod token;
mod wait_for_db;
mod watch;

use self::database::Context;
use self::exit::Exit;
use self::failure::Failure;

/// One daemon beside your Postgres: rows become tasks, table changes become tasks, schedules become tasks.
#[derive(Debug, Parser)]
#[command(name = "rowbeat", version, max_term_width = 110, after_help = AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, clap::Args)]
struct Global {
    /// The configuration file (default: /etc/rowbeat/rowbeat.toml, if it is there).
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Folder of the private Postgres, which is used when no database is configured.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON for machines instead of tables for people.
    #[arg(long, global = true)]
    json: bool,
}

impl Global {
    /// Takes these options out of arguments that clap did not read; after `--` nothing is an option.
    fn take(arguments: Vec<OsString>) -> (Self, Vec<OsString>) {
        let (mut global, mut rest) = (Self::default(), Vec::new());
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy();
            let (name, value) =
                text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value)));
            let mut value = || value.map(PathBuf::from).or_else(|| arguments.next().map(PathBuf::from));
            match name {
                "--json" => global.json = true,
                "--config" => global.config = value(),
                "--data-dir" | "--data_dir" => global.data_dir = value(),
                "--" => {
                    rest.push(argument);
                    rest.extend(arguments);
                    break;
                }
                _ => rest.push(argument),
            }
        }
        (global, rest)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(start::Arguments),
    Demo(demo::Arguments),
    Migrate(migrate::Arguments),
    Check(check::Arguments),
    WaitForDb(wait_for_db::Arguments),
    #[command(subcommand)]
    Task(task::Arguments),
    /// Start no more tasks of a definition or a queue; those that run go on.
    #[command(after_help = "Example:\n  rowbeat pause --queue mail")]
    Pause(pause::Arguments),
    /// End a pause.
    #[command(after_help = "Example:\n  rowbeat resume --queue mail")]
    Resume(pause::Arguments),
    #[command(subcommand)]
    Schedule(schedule::Arguments),
    #[command(subcommand)]
    Watch(watch::Arguments),
    #[command(subcommand)]
    Change(change::Arguments),
    #[command(subcommand)]
    Backup(backup::Arguments),
    Restore(restore::Arguments),
    #[command(subcommand)]
    Plugin(plugin::Arguments),
    App(app::Arguments),
    #[command(subcommand)]
    Token(token::Arguments),
    #[command(subcommand)]
    Kafka(kafka::Arguments),
    /// The same as plugin install, but what is installed is a failure.
    #[command(hide = true)]
    InstallPlugin(plugin::Install),
    /// Run the daemon in the foreground and print what is heard on channels: those that plugins announce, and those that it makes tasks of.
    ///
    /// It does all the work that `start` does. Also known as psql_listener.
    #[command(alias = "psql-listener", after_help = "Example:\n  rowbeat listen --http off")]
    Listen(start::Arguments),
    Status(status::Arguments),
    #[command(hide = true)]
    Postgres(postgres::Arguments),
}

const AFTER_HELP: &str = "\
In command names _ equals - : wait_for_db is wait-for-db.

Exit codes:
   0  success
   1  the command failed
   2  wrong usage
  69  the database cannot be reached
  78  the configuration or the schema does not fit

Example:
  rowbeat demo";

/// Runs the command of these arguments; the first one is the program's name.
pub fn main(argv: impl IntoIterator<Item = OsString>) -> ExitCode {
    let argv = names::normalise(&mut Arguments::command(), argv.into_iter().collect());
    let asked = Arguments::command()
        .try_get_matches_from(argv.clone())
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no runtime: {error}")))
        .and_then(|runtime| runtime.block_on(Box::pin(run_or_look_up(asked, argv))));
    match ended {
        Ok(()) => Exit::Success.into(),
        Err(failure) => {
            failure.print();
            failure.exit.into()
        }
    }
}

/// What is no command of ours may be one of a plugin, by its own name.
async fn run_or_look_up(asked: Result<Arguments, clap::Error>, argv: Vec<OsString>) -> Result<(), Failure> {
    let error = match asked {
        Ok(arguments) => return Box::pin(run(arguments)).await,
        Err(error) => error,
    };
    let (global, rest) = Global::take(argv.into_iter().skip(1).collect());
    let unknown = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string);
    let first = rest.first().and_then(|first| first.to_str());
    if unknown.as_deref().is_some_and(|unknown| Some(unknown) == first)
        && Box::pin(app::by_alias(global, &rest)).await?
    {
        return Ok(());
    }
    Err(Failure::new("").exit(failure::print_usage(&error)))
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let context = Context::new(arguments.global);
    match arguments.command {
        Command::Start(arguments) => start::run(&context, arguments).await,
        Command::Demo(arguments) => demo::run(&context, arguments).await,
        Command::Migrate(arguments) => migrate::run(&context, arguments).await,
        Command::Check(arguments) => check::run(&context, arguments).await,
        Command::WaitForDb(arguments) => wait_for_db::run(&context, arguments).await,
        Command::Task(arguments) => task::run(&context, arguments).await,
        Command::Pause(arguments) => pause::pause(&context, arguments).await,
        Command::Resume(arguments) => pause::resume(&context, arguments).await,
        Command::Schedule(arguments) => schedule::run(&context, arguments).await,
        Command::Watch(arguments) => watch::run(&context, arguments).await,
        Command::Change(arguments) => change::run(&context, arguments).await,
        Command::Backup(arguments) => backup::run(&context, arguments).await,
        Command::Restore(arguments) => restore::run(&context, arguments).await,
        Command::Plugin(arguments) => plugin::run(&context, arguments).await,
        Command::App(arguments) => app::run(context, arguments).await,
        Command::Token(arguments) => token::run(&context, arguments).await,
        Command::Kafka(arguments) => kafka::run(&context, arguments).await,
        Command::InstallPlugin(arguments) => plugin::install_new(&context, &arguments).await,
        Command::Listen(arguments) => listen::run(&context, arguments).await,
        Command::Status(arguments) => status::run(&context, arguments).await,
        Command::Postgres(arguments) => postgres::run(&context, arguments).await,
    }
}
