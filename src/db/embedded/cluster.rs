//! The folder of a private Postgres: its lock, the making of the cluster, the place of the socket, the server's pid file.
//!
//! A cluster is made beside its place and renamed when it is whole, so that `data` is either absent or complete.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::SUPERUSER;
use super::account::Account;
use super::binaries::Binaries;
use super::error::EmbeddedError;

/// Longest path of a unix socket that every system takes (macOS 104 bytes, Linux 108, each with the closing zero).
const LONGEST_SOCKET: usize = 103;

/// A process id above the limit of every system, for a pid file whose process is gone.
const NO_PROCESS: i32 = i32::MAX - 1;

/// The folder, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes the folder if need be and takes its lock.
    pub(super) fn open(folder: &Path, account: &Account) -> Result<Self, EmbeddedError> {
        let refuse = |problem: String| EmbeddedError::Folder { folder: folder.to_owned(), problem };
        if folder.join("PG_VERSION").exists() {
            return Err(refuse(
                "it is a data directory of PostgreSQL itself; name an empty folder, or connect to its server by DATABASE_URL"
                    .into(),
            ));
        }
        let foreign = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
            && !folder.join("lock").exists()
            && !folder.join("data").exists();
        if foreign {
            return Err(refuse("there are other files in it; name an empty folder".into()));
        }
        make_folders(folder, account)?;
        if let Some(barrier) = account.barrier(folder) {
            return Err(refuse(format!(
                "{} may not enter {}; choose another --data-dir or chmod o+x that folder",
                account.name,
                barrier.display()
            )));
        }
        Ok(Self { folder: folder.to_owned(), _lock: lock(folder)? })
    }

    /// The cluster's own directory.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The server's log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The folder itself.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The major version of the cluster, if there is one.
    pub(super) fn major(&self) -> Result<Option<(PathBuf, u32)>, EmbeddedError> {
        let data = self.data();
        if !data.exists() {
            return Ok(None);
        }
        let version =
            fs::read_to_string(data.join("PG_VERSION")).ok().and_then(|text| text.trim().parse().ok());
        match version {
            Some(major) if data.join("global/pg_control").exists() => Ok(Some((data, major))),
            _ => Err(EmbeddedError::Folder {
                folder: data,
                problem: "it is not a whole database cluster; move it away, or choose another --data-dir"
                    .into(),
            }),
        }
    }

    /// Makes the cluster unless it is there.
    pub(super) async fn init(
        &self,
        binaries: &Binaries,
        account: &Account,
        durable: bool,
    ) -> Result<(), EmbeddedError> {
        if self.data().exists() {
            return Ok(());
        }
        let unfinished = self.folder.join("data.new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .map_err(EmbeddedError::io(format!("removing {}", unfinished.display())))?;
        }
        let mut command = account.command(&binaries.bindir.join("initdb"));
        command.current_dir(&self.folder).arg("-D").arg(&unfinished);
        command.args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C"]);
        if !durable {
            command.arg("-N");
        }
        let mut command = tokio::process::Command::from(command);
        let output = command
            .kill_on_drop(true)
            .output()
            .await
            .map_err(EmbeddedError::io(format!("running {}", binaries.bindir.join("initdb").display())))?;
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            let output_tail = last_lines(&String::from_utf8_lossy(&text), 12);
            return Err(EmbeddedError::Initdb { status: output.status.to_string(), output: output_tail });
        }
        fs::rename(&unfinished, self.data())
            .map_err(EmbeddedError::io("putting the new cluster in its place"))?;
        if durable && let Ok(folder) = File::open(&self.folder) {
            folder.sync_all().map_err(EmbeddedError::io(format!("syncing {}", self.folder.display())))?;
        }
        Ok(())
    }

    /// The folder for the socket: inside of this one, or a short one when the socket's path would be too long.
    pub(super) fn socket_folder(&self, account: &Account, port: u16) -> Result<PathBuf, EmbeddedError> {
        let inside = self.folder.join("run");
        // The server takes a list here: a comma or a quote in the path would be understood as something else.
        let plain = inside.to_str().is_some_and(|path| !path.contains([',', '"']));
        let folder = if plain && socket_length(&inside, port) <= LONGEST_SOCKET {
            inside
        } else {
            self.short_folder(account)
        };
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => account.own(&folder)?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(EmbeddedError::io(format!("making {}", folder.display()))(error)),
        }
        // Below /tmp anybody could have made it before us, to sit between us and our server.
        let about = fs::symlink_metadata(&folder)
            .map_err(EmbeddedError::io(format!("looking at {}", folder.display())))?;
        if !about.is_dir() || about.uid() != account.uid.as_raw() || about.mode() & 0o077 != 0 {
            let problem =
                format!("it must be a folder of {} that nobody else may enter; remove it", account.name);
            return Err(EmbeddedError::Folder { folder, problem });
        }
        Ok(folder)
    }

    fn short_folder(&self, account: &Account) -> PathBuf {
        // FNV-1a: the same folder has the same name in every release.
        let bytes = self.folder.as_os_str().as_encoded_bytes();
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let name = format!("rowbeat-{}-{hash:016x}", account.uid);
        let usual = std::env::temp_dir().join(&name);
        if socket_length(&usual, u16::MAX) <= LONGEST_SOCKET { usual } else { Path::new("/tmp").join(name) }
    }
}

fn socket_length(folder: &Path, port: u16) -> usize {
    folder.join(format!(".s.PGSQL.{port}")).as_os_str().len()
}

fn make_folders(folder: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let making = |folder: &Path| EmbeddedError::io(format!("making {}", folder.display()));
    let mut missing: Vec<_> = folder.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
    missing.reverse();
    for parent in missing {
        DirBuilder::new().create(parent).map_err(making(parent))?;
        if account.switch {
            // Whatever the umask is: the server's account has to pass.
            fs::set_permissions(parent, Permissions::from_mode(0o755)).map_err(making(parent))?;
        }
    }
    if !folder.exists() {
        DirBuilder::new().mode(0o700).create(folder).map_err(making(folder))?;
    }
    account.own(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(making(folder))
}

fn lock(folder: &Path) -> Result<File, EmbeddedError> {
    let path = folder.join("lock");
    let failed = || EmbeddedError::io(format!("locking {}", path.display()));
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed())?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(EmbeddedError::Locked { data_dir: folder.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed()(error)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed())?;
    writeln!(file, "{}", std::process::id()).map_err(failed())?;
    Ok(file)
}

/// The last lines of a text.
pub(super) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// What a server writes about itself into `postmaster.pid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: i32,
    pub(super) port: Option<u16>,
    pub(super) socket_folder: Option<PathBuf>,
}

impl PidFile {
    /// Reads a pid file, the cluster's or the socket's; `None` when there is none, or none with a process id.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, EmbeddedError> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(EmbeddedError::io(format!("reading {}", path.display()))(error)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<_> = text.lines().collect();
        Some(Self {
            pid: lines.first()?.trim().parse().ok().filter(|pid| *pid > 1)?,
            port: lines.get(3).and_then(|line| line.trim().parse().ok()),
            socket_folder: lines
                .get(4)
                .map(|line| line.trim())
                .filter(|line| !line.is_empty())
                .map(PathBuf::from),
        })
    }

    /// Is there a process with this id, whichever it is?
    pub(super) fn is_alive(&self) -> bool {
        !matches!(kill(Pid::from_raw(self.pid), None), Err(nix::errno::Errno::ESRCH))
    }

    /// Marks the file's process as gone although its id is taken by another process now.
    ///
    /// The file itself stays: its last lines let the server see by itself whether any process still uses the cluster's memory.
    pub(super) fn disown(path: &Path) -> Result<(), EmbeddedError> {
        let failed = || EmbeddedError::io(format!("correcting {}", path.display()));
        let text = fs::read_to_string(path).map_err(failed())?;
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        fs::write(path, format!("{NO_PROCESS}\n{rest}")).map_err(failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_tells_where_the_server_is() {
        let text = "4711\n/x/data\n1700000000\n5433\n/x/run\n\n  5433001  98304\nready   \n";
        let file = PidFile::parse(text).unwrap();
        assert_eq!((file.pid, file.port, file.socket_folder), (4711, Some(5433), Some("/x/run".into())));
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("-1\n"), None);
    }

    #[test]
    fn a_disowned_pid_file_names_no_process_and_keeps_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{}\n/x\n1\n5432\n/run\n\n 1 2\nready\n", std::process::id());
        let path = folder.path().join("postmaster.pid");
        fs::write(&path, &text).unwrap();
        assert!(PidFile::read(&path).unwrap().unwrap().is_alive());
        PidFile::disown(&path).unwrap();
        let file = PidFile::read(&path).unwrap().unwrap();
        assert!(!file.is_alive());
        let kept = fs::read_to_string(&path).unwrap();
        assert!(kept.ends_with("\n/x\n1\n5432\n/run\n\n 1 2\nready\n"), "{kept}");
    }

    #[test]
    fn a_folder_with_other_files_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("letter"), "").unwrap();
        let error = Home::open(folder.path(), &Account::for_server().unwrap()).unwrap_err();
        assert!(error.to_string().contains("other files"), "{error}");
        fs::write(folder.path().join("PG_VERSION"), "15").unwrap();
        let error = Home::open(folder.path(), &Account::for_server().unwrap()).unwrap_err();
        assert!(error.to_string().contains("itself"), "{error}");
    }
}
