//! A value that must not be printed: passwords and tokens.
//!
//! Invariant: neither `Debug` nor `Display` shows the text; only [`Secret::reveal`] does, and a reader can search for it.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A password or another text that no log, error or table may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// The content of a file without its last line break, and whether everybody may read it.
pub(crate) fn read_file(path: &Path) -> std::io::Result<(String, bool)> {
    let text = std::fs::read_to_string(path)?;
    let others = std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o007 != 0);
    Ok((text.trim_end_matches(['\r', '\n']).to_owned(), others))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_only_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.reveal(), "hunter2");
    }
}
