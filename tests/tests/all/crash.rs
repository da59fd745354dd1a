//! A transaction settles once and one way, whatever moment `kill -9` hits the broker at.

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::message::Message;
use escrowmq_tests::{Broker, End, Half, Settings, Wire, until};

const GROUP: &str = "crash-producer";
const TOPIC: &str = "Crash";

const FLUSH_MODES: [&str; 2] = ["SYNC_FLUSH", "ASYNC_FLUSH"];

async fn start(flush: &str) -> Broker {
    let broker = Broker::start(Settings::default().without_checks().with("flushDiskType", flush)).await;
    broker.wire().create_topic(TOPIC, 1).await;
    broker
}

fn copies(messages: &[Message], half: &Half) -> usize {
    messages.iter().filter(|message| message.unique_id() == Some(&half.unique_id)).count()
}

async fn visible(wire: &Wire, half: &Half) -> usize {
    copies(&wire.read_queue(TOPIC, 0).await, half)
}

async fn ended(wire: &Wire, half: &Half, end: End) -> Frame {
    wire.end(half, end).await.expect("a decision is answered")
}

/// The same decision again gives the first one's result, the opposite is refused, and the queue holds what it must.
async fn assert_settled(wire: &Wire, half: &Half, end: End) {
    let first = ended(wire, half, end).await;
    assert_eq!(first.code, response::SUCCESS, "{end:?} again: {:?}", first.remark);
    let opposite = ended(wire, half, end.opposite()).await;
    assert_eq!(opposite.code, response::ILLEGAL_OPERATION, "the opposite of {end:?}: {:?}", opposite.remark);
    let again = ended(wire, half, end).await;
    assert_eq!(again.code, response::SUCCESS, "{end:?} after its opposite: {:?}", again.remark);
    assert_eq!(again.fields.get("queueOffset"), first.fields.get("queueOffset"), "a repeat names the same place");
    let messages = wire.read_queue(TOPIC, 0).await;
    let copies = copies(&messages, half);
    assert_eq!(copies, usize::from(end == End::Commit), "copies after {end:?}");
    if end == End::Commit {
        let offset = messages.iter().find(|message| message.unique_id() == Some(&half.unique_id));
        let offset = offset.expect("counted before").queue_offset.to_string();
        assert_eq!(first.fields.get("queueOffset"), Some(offset.as_str()), "where the answer says it is");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_half_nothing_remains() {
    for flush in FLUSH_MODES {
        let mut broker = start(flush).await;
        broker.crash().await;
        let wire = broker.wire();
        assert!(wire.read_queue(TOPIC, 0).await.is_empty());
        let half = wire.half(GROUP, TOPIC, "first", "body").await;
        assert_eq!(ended(&wire, &half, End::Commit).await.code, response::SUCCESS);
        assert_settled(&wire, &half, End::Commit).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_half_is_sent_a_repeat_makes_one_half() {
    for flush in FLUSH_MODES {
        let mut broker = start(flush).await;
        for round in 0..4 {
            let id = format!("sent-{round}");
            {
                let wire = broker.wire();
                let sending = wire.send_half(GROUP, TOPIC, &id, "body");
                cut_short(sending, round).await;
                broker.crash().await;
            }
            let wire = broker.wire();
            let first = wire.half(GROUP, TOPIC, &id, "body").await;
            let second = wire.half(GROUP, TOPIC, &id, "body").await;
            assert_eq!(first, second, "a repeated half is the first one");
            assert_eq!(visible(&wire, &first).await, 0);
            assert_settled(&wire, &first, if round % 2 == 0 { End::Commit } else { End::Rollback }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_half_it_is_still_there_and_hidden() {
    for flush in FLUSH_MODES {
        let mut broker = start(flush).await;
        let wire = broker.wire();
        let committed = wire.half(GROUP, TOPIC, "to-commit", "body").await;
        let rolled_back = wire.half(GROUP, TOPIC, "to-roll-back", "body").await;
        broker.crash().await;
        let wire = broker.wire();
        assert!(wire.read_queue(TOPIC, 0).await.is_empty(), "nothing is decided");
        assert_settled(&wire, &committed, End::Commit).await;
        assert_settled(&wire, &rolled_back, End::Rollback).await;
        broker.crash().await;
        let wire = broker.wire();
        assert_settled(&wire, &committed, End::Commit).await;
        assert_settled(&wire, &rolled_back, End::Rollback).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn between_decision_and_answer_it_settles_one_way() {
    for flush in FLUSH_MODES {
        let mut broker = start(flush).await;
        for round in 0..6 {
            let end = if round % 2 == 0 { End::Commit } else { End::Rollback };
            let half = {
                let wire = broker.wire();
                let half = wire.half(GROUP, TOPIC, &format!("decided-{round}"), "body").await;
                cut_short(wire.end(&half, end), round).await;
                broker.crash().await;
                half
            };
            let wire = broker.wire();
            let before = visible(&wire, &half).await;
            if round % 3 == 2 {
                // The opposite comes first: it wins exactly if the lost decision had not been made.
                let opposite = ended(&wire, &half, end.opposite()).await;
                match opposite.code {
                    response::SUCCESS => assert_settled(&wire, &half, end.opposite()).await,
                    response::ILLEGAL_OPERATION => assert_settled(&wire, &half, end).await,
                    code => panic!("the opposite decision: {code} {:?}", opposite.remark),
                }
            } else {
                assert_settled(&wire, &half, end).await;
            }
            assert!(visible(&wire, &half).await >= before, "what was visible stays");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn right_after_the_answer_the_decision_is_remembered() {
    for flush in FLUSH_MODES {
        let mut broker = start(flush).await;
        let mut decided = Vec::new();
        for round in 0..3 {
            let wire = broker.wire();
            for end in [End::Commit, End::Rollback] {
                let half = wire.half(GROUP, TOPIC, &format!("{end:?}-{round}"), "body").await;
                assert_eq!(ended(&wire, &half, end).await.code, response::SUCCESS);
                decided.push((half, end));
            }
            broker.crash().await;
            let wire = broker.wire();
            // Before anybody repeats anything.
            let messages = wire.read_queue(TOPIC, 0).await;
            for (half, end) in &decided {
                assert_eq!(copies(&messages, half), usize::from(*end == End::Commit), "{end:?} {}", half.unique_id);
            }
            for (half, end) in &decided {
                assert_settled(&wire, half, *end).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_change_nothing() {
    for flush in FLUSH_MODES {
        let mut broker = start(flush).await;
        let wire = broker.wire();
        let open = wire.half(GROUP, TOPIC, "open", "body").await;
        let committed = wire.half(GROUP, TOPIC, "committed", "body").await;
        ended(&wire, &committed, End::Commit).await;
        for number in 0..20 {
            let sent = wire.send(TOPIC, 0, format!("plain {number}"), &[]).await.expect("an answer");
            assert_eq!(sent.code, response::SUCCESS);
        }
        let before = wire.read_queue(TOPIC, 0).await;
        assert_eq!(before.len(), 21);
        for _ in 0..3 {
            broker.crash().await;
            assert_eq!(broker.wire().read_queue(TOPIC, 0).await, before, "the same bytes at the same places");
        }
        let wire = broker.wire();
        assert_settled(&wire, &open, End::Commit).await;
        assert_settled(&wire, &committed, End::Commit).await;
        assert_eq!(wire.read_queue(TOPIC, 0).await.len(), 22);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_broker_goes_on_checking() {
    let mut broker = Broker::start(Settings::default()).await;
    broker.wire().create_topic(TOPIC, 1).await;
    let half = broker.wire().half(GROUP, TOPIC, "checked", "body").await;
    broker.crash().await;
    // Another process of the group than the one that sent it.
    let wire = broker.wire();
    wire.greet("other@1", GROUP, &[]).await;
    let check = wire.until_checked("checked").await;
    assert_eq!((check.position, check.counter), (half.position, half.counter), "ids stay what they were");
    broker.crash().await;
    let wire = broker.wire();
    wire.greet("other@1", GROUP, &[]).await;
    wire.until_checked("checked").await;
    assert_eq!(ended(&wire, &half, End::Commit).await.code, response::SUCCESS);
    until("delivery", async || (visible(&wire, &half).await == 1).then_some(())).await;
    assert_settled(&wire, &half, End::Commit).await;
}

/// Lets a request go and gives up on its answer after a few turns of the runtime, more in later rounds: the request is
/// on its way to the broker, in it, or answered.
async fn cut_short<T>(request: impl Future<Output = T>, round: usize) -> Option<T> {
    let turns = async {
        for _ in 0..(1 << round) * 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = request => Some(answer),
        () = turns => None,
    }
}
