//! The server process: started as our child, watched, stopped; and one that an earlier daemon left behind, dealt with.
//!
//! A daemon that was killed with -9 leaves its server running. The next start stops that server, once it is proved to be a
//! Postgres of this data directory, and starts its own: then its life hangs on ours again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::account::Account;
use super::binaries::Binaries;
use super::cluster::{Home, PidFile, last_lines};
use super::error::EmbeddedError;
use super::{Options, Running, SUPERUSER};

/// How long a fast stop may take (it writes a checkpoint), and then an immediate one.
const FAST: Duration = Duration::from_secs(30);
const IMMEDIATE: Duration = Duration::from_secs(10);

/// How long processes of a killed server may hold the cluster's memory before we give up.
const LEFTOVERS: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A log larger than this is put aside at the next start.
const LARGEST_LOG: u64 = 16 * 1024 * 1024;

/// The server as our child.
#[derive(Debug)]
pub(super) struct Postmaster {
    child: Child,
    home: Home,
    binaries: Binaries,
    account: Account,
    socket_folder: PathBuf,
    stopped: bool,
}

impl Postmaster {
    /// Starts the server and waits until it answers a query.
    pub(super) async fn start(
        home: Home,
        binaries: &Binaries,
        account: &Account,
        socket_folder: PathBuf,
        options: &Options,
    ) -> Result<(Self, Running), EmbeddedError> {
        clear_the_way(&home, account, &socket_folder).await?;
        let child = spawn(&home, binaries, account, &socket_folder, options)?;
        let (binaries, account) = (binaries.clone(), account.clone());
        let mut postmaster = Self { child, home, binaries, account, socket_folder, stopped: false };
        let running = postmaster.answers(options).await?;
        Ok((postmaster, running))
    }

    /// Starts it again after it ended by itself.
    pub(super) async fn restart(&mut self, options: &Options) -> Result<Running, EmbeddedError> {
        clear_the_way(&self.home, &self.account, &self.socket_folder).await?;
        self.respawn(options)?;
        self.answers(options).await
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn is_alive(&mut self) -> Result<bool, EmbeddedError> {
        let status = self.child.try_wait().map_err(EmbeddedError::io("looking at the private Postgres"))?;
        Ok(status.is_none())
    }

    /// Fast, then immediate.
    pub(super) async fn stop(&mut self) -> Result<(), EmbeddedError> {
        for (signal, patience) in [(Signal::SIGINT, FAST), (Signal::SIGQUIT, IMMEDIATE)] {
            if !self.is_alive()? {
                break;
            }
            self.signal(signal);
            let deadline = Instant::now() + patience;
            while self.is_alive()? && Instant::now() < deadline {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        if self.is_alive()? {
            let problem = "does not stop; look at its log";
            return Err(EmbeddedError::Orphan {
                pid: self.child.id().cast_signed(),
                data_dir: self.home.data(),
                problem,
            });
        }
        self.tidy();
        Ok(())
    }

    /// The child is not reaped yet, so that its id cannot belong to anybody else.
    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    fn tidy(&mut self) {
        self.stopped = true;
        if !self.socket_folder.starts_with(self.home.folder()) {
            let _ = fs::remove_dir(&self.socket_folder);
        }
    }

    fn respawn(&mut self, options: &Options) -> Result<(), EmbeddedError> {
        self.child = spawn(&self.home, &self.binaries, &self.account, &self.socket_folder, options)?;
        Ok(())
    }

    async fn answers(&mut self, options: &Options) -> Result<Running, EmbeddedError> {
        let (started, deadline) = (Instant::now(), Instant::now() + options.start_timeout);
        loop {
            let running = Running {
                pid: self.child.id().cast_signed(),
                socket_folder: self.socket_folder.clone(),
                port: options.port,
            };
            if let Some(status) =
                self.child.try_wait().map_err(EmbeddedError::io("waiting for the private Postgres"))?
            {
                let tail = self.log_tail();
                // Processes of a killed server need a moment to notice that it is gone.
                let leftovers =
                    tail.contains("shared memory block") || tail.contains("another server might be running");
                if leftovers && started.elapsed() < LEFTOVERS {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    self.respawn(options)?;
                    continue;
                }
                return Err(EmbeddedError::Start {
                    reason: format!("it ended ({status})"),
                    log: self.home.log(),
                    tail,
                });
            }
            if running.connector(SUPERUSER)?.connect_with("start", "select 1").await.is_ok() {
                return Ok(running);
            }
            if Instant::now() > deadline {
                let reason = format!("it does not answer within {} s", options.start_timeout.as_secs());
                return Err(EmbeddedError::Start { reason, log: self.home.log(), tail: self.log_tail() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn log_tail(&self) -> String {
        let bytes = fs::read(self.home.log()).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&bytes), 8)
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        for (signal, patience) in
            [(Signal::SIGINT, Duration::from_secs(5)), (Signal::SIGQUIT, Duration::from_secs(3))]
        {
            self.signal(signal);
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    self.tidy();
                    return;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

fn spawn(
    home: &Home,
    binaries: &Binaries,
    account: &Account,
    socket_folder: &Path,
    options: &Options,
) -> Result<Child, EmbeddedError> {
    let log = home.log();
    if fs::metadata(&log).is_ok_and(|about| about.len() > LARGEST_LOG) {
        let _ = fs::rename(&log, log.with_extension("1"));
    }
    let opening = || EmbeddedError::io(format!("opening {}", log.display()));
    let output = File::options().append(true).create(true).open(&log).map_err(opening())?;
    let errors = output.try_clone().map_err(opening())?;
    let program = binaries.bindir.join("postgres");
    let mut command = account.command(&program);
    command.current_dir(home.folder()).arg("-D").arg(home.data()).stdout(output).stderr(errors);
    let mut set = |name: &str, value: &str| {
        command.arg("-c").arg(format!("{name}={value}"));
    };
    set("listen_addresses", "");
    set("port", &options.port.to_string());
    set("unix_socket_directories", &socket_folder.to_string_lossy());
    set("unix_socket_permissions", "0700");
    set("logging_collector", "off");
    set("log_destination", "stderr");
    // The service unit forbids making memory executable, which is what the server's compiler lives by.
    set("jit", "off");
    if !options.durable {
        // Only what a crash of the machine needs: a crash of the server alone loses nothing.
        set("fsync", "off");
        set("full_page_writes", "off");
    }
    for (name, value) in &options.settings {
        set(name, value);
    }
    command.spawn().map_err(EmbeddedError::io(format!("starting {} as {}", program.display(), account.name)))
}

/// Deals with what an earlier server left: stops it if it runs, corrects pid files that name somebody else by now.
async fn clear_the_way(home: &Home, account: &Account, socket_folder: &Path) -> Result<(), EmbeddedError> {
    let (data, path) = (home.data(), home.data().join("postmaster.pid"));
    if let Some(file) = PidFile::read(&path)? {
        match holder(&file, &data, account) {
            Holder::OurServer => stop_orphan(&file, &data, account).await?,
            Holder::Unknown => {
                let problem =
                    "cannot be looked at; stop it, or remove postmaster.pid there if it is no Postgres";
                return Err(EmbeddedError::Orphan { pid: file.pid, data_dir: data, problem });
            }
            Holder::Nobody | Holder::Other => {}
        }
    }
    // Read again: a server that stopped in order has taken its file away, one that did not is no more than a number.
    if let Some(file) = PidFile::read(&path)?
        && holder(&file, &data, account) == Holder::Other
    {
        PidFile::disown(&path)?;
    }
    // The socket has a lock file of its own, which stays when the server is killed.
    for entry in fs::read_dir(socket_folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "lock")
            && let Some(file) = PidFile::read(&path)?
            && holder(&file, &data, account) == Holder::Other
        {
            PidFile::disown(&path)?;
        }
    }
    Ok(())
}

/// Stops a server of this data directory that is not our child; looks at it anew before each signal.
async fn stop_orphan(file: &PidFile, data: &Path, account: &Account) -> Result<(), EmbeddedError> {
    tracing::warn!(postgres.pid = file.pid, "stopping the private Postgres that an earlier daemon left");
    for (signal, patience) in [(Signal::SIGINT, FAST), (Signal::SIGQUIT, IMMEDIATE)] {
        if holder(file, data, account) == Holder::OurServer {
            let _ = kill(Pid::from_raw(file.pid), signal);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if holder(file, data, account) != Holder::OurServer {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    let problem = "does not stop; look at its log";
    Err(EmbeddedError::Orphan { pid: file.pid, data_dir: data.to_owned(), problem })
}

/// Who has the process id of a pid file.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    OurServer,
    Other,
    Unknown,
}

fn holder(file: &PidFile, data: &Path, account: &Account) -> Holder {
    if !file.is_alive() { Holder::Nobody } else { identify(file.pid, data, account) }
}

/// A Postgres works in its data directory, and says its name.
#[cfg(target_os = "linux")]
fn identify(pid: i32, data: &Path, account: &Account) -> Holder {
    use std::os::unix::fs::MetadataExt;
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(stat) = fs::read_to_string(process.join("stat")) else { return Holder::Other };
    let Some((start, rest)) = stat.rsplit_once(')') else { return Holder::Unknown };
    if rest.trim_start().starts_with(['Z', 'X']) {
        // It has ended; only nobody has asked how.
        return Holder::Other;
    }
    let is_postgres = start.ends_with("(postgres") || start.ends_with("(postmaster");
    match (fs::read_link(process.join("cwd")), fs::canonicalize(data)) {
        (Ok(works_in), Ok(data)) if is_postgres && works_in == data => Holder::OurServer,
        (Ok(_), Ok(_)) => Holder::Other,
        // What runs under another account cannot be our server.
        _ if fs::metadata(&process).is_ok_and(|about| about.uid() != account.uid.as_raw()) => Holder::Other,
        _ => Holder::Unknown,
    }
}

#[cfg(not(target_os = "linux"))]
fn identify(pid: i32, data: &Path, _: &Account) -> Holder {
    let output =
        std::process::Command::new("ps").args(["-ww", "-o", "command=", "-p", &pid.to_string()]).output();
    let Ok(output) = output else { return Holder::Unknown };
    let command = String::from_utf8_lossy(&output.stdout);
    if command.contains("postgres") && command.contains(&*data.to_string_lossy()) {
        Holder::OurServer
    } else {
        Holder::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_postgres_of_this_directory_is_never_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let account = Account::for_server().unwrap();
        let of = |pid| PidFile { pid, port: None, socket_folder: None };
        let me = of(std::process::id().cast_signed());
        assert_eq!(holder(&me, folder.path(), &account), Holder::Other);
        assert_eq!(holder(&of(i32::MAX - 1), folder.path(), &account), Holder::Nobody);
    }
}
