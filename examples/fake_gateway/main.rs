//! What the bundled plugin `hotspot` talks to, on the loopback: a payment gateway (MoMo), a router (RouterOS REST) and an SMS provider.
//!
//! `cargo run --example fake_gateway -- 127.0.0.1:8089` serves `/momo`, `/router` and `/sms`. `GET /state` shows everything;
//! `POST /state` with `{"router": {"down": true}}` changes it: `down` answers 503, `delay_ms` is slow. Payments go by the end of the number:
//! 91 is not registered, 92 refuses, 93 stays pending, 94 is pending three times, all others pay at once. With `--until-eof` it ends with
//! its standard input.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a stand-in for tries and tests")]

mod gateway;

use std::io::Read;

use serde_json::json;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = arguments
        .iter()
        .find(|argument| !argument.starts_with("--"))
        .map_or("127.0.0.1:8089", String::as_str);
    if arguments.iter().any(|argument| argument == "--until-eof") {
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
    }
    let listener = TcpListener::bind(address).await.unwrap();
    println!("{}", json!({ "listening": listener.local_addr().unwrap().to_string() }));
    gateway::run(listener, gateway::first_state()).await;
}
