//! The bundled plugin freight: that it installs, and what its alerts tell.

use serde_json::{Value, json};

use crate::cli::{finish, rowbeat};
use crate::harness::{Daemon, TestDb};
use crate::login::Login;
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

#[tokio::test(flavor = "multi_thread")]
async fn freight_works_for_roles_that_are_no_superusers_isolated_where_roles_can_be_made() {
    let db = TestDb::empty().await;
    for (right, isolated) in [("nocreaterole", false), ("createrole", true)] {
        let login = Login::new(&db, right).await;
        let role = &login.role;
        let said = login.install("freight");
        assert_eq!(said.contains("not isolated"), !isolated, "{said}");
        finish(login.command(), &["setupcelerybeat"], "").ok();
        let daemon = Daemon::start(login.command(), "", &[]).ready().await;
        db.run(&format!(
            "set role {role};
             insert into freight.organization (name, scac_code) values ('a', 'a');
             insert into freight.table_change_alert (organization_id, name, table_name) values ({A}, 'one', 'rate');
             insert into freight.rate (organization_id, effective_date, expiration_date) values ({A}, '2020-01-01', '2099-01-01');
             reset role"
        ))
        .await;
        db.until("exists (select from freight.alert_event)").await;
        assert_eq!(db.get::<String>("select channel from rowbeat.listening").await, "new_added_rate");
        drop(daemon);
        finish(login.command(), &["plugin", "remove", "freight", "--purge", "--cancel-tasks"], "").ok();
        let left: i64 = db
            .get_with(
                "select count(*) from pg_roles where rolname = $1",
                &[&format!("rowbeat_{}_freight", db.name)],
            )
            .await;
        assert_eq!(left, 0);
        db.run(&format!("drop schema rowbeat cascade; drop owned by {role}; drop role {role}")).await;
    }
}
