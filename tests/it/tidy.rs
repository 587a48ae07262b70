//! The tree keeps its own rules: lengths, names, floors, comments, and documents that name what there is. Each failure
//! says what to do. Everything is read as text, by rules that fit how this tree is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MOST_LINES: usize = 400;

/// Modules by floor; the longest prefix counts. Imports go strictly down; on the same floor only modules of one noun may import each
/// other, and those that `SIDEWAYS` lists (no circles). A parent that names its children is composition, no import.
const FLOORS: [(&str, u8); 36] = [
    ("main", 5),
    ("lib", 5),
    ("cli", 5),
    ("daemon", 5),
    ("status", 4),
    ("plugin", 4),
    ("change::router", 3),
    ("backup::keeper", 3),
    ("backup::mirror", 3),
    ("schedule::scheduler", 3),
    ("task::dispatcher", 3),
    ("task::node", 3),
    ("task::rescuer", 3),
    ("task::pruner", 3),
    ("task::completer", 1),
    ("channel", 3),
    ("db::listener", 3),
    ("task::attempt", 2),
    ("executor::exec", 2),
    ("executor::http", 2),
    ("executor::kafka", 2),
    ("executor::native", 2),
    ("executor::smtp", 2),
    ("executor::sql", 2),
    ("executor::template", 2),
    ("task", 1),
    ("change", 1),
    ("backup", 1),
    ("schedule", 1),
    ("executor", 1),
    ("plugin::bundle", 1),
    ("plugin::manifest", 1),
    ("plugin::problem", 1),
    ("config", 0),
    ("db", 0),
    ("service", 0),
];
/// Floor 0 without a row above: `shutdown` and `telemetry`.
const GROUND: [&str; 2] = ["shutdown", "telemetry"];

/// Same floor, other noun: who may import whom, and why.
const SIDEWAYS: [(&str, &str); 11] = [
    ("main", "cli"),
    ("cli", "daemon"),
    // What the listener hears is what becomes tasks.
    ("channel", "db::listener"),
    // An effect carries its task; the store writes effects down. The task itself knows no executor.
    ("executor", "task"),
    ("task::store", "executor"),
    // The one executor whose effect is its own record: the attempt has to tell it from the others.
    ("task::attempt", "executor::sql"),
    // Requests to endpoints are counted where the metrics are; health in five words is told from the same.
    ("plugin::serve", "status"),
    ("db", "config"),
    ("telemetry", "config"),
    // A loop waits for the bell and fails with the database's errors.
    ("service", "db"),
    ("shutdown", "service"),
];

/// Imports against the rule that are known and to be undone: (importer, imported). Remove the line with the import.
const DEBTS: [(&str, &str); 0] = [];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_default()
}

/// The files with this ending below a folder, with their path from the root, in order.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let name = path.strip_prefix(ROOT).unwrap().to_string_lossy().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, ".rs")).collect()
}

/// Migrations, functions and triggers, as one text a file.
fn schema_sql() -> Vec<(String, String)> {
    ["refinery_migrations", "sql/functions", "triggers"]
        .iter()
        .flat_map(|folder| files(folder, ".sql"))
        .collect()
}

fn nothing(found: &[String], what_to_do: &str) {
    assert!(found.is_empty(), "{what_to_do}\n  {}", found.join("\n  "));
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// What follows each occurrence of `start`.
fn after<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).map(move |(at, _)| &text[at + start.len()..])
}

#[test]
fn files_are_short_and_named_by_what_they_do() {
    let sources = sources();
    assert!(sources.len() > 50, "the sources were not found below {ROOT}");
    let long: Vec<String> = sources
        .iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    nothing(&long, "split these files by the questions they answer (400 lines at most):");
    let vague: Vec<String> = sources
        .iter()
        .filter(|(name, _)| {
            let stem = Path::new(name).file_stem().unwrap().to_string_lossy().into_owned();
            ["mod", "util", "utils", "types", "helper", "helpers", "common", "misc"].contains(&stem.as_str())
        })
        .map(|(name, _)| name.clone())
        .collect();
    nothing(&vague, "name these files by what they do (a noun's file is X.rs beside the folder X):");
}

/// The module of a source file: `src/db/query.rs` is `db::query`.
fn module(file: &str) -> String {
    file.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::")
}

fn within(module: &str, of: &str) -> bool {
    module == of || module.strip_prefix(of).is_some_and(|rest| rest.starts_with("::"))
}

fn floor(module: &str) -> Option<u8> {
    let known = FLOORS.iter().copied().chain(GROUND.map(|name| (name, 0)));
    known.filter(|(name, _)| within(module, name)).max_by_key(|(name, _)| name.len()).map(|(_, floor)| floor)
}

/// The paths of a use tree: `db::{query, tls::{a, b}}` is four of them.
fn expand(tree: &str, prefix: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        paths.push(format!("{prefix}{}", tree.split_whitespace().next().unwrap_or_default()));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut begun) = (0, 0);
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            ',' if depth == 0 => {
                expand(&rest[begun..at], &prefix, paths);
                begun = at + 1;
            }
            '}' if depth == 0 => return expand(&rest[begun..at], &prefix, paths),
            '}' => depth -= 1,
            _ => {}
        }
    }
}

/// Everything of this crate that a file names by `crate::` (in `use` or in passing) or imports by `super::`.
fn imports(file: &str, text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
    let mut paths = Vec::new();
    for rest in after(&code, "use crate::") {
        expand(rest.split(';').next().unwrap(), "", &mut paths);
    }
    for (at, _) in code.match_indices("crate::") {
        if !code[..at].ends_with("use ") {
            let path = code[at + 7..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
            paths.extend(path.take(1).map(str::to_owned));
        }
    }
    let parent = module(file).rsplit_once("::").map(|(parent, _)| format!("{parent}::")).unwrap_or_default();
    for rest in after(&code, "\nuse super::") {
        expand(rest.split(';').next().unwrap(), &parent, &mut paths);
    }
    paths
}

#[test]
fn imports_go_down_the_floors() {
    let sources = files("src", ".rs");
    let modules: BTreeSet<String> = sources.iter().map(|(file, _)| module(file)).collect();
    let homeless: Vec<String> = modules.iter().filter(|module| floor(module).is_none()).cloned().collect();
    nothing(&homeless, "give these modules a floor in FLOORS of tests/it/tidy.rs:");
    let (mut wrong, mut debts) = (Vec::new(), BTreeSet::new());
    for (file, text) in &sources {
        let from = module(file);
        let top = |module: &str| module.split("::").next().unwrap().to_owned();
        for path in imports(file, text) {
            let Some(to) = modules.iter().filter(|module| within(&path, module)).max_by_key(|m| m.len())
            else {
                continue;
            };
            let (from_floor, to_floor) = (floor(&from).unwrap(), floor(to).unwrap());
            let same_floor = from_floor == to_floor
                && (top(&from) == top(to)
                    || SIDEWAYS.iter().any(|(who, whom)| within(&from, who) && within(to, whom)));
            if from_floor > to_floor || same_floor {
                continue;
            }
            match DEBTS.iter().find(|(who, whom)| from == *who && to == whom) {
                Some(debt) => _ = debts.insert(debt),
                None => wrong.push(format!("{file} (floor {from_floor}) uses {path} (floor {to_floor})")),
            }
        }
    }
    nothing(&wrong, "move what is needed down, or hand it over from above; imports go strictly down:");
    let paid: Vec<String> =
        DEBTS.iter().filter(|debt| !debts.contains(debt)).map(|(a, b)| format!("{a} -> {b}")).collect();
    nothing(&paid, "these imports are gone: remove them from DEBTS of tests/it/tidy.rs:");
}

#[test]
fn only_service_and_the_pool_spawn() {
    let allowed = ["src/service.rs", "src/db/pool.rs"];
    let spawning: Vec<String> = files("src", ".rs")
        .into_iter()
        .filter(|(name, text)| text.contains("tokio::spawn") && !allowed.contains(&name.as_str()))
        .map(|(name, _)| name)
        .collect();
    nothing(&spawning, "run it as a service or in the crew (src/service.rs), so that shutdown waits for it:");
}

/// The columns of a `create table`, from the text after its name: one a line, four spaces deep.
fn columns(body: &str) -> Vec<&str> {
    body.lines()
        .skip(1)
        .take_while(|line| !line.starts_with(')'))
        .filter_map(|line| line.strip_prefix("    "))
        .map(word)
        .filter(|name| !["", "constraint", "primary", "unique", "check", "foreign", "exclude"].contains(name))
        .collect()
}

#[test]
fn tables_columns_views_and_functions_have_comments() {
    let all = schema_sql();
    let text: String = all.iter().map(|(_, text)| text.as_str()).collect();
    let mut missing = Vec::new();
    let mut seen = BTreeMap::from([("table", 0), ("column", 0), ("view", 0), ("function", 0)]);
    let mut need = |file: &str, kind: &'static str, name: &str, end: &str| {
        *seen.get_mut(kind).unwrap() += 1;
        if !text.contains(&format!("comment on {kind} rowbeat.{name}{end}")) {
            missing.push(format!("{file}: comment on {kind} rowbeat.{name}"));
        }
    };
    for (file, sql) in &all {
        for table in after(sql, "create table rowbeat.").filter(|rest| !rest.starts_with('%')) {
            need(file, "table", word(table), " is");
            let partition = table[word(table).len()..].trim_start().starts_with("partition of");
            for column in columns(table).into_iter().filter(|_| !partition) {
                need(file, "column", &format!("{}.{column}", word(table)), " is");
            }
        }
        for altered in after(sql, "alter table rowbeat.") {
            let statement = altered.split(';').next().unwrap();
            for column in after(statement, "add column ") {
                let column = column.trim_start_matches("if not exists ");
                need(file, "column", &format!("{}.{}", word(altered), word(column)), " is");
            }
        }
        for view in after(sql, "create or replace view rowbeat.") {
            need(file, "view", word(view), " is");
        }
        for function in after(sql, "create or replace function rowbeat.") {
            need(file, "function", word(function), "(");
        }
    }
    nothing(&missing, "write these, beside what they explain:");
    assert!(seen.values().all(|count| *count > 4), "too little was found to be true: {seen:?}");
}

/// All `RBnnn` in a text.
fn states(text: &str) -> BTreeSet<String> {
    after(text, "RB")
        .map(|rest| word(rest).to_owned())
        .filter(|digits| digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()))
        .map(|digits| format!("RB{digits}"))
        .collect()
}

#[test]
fn sqlstates_are_the_same_in_sql_rust_and_the_documents() {
    let raised: BTreeSet<String> = schema_sql()
        .iter()
        .flat_map(|(_, sql)| after(sql, "errcode = '").map(|rest| word(rest).to_owned()).collect::<Vec<_>>())
        .filter(|state| state.starts_with("RB"))
        .collect();
    assert!(!raised.is_empty(), "no raised SQLSTATE was found");
    let known: BTreeSet<String> =
        rowbeat::db::sqlstate::ALL.iter().map(|refusal| refusal.code.to_owned()).collect();
    assert_eq!(raised, known, "make src/db/sqlstate.rs (right) list what the SQL files raise (left)");
    let written = states(&read("docs/operations.md"));
    assert_eq!(raised, written, "make docs/operations.md (right) explain what the SQL files raise (left)");
}

#[test]
fn named_queries_and_their_uses_agree() {
    let named: BTreeSet<String> = rowbeat::db::query::all().map(|(name, _)| name.to_owned()).collect();
    let mut used = BTreeMap::new();
    // The configuration looks its keys up by calls of the same names.
    let sources = files("src", ".rs").into_iter().filter(|(file, _)| !file.starts_with("src/config"));
    for (file, text) in sources {
        for call in ["row(", "rows(", "text(", "look(", "statement: "] {
            for rest in after(&text, call) {
                let Some(literal) = rest.trim_start().strip_prefix('"') else { continue };
                let literal = literal.split('"').next().unwrap();
                if literal
                    .split_once('.')
                    .is_some_and(|(noun, name)| word(noun) == noun && word(name) == name)
                {
                    used.insert(literal.to_owned(), file.clone());
                }
            }
        }
    }
    let unknown: Vec<String> = used
        .iter()
        .filter(|(name, _)| !named.contains(*name))
        .map(|(name, file)| format!("{name} in {file}"))
        .collect();
    nothing(&unknown, "write these statements into sql/queries/<noun>.sql, or correct the name:");
    let unused: Vec<String> = named.into_iter().filter(|name| !used.contains_key(name)).collect();
    nothing(&unused, "remove these statements from sql/queries, or use them:");
}

#[test]
fn every_command_is_in_the_documents() {
    let help = std::process::Command::new(crate::harness::BINARY).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .map(|line| line.split(' ').next().unwrap())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 5, "no commands found in\n{help}");
    let documents = read("README.md") + &read("docs/operations.md");
    let missing: Vec<String> = commands
        .iter()
        .map(|name| format!("rowbeat {name}"))
        .filter(|command| {
            !after(&documents, command)
                .any(|rest| !rest.starts_with(|c: char| c == '-' || c.is_alphanumeric()))
        })
        .collect();
    nothing(&missing, "name these commands in README.md or docs/operations.md:");
}

#[test]
fn a_task_is_called_a_task() {
    // The glossary may name what is banned.
    let mut texts: Vec<(String, String)> =
        ["src", "sql", "triggers", "refinery_migrations", "systemd", "docs"]
            .iter()
            .flat_map(|folder| files(folder, ""))
            .filter(|(name, _)| name != "docs/glossary.md" && name != "docs/style.md")
            .collect();
    texts.push(("README.md".to_owned(), read("README.md")));
    let mut wrong = Vec::new();
    for (name, text) in &texts {
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
            if words.any(|word| word == "job" || word == "jobs") {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    nothing(&wrong, "say task, or reword:");
}
