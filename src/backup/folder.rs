//! Files as a target: a folder of append-only files, a line of JSON for each transaction (several for a large one). A line
//! carries the length and the checksum of what it says, so it is known to be whole; what a crash left half-written at the end
//! is cut off before anything is appended. Files begin anew with each day, and when they are large.
//!
//! Invariant: nothing before the last whole transaction is ever written again, and it is on the disk before it counts.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::Row;

use super::{Identity, PAGE, Place, Trouble, refuse_another_past};
use crate::db::query::Db;

/// A file that is larger than this is followed by another.
const LARGE: u64 = 64 * 1024 * 1024;
const LOCK: &str = "lock";

/// What a line says.
#[derive(Deserialize)]
pub struct Line<'a> {
    /// Number of the transaction.
    pub number: i64,
    /// Whether this is all of it, or the rest.
    pub last: bool,
    /// Its images, each as a document.
    #[serde(borrow)]
    pub images: Vec<&'a RawValue>,
}

/// The target.
pub struct Folder {
    path: PathBuf,
    open: Option<Open>,
}

/// The file that is written to, while this process has the folder.
struct Open {
    _lock: File,
    file: Option<File>,
    day: String,
    size: u64,
    position: i64,
    identity: Option<Identity>,
}

impl Folder {
    /// Touches nothing yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None }
    }

    /// Copies what is new, up to some page; how far the files are then.
    ///
    /// # Errors
    /// `Target` when the folder cannot be written or another process has it.
    pub async fn copy(&mut self, source: &Db) -> Result<i64, Trouble> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::begin(&self.path)?,
        };
        refuse_another_past(source, open.position, open.identity.as_ref()).await?;
        let mut place = Place::behind(open.position);
        loop {
            let rows = source.rows("backup.page", &[&place.number, &place.image, &PAGE]).await?;
            let Some(last) = rows.last() else { break };
            place = Place { number: last.get("number"), image: last.get("image") };
            // After a failure here the file is opened, and cut, anew.
            for transaction in
                rows.chunk_by(|one, next| one.get::<_, i64>("number") == next.get::<_, i64>("number"))
            {
                open.append(&self.path, transaction)?;
            }
            if last.get("last") {
                open.sync()?;
                open.position = place.number;
                open.identity = Identity::of(source, place.number).await?;
                break;
            }
        }
        let position = open.position;
        self.open = Some(open);
        Ok(position)
    }
}

impl Open {
    fn begin(folder: &Path) -> Result<Self, Trouble> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Trouble::Target(format!("another process writes to {}", folder.display())));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // A file of which nothing is whole says no position: the one before it does.
        let (mut newest, mut found) = (None, (0, None));
        for path in files(folder)?.into_iter().rev() {
            let (length, position, identity) = whole(&path)?;
            let file = OpenOptions::new().write(true).open(&path)?;
            if file.metadata()?.len() > length {
                tracing::warn!(file = %path.display(), "cut off what a crash left half-written");
                file.set_len(length)?;
                file.sync_all()?;
            }
            newest.get_or_insert((path.clone(), length));
            if let Some(position) = position {
                found = (position, identity);
                break;
            }
        }
        let mut open = Self {
            _lock: lock,
            file: None,
            day: String::new(),
            size: 0,
            position: found.0,
            identity: found.1,
        };
        if let Some((path, size)) = newest {
            open.file = Some(OpenOptions::new().append(true).open(&path)?);
            (open.day, open.size) = (day(&path), size);
        }
        Ok(open)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Appends the images of one transaction, or a part of them.
    fn append(&mut self, folder: &Path, images: &[Row]) -> Result<(), Trouble> {
        let Some(last) = images.last() else { return Ok(()) };
        let (number, day): (i64, &str) = (last.get("number"), last.get("day"));
        if self.day != day || self.size > LARGE {
            self.sync()?;
            self.file = Some(new_file(folder, day, number)?);
            (self.day, self.size) = (day.to_owned(), 0);
        }
        let documents: Vec<&str> = images.iter().map(|row| row.get("document")).collect();
        let whole = last.get::<_, bool>("last");
        let body = format!(r#"{{"number":{number},"last":{whole},"images":[{}]}}"#, documents.join(","));
        let line = seal(&body);
        if let Some(file) = &mut self.file {
            file.write_all(line.as_bytes())?;
        }
        self.size += line.len() as u64;
        Ok(())
    }
}

/// The files of a folder in the order in which they were written.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            found.push(path);
        }
    }
    found.sort_by_key(|path| number(path));
    Ok(found)
}

/// Reads the lines of a file, whole ones only; how many bytes they are. What follows was left by a crash, or is damage.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path, mut line: impl FnMut(Line<'_>)) -> std::io::Result<u64> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut text, mut length) = (String::new(), 0);
    loop {
        text.clear();
        // What is no text is no line either.
        let read = reader.read_line(&mut text).unwrap_or(0);
        let Some(said) = unseal(&text).and_then(|body| serde_json::from_str(body).ok()) else {
            return Ok(length);
        };
        length += read as u64;
        line(said);
    }
}

/// How much of a file is whole transactions, and the last of them.
fn whole(path: &Path) -> std::io::Result<(u64, Option<i64>, Option<Identity>)> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut text, mut read, mut whole) = (String::new(), 0, 0);
    let (mut position, mut identity) = (None, None);
    loop {
        text.clear();
        read += reader.read_line(&mut text).unwrap_or(0) as u64;
        let Some(line) = unseal(&text).and_then(|body| serde_json::from_str::<Line<'_>>(body).ok()) else {
            return Ok((whole, position, identity));
        };
        if line.last {
            (whole, position) = (read, Some(line.number));
            identity = line.images.first().and_then(|image| serde_json::from_str(image.get()).ok());
        }
    }
}

fn new_file(folder: &Path, day: &str, number: i64) -> std::io::Result<File> {
    let path = folder.join(format!("{day}-{number:019}.jsonl"));
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // The name must be on the disk before what stands in the file counts.
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn day(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    stem.rsplit_once('-').map_or_else(String::new, |(day, _)| day.to_owned())
}

fn number(path: &Path) -> i64 {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    stem.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// A line: `{"length":…,"sha256":"…","transaction":BODY}`.
fn seal(body: &str) -> String {
    format!("{{\"length\":{},\"sha256\":\"{}\",\"transaction\":{body}}}\n", body.len(), checksum(body))
}

/// What a line says, if it is as it was written.
fn unseal(line: &str) -> Option<&str> {
    let rest = line.strip_suffix("}\n")?.strip_prefix("{\"length\":")?;
    let (length, rest) = rest.split_once(",\"sha256\":\"")?;
    let (sum, body) = rest.split_once("\",\"transaction\":")?;
    (length.parse() == Ok(body.len()) && checksum(body) == sum).then_some(body)
}

fn checksum(body: &str) -> String {
    digest(&SHA256, body.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: i64, last: bool) -> String {
        seal(&format!(r#"{{"number":{number},"last":{last},"images":[{{"row":{{"n":1.10}}}}]}}"#))
    }

    #[test]
    fn only_a_line_as_it_was_written_is_read() {
        let whole = line(7, true);
        assert!(unseal(&whole).is_some());
        assert!(unseal(&whole[..whole.len() - 1]).is_none(), "cut before its end");
        assert!(unseal(&whole.replace("1.10", "1.20")).is_none(), "changed");
    }

    #[test]
    fn what_is_not_whole_at_the_end_is_cut_and_the_position_is_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("2026-11-21-0000000000000000003.jsonl");
        let whole = format!("{}{}", line(3, true), line(5, true));
        std::fs::write(&path, format!("{whole}{}{}", line(6, false), &line(6, true)[..20])).unwrap();
        let open = Open::begin(folder.path()).unwrap();
        assert_eq!((open.position, open.day.as_str()), (5, "2026-11-21"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        assert!(matches!(Open::begin(folder.path()), Err(Trouble::Target(_))), "it is locked");
    }

    #[test]
    fn numbers_keep_their_digits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("2026-11-21-0000000000000000001.jsonl");
        std::fs::write(&path, line(1, true)).unwrap();
        let mut seen = String::new();
        read(&path, |line| seen.push_str(line.images[0].get())).unwrap();
        assert_eq!(seen, r#"{"row":{"n":1.10}}"#);
    }
}
