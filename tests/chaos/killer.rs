//! The killer: keeps some daemons running and does them harm at random. Only to its own children, and to the sessions that they
//! have in the run's own database.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;
use tokio_postgres::Client as Session;

use super::client::Shared;
use super::world;
use crate::harness::{Daemon, TestDb};

const LOOK: Duration = Duration::from_millis(20);

/// A place for a daemon.
enum Place {
    Running(Daemon),
    /// Stopped by SIGSTOP, until then.
    Stopped(Daemon, Instant),
    /// Dead, to be started again then.
    Dead(Instant),
}

/// The killer.
pub struct Killer<'a> {
    pub db: &'a TestDb,
    pub session: Session,
    pub rng: Rng,
    pub daemons: usize,
    pub shared: Arc<Shared>,
    /// What was done, how often.
    pub done: BTreeMap<&'static str, usize>,
    /// Names that were used, by place: a daemon of a new name cannot take over at once, its tasks wait for the lease.
    pub names: Vec<usize>,
}

impl Killer<'_> {
    /// Does harm until the clients stop, and keeps daemons running until all is over: then they are handed back.
    pub async fn run(mut self) -> (Vec<Daemon>, BTreeMap<&'static str, usize>) {
        let mut places: Vec<Place> =
            (0..self.daemons).map(|place| Place::Running(self.start(place))).collect();
        let mut next = Instant::now() + Duration::from_secs(1);
        let long = Duration::from_secs(3600);
        while !self.shared.over.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
            self.find_dead(&mut places).await;
            let peace = self.shared.stop.load(Ordering::Relaxed);
            places = self.wake(places, Instant::now() + if peace { long } else { Duration::ZERO });
            if Instant::now() >= next && !peace {
                next = Instant::now() + Duration::from_millis(self.rng.u64(1000..3000));
                let victim = self.rng.usize(..places.len());
                if let Place::Running(daemon) =
                    std::mem::replace(&mut places[victim], Place::Dead(Instant::now()))
                {
                    places[victim] = self.strike(daemon, victim).await;
                }
            }
        }
        let places = self.wake(places, Instant::now() + long);
        let daemons = places.into_iter().map(|place| match place {
            Place::Running(daemon) => daemon,
            Place::Stopped(..) | Place::Dead(_) => unreachable!("all were woken"),
        });
        (daemons.collect(), self.done)
    }

    fn start(&self, place: usize) -> Daemon {
        let name = self.names[place];
        let programs = world::PROGRAMS;
        let toml = format!(
            "{programs}[node]\nname = \"node-{place}-{name}\"\ndrain_timeout = \"1s\"\n[log]\nformat = \"text\"\nlevel = \"info\"\n"
        );
        self.db.daemon_with(&toml, &[])
    }

    /// Notes which were killed by a task.
    async fn find_dead(&mut self, places: &mut [Place]) {
        for place in places {
            if let Place::Running(daemon) = place
                && let Ok(status) = tokio::time::timeout(Duration::ZERO, daemon.ended()).await
            {
                assert!(status.signal() == Some(9), "a daemon ended with {status}\n{}", daemon.log());
                *place = Place::Dead(Instant::now() + Duration::from_millis(self.rng.u64(0..2000)));
                *self.done.entry("killed by a task").or_default() += 1;
            }
        }
    }

    /// Starts and continues those whose time has come.
    fn wake(&self, places: Vec<Place>, now: Instant) -> Vec<Place> {
        let woken = places.into_iter().enumerate().map(|(at, place)| match place {
            Place::Dead(until) if until <= now => Place::Running(self.start(at)),
            Place::Stopped(daemon, until) if until <= now => {
                daemon.signal(Signal::SIGCONT);
                Place::Running(daemon)
            }
            other => other,
        });
        woken.collect()
    }

    async fn strike(&mut self, daemon: Daemon, place: usize) -> Place {
        let again = Instant::now() + Duration::from_millis(self.rng.u64(0..2000));
        if self.rng.u32(0..4) == 0 {
            self.names[place] += 1;
        }
        let (what, place) = match self.rng.u32(0..100) {
            0..55 => {
                daemon.kill9();
                ("killed", Place::Dead(again))
            }
            55..70 => {
                // One that has only just begun knows no better than to die.
                let (status, log) = daemon.stop().await;
                let asked = status.success() || status.signal() == Some(15);
                assert!(asked, "a daemon that was asked to stop ended with {status}\n{log}");
                ("asked to stop", Place::Dead(again))
            }
            70..80 if self.shared.harsh => {
                daemon.signal(Signal::SIGSTOP);
                let until = Instant::now() + Duration::from_millis(self.rng.u64(11_500..18_000));
                ("stopped for longer than the lease", Place::Stopped(daemon, until))
            }
            _ => {
                let count = self.rng.i64(1..6);
                self.cut(count).await;
                ("cut sessions", Place::Running(daemon))
            }
        };
        *self.done.entry(what).or_default() += 1;
        place
    }

    /// Ends some sessions of the daemons.
    async fn cut(&self, count: i64) {
        self.session
            .execute(
                "select pg_terminate_backend(v.pid) from (
                     select a.pid from pg_stat_activity a
                     where a.datname = current_database() and a.application_name not in ('rowbeat test', 'psql')
                         and a.backend_type = 'client backend'
                     order by random() limit $1) v",
                &[&count],
            )
            .await
            .unwrap();
    }
}
