//! The storm: `cargo bench --bench chaos [-- --seconds 120 --seed N --clients 64 --daemons 3]`.
//!
//! Clients enqueue, cancel, pause and retry at random while daemons are killed, stopped, cut off and started again; then the
//! history is checked. It ends with 1 when a rule was broken. The seed is printed; without one it is drawn.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers"
)]
#![allow(clippy::disallowed_methods, reason = "no loop of the daemon")]
#![allow(unreachable_pub, reason = "a program has no outside")]

#[path = "../../tests/chaos/checker.rs"]
mod checker;
#[path = "../../tests/chaos/client.rs"]
mod client;
#[path = "../../tests/chaos/draft.rs"]
mod draft;
#[path = "../../tests/it/harness.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod harness;
#[path = "../../tests/chaos/history.rs"]
mod history;
#[path = "../../tests/chaos/killer.rs"]
mod killer;
#[path = "../../tests/chaos/record.rs"]
mod record;
#[path = "../../tests/chaos/storm.rs"]
mod storm;
#[path = "../../tests/chaos/world.rs"]
mod world;

use std::process::ExitCode;

const SHOWN: usize = 40;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map_or(default, |at| {
            let given = arguments.get(at + 1).and_then(|value| value.parse().ok());
            given.unwrap_or_else(|| panic!("{name} needs a number"))
        })
    };
    let storm = storm::Storm {
        seconds: number("--seconds", 120),
        seed: number("--seed", fastrand::u64(..1_000_000_000)),
        clients: usize::try_from(number("--clients", 64)).unwrap(),
        daemons: usize::try_from(number("--daemons", 3)).unwrap(),
        harsh: true,
    };
    println!(
        "seed {}: {} clients, {} daemons, {} s",
        storm.seed, storm.clients, storm.daemons, storm.seconds
    );
    let report = storm.rage().await;
    print!("{}", report.table);
    for violation in report.violations.iter().take(SHOWN) {
        println!("{violation}");
    }
    if report.violations.is_empty() {
        return ExitCode::SUCCESS;
    }
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}", storm.seed));
    std::fs::create_dir_all(&folder).unwrap();
    let all: String = report.violations.iter().map(|violation| format!("{violation}\n")).collect();
    std::fs::write(folder.join("violations"), all).unwrap();
    for (number, log) in report.logs.iter().enumerate() {
        std::fs::write(folder.join(format!("daemon-{number}.log")), log).unwrap();
    }
    println!("all violations and the daemons' last logs are in {}", folder.display());
    ExitCode::FAILURE
}
