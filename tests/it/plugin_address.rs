//! Plugins from an address: by the real program, from real servers on the loopback, with and without TLS.

use std::sync::{Arc, Mutex};

use ring::digest::{SHA256, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cli::{Ran, finish};
use crate::endpoint::desk;
use crate::harness::{TestDb, server};
use crate::postbox::Identity;

type Reply = dyn Fn(&str) -> Vec<u8> + Send + Sync;

/// A server of files; the address it is at, and the requests it gets.
async fn files(identity: Option<Identity>, reply: Arc<Reply>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = if identity.is_some() { "https://localhost" } else { "http://127.0.0.1" };
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (identity, reply, kept) = (identity.clone(), Arc::clone(&reply), Arc::clone(&kept));
            tokio::spawn(async move {
                match identity {
                    // Whoever does not trust it goes away.
                    Some(identity) => {
                        if let Ok(stream) = identity.acceptor().accept(stream).await {
                            answer(stream, &*reply, &kept).await;
                        }
                    }
                    None => answer(stream, &*reply, &kept).await,
                }
            });
        }
    });
    (format!("{host}:{port}"), seen)
}

async fn answer(
    mut stream: impl tokio::io::AsyncRead + AsyncWriteExt + Unpin,
    reply: &Reply,
    seen: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    seen.lock().unwrap().push(head);
    // A client may have heard enough.
    let _ = stream.write_all(&reply(&path)).await;
    let _ = stream.shutdown().await;
}

fn found(body: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", body].concat()
}

fn moved(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: {to}\r\n\r\n")
        .into_bytes()
}

fn zip(db: &TestDb) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let zip = folder.path().join("desk.zip");
    desk().run(db, "pack", &["--to", zip.to_str().unwrap()]).ok();
    std::fs::read(zip).unwrap()
}

fn sum(zip: &[u8]) -> String {
    digest(&SHA256, zip).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The program, trusting this authority.
async fn rowbeat(db: &TestDb, pem: &str, arguments: &[&str]) -> Ran {
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), pem).unwrap();
    let mut command = server().rowbeat(&db.name);
    command.env("SSL_CERT_FILE", authority.path());
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let _kept = authority;
        finish(command, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), "")
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_installed_from_an_https_address_by_a_trusted_server_only() {
    let db = TestDb::new().await;
    let (zip, identity) = (zip(&db), Identity::for_host("localhost"));
    let sum = sum(&zip);
    let (site, seen) = files(
        Some(identity.clone()),
        Arc::new(move |path| match path {
            "/old" => moved("/desk.zip?key=s3cret"),
            "/down" => moved("http://127.0.0.1:1/desk.zip"),
            _ => found(&zip),
        }),
    )
    .await;
    let address = |path: &str| format!("{site}{path}");
    let stranger = Identity::for_host("localhost");
    rowbeat(&db, &stranger.pem, &["plugin", "install", &address("/desk.zip")])
        .await
        .refused(1, &["/desk.zip: ", "certificate"]);
    assert_eq!(seen.lock().unwrap().len(), 0);
    let other = "0".repeat(64);
    rowbeat(&db, &identity.pem, &["plugin", "install", &address("/desk.zip"), "--sha256", &other])
        .await
        .refused(1, &[&format!("its SHA-256 is {sum}, not {other}; nothing was installed")]);
    rowbeat(&db, &identity.pem, &["plugin", "install", &address("/desk.zip"), "--sha256", "12"])
        .await
        .refused(2, &["64 hexadecimal digits"]);
    rowbeat(&db, &identity.pem, &["plugin", "install", &address("/down")])
        .await
        .refused(1, &["302 Found leads to http, which is not followed"]);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.plugin").await, 0);
    let (pinned, from) = (sum.to_uppercase(), address("/old?key=s3cret"));
    let said = rowbeat(&db, &identity.pem, &["install_plugin", &from, "--sha256", &pinned]).await.ok();
    assert!(said.contains("plugin desk 1.0.0 installed"), "{said}");
    assert_eq!(
        db.get::<String>("select origin from rowbeat.plugin").await,
        address("/old"),
        "without what may be a key"
    );
    rowbeat(&db, &identity.pem, &["install_plugin", &from]).await.refused(1, &["desk is already installed."]);
    let said = rowbeat(&db, &identity.pem, &["plugin", "install", &from]).await.ok();
    assert!(said.contains("nothing to do"), "{said}");
    let heads = seen.lock().unwrap().concat().to_lowercase();
    assert!(!heads.contains("authorization") && !heads.contains("cookie"), "{heads}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_loopback_http_will_do_and_nothing_is_read_or_followed_for_ever() {
    let db = TestDb::new().await;
    let zip = zip(&db);
    let (site, seen) = files(
        None,
        Arc::new(move |path| match path {
            "/desk.zip" => found(&zip),
            "/loop" => moved("/loop"),
            "/inside" => moved("http://127.0.0.2:1/desk.zip"),
            "/away" => moved("http://plugins.example/desk.zip"),
            "/long" => found(&vec![b'x'; 17 << 20]),
            "/page" => found(b"<!doctype html>"),
            _ => b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }),
    )
    .await;
    for (path, problem) in [
        ("/loop", "more than 5 redirects"),
        ("/inside", "127.0.0.2 has the address 127.0.0.2, which is not public"),
        ("/away", "http is for the loopback only: use https"),
        ("/long", "it is larger than 16 MiB"),
        ("/page", "is no zip"),
        ("/nowhere", "answered 404 Not Found"),
    ] {
        rowbeat(&db, "", &["plugin", "install", &format!("{site}{path}")]).await.refused(1, &[problem]);
    }
    assert_eq!(seen.lock().unwrap().iter().filter(|head| head.starts_with("GET /loop ")).count(), 6);
    for (address, problem) in [
        ("http://plugins.example/desk.zip", "http is for the loopback only: use https"),
        ("ftp://127.0.0.1/desk.zip", "ftp is not understood"),
        ("https://me:secret@127.0.0.1/desk.zip", "a URL with credentials is not taken"),
        ("https://127.0.0.1:1/desk.zip", "onnect"),
    ] {
        let ran = rowbeat(&db, "", &["plugin", "install", address]).await;
        ran.refused(1, &[problem]);
        assert!(!ran.err.contains("secret"), "{ran:?}");
    }
    let from = format!("{site}/desk.zip");
    let said = rowbeat(&db, "", &["plugin", "install", &from, "--dry-run"]).await.ok();
    assert!(said.contains("would be installed"), "{said}");
    rowbeat(&db, "", &["plugin", "install", &from]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_on_the_disk_can_be_pinned_too() {
    let db = TestDb::new().await;
    let zip = zip(&db);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("desk.zip");
    std::fs::write(&path, &zip).unwrap();
    let path = path.to_str().unwrap();
    rowbeat(&db, "", &["plugin", "install", path, "--sha256", &"a".repeat(64)])
        .await
        .refused(1, &["its SHA-256 is"]);
    rowbeat(&db, "", &["plugin", "install", folder.path().to_str().unwrap(), "--sha256", &sum(&zip)])
        .await
        .refused(1, &["is the sum of a zip"]);
    rowbeat(&db, "", &["plugin", "install", path, "--sha256", &sum(&zip)]).await.ok();
    assert_eq!(db.get::<String>("select origin from rowbeat.plugin").await, "zip desk.zip");
}
