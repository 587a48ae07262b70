//! Plugins: folders or zips that bring tables, functions, definitions, schedules, endpoints and commands. Data, never code of
//! the daemon: everything a plugin does at run time is a function in its own schema, run as its own role.
//!
//! `bundle` holds the files, `manifest` reads `plugin.toml`, `installer` changes a database, `bundled` knows what is in this binary,
//! `serve` answers requests to endpoints.

pub mod bundle;
pub mod bundled;
pub mod installer;
pub mod manifest;
pub mod problem;
pub mod scaffold;
pub mod serve;

use refinery::Migration;

use self::bundle::Bundle;
use self::manifest::Manifest;
use self::problem::{Problem, Problems};
use crate::executor::template;

/// A plugin that is well formed: everything that can be said without a database has been checked.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its files.
    pub bundle: Bundle,
    /// Its migrations with the files they stand in, in order.
    pub migrations: Vec<(String, Migration)>,
}

impl Plugin {
    /// Reads and checks the files of a plugin.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(bundle: Bundle) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let text = bundle.files.get(manifest::FILE).map(Vec::as_slice).unwrap_or_default();
        let has_file = |path: &str| bundle.files.contains_key(path);
        let read = Manifest::read(std::str::from_utf8(text).unwrap_or_default(), &has_file);
        let manifest = read.map_err(|found| problems.extend(found)).ok();
        let migrations = migrations(&bundle, &mut problems);
        for folder in ["migrations/", "functions/", "tests/"] {
            for (file, text) in bundle.texts(folder) {
                problems.extend(bundle::forbidden(text).into_iter().map(|(line, words)| {
                    let message = format!(
                        "\"{words}\" is not allowed: the installer ends the transaction and says who runs it"
                    );
                    Problem::at_line(file, line, message)
                }));
            }
        }
        for (file, text) in bundle.texts("templates/") {
            if let Err(problem) = template::check(file, text) {
                problems.push(Problem::of_file(file, problem));
            }
        }
        match manifest {
            Some(manifest) if problems.is_empty() => Ok(Self { manifest, bundle, migrations }),
            _ => Err(Problems(problems)),
        }
    }
}

fn migrations(bundle: &Bundle, problems: &mut Vec<Problem>) -> Vec<(String, Migration)> {
    let mut migrations: Vec<(String, Migration)> = Vec::new();
    for (file, text) in bundle.texts("migrations/") {
        let stem = file.trim_start_matches("migrations/").trim_end_matches(".sql");
        match Migration::unapplied(stem, text) {
            Ok(migration) if stem.starts_with('V') => migrations.push((file.to_owned(), migration)),
            _ => problems.push(Problem::of_file(file, "is misnamed: expected V<number>__<subject>.sql")),
        }
    }
    migrations.sort_by_key(|(_, migration)| migration.version());
    for (expected, (file, migration)) in (1..).zip(&migrations) {
        if migration.version() != expected {
            problems.push(Problem::of_file(
                file,
                format!("migrations are numbered from 1 without holes: expected V{expected}"),
            ));
            break;
        }
    }
    migrations
}
