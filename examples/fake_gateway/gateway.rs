//! Stand-ins for a payment gateway (MoMo), a router (RouterOS REST) and an SMS provider, in memory: all that the bundled plugin `hotspot`
//! talks to. For its tests, for `rowbeat demo`, and to try it by hand (main.rs).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a stand-in for tries and tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use warp::Filter;
use warp::http::{HeaderMap, Method, Response};
use warp::hyper::body::Bytes;
use warp::path::FullPath;

/// What all of them know; one that holds it sees and changes them as `/state` does.
pub(crate) type State = Arc<Mutex<Value>>;

type Answer = (u16, Value);

/// A request without what does not matter here.
struct Asked {
    method: Method,
    path: Vec<String>,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Value,
}

impl Asked {
    fn line(&self) -> String {
        format!("{} /{}", self.method, self.path.join("/"))
    }

    fn header(&self, name: &str) -> String {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }
}

pub(crate) fn first_state() -> State {
    let profiles = ["0.1GHS 100MB", "3GHS 2GB", "5GHS 5GB", "10GHS 15GB", "15GHS 20GB", "30GHS Unlimited"];
    Arc::new(Mutex::new(json!({
        "momo": { "down": false, "delay_ms": 0, "payments": {}, "requests": [] },
        "router": { "down": false, "delay_ms": 0, "profiles": profiles, "users": [], "user_profiles": [], "next_id": 1, "requests": [] },
        "sms": { "down": false, "delay_ms": 0, "messages": [], "balance": 1000, "requests": [] },
    })))
}

/// Lays an object over another, object by object.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

fn serve(state: &mut Value, asked: &Asked) -> Answer {
    let service = asked.path.first().map_or("", String::as_str);
    if service == "state" {
        if asked.method == Method::POST {
            merge(state, &asked.body);
        }
        return (200, state.clone());
    }
    let Some(own) = state.get_mut(service) else { return (404, json!({ "message": "no such service" })) };
    own["requests"].as_array_mut().unwrap().push(asked.line().into());
    if own["down"] == true {
        return (503, json!({ "message": "down", "heard": asked.body }));
    }
    let parts: Vec<&str> = asked.path[1..].iter().map(String::as_str).collect();
    match service {
        "momo" => momo(own, asked, &parts),
        "router" => router(own, asked, &parts),
        _ => sms(own, asked, &parts),
    }
}

fn momo(own: &mut Value, asked: &Asked, path: &[&str]) -> Answer {
    if path == ["collection", "token"] {
        return (
            200,
            json!({ "access_token": "fake-token", "token_type": "access_token", "expires_in": 3600 }),
        );
    }
    if asked.header("authorization") != "Bearer fake-token" {
        return (401, json!({ "message": "Access denied due to invalid token" }));
    }
    match (asked.method.as_str(), path) {
        ("GET", ["collection", "v1_0", "accountholder", "msisdn", payer, "active"]) => {
            (200, json!({ "result": !payer.ends_with("91") }))
        }
        ("POST", ["collection", "v1_0", "requesttopay"]) => {
            let reference = asked.header("x-reference-id");
            if own["payments"].get(&reference).is_some() {
                return (
                    409,
                    json!({ "code": "RESOURCE_ALREADY_EXIST", "message": "Duplicated reference id." }),
                );
            }
            own["payments"][reference] = json!({ "request": asked.body, "polls": 0 });
            (202, Value::Null)
        }
        ("GET", ["collection", "v1_0", "requesttopay", reference]) => {
            let Some(payment) = own["payments"].get_mut(*reference) else {
                return (
                    404,
                    json!({ "code": "RESOURCE_NOT_FOUND", "message": "Requested resource was not found." }),
                );
            };
            let polls = payment["polls"].as_u64().unwrap() + 1;
            payment["polls"] = polls.into();
            let payer = payment["request"]["payer"]["partyId"].as_str().unwrap_or_default().to_owned();
            let mut reply = payment["request"].clone();
            let status = match &payer[payer.len().saturating_sub(2)..] {
                _ if payment["status"].is_string() => payment["status"].as_str().unwrap(),
                "92" => "FAILED",
                "93" => "PENDING",
                "94" if polls <= 3 => "PENDING",
                _ => "SUCCESSFUL",
            };
            reply["status"] = status.into();
            match status {
                "SUCCESSFUL" => {
                    let known =
                        payment["financialTransactionId"].as_str().unwrap_or(&reference[..8]).to_owned();
                    reply["financialTransactionId"] = known.into();
                }
                "FAILED" => {
                    reply["reason"] =
                        json!({ "code": "PAYER_LIMIT_REACHED", "message": "The payer's limit is reached." })
                }
                _ => {}
            }
            (200, reply)
        }
        _ => (404, json!({ "message": "no such path" })),
    }
}

/// The rows that a query asks for, with the properties that it asks for.
fn print(rows: &Value, asked: &Asked) -> Value {
    let shown: Option<Vec<&str>> = asked.query.get(".proplist").map(|list| list.split(',').collect());
    let fits = |row: &&Value| {
        asked.query.iter().all(|(key, value)| key.starts_with('.') || row[key] == json!(value))
    };
    let pick = |row: &Value| match &shown {
        Some(shown) => {
            let picked = shown.iter().filter_map(|key| Some(((*key).to_owned(), row.get(*key)?.clone())));
            Value::Object(picked.collect::<Map<_, _>>())
        }
        None => row.clone(),
    };
    rows.as_array().unwrap().iter().filter(fits).map(pick).collect()
}

fn add(own: &mut Value, list: &str, mut row: Value) -> Answer {
    let id = own["next_id"].as_u64().unwrap();
    own["next_id"] = (id + 1).into();
    row[".id"] = format!("*{id:X}").into();
    own[list].as_array_mut().unwrap().push(row.clone());
    (201, row)
}

fn router(own: &mut Value, asked: &Asked, path: &[&str]) -> Answer {
    match (asked.method.as_str(), path) {
        ("GET", ["user-manager", "profile"]) => {
            let profiles =
                own["profiles"].as_array().unwrap().iter().map(|name| json!({ "name": name })).collect();
            (200, print(&profiles, asked))
        }
        ("GET", ["user-manager", "user"]) => (200, print(&own["users"], asked)),
        ("GET", ["user-manager", "user-profile"]) => (200, print(&own["user_profiles"], asked)),
        ("PUT", ["user-manager", "user"]) => {
            if own["users"].as_array().unwrap().iter().any(|user| user["name"] == asked.body["name"]) {
                return (
                    400,
                    json!({ "error": 400, "message": "Bad Request", "detail": "failure: already have user with this name" }),
                );
            }
            let mut user = asked.body.clone();
            user["disabled"] = "false".into();
            if own["loses_users"] == true {
                return (201, user);
            }
            add(own, "users", user)
        }
        ("PUT", ["user-manager", "user-profile"]) => {
            let mut row = asked.body.clone();
            row["state"] = "waiting".into();
            add(own, "user_profiles", row)
        }
        ("POST", ["user-manager", "user-profile", "activate-user-profile"]) => {
            for row in own["user_profiles"].as_array_mut().unwrap() {
                if row[".id"] == asked.body[".id"] {
                    row["state"] = "running-active".into();
                }
            }
            (200, json!([]))
        }
        ("DELETE", ["user-manager", "user", id]) => {
            let users = own["users"].as_array_mut().unwrap();
            let before = users.len();
            users.retain(|user| user[".id"] != *id);
            if users.len() < before {
                (204, Value::Null)
            } else {
                (404, json!({ "error": 404, "message": "Not Found" }))
            }
        }
        _ => {
            (400, json!({ "error": 400, "message": "Bad Request", "detail": "no such command or directory" }))
        }
    }
}

/// Echoes what it hears, as careless providers do.
fn sms(own: &mut Value, asked: &Asked, path: &[&str]) -> Answer {
    match (asked.method.as_str(), path) {
        ("GET", ["balance"]) => (200, json!({ "balance": own["balance"] })),
        ("POST", ["messages"]) => {
            let key = asked.header("idempotency-key");
            let messages = own["messages"].as_array_mut().unwrap();
            if !messages.iter().any(|message| message["key"] == *key) {
                messages.push(json!({ "key": key, "to": asked.body["to"], "text": asked.body["text"] }));
            }
            (200, json!({ "status": "sent", "echo": asked.body }))
        }
        _ => (404, json!({ "message": "no such path" })),
    }
}

/// Answers on a listener until it is dropped.
pub(crate) async fn run(listener: TcpListener, state: State) {
    let query = warp::query::<BTreeMap<String, String>>();
    let routes = warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::bytes())
        .then(move |method, path: FullPath, query, headers, body: Bytes| {
            let state = Arc::clone(&state);
            async move {
                let path: Vec<String> =
                    path.as_str().split('/').filter(|part| !part.is_empty()).map(String::from).collect();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let asked = Asked { method, path, query, headers, body };
                let ((status, body), delay) = {
                    let mut state = state.lock().unwrap();
                    let answer = serve(&mut state, &asked);
                    let service = asked.path.first().map_or("", String::as_str);
                    (answer, state[service]["delay_ms"].as_u64().unwrap_or(0))
                };
                tokio::time::sleep(Duration::from_millis(delay)).await;
                let text = if body.is_null() { String::new() } else { body.to_string() };
                Response::builder()
                    .status(status)
                    .header("content-type", "application/json")
                    .body(text)
                    .unwrap()
            }
        });
    warp::serve(routes).incoming(listener).run().await;
}
