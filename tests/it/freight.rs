//! The bundled plugin freight: that it installs, and what its alerts tell.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::harness::TestDb;
use crate::postbox::{Identity, Postbox, Security};

/// A database with freight and two organizations, A and B.
pub(crate) async fn freight() -> TestDb {
    let db = TestDb::new().await;
    rowbeat(&db, &["plugin", "install", "freight"]).ok();
    db.run("insert into freight.organization (name, scac_code, time_zone) values ('a', 'aaaa', 'UTC'), ('b', 'bbbb', 'UTC')").await;
    db
}

/// The id of an organization, as SQL.
pub(crate) const A: &str = "(select id from freight.organization where name = 'A')";
pub(crate) const B: &str = "(select id from freight.organization where name = 'B')";

/// A mail server, and a daemon's configuration that leads there.
pub(crate) async fn post() -> (Postbox, String) {
    let postbox = Postbox::start(Security::None, &Identity::for_host("localhost"), None).await;
    let config = postbox.connection("mail", "tls = \"none\"");
    (postbox, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn freight_installs_once_passes_its_tests_and_goes_away() {
    let db = TestDb::new().await;
    let said = rowbeat(&db, &["plugin", "install", "freight", "--test"]).ok();
    assert!(said.contains("plugin freight 1.0.0 installed"), "{said}");
    let again = rowbeat(&db, &["plugin", "install", "freight"]).ok();
    assert!(again.contains("is installed already: nothing to do"), "{again}");
    let list: Value = rowbeat(&db, &["plugin", "list", "--json"]).json();
    assert_eq!(list[0]["isolated"], json!(true));
    rowbeat(&db, &["plugin", "remove", "freight", "--purge"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.plugin").await, 0);
}
