//! Plugins as zips: read with distrust, written so that the same files give the same bytes.

use std::io::{self, Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::{Bundle, Intake, LARGEST, MOST_FILES};

/// A file that shrinks more than this was made to fill memory, not to be read; small ones may.
const RATIO: u64 = 200;
const SMALL: u64 = 64 * 1024;

/// Takes in the files of a zip. A single folder around them is left out, as zipping a folder makes one.
pub(super) fn read(shown: &str, zip: &[u8], intake: &mut Intake) {
    if zip.len() as u64 > LARGEST {
        return intake.refuse(shown, format!("is larger than {} MiB", LARGEST >> 20));
    }
    let mut archive = match ZipArchive::new(Cursor::new(zip)) {
        Ok(archive) => archive,
        Err(error) => return intake.refuse(shown, format!("is no zip: {error}")),
    };
    if archive.len() > 2 * MOST_FILES {
        return intake.refuse(shown, format!("there are more than {MOST_FILES} files"));
    }
    if !matches!(archive.has_overlapping_files(), Ok(false)) {
        return intake.refuse(shown, "its entries overlap");
    }
    let wrapper = wrapper(&archive);
    for index in 0..archive.len() {
        let entry = match archive.by_index(index) {
            Ok(entry) => entry,
            Err(error) => return intake.refuse(shown, format!("entry {}: {error}", index + 1)),
        };
        let Ok(whole) = entry.name().map(|name| name.into_owned()) else {
            intake.refuse(shown, format!("entry {}: its name is no text", index + 1));
            continue;
        };
        let name = whole.strip_prefix(&wrapper).unwrap_or(&whole).to_owned();
        // The kind of a file, as Unix keeps it: only plain ones, and those that say nothing.
        let kind = entry.unix_mode().map_or(0, |mode| mode & 0o170_000);
        if name.split('/').any(|part| part == "..")
            || name.starts_with('/')
            || name.contains(['\\', ':', '\0'])
        {
            intake.refuse(&whole, "leads out of the plugin");
        } else if kind == 0o120_000 || entry.is_symlink() {
            intake.refuse(&whole, "is a link; a plugin has plain files only");
        } else if entry.is_dir() || name.is_empty() {
            continue;
        } else if kind != 0 && kind != 0o100_000 {
            intake.refuse(&whole, "is no plain file");
        } else if entry.size() > SMALL && entry.size() / entry.compressed_size().max(1) > RATIO {
            intake.refuse(&whole, format!("is packed more than {RATIO} to 1"));
        } else {
            intake.file(&name, entry);
        }
        if intake.is_full() {
            return;
        }
    }
}

/// `shop/` when everything is in that folder, its manifest too; else nothing.
fn wrapper(archive: &ZipArchive<Cursor<&[u8]>>) -> String {
    let names: Vec<String> = archive.file_names().flatten().map(|name| name.into_owned()).collect();
    let first = names.first().and_then(|name| name.split_once('/'));
    let folder = first.map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
    let manifest = format!("{folder}{}", crate::plugin::manifest::FILE);
    let wraps = names.iter().all(|name| name.starts_with(&folder)) && names.contains(&manifest);
    if wraps { folder } else { String::new() }
}

/// The files as a zip: the same bytes whenever and wherever it is made.
///
/// # Errors
/// Whatever the writer says.
pub fn pack(bundle: &Bundle) -> io::Result<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    for (path, content) in &bundle.files {
        writer.start_file(path.as_str(), options)?;
        writer.write_all(content)?;
    }
    Ok(writer.finish()?.into_inner())
}
