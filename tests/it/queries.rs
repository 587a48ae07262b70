//! Every named statement is understood by the server as it is sent.

use crate::harness::TestDb;

#[tokio::test]
async fn every_named_query_prepares() {
    let db = TestDb::new().await;
    let client = db.session().await;
    let mut count = 0;
    for (name, text) in rowbeat::db::query::all() {
        if let Err(error) = client.prepare(text).await {
            panic!("{name}: {}", rowbeat::db::sqlstate::describe(&error));
        }
        count += 1;
    }
    assert!(count > 20, "only {count} statements found");
}
