//! Each change by an operator leaves one line in the log.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::support::{Bench, of_topic};
use crate::reply::name_of;
use crate::tests::support::{create_topic, until};

/// All lines of this program's brokers, as `name=value` texts.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what has the target `audit`.
struct Keeper;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "audit"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        LINES.lock().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// From now on lines are kept. Nobody else in this program sets what logs.
fn keep_lines() {
    static SET: OnceLock<()> = OnceLock::new();
    SET.get_or_init(|| tracing::subscriber::set_global_default(Keeper).expect("nobody else sets one"));
}

/// The lines that have all of these texts in them.
fn lines(texts: &[&str]) -> Vec<String> {
    let all = LINES.lock();
    all.iter().filter(|line| texts.iter().all(|text| line.contains(text))).cloned().collect()
}

/// The one line that has all of these texts in it.
fn line(texts: &[&str]) -> String {
    let mut found = lines(texts);
    assert_eq!(found.len(), 1, "{texts:?}: {found:?}");
    found.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_act_leaves_one_line_with_old_and_new() {
    keep_lines();
    let bench = Bench::start().await;
    bench.done(create_topic("AuditTopic", 2)).await;
    let made = line(&["change topic", "object=\"AuditTopic\"", "old=\"none\""]);
    assert!(made.contains("peer=\"127.0.0.1:") && made.contains("write_queues: 2"), "{made}");
    // The same again changes nothing, and says what was asked for.
    bench.done(create_topic("AuditTopic", 2)).await;
    line(&["change topic", "asked=\"topic=AuditTopic"]);
    bench.done(create_topic("AuditTopic", 4)).await;
    let changed = line(&["change topic", "object=\"AuditTopic\"", "write_queues: 4"]);
    assert!(changed.contains("write_queues: 2"), "{changed}");

    bench.create_group("AuditGroup").await;
    line(&["change group", "object=\"AuditGroup\"", "old=\"none\""]);
    bench.send("AuditTopic", &[]).await;
    let reset = Frame::request(request::INVOKE_BROKER_TO_RESET_OFFSET)
        .with_field("topic", "AuditTopic")
        .with_field("group", "AuditGroup")
        .with_field("timestamp", -1)
        .with_field("isForce", true);
    bench.done(reset).await;
    let reset = line(&["reset offsets", "group AuditGroup in AuditTopic"]);
    assert!(reset.contains("old=\"0:none") && reset.contains("new=\"0:1"), "{reset}");

    bench.done(Frame::request(request::UPDATE_BROKER_CONFIG).with_body("regionId=audited\n")).await;
    let setting = line(&["change setting", "object=\"regionId\""]);
    assert!(setting.contains("old=\"DefaultRegion\"") && setting.contains("new=\"audited (until"), "{setting}");
    bench.call(Frame::request(request::UPDATE_BROKER_CONFIG).with_body("auditNoSuchKey=1\n")).await;
    let refused = line(&["change setting: refused", "auditNoSuchKey"]);
    assert!(refused.contains("code=1"), "{refused}");

    bench.done(Frame::request(request::DELETE_SUBSCRIPTIONGROUP).with_field("groupName", "AuditGroup")).await;
    line(&["delete group", "object=\"AuditGroup\"", "offsets kept"]);
    bench.done(of_topic(request::DELETE_TOPIC_IN_BROKER, "AuditTopic")).await;
    let deleted = line(&["delete topic", "object=\"AuditTopic\"", "write_queues: 4"]);
    assert!(deleted.contains("new=\"none"), "{deleted}");
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_knows_no_old_value_and_one_that_nobody_waits_for_have_their_line_too() {
    keep_lines();
    let bench = Bench::start().await;
    bench.done(Frame::request(request::CLEAN_UNUSED_TOPIC).with_field("mark", "audited")).await;
    line(&["clean unused topics", "asked=\"mark=audited\""]);
    let mut oneway = Frame::request(request::TRIGGER_DELETE_FILES).with_field("mark", "oneway\naudit forged");
    oneway.set_oneway();
    bench.oneway(oneway).await;
    until("the line is there", || async { !lines(&["delete expired files", "mark=oneway"]).is_empty() }).await;
    let written = line(&["delete expired files", "mark=oneway"]);
    assert!(!written.contains('\n'), "{written}");
    // Reading is no act.
    bench.done(Frame::request(request::GET_BROKER_CONFIG).with_field("mark", "read by audit")).await;
    assert!(lines(&["read by audit"]).is_empty());
    bench.broker.stop().await.unwrap();
}

/// The lines of the audit's file.
fn written(file: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_act_that_is_known_leaves_one_line_in_the_file_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let bench = Bench::start_with(|config| config.audit_log_file = Some(file.clone())).await;
    let (mut count, mut outcomes) = (0, BTreeSet::new());
    for (name, code) in request::ALL {
        // Most of them lack a field, and are refused.
        let answer = bench.call(Frame::request(*code).with_field("mark", name).with_field("operator", "ann")).await;
        let lines = written(&file);
        let Some(act) = name_of(*code) else {
            assert_eq!(lines.len(), count, "{name} is no act");
            continue;
        };
        count += 1;
        assert_eq!(lines.len(), count, "{name}");
        let line = &lines[count - 1];
        let outcome = if answer.code == response::SUCCESS { "done" } else { "refused" };
        assert_eq!((&line["act"], &line["outcome"]), (&act.into(), &outcome.into()), "{line}");
        assert_eq!((line["code"].as_i64().unwrap_or_default(), &line["operator"]), (answer.code.into(), &"ann".into()));
        assert!(line["asked"].as_str().unwrap().contains(name), "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:") && line["timestamp"].is_string(), "{line}");
        outcomes.insert(outcome);
    }
    assert_eq!(outcomes.len(), 2, "some were done and some refused");
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_audit_has_no_file_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = crate::tests::support::settings(folder.path());
    config.audit_log_file = Some("/nowhere/audit.log".into());
    let Err(error) = crate::start::start(config).await else { panic!("it started") };
    assert!(error.to_string().contains("auditLogFile"), "{error}");
}
