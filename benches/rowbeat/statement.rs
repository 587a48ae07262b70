//! Statement: the bundled plugin's summaries. A rebuild beside a bare `group by` of the same rows, the summary endpoint over HTTP, and how far
//! the totals are behind at the end of a steady load.

use std::time::{Duration, Instant};

use rowbeat::executor::native::Handlers;
use rowbeat::plugin::{Plugin, bundled, installer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::Client;

use crate::options::Options;
use crate::report::{Figure, percentile, progress};
use crate::server::{Server, session, settle};

/// The raw rows spread over so many days, in their order, as a payment service writes them.
const DAYS: u32 = 30;
const GROUP_BY: &str = "select count(*) from (
    select t.merchant_id, date_trunc('day', t.created_at), sum(t.amount), count(*) from statement.transaction t group by 1, 2) g";
const ASKED: usize = 300;
const WRITERS: u32 = 4;
const LOAD: u32 = 2_000;

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let client = prepare(server, options).await;
    let rows = options.raw as f64;
    let (mut bare, mut rebuilt) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        for (name, statement, rates) in [
            ("group by", GROUP_BY, &mut bare),
            ("rebuild", "select statement.rebuild_summaries(true)", &mut rebuilt),
        ] {
            progress(&format!("statement, run {run}: {name} of {} rows", options.raw));
            let begun = Instant::now();
            client.batch_execute(statement).await.unwrap();
            rates.push(rows / begun.elapsed().as_secs_f64());
        }
    }
    let case = format!("{} rows of {} merchants", options.raw, options.merchants);
    let mut figures = vec![
        Figure::new(format!("{case}, rebuilt"), "rows/s", rebuilt).to(
            "bare group by",
            &bare,
            Some(1.0 / 3.0),
        ),
        Figure::new(format!("{case}, bare group by"), "rows/s", bare),
    ];
    settle(&client).await;
    figures.extend(endpoint(server, options).await);
    figures.push(lag(server, &client, options).await);
    figures
}

/// A database with the plugin and the raw rows, which were not captured.
async fn prepare(server: &Server, options: &Options) -> Client {
    progress("statement: raw rows");
    let connector = server.database("statement").await;
    let plugin = Plugin::read(bundled::find("statement").unwrap().unwrap()).unwrap();
    installer::install(&connector, &plugin, installer::Options::default(), &|_| ()).await.unwrap();
    let client = session(&connector).await;
    let (raw, merchants) = (options.raw, options.merchants);
    client
        .batch_execute(&format!(
            "set session_replication_role = replica;
             insert into statement.transaction (merchant_id, amount, created_at)
             select 'merchant-' || floor(random() * {merchants}), floor(random() * 1000000),
                timestamptz '2025-03-21 00:00Z' + g * interval '{DAYS} days' / {raw}
             from generate_series(1, {raw}) g;
             reset session_replication_role"
        ))
        .await
        .unwrap();
    settle(&client).await;
    client
}

/// Milliseconds of requests for all charts, of one merchant and of all in turn; and of the largest of them.
async fn endpoint(server: &Server, options: &Options) -> [Figure; 2] {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let daemon = server
        .daemon_with("statement", Handlers::new(), &format!("[http]\nlisten = \"127.0.0.1:{port}\"\n"))
        .await;
    let (mut medians, mut largest) = (Vec::new(), Vec::new());
    while ask(port, "mode=daily&type=amount").await.is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for run in 1..=options.runs {
        progress(&format!("statement, run {run}: the summary endpoint"));
        let (mut all, mut daily) = (Vec::new(), Vec::new());
        for number in 0..ASKED {
            let mode = ["daily", "weekly", "monthly"][number % 3];
            let merchant = if number % 2 == 0 { "" } else { "&merchant_id=merchant-7" };
            let took = ask(port, &format!("mode={mode}&type=amount{merchant}")).await.unwrap();
            all.push(took);
            if number % 6 == 0 {
                daily.push(took);
            }
        }
        medians.push(percentile(&all, 0.5));
        largest.push(percentile(&daily, 0.5));
    }
    daemon.stop().await;
    [
        Figure::new(
            format!("GET summary, {} merchants, p50 of all charts", options.merchants),
            "ms",
            medians,
        )
        .at_most(5.0),
        Figure::new(format!("GET summary, p50 of {DAYS} days of all merchants"), "ms", largest),
    ]
}

/// Milliseconds to the last byte of a summary; none before the endpoint is there.
async fn ask(port: u16, query: &str) -> Option<f64> {
    let begun = Instant::now();
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!(
        "GET /api/transactions/summary?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer.starts_with(b"HTTP/1.1 200").then(|| begun.elapsed().as_secs_f64() * 1000.0)
}

/// Seconds until the totals have everything, after a load of one-row transactions.
async fn lag(server: &Server, client: &Client, options: &Options) -> Figure {
    let length = Duration::from_secs(options.secs(60));
    let mut lags = Vec::new();
    for run in 1..=options.runs {
        progress(&format!("statement, run {run}: {LOAD} transactions/s for {} s", length.as_secs()));
        let daemon = server.daemon("statement", Handlers::new(), "").await;
        let counted = "select coalesce(sum(s.total_count), 0)::bigint from statement.summary s where s.granularity = 'monthly'";
        let before: i64 = client.query_one(counted, &[]).await.unwrap().get(0);
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let client = server.session_of("statement").await;
            let merchants = options.merchants;
            writers.spawn(async move { write(&client, writer, merchants, length).await });
        }
        let written: i64 = writers.join_all().await.into_iter().sum();
        let begun = Instant::now();
        while client.query_one(counted, &[]).await.unwrap().get::<_, i64>(0) < before + written {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        lags.push(begun.elapsed().as_secs_f64());
        progress(&format!(
            "statement, run {run}: {:.0} transactions/s were written",
            written as f64 / length.as_secs_f64()
        ));
        daemon.stop().await;
    }
    Figure::new(format!("lag after {} s of {LOAD} transactions/s", length.as_secs()), "s", lags).at_most(5.0)
}

/// One row a commit, at its share of the load; how many.
async fn write(client: &Client, writer: u32, merchants: u64, length: Duration) -> i64 {
    let insert = "insert into statement.transaction (merchant_id, amount, created_at) values ('merchant-' || $1::bigint, 1000, now())";
    let insert = client.prepare(insert).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * WRITERS / LOAD);
    let begun = Instant::now();
    let mut written: i64 = 0;
    while begun.elapsed() < length {
        ticks.tick().await;
        let merchant = (written * i64::from(WRITERS) + i64::from(writer)) % i64::try_from(merchants).unwrap();
        client.execute(&insert, &[&merchant]).await.unwrap();
        written += 1;
    }
    written
}
