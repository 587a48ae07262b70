//! The file that one process of this node's name holds locked: who holds it knows that its earlier incarnations are dead, and may
//! take their tasks over at once instead of waiting for their leases. The kernel gives the lock back when a process dies.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The locked file, for as long as the process lives.
#[derive(Debug)]
pub struct HostLock {
    key: String,
    _file: File,
}

impl HostLock {
    /// Locks the file of this node's name in `folder`, which is made if need be; `None` when another process holds it.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub fn take(folder: &Path, name: &str) -> std::io::Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let name: String =
            name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
        let path = folder.join(format!("{name}.node"));
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut key = String::new();
        file.read_to_string(&mut key)?;
        // Made anew when it was cut short by a crash.
        if key.len() != 32 {
            key = format!("{:032x}", fastrand::u128(..));
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(key.as_bytes())?;
            file.sync_all()?;
        }
        Ok(Some(Self { key, _file: file }))
    }

    /// What the file says: the same for every process that held it.
    pub fn key(&self) -> &str {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_the_file_and_its_key_outlives_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = HostLock::take(folder.path(), "web/1").unwrap().unwrap();
        assert!(HostLock::take(folder.path(), "web/1").unwrap().is_none());
        assert!(HostLock::take(folder.path(), "web-2").unwrap().is_some());
        let key = first.key().to_owned();
        drop(first);
        assert_eq!(HostLock::take(folder.path(), "web/1").unwrap().unwrap().key(), key);
    }
}
