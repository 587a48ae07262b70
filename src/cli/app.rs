//! `rowbeat app PLUGIN COMMAND …`: commands that plugins declare. Which there are, and what they take, is read from the database; clap does
//! the rest, so help, mistakes and spelling are as everywhere.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value, json};

use super::database::Context;
use super::exit::Exit;
use super::failure::{self, Failure};
use super::progress::Progress;
use super::{Global, argument, names, output};
use crate::db::query;
use crate::plugin::manifest::{self, Field};

/// Run a command of a plugin; without one, list them.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  rowbeat app\n  rowbeat app loyalty award-all --async\n  rowbeat app loyalty award-all --help"
)]
pub(super) struct Arguments {
    /// The plugin, its command, and the command's own arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PLUGIN COMMAND ARGUMENTS")]
    rest: Vec<OsString>,
}

/// A command and whose it is.
#[derive(Debug, serde::Deserialize)]
struct Declared {
    plugin: String,
    #[serde(flatten)]
    command: manifest::Command,
}

pub(super) async fn run(context: Context, arguments: Arguments) -> Result<(), Failure> {
    let (context, rest) = context.with_globals_of(arguments.rest);
    let all = commands(&context).await?;
    let Some(plugin) = rest.first() else { return list(&context, &all) };
    if plugin == "--help" || plugin == "-h" {
        output::line("Usage: rowbeat app PLUGIN COMMAND [ARGUMENTS]\n")?;
        return list(&context, &all);
    }
    let mut root = Command::new("rowbeat app").bin_name("rowbeat app").disable_help_subcommand(true);
    for plugin in all.iter().map(|one| &one.plugin) {
        let kebab = plugin.replace('_', "-");
        if root.find_subcommand(&kebab).is_none() {
            let of = all.iter().filter(|one| one.plugin == *plugin);
            let group = Command::new(kebab);
            root = root.subcommand(
                of.fold(group, |group, one| group.subcommand(clap_command(&one.command)))
                    .subcommand_required(true)
                    .arg_required_else_help(true),
            );
        }
    }
    let line = std::iter::once("rowbeat app".into()).chain(rest).collect();
    let line = names::normalise(&mut root, line);
    let matches = match root.try_get_matches_from(line) {
        Ok(matches) => matches,
        Err(error) => return Err(usage(&error)),
    };
    let Some((plugin, inner)) = matches.subcommand() else { return list(&context, &all) };
    let Some((name, given)) = inner.subcommand() else { return list(&context, &all) };
    let found = all.iter().find(|one| one.plugin.replace('_', "-") == plugin && one.command.name == name);
    let Some(found) = found else { return list(&context, &all) };
    perform(&context, found, given).await
}

/// Runs the command that has this name in any plugin; false: there is none.
pub(super) async fn by_alias(global: Global, line: &[OsString]) -> Result<bool, Failure> {
    let Some(name) = line.first().and_then(|name| name.to_str()) else { return Ok(false) };
    let (context, name) = (Context::new(global), name.replace('_', "-"));
    // Whoever mistyped a command does not wait for a database, or hear of it.
    let Ok(Ok(all)) = tokio::time::timeout(std::time::Duration::from_secs(3), commands(&context)).await
    else {
        return Ok(false);
    };
    let fits = |one: &&Declared| one.command.name == name || one.command.aliases.contains(&name);
    let fitting: Vec<&Declared> = all.iter().filter(fits).collect();
    match fitting.as_slice() {
        [] => Ok(false),
        [one] => {
            let mut rest: Vec<OsString> = vec![one.plugin.clone().into(), one.command.name.clone().into()];
            rest.extend(line[1..].iter().cloned());
            run(context, Arguments { rest }).await.map(|()| true)
        }
        several => {
            let lines = several.iter().map(|one| format!("rowbeat app {} {}", one.plugin, one.command.name));
            Err(Failure::new(format!("{name} is a command of several plugins"))
                .exit(Exit::Usage)
                .remedy(lines.collect::<Vec<_>>().join("\n")))
        }
    }
}

async fn commands(context: &Context) -> Result<Vec<Declared>, Failure> {
    let rows = context.db().await?.rows("app.commands", &[]).await?;
    Ok(rows.iter().filter_map(|row| serde_json::from_value(row.get::<_, Value>("command")).ok()).collect())
}

fn list(context: &Context, all: &[Declared]) -> Result<(), Failure> {
    if context.json() {
        return output::json(
            &all.iter()
                .map(|one| json!({ "plugin": one.plugin, "command": one.command }))
                .collect::<Vec<_>>(),
        );
    }
    if all.is_empty() {
        return output::line("no commands: no installed plugin has any");
    }
    let rows = all.iter().map(|one| {
        [
            one.plugin.clone(),
            one.command.name.clone(),
            one.command.aliases.join(", "),
            one.command.description.clone(),
        ]
    });
    output::line(output::table(["plugin", "command", "aliases", "description"], rows))
}

/// Help is no mistake; of a mistake everything is said by then.
fn usage(error: &clap::Error) -> Failure {
    Failure::new("").exit(failure::print_usage(error))
}

fn clap_command(declared: &manifest::Command) -> Command {
    let mut command = Command::new(declared.name.clone())
        .about(declared.description.clone())
        .aliases(declared.aliases.clone())
        .disable_version_flag(true);
    if declared.task.is_some() && declared.function.is_some() {
        let help = "Enqueue it as a task and print its id, instead of running it now";
        command = command.arg(Arg::new("async").long("async").action(ArgAction::SetTrue).help(help));
    }
    // What is asked for may be missing; of positions that follow it, too, as far as clap is concerned.
    let mut asked = false;
    for field in &declared.arguments {
        let excused = field.prompt.is_some() || (asked && field.positional);
        asked |= field.prompt.is_some() && field.positional;
        let mut arg = Arg::new(field.name.clone()).help(help(field)).value_name(field.name.to_uppercase());
        if !field.positional {
            arg = arg.long(field.name.replace('_', "-"));
        }
        if field.kind == "boolean" && !field.positional && !field.list {
            // --truncate means yes; --truncate=false is possible, too.
            arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
        } else if field.list {
            arg = arg.num_args(1..).action(ArgAction::Append);
        } else {
            // What is wrong with a negative number is not for clap to say.
            arg = arg.allow_negative_numbers(true);
        }
        command = command.arg(arg.required(field.required && !excused));
    }
    command
}

fn help(field: &Field) -> String {
    let mut help = field.description.clone();
    let mut more = vec![match field.kind.as_str() {
        "file" => "a file, - is standard input".to_owned(),
        "date" => "date, YYYY-MM-DD".to_owned(),
        kind => kind.to_owned(),
    }];
    more.extend(field.rules.iter().map(|(rule, bound)| format!("{} {bound}", rule.replace('_', " "))));
    more.extend(field.default.as_ref().map(|default| format!("default {}", output::cell(default))));
    if !help.is_empty() {
        help.push(' ');
    }
    help.push_str(&format!("[{}]", more.join(", ")));
    help
}

async fn perform(context: &Context, declared: &Declared, given: &ArgMatches) -> Result<(), Failure> {
    let (plugin, command) = (&declared.plugin, &declared.command);
    let (mut arguments, mut generated) = (Map::new(), Map::new());
    for field in &command.arguments {
        let texts = given.get_many::<String>(&field.name).into_iter().flatten();
        let texts: Vec<&str> = texts.map(String::as_str).collect();
        arguments.insert(field.name.clone(), argument::read(field, &texts, &mut generated)?);
    }
    let arguments = Value::Object(arguments);
    let (client, connection) = context.connector()?.connect("app").await?;
    let work = async {
        let later = command.function.is_none() || (command.task.is_some() && given.get_flag("async"));
        if let Some(task) = command.task.as_ref().filter(|_| later) {
            let id: i64 = client.query_one(query::text("app.enqueue"), &[task, &arguments]).await?.get("id");
            if context.json() {
                return output::json(&told(json!({ "task": id }), generated));
            }
            let queued = command.queued.as_deref().unwrap_or("task {id}");
            output::line(queued.replace("{id}", &id.to_string()))?;
            return print_generated(&generated);
        }
        // The lines are those of a committed transaction.
        let rows = client.query(query::text("app.run"), &[plugin, &command.name, &arguments]).await?;
        let lines: Vec<Option<String>> = rows.iter().map(|row| row.get("line")).collect();
        if context.json() {
            return output::json(&told(json!({ "lines": lines }), generated));
        }
        lines.iter().flatten().try_for_each(output::line)?;
        print_generated(&generated)
    };
    let progress = Progress::default();
    let done = tokio::select! {
        done = work => done,
        () = progress.follow(connection) => Err(Failure::new("the connection to the database ended").exit(Exit::Unavailable)),
    };
    progress.clear();
    done
}

/// A document with the passwords that were made for it.
fn told(mut document: Value, generated: Map<String, Value>) -> Value {
    if !generated.is_empty() {
        document["generated"] = generated.into();
    }
    document
}

/// The passwords that were made, once the command has done its work: nobody can tell them later.
fn print_generated(generated: &Map<String, Value>) -> Result<(), Failure> {
    generated
        .iter()
        .try_for_each(|(name, password)| output::line(format!("{name}: {}", output::cell(password))))
}
