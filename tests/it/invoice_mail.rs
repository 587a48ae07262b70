//! The mail of invoices: once and the same, or counted, kept and tried again; and a queue that is out of order.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::freight::post;
use crate::harness::TestDb;
use crate::invoice::{invoice, sale};
use crate::postbox::Postbox;

const SENT: &str = "email_sent and email_claim is null from invoice.invoice where id = 1";

/// A sale of two bottles of milk to this address.
fn milk(email: &str) -> String {
    sale(&[(1, 2)], &[(500, 1)]).replace("ann@example.com", email)
}

async fn mail_state(db: &TestDb) -> String {
    db.get("select concat_ws('|', email_sent, email_fail_count, email_last_error) from invoice.invoice where id = 1").await
}

/// The part of a mail with this content type, decoded.
fn part(postbox: &Postbox, mail: usize, content_type: &str) -> String {
    let text = postbox.mails()[mail].text.replace("\r\n", "\n");
    let at = text
        .find(&format!("Content-Type: {content_type}"))
        .unwrap_or_else(|| panic!("{content_type}: {text}"));
    let (head, body) = text[at..].split_once("\n\n").unwrap();
    let body = body.split("\n--").next().unwrap();
    if head.contains("quoted-printable") {
        return body.replace("=\n", "").replace("=3D", "=");
    }
    body.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn i23_the_mail_says_what_was_bought() {
    let db = invoice().await;
    let (postbox, config) = post().await;
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    db.run(&milk("ann@example.com")).await;
    db.until(&format!("select {SENT}")).await;
    let expected = "Invoice No: 1
Customer Name: Ann
Customer Email: ann@example.com

Purchased Items:
- Milk (P001) | Qty: 2 | Unit: 20.00 | Tax: 2.00 | Total: 42.00

Gross Amount: 40.00
Tax Amount: 2.00
Net Amount: 42.00
Rounded Payable: 42.00
Paid Amount: 500.00
Balance Amount: 458.00

Thank you for your purchase.";
    assert_eq!(db.get::<String>("select invoice.email_body(1)").await, expected);
    let mail = &postbox.mails()[0];
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("shop@a.example", ["ann@example.com".to_owned()].as_slice())
    );
    assert!(mail.text.contains("Subject: Invoice #1\r\n"), "{}", mail.text);
    assert_eq!(part(&postbox, 0, "text/plain").trim_end(), expected);
    let html = part(&postbox, 0, "text/html");
    assert!(
        html.contains("Milk (P001)") && html.contains("<strong>Rounded Payable: 42.00</strong>"),
        "{html}"
    );
    assert!(mail.text.contains("Message-ID: <invoice-1-"), "{}", mail.text);
    let result: Value =
        db.get("select result from rowbeat.tasks where definition = 'invoice.send_email'").await;
    assert_eq!(result, json!({ "status": "sent", "invoice_id": 1 }));
    assert_eq!(mail_state(&db).await, "t|0|");
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_a_mail_server_that_is_down_is_counted_six_times_and_the_invoice_stands() {
    let db = invoice().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "[connections.mail]\ntype = \"smtp\"\nhost = \"localhost\"\nport = {closed}\ntls = \"none\"\nfrom = \"a@b.example\"\n"
    );
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    db.run(&milk("ann@example.com")).await;
    db.until("select failures = 1 from rowbeat.tasks where definition = 'invoice.send_email'").await;
    let pause: f64 =
        db.get("select extract(epoch from retry_at - ended_at)::float8 from rowbeat.attempt").await;
    assert!((pause - 180.0).abs() < 0.001, "{pause}");
    rowbeat(&db, &["plugin", "set", "invoice", "email_retry_delay", "0"]).ok();
    db.run("select rowbeat.run_now(id) from rowbeat.task where definition = 'invoice.send_email'").await;
    db.until("select state = 'failed' from rowbeat.tasks where definition = 'invoice.send_email'").await;
    let state = mail_state(&db).await;
    assert!(state.starts_with("f|6|smtp localhost: ") && state.len() < 1020, "{state}");
    assert_eq!(db.get::<String>("select net_amount::text from invoice.invoice").await, "42.00");
    assert!(db.get::<bool>("select email_claim is null from invoice.invoice").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn i16_a_queue_that_is_out_of_order_does_not_stop_the_sale_and_is_made_up_for() {
    let db = invoice().await;
    let (postbox, config) = post().await;
    db.run(
        "create function public.broken() returns trigger language plpgsql as $$ begin raise exception '%', 'disk on fire ' || repeat('x', 2000); end $$;
         create trigger broken before insert on rowbeat.task for each row when (new.definition = 'invoice.send_email') execute function public.broken()",
    )
    .await;
    db.run(&milk("ann@example.com")).await;
    let state = mail_state(&db).await;
    assert!(state.starts_with("f|1|Queue error: disk on fire x"), "{state}");
    assert_eq!(state.len(), "f|1|Queue error: ".len() + 1000);
    assert_eq!(db.get::<i32>("select stock from invoice.product where id = 1").await, 8);
    db.run("drop trigger broken on rowbeat.task").await;
    let requeue = "select (invoice.requeue_emails('{}') ->> 'enqueued')::int";
    assert_eq!(db.get::<i32>(requeue).await, 1);
    assert_eq!(db.get::<i32>(requeue).await, 0, "it has a live task");
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    db.until(&format!("select {SENT}")).await;
    assert_eq!(mail_state(&db).await, "t|1|");
    assert_eq!(db.get::<i32>(requeue).await, 0);
    let schedule: Value = db.get("select jsonb_build_array(spec, overlap) from rowbeat.schedule where name = 'invoice.requeue_emails'").await;
    assert_eq!(schedule, json!(["every 5 minutes", "skip"]));
    assert_eq!(postbox.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_a_mail_that_fails_once_is_sent_by_the_next_attempt() {
    let db = invoice().await;
    let (postbox, config) = post().await;
    rowbeat(&db, &["plugin", "set", "invoice", "email_retry_delay", "0"]).ok();
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    db.run(&milk("busy@example.com")).await;
    db.until(&format!("select {SENT}")).await;
    assert_eq!(mail_state(&db).await, "t|1|");
    assert_eq!(postbox.mails().len(), 1);
    // A recipient whom the server does not know is tried as often as everything else.
    db.run(&milk("unknown@example.com")).await;
    db.until("select email_fail_count = 6 and email_last_error like '%nobody of that name%' from invoice.invoice where id = 2").await;
    db.until("select state = 'failed' and failures = 6 from rowbeat.tasks where unique_key = '2'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_goes_out_once_however_often_it_is_enqueued() {
    let db = invoice().await;
    let (postbox, config) = post().await;
    db.run(&milk("ann@example.com")).await;
    db.run("select rowbeat.enqueue('invoice.send_email', '{\"invoice_id\": 1}', p_unique_key => '1')").await;
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.task where definition = 'invoice.send_email'").await,
        1
    );
    db.run("insert into rowbeat.task (definition, payload) select 'invoice.send_email', '{\"invoice_id\": 1}' from generate_series(1, 20)").await;
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    db.until(&format!("select {SENT}")).await;
    db.run("select rowbeat.run_now(id) from rowbeat.tasks where definition = 'invoice.send_email' and state = 'scheduled'").await;
    db.until("select count(*) = 21 from rowbeat.finished_task where definition = 'invoice.send_email' and state = 'completed'").await;
    assert_eq!(postbox.mails().len(), 1);
    assert_eq!(mail_state(&db).await, "t|0|");
    assert_eq!(
        db.get::<i64>("select coalesce(sum(failures), 0)::bigint from rowbeat.finished_task").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_another_live_task_sends_is_put_off_for_ten_seconds() {
    let db = invoice().await;
    let (postbox, config) = post().await;
    db.run(&milk("ann@example.com")).await;
    db.run("update invoice.invoice set email_claim = rowbeat.enqueue('invoice.send_email', p_run_at => now() + interval '1 hour')").await;
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    db.until("exists (select from rowbeat.attempt where outcome = 'snoozed' and retry_at = ended_at + interval '10 seconds')").await;
    assert_eq!(postbox.mails().len(), 0);
    // A claim of a task that has ended counts no more.
    db.run("select rowbeat.cancel(email_claim), rowbeat.run_now(email_task) from invoice.invoice").await;
    db.until(&format!("select {SENT}")).await;
    assert_eq!(db.get::<i32>("select failures::int from rowbeat.tasks where unique_key = '1'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn i25_the_mail_of_a_deleted_invoice_is_not_tried() {
    let db = invoice().await;
    let (postbox, config) = post().await;
    db.run(&milk("ann@example.com")).await;
    db.run("select rowbeat.enqueue('invoice.send_email', '{\"invoice_id\": 1}')").await;
    db.run("select invoice.delete_invoice(1)").await;
    assert_eq!(db.get::<String>("select state from rowbeat.tasks where unique_key = '1'").await, "cancelled");
    assert_eq!(db.get::<i32>("select stock from invoice.product where id = 1").await, 8);
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    // One that the invoice does not know of finds it gone.
    db.until("select state = 'cancelled' and error ->> 'message' = 'invoice deleted' and failures = 0 from rowbeat.tasks where definition = 'invoice.send_email' and unique_key is null").await;
    // One that is being sent is stopped.
    db.run(&milk("slow@example.com")).await;
    db.until("select email_claim = email_task from invoice.invoice").await;
    db.run("select invoice.delete_invoice(2)").await;
    db.until("select state = 'cancelled' from rowbeat.tasks where unique_key = '2'").await;
    assert_eq!(postbox.mails().len(), 0);
    assert_eq!(db.get::<i64>("select count(*) from invoice.invoice").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_sent_again_only_when_somebody_insists() {
    let db = invoice().await;
    let (postbox, config) = post().await;
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    db.run(&milk("ann@example.com")).await;
    db.until(&format!("select {SENT}")).await;
    let (code, message) = db.refusal("select invoice.resend_email(1)").await;
    assert_eq!((code.as_str(), message.as_str()), ("RP409", "Email was already sent."));
    rowbeat(&db, &["app", "invoice", "resend-email", "1"]).refused(1, &["Email was already sent."]);
    let said = rowbeat(&db, &["app", "invoice", "resend-email", "1", "--confirmed"]).ok();
    assert!(said.starts_with("Email enqueued as task "), "{said}");
    db.until("select count(*) = 2 from rowbeat.finished_task where unique_key like '1%'").await;
    let mails = postbox.mails();
    let id =
        |n: usize| mails[n].text.lines().find(|line| line.starts_with("Message-ID: ")).unwrap().to_owned();
    assert_eq!((mails.len(), id(0)), (2, id(1)), "the same Message-ID, so that a double can be told");
    assert_eq!(db.refusal("select invoice.resend_email(99)").await.0, "RP404");
    // What waits for its next attempt is due at once.
    db.run("update rowbeat.task_definition set effect = '{\"cc\": \"nobody\"}' where name = 'invoice.send_email'").await;
    db.run(&milk("bob@example.com")).await;
    db.until("select failures = 1 and state = 'retryable' from rowbeat.tasks where unique_key = '2'").await;
    db.run("update rowbeat.task_definition set effect = '{}' where name = 'invoice.send_email'; select invoice.resend_email(2)").await;
    db.until("select email_sent and email_fail_count = 1 from invoice.invoice where id = 2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_makes_a_pdf_is_asked_before_the_mail_and_its_file_is_attached() {
    let db = invoice().await;
    let (postbox, config) = post().await;
    rowbeat(&db, &["plugin", "set", "invoice", "pdf_connection", "pdf"]).ok();
    rowbeat(&db, &["plugin", "set", "invoice", "email_retry_delay", "0"]).ok();
    let program = "[programs.pdf]\npath = \"/bin/sh\"\nargs = [\"-c\", \"printf '%%PDF\\\\0\\\\377'; grep -c 'Milk (P001)'\"]\n";
    let _daemon = db.daemon_with(&format!("{config}{program}"), &[]).ready().await;
    db.run(&milk("busy@example.com")).await;
    db.until(&format!("select {SENT}")).await;
    let mails = postbox.mails();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].text.contains("filename=\"invoice-1.pdf\""), "{}", mails[0].text);
    let file = part(&postbox, 0, "application/pdf");
    // %PDF, a zero, 0xff, and that the HTML came in on standard input.
    assert_eq!(file.trim(), "JVBERgD/MQo=", "{}", mails[0].text);
    assert_eq!(mail_state(&db).await, "t|1|");
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_mails_repeats_and_deletions_at_once_do_not_lock_each_other_out() {
    let db = invoice().await;
    let (postbox, config) = post().await;
    rowbeat(&db, &["plugin", "set", "invoice", "email_retry_delay", "0"]).ok();
    db.run("update invoice.product set stock = 10000").await;
    let daemon = db.daemon_with(&config, &[]).ready().await;
    let sessions = futures_util::future::join_all((0..4).map(|_| db.session())).await;
    let work = sessions.iter().enumerate().map(|(n, session)| async move {
        let mut refusals = Vec::new();
        for round in 0..60 {
            let address = if round % 3 == 0 { "busy" } else { "ann" };
            let sale = milk(&format!("{address}{n}@example.com"));
            let again = "select invoice.resend_email(i.id, true) from (select id from invoice.invoice order by random() limit 1) i";
            let delete = format!("select invoice.delete_invoice(i.id, {}) from (select id from invoice.invoice order by random() limit 1) i", round % 2 == 0);
            for sql in [sale.as_str(), again, delete.as_str()] {
                if let Err(error) = session.batch_execute(sql).await {
                    refusals.push(error.as_db_error().unwrap().code().code().to_owned());
                }
            }
        }
        refusals
    });
    let refusals = futures_util::future::join_all(work).await.concat();
    assert!(refusals.iter().all(|code| code == "RP404"), "only what another has just deleted: {refusals:?}");
    db.until("not exists (select from rowbeat.task where definition = 'invoice.send_email')").await;
    assert!(!daemon.log().contains("deadlock"), "{}", daemon.log());
    assert!(db.get::<bool>("select bool_and(email_sent and email_claim is null) from invoice.invoice").await);
    assert!(!postbox.mails().is_empty());
}
