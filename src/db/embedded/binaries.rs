//! Finding the server programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::EmbeddedError;

/// A folder with `initdb` and `postgres`, and their major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) bindir: PathBuf,
    pub(super) major: u32,
}

/// The programs to use: those of the named folder, else the newest that are installed; with a data directory there already,
/// those of its major version.
pub(super) fn choose(bindir: Option<&Path>, data: Option<(PathBuf, u32)>) -> Result<Binaries, EmbeddedError> {
    let found = match bindir {
        Some(bindir) => vec![
            inspect(bindir).map_err(|missing| EmbeddedError::BadBindir { bindir: bindir.into(), missing })?,
        ],
        None => installed()?,
    };
    let Some((data_dir, data)) = data else {
        // Of equals the first: pg_config knows better than PATH.
        return found
            .into_iter()
            .rev()
            .max_by_key(|binaries| binaries.major)
            .ok_or(EmbeddedError::NoBinaries { looked: String::new() });
    };
    let majors = found.iter().map(|binaries| binaries.major.to_string()).collect::<Vec<_>>().join(", ");
    found.into_iter().find(|binaries| binaries.major == data).ok_or(EmbeddedError::WrongMajor {
        data_dir,
        data,
        found: majors,
    })
}

fn installed() -> Result<Vec<Binaries>, EmbeddedError> {
    let mut folders: Vec<PathBuf> = pg_config().into_iter().collect();
    for (parent, below) in [
        ("/usr/lib/postgresql", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "bin"),
        ("/Library/PostgreSQL", "bin"),
    ] {
        folders.extend(children(Path::new(parent)).map(|child| child.join(below)));
    }
    folders.extend(
        children(Path::new("/usr"))
            .filter(|child| {
                child.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgsql-"))
            })
            .map(|child| child.join("bin")),
    );
    folders.extend(["/usr/bin", "/usr/local/bin", "/usr/local/pgsql/bin"].map(PathBuf::from));
    folders.extend(on_path("postgres"));
    let mut seen = std::collections::BTreeSet::new();
    folders.retain(|folder| {
        std::fs::canonicalize(folder.join("postgres")).is_ok_and(|program| seen.insert(program))
    });
    let found: Vec<_> = folders.iter().filter_map(|folder| inspect(folder).ok()).collect();
    if found.is_empty() {
        let looked = "pg_config --bindir, /usr/lib/postgresql/*/bin, /usr/bin, /usr/local, Homebrew, Postgres.app, PATH";
        return Err(EmbeddedError::NoBinaries { looked: looked.into() });
    }
    Ok(found)
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// Does the folder have both programs, and which version are they? The error names what is missing.
fn inspect(bindir: &Path) -> Result<Binaries, &'static str> {
    if !bindir.join("initdb").exists() {
        return Err("initdb");
    }
    let version = output(&bindir.join("postgres"), "--version").ok_or("postgres")?;
    let major = parse_major(&version).ok_or("postgres")?;
    Ok(Binaries { bindir: bindir.to_owned(), major })
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn pg_config() -> Option<PathBuf> {
    output(Path::new("pg_config"), "--bindir").map(|folder| PathBuf::from(folder.trim()))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let shell = output_of(Command::new("sh").args(["-c", &format!("command -v {program}")]))?;
    let path = std::fs::canonicalize(shell.trim()).ok()?;
    path.parent().map(Path::to_owned)
}

fn output(program: &Path, argument: &str) -> Option<String> {
    output_of(Command::new(program).arg(argument))
}

fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta2"), Some(18));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn a_folder_without_programs_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = choose(Some(folder.path()), None).unwrap_err().to_string();
        assert!(error.contains("initdb") && error.contains("private_postgres.bindir"), "{error}");
    }

    #[test]
    fn no_programs_at_all_name_the_packages_and_the_way_out() {
        let error = EmbeddedError::NoBinaries { looked: "x".into() }.to_string();
        for word in ["apt-get install postgresql", "dnf install", "brew install", "DATABASE_URL", "bindir"] {
            assert!(error.contains(word), "{error}");
        }
    }
}
