//! A half message is seen by nobody before its commit, and by nobody ever after its rollback, whichever way one looks.

use escrowmq_common::code::response;
use escrowmq_common::name::HALF_TOPIC;
use escrowmq_tests::{Broker, End, Half, Settings, Wire, until};

const GROUP: &str = "hidden-producer";
const READERS: &str = "hidden-reader";
const TOPIC: &str = "Hidden";

/// Every view that could show the message.
async fn assert_hidden(wire: &Wire, half: &Half) {
    let is_it = |message: &escrowmq_common::message::Message| message.unique_id() == Some(&half.unique_id);
    assert!(!wire.read_queue(TOPIC, 0).await.iter().any(is_it), "pull shows {}", half.unique_id);
    assert_eq!(wire.view(TOPIC, half.position).await, None, "view by id shows {}", half.unique_id);
    let key = format!("key-{}", half.unique_id);
    assert!(wire.query(TOPIC, &key, false).await.is_empty(), "query by key shows {}", half.unique_id);
    assert!(wire.query(TOPIC, &half.unique_id, true).await.is_empty(), "query by unique id shows {}", half.unique_id);
    assert!(wire.query(HALF_TOPIC, &key, false).await.is_empty(), "query of the half topic");
    assert_ne!(wire.send_back(READERS, TOPIC, half.position, 1).await, response::SUCCESS, "send-back of a half");
    let pulled = wire.pull(READERS, HALF_TOPIC, 0, 0, 32).await;
    assert_ne!(pulled.code, response::SUCCESS, "pull of the half topic");
    assert!(pulled.messages.is_empty());
}

/// Every view shows it, once.
async fn assert_visible(wire: &Wire, half: &Half) {
    let found = wire.read_queue(TOPIC, 0).await;
    let found: Vec<_> = found.iter().filter(|message| message.unique_id() == Some(&half.unique_id)).collect();
    assert_eq!(found.len(), 1);
    let viewed = wire.view(TOPIC, found[0].position).await.expect("view by the id of the delivered message");
    assert_eq!(viewed.body, found[0].body);
    // The key index is built later than the log.
    let key = format!("key-{}", half.unique_id);
    until("query by key", async || (wire.query(TOPIC, &key, false).await.len() == 1).then_some(())).await;
    until("query by unique id", async || (wire.query(TOPIC, &half.unique_id, true).await.len() == 1).then_some(()))
        .await;
}

/// Waits until the key index has caught up with everything before, so that an empty answer means something.
async fn until_indexed(wire: &Wire, name: &str) {
    let sent = wire.send(TOPIC, 0, "mark", &[("KEYS", name)]).await.expect("an answer");
    assert_eq!(sent.code, response::SUCCESS);
    until("the key index", async || (wire.query(TOPIC, name, false).await.len() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn halves_are_hidden_from_every_view_before_and_after_a_restart() {
    let mut broker = Broker::start(Settings::default().without_checks()).await;
    let wire = broker.wire();
    wire.create_topic(TOPIC, 1).await;
    wire.greet("reader@1", READERS, &[(TOPIC, "*")]).await;
    let undecided = wire.half(GROUP, TOPIC, "undecided", "body").await;
    let rolled_back = wire.half(GROUP, TOPIC, "rolled-back", "body").await;
    let committed = wire.half(GROUP, TOPIC, "committed", "body").await;
    assert_hidden(&wire, &committed).await;
    assert_eq!(wire.end(&rolled_back, End::Rollback).await.unwrap().code, response::SUCCESS);
    assert_eq!(wire.end(&committed, End::Commit).await.unwrap().code, response::SUCCESS);
    until_indexed(&wire, "mark-1").await;
    assert_hidden(&wire, &undecided).await;
    assert_hidden(&wire, &rolled_back).await;
    assert_visible(&wire, &committed).await;

    broker.crash().await;
    let wire = broker.wire();
    wire.greet("reader@1", READERS, &[(TOPIC, "*")]).await;
    until_indexed(&wire, "mark-2").await;
    assert_hidden(&wire, &undecided).await;
    assert_hidden(&wire, &rolled_back).await;
    assert_visible(&wire, &committed).await;

    assert_eq!(wire.end(&undecided, End::Commit).await.unwrap().code, response::SUCCESS);
    until_indexed(&wire, "mark-3").await;
    assert_visible(&wire, &undecided).await;
    assert_hidden(&wire, &rolled_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_half_topic_takes_no_messages() {
    let broker = Broker::start(Settings::default()).await;
    let sent = broker.wire().send(HALF_TOPIC, 0, "body", &[]).await.expect("an answer");
    assert_eq!(sent.code, response::NO_PERMISSION, "{:?}", sent.remark);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_needs_the_right_half_counter_and_group() {
    let broker = Broker::start(Settings::default().without_checks()).await;
    let wire = broker.wire();
    wire.create_topic(TOPIC, 1).await;
    let half = wire.half(GROUP, TOPIC, "mine", "body").await;
    for wrong in [
        Half { group: "another-group".to_owned(), ..half.clone() },
        Half { counter: half.counter + 1, ..half.clone() },
        Half { position: half.position + 1, ..half.clone() },
        Half { position: -1, ..half.clone() },
        Half { position: i64::MAX, ..half.clone() },
    ] {
        for end in [End::Commit, End::Rollback] {
            let answer = wire.end(&wrong, end).await.expect("an answer");
            assert_eq!(answer.code, response::SYSTEM_ERROR, "{wrong:?}: {:?}", answer.remark);
        }
    }
    let sent = wire.send(TOPIC, 0, "plain", &[]).await.expect("an answer");
    assert_eq!(sent.code, response::SUCCESS);
    let plain = wire.read_queue(TOPIC, 0).await;
    assert_eq!(plain.len(), 1, "nothing but the plain message");
    // A plain message is no half.
    let stolen = Half { position: plain[0].position, counter: 0, ..half.clone() };
    assert_eq!(wire.end(&stolen, End::Commit).await.unwrap().code, response::SYSTEM_ERROR);
    assert_eq!(wire.end(&half, End::Unknown).await.unwrap().code, response::SUCCESS, "not knowing is an answer");
    assert_eq!(wire.read_queue(TOPIC, 0).await.len(), 1);
    assert_eq!(wire.end(&half, End::Commit).await.unwrap().code, response::SUCCESS);
    assert_eq!(wire.read_queue(TOPIC, 0).await.len(), 2);
}
