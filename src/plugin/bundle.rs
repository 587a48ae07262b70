//! The files of a plugin, whether they come from a folder, a zip or this binary: the same files have the same digest.
//!
//! Nothing is written here, and nothing is read beyond the limits: a plugin is held in memory and looked at before anything is
//! done with it. What is no file of a plugin is refused, not skipped.

mod archive;
mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;

use include_dir::Dir;
use ring::digest;

pub use self::archive::pack;
pub use self::sql::forbidden;

use super::problem::Problem;

/// Files of one plugin.
const MOST_FILES: usize = 1000;
/// Bytes of one file.
const LARGEST_FILE: u64 = 4 * 1024 * 1024;
/// Bytes of all files together, and of a zip.
pub const LARGEST: u64 = 16 * 1024 * 1024;
const LONGEST_PATH: usize = 200;

/// A plugin's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Where they come from: `folder shop`, `zip shop.zip`, `bundled shop`, `https://a.example/shop.zip`.
    pub origin: String,
    /// By path, with slashes.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Bundle {
    /// Reads a folder or a zip.
    ///
    /// # Errors
    /// What cannot be read or is no file of a plugin.
    pub fn open(path: &Path) -> Result<Self, Vec<Problem>> {
        let shown = path.display().to_string();
        let metadata =
            std::fs::metadata(path).map_err(|error| vec![Problem::of_file(&shown, error.to_string())])?;
        let name = path.file_name().map_or_else(|| shown.clone(), |name| name.to_string_lossy().into_owned());
        let mut intake = Intake::default();
        let kind = if metadata.is_dir() {
            intake.folder(path, "");
            "folder"
        } else {
            match read_zip(path) {
                Ok(zip) => archive::read(&shown, &zip, &mut intake),
                Err(error) => intake.refuse(&shown, error.to_string()),
            }
            "zip"
        };
        intake.done(format!("{kind} {name}"))
    }

    /// Reads a zip that is in memory; `origin` is where it comes from.
    ///
    /// # Errors
    /// What is no zip or no file of a plugin.
    pub fn of_zip(origin: &str, zip: &[u8]) -> Result<Self, Vec<Problem>> {
        let mut intake = Intake::default();
        archive::read(origin, zip, &mut intake);
        intake.done(origin.to_owned())
    }

    /// The files that are built into this binary.
    ///
    /// # Errors
    /// What is no file of a plugin.
    pub fn of_dir(dir: &Dir<'_>) -> Result<Self, Vec<Problem>> {
        let name = dir.path().to_string_lossy().into_owned();
        let mut intake = Intake::default();
        intake.built_in(dir, &name);
        intake.done(format!("bundled {name}"))
    }

    /// From files that were checked when they were installed.
    pub fn of_files(origin: String, files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { origin, files }
    }

    /// SHA-256 over all paths and contents, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for (path, content) in &self.files {
            for part in [path.as_bytes(), content] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
        }
        context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The text files below a folder, by path.
    pub fn texts<'b>(&'b self, folder: &'b str) -> impl Iterator<Item = (&'b str, &'b str)> {
        self.files
            .range(folder.to_owned()..)
            .take_while(move |(path, _)| path.starts_with(folder))
            .map(|(path, content)| (path.as_str(), std::str::from_utf8(content).unwrap_or_default()))
    }

    /// Writes the files into a folder that must not exist yet.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir(folder)?;
        for (path, content) in &self.files {
            let file = folder.join(path);
            std::fs::create_dir_all(file.parent().unwrap_or(folder))?;
            std::fs::write(file, content)?;
        }
        Ok(())
    }
}

/// The bytes of a zip, one more than allowed at most.
///
/// # Errors
/// Whatever the file system says.
pub fn read_zip(path: &Path) -> io::Result<Vec<u8>> {
    let mut zip = Vec::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut zip)?;
    Ok(zip)
}

/// Takes files in, within the limits.
#[derive(Default)]
struct Intake {
    files: BTreeMap<String, Vec<u8>>,
    bytes: u64,
    problems: Vec<Problem>,
}

impl Intake {
    fn refuse(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::of_file(path, message));
    }

    /// Whether more can be taken in at all.
    fn is_full(&self) -> bool {
        self.bytes > LARGEST || self.files.len() > MOST_FILES
    }

    /// Takes one file in; reads no more of it than is allowed, whatever it says of itself.
    fn file(&mut self, path: &str, content: impl Read) {
        if self.is_full() {
            return;
        }
        let mut bytes = Vec::new();
        if let Err(error) = content.take(LARGEST_FILE + 1).read_to_end(&mut bytes) {
            return self.refuse(path, format!("cannot be read: {error}"));
        }
        let read = bytes.len() as u64;
        self.bytes += read;
        if read > LARGEST_FILE {
            self.refuse(path, format!("is larger than {} MiB", LARGEST_FILE >> 20));
        } else if self.bytes > LARGEST {
            self.refuse(path, format!("with it the plugin is larger than {} MiB", LARGEST >> 20));
        } else if self.files.insert(path.to_owned(), bytes).is_some() {
            self.refuse(path, "is there twice");
        } else if self.files.len() > MOST_FILES {
            self.refuse(path, format!("there are more than {MOST_FILES} files"));
        }
    }

    /// The files of a folder. Names that begin with a dot are no part of a plugin: a folder may be somebody's checkout.
    fn folder(&mut self, folder: &Path, prefix: &str) {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.refuse(prefix, error.to_string()),
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if name.starts_with('.') || self.is_full() {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && path.matches('/').count() < 4 => {
                    self.folder(&entry.path(), &format!("{path}/"));
                }
                Ok(kind) if kind.is_file() => match std::fs::File::open(entry.path()) {
                    Ok(file) => self.file(&path, file),
                    Err(error) => self.refuse(&path, error.to_string()),
                },
                Ok(kind) if kind.is_symlink() => {
                    self.refuse(&path, "is a link; a plugin has plain files only")
                }
                Ok(_) => self.refuse(&path, "is no plain file"),
                Err(error) => self.refuse(&path, error.to_string()),
            }
        }
    }

    fn built_in(&mut self, dir: &Dir<'_>, root: &str) {
        for file in dir.files() {
            let path = file.path().to_string_lossy();
            self.file(path.strip_prefix(root).unwrap_or(&path).trim_start_matches('/'), file.contents());
        }
        for inner in dir.dirs() {
            self.built_in(inner, root);
        }
    }

    fn done(mut self, origin: String) -> Result<Bundle, Vec<Problem>> {
        let mut folded = BTreeSet::new();
        let paths: Vec<String> = self.files.keys().cloned().collect();
        for path in &paths {
            if !folded.insert(path.to_lowercase()) {
                self.refuse(path, "there is another file whose name differs only in capitals");
            }
            if let Err(message) = check_path(path) {
                self.refuse(path, message);
            } else {
                let text = std::str::from_utf8(&self.files[path]);
                if text.is_err() || text.is_ok_and(|text| text.contains('\0')) {
                    self.refuse(path, "is no UTF-8 text");
                }
            }
        }
        if !self.files.contains_key(super::manifest::FILE) && self.problems.is_empty() {
            self.refuse(
                super::manifest::FILE,
                "is missing: a plugin is a folder or a zip with this file at its top",
            );
        }
        if self.problems.is_empty() { Ok(Bundle { origin, files: self.files }) } else { Err(self.problems) }
    }
}

fn is_text(path: &str) -> bool {
    ["html", "txt", "csv", "json", "xml", "md", "css", "js", "svg"]
        .iter()
        .any(|ending| path.ends_with(&format!(".{ending}")))
}

/// Whether a path is one of a plugin's.
fn check_path(path: &str) -> Result<(), String> {
    let parts: Vec<&str> = path.split('/').collect();
    let plain = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    if path.len() > LONGEST_PATH || !parts.iter().all(plain) {
        return Err("is no path within a plugin: letters, digits, . _ - and single slashes".to_owned());
    }
    let sql = path.ends_with(".sql");
    match parts.as_slice() {
        [super::manifest::FILE | "README.md" | "CHANGELOG.md" | "LICENSE" | "LICENSE.md"] => Ok(()),
        ["migrations" | "functions" | "tests", _] if sql => Ok(()),
        ["migrations" | "functions" | "tests", ..] => Err("only .sql files stand here, and no folders".to_owned()),
        ["templates", _, ..] if is_text(path) => Ok(()),
        ["templates", ..] => Err("templates are .html, .txt, .csv, .json, .xml, .md, .css, .js or .svg".to_owned()),
        _ => Err("is no file of a plugin: plugin.toml, README.md, CHANGELOG.md, LICENSE, and the folders migrations, functions, templates, tests".to_owned()),
    }
}
