//! `_` equals `-` in the names of commands and options; their values are left alone.

use std::ffi::OsString;

use clap::Command;

/// The same arguments with the canonical spelling of every command and option name.
pub(super) fn normalise(command: &mut Command, argv: Vec<OsString>) -> Vec<OsString> {
    command.build();
    let mut command = &*command;
    let mut spelt = Vec::with_capacity(argv.len());
    let mut arguments = argv.into_iter();
    spelt.extend(arguments.next());
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.to_str().map(str::to_owned) else {
            spelt.push(argument);
            continue;
        };
        if text == "--" {
            spelt.push(argument);
            break;
        }
        if let Some(option) = text.strip_prefix("--") {
            let (name, value) =
                option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            let name = name.replace('_', "-");
            let known = command.get_arguments().find(|known| known.get_long() == Some(&name));
            spelt.push(match (known, value) {
                (Some(_), Some(value)) => format!("--{name}={value}").into(),
                (Some(_), None) => format!("--{name}").into(),
                (None, _) => argument,
            });
            if value_follows(known, value.is_none()) {
                spelt.extend(arguments.next());
            }
        } else if let Some(option) = text.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            let known = command.get_arguments().find(|known| known.get_short() == option.chars().next());
            let alone = option.chars().count() == 1;
            spelt.push(argument);
            if value_follows(known, alone) {
                spelt.extend(arguments.next());
            }
        } else if let Some(next) = command.find_subcommand(text.replace('_', "-")) {
            spelt.push(text.replace('_', "-").into());
            command = next;
        } else {
            spelt.push(argument);
        }
    }
    spelt.extend(arguments);
    spelt
}

fn value_follows(option: Option<&clap::Arg>, no_value_yet: bool) -> bool {
    no_value_yet && option.is_some_and(|option| option.get_action().takes_values())
}
