//! Checks on the wire: who is asked, how many at once, and what an answer brings about.

use std::time::Duration;

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use futures_util::future::join_all;

use super::support::{PATIENCE, Stage, create_topic, field, half_id, send};

/// As many as one connection may owe.
const WINDOW: usize = 1000;

fn half(unique_id: &str) -> Frame {
    send("T", &[("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", unique_id)])
}

fn checks(stage: &Stage) -> Vec<Frame> {
    let seen = stage.incoming.seen.lock();
    seen.iter().filter(|frame| frame.code == request::CHECK_TRANSACTION_STATE).cloned().collect()
}

/// An answer to a check: 8 commits, 12 rolls back, 0 does not know.
fn answer(check: &Frame, decision: i32) -> Frame {
    Frame::request(request::END_TRANSACTION)
        .with_field("producerGroup", "PG")
        .with_field("tranStateTableOffset", field(check, "tranStateTableOffset").unwrap())
        .with_field("commitLogOffset", field(check, "commitLogOffset").unwrap())
        .with_field("commitOrRollback", decision)
        .with_field("fromTransactionCheck", "true")
}

#[tokio::test]
async fn answers_let_halves_go_on_that_were_held_back() {
    let halves = 3 * WINDOW + 500;
    let stage = Stage::with(|config| {
        config.transaction_time_out = Duration::from_millis(1);
        config.transaction_check_interval = Duration::from_secs(3600);
    })
    .await;
    stage.done(create_topic("T", 1)).await;
    // Sent without an instance of the group: they wait for one.
    for from in (0..halves).step_by(500) {
        let sends = (from..from + 500).map(|nth| half(&format!("U{nth}")));
        join_all(sends.map(|request| stage.remote.call(&stage.address, request, PATIENCE))).await;
    }
    let transactions = &stage.running.broker().transactions;
    stage.until("all wait", |_| transactions.waiting_for_checker("PG") == halves as u64).await;
    let entries = |stage: &Stage| stage.running.broker().shard.counters().applied_index().expect("entries").get();
    let logged = entries(&stage);

    stage.producer("client-1", "PG").await;
    stage.until("a window of checks", |stage| checks(stage).len() >= WINDOW).await;
    stage.until("nobody waits", |_| transactions.waiting_for_checker("PG") == 0).await;
    assert_eq!(checks(&stage).len(), WINDOW, "what is beyond is held back");
    // One answer, one more check.
    stage.done(answer(&checks(&stage)[0], 0)).await;
    stage.until("one more check", |stage| checks(stage).len() > WINDOW).await;
    assert_eq!(checks(&stage).len(), WINDOW + 1);
    assert_eq!(transactions.checks_sent(), WINDOW as u64 + 1);
    let entries = entries(&stage) - logged;
    assert!(entries < 100, "what is held back costs no entry of the log: {entries}");

    let mut answered = 1;
    while answered < halves {
        stage.until("more checks", |stage| checks(stage).len() > answered).await;
        let more = checks(&stage)[answered..].to_vec();
        answered += more.len();
        assert!(answered <= halves, "each half is asked about once");
        let answers = more.iter().map(|check| stage.remote.call(&stage.address, answer(check, 8), PATIENCE));
        for committed in join_all(answers).await {
            assert_eq!(committed.unwrap().code, 0);
        }
    }
    assert_eq!(stage.stored("T", 0).len(), halves - 1, "all but the one whose answer was UNKNOWN");
}

#[tokio::test]
async fn an_answer_in_progress_uses_up_no_attempt_and_comes_behind_its_check() {
    let stage = Stage::with(|config| config.transaction_time_out = Duration::from_millis(1)).await;
    stage.done(create_topic("T", 1)).await;
    stage.producer("client-1", "PG").await;
    let kept = stage.done(half("U")).await;
    let row = |stage: &Stage| {
        let shard = &stage.running.broker().shard;
        shard.half(half_id(&kept)).unwrap().expect("it is not decided")
    };
    for round in 1..=3 {
        stage.until("a check", |stage| checks(stage).len() == round).await;
        let check = checks(&stage).pop().expect("a check");
        stage.done(answer(&check, 0).with_field("retryAfterMillis", 20)).await;
        let row = row(&stage);
        assert_eq!(row.checks, 0, "whatever is applied first: the check is in front of its answer");
        assert_eq!(row.asked.last().map(|asked| asked.client.as_str()), Some("client-1"));
        assert_eq!(row.asked.len(), round);
    }
}
