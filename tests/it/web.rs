//! A real HTTP server on the loopback: it keeps what it gets and answers as the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use warp::Filter;
use warp::http::{HeaderMap, Method, Response};
use warp::hyper::body::Bytes;
use warp::path::FullPath;

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method, path and query: `GET /x?y=1`.
    pub line: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    /// A header's text; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub type Answer = Response<String>;

/// An answer with a status, headers and a body.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let builder =
        headers.iter().fold(Response::builder().status(status), |b, (name, value)| b.header(*name, *value));
    builder.body(body.to_owned()).unwrap()
}

/// A server that ends with the test.
pub struct Web {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Web {
    /// Answers by request and how many it has had with the same line, this one included.
    pub async fn start(answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (kept, answer) = (Arc::clone(&seen), Arc::new(answer));
        let query = warp::query::raw().or(warp::any().map(String::new)).unify();
        let routes = warp::method()
            .and(warp::path::full())
            .and(query)
            .and(warp::header::headers_cloned())
            .and(warp::body::bytes())
            .map(move |method: Method, path: FullPath, query: String, headers, body| {
                let query = if query.is_empty() { query } else { format!("?{query}") };
                let request = Seen { line: format!("{method} {}{query}", path.as_str()), headers, body };
                let mut seen = kept.lock().unwrap();
                seen.push(request.clone());
                let count = seen.iter().filter(|other| other.line == request.line).count();
                drop(seen);
                answer(&request, count)
            });
        tokio::spawn(warp::serve(routes).incoming(listener).run());
        Self { address, seen }
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Their lines.
    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    /// A connection of the configuration that leads here, with more keys.
    pub fn connection(&self, name: &str, more: &str) -> String {
        format!(
            "[connections.{name}]\ntype = \"http\"\nbase_url = \"http://{}\"\nallow_private_addresses = true\n{more}\n",
            self.address
        )
    }
}
