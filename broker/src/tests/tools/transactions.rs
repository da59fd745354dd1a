//! Transactions as operators see them, and what operators decide.

use std::time::Duration;

use escrowmq_common::body::json::from_slice;
use escrowmq_common::body::{TransactionAction, TransactionCounts, TransactionInfo, TransactionPage, TransactionState};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;

use super::support::{Bench, Sent, send_request};
use crate::tests::support::until;

/// Sends a half message of the group `PG`.
async fn half(bench: &Bench, topic: &str, unique_id: &str) -> Sent {
    let properties =
        [("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", unique_id), ("KEYS", "k1 k2"), ("TAGS", "t")];
    bench.send(topic, &properties).await
}

async fn list(bench: &Bench, fields: &[(&str, &str)]) -> TransactionPage {
    let ask = fields
        .iter()
        .fold(Frame::request(request::LIST_TRANSACTIONS), |ask, (name, value)| ask.with_field(name, value));
    from_slice(&bench.done(ask).await.body).unwrap()
}

fn ids(page: &TransactionPage) -> Vec<i64> {
    page.transactions.iter().map(|info| info.half_id.cast_signed()).collect()
}

fn get(half: i64) -> Frame {
    Frame::request(request::GET_TRANSACTION).with_field("halfId", half)
}

async fn show(bench: &Bench, half: &Sent) -> TransactionInfo {
    from_slice(&bench.done(get(half.id.position)).await.body).unwrap()
}

async fn count(bench: &Bench) -> TransactionCounts {
    from_slice(&bench.done(Frame::request(request::COUNT_TRANSACTIONS)).await.body).unwrap()
}

fn decide(half: i64, action: &str) -> Frame {
    Frame::request(request::DECIDE_TRANSACTION)
        .with_field("halfId", half)
        .with_field("action", action)
        .with_field("operator", "ops@host")
        .with_field("reason", "the order was paid")
}

fn field<'a>(answer: &'a Frame, name: &str) -> Option<&'a str> {
    answer.fields.get(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn open_and_parked_ones_are_listed_page_by_page_and_counted() {
    let bench = Bench::start().await;
    let mut halves = Vec::new();
    for n in 0..7 {
        let topic = if n % 2 == 0 { "T" } else { "U" };
        halves.push(half(&bench, topic, &format!("u{n}")).await.id.position);
    }
    bench.done(decide(halves[2], "park")).await;
    let all = list(&bench, &[]).await;
    assert_eq!((ids(&all), all.next), (halves.clone(), None));
    let first = &all.transactions[0];
    assert_eq!((first.producer_group.as_str(), first.topic.as_str(), first.queue_id), ("PG", "T", 0));
    assert_eq!(
        (first.transaction_id.as_str(), first.keys.as_deref(), first.tags.as_deref()),
        ("u0", Some("k1 k2"), Some("t"))
    );
    assert_eq!((first.state, &first.properties), (TransactionState::Open, &None));
    assert_eq!(first.next_check_at, Some(first.prepared_at + 6_000));

    let mut paged = Vec::new();
    let mut after = None::<u64>;
    loop {
        let from = after.map(|after| after.to_string());
        let mut fields = vec![("limit", "3")];
        fields.extend(from.as_deref().map(|from| ("after", from)));
        let page = list(&bench, &fields).await;
        assert!(page.transactions.len() <= 3);
        paged.extend(ids(&page));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged, halves);

    assert_eq!(ids(&list(&bench, &[("topic", "U")]).await), [halves[1], halves[3], halves[5]]);
    assert_eq!(ids(&list(&bench, &[("state", "parked"), ("producerGroup", "PG")]).await), [halves[2]]);
    assert_eq!(ids(&list(&bench, &[("state", "open"), ("topic", "T")]).await), [halves[0], halves[4], halves[6]]);
    assert_eq!(ids(&list(&bench, &[("producerGroup", "other")]).await), [] as [i64; 0]);
    assert_eq!(ids(&list(&bench, &[("olderThanMillis", "3600000")]).await), [] as [i64; 0]);
    assert_eq!(ids(&list(&bench, &[("olderThanMillis", "0")]).await), halves);

    let groups = count(&bench).await.groups;
    assert_eq!((groups.len(), groups[0].group.as_str(), groups[0].open, groups[0].parked), (1, "PG", 6, 1));
    assert_eq!(groups[0].oldest_open_at, Some(first.prepared_at));
    assert_eq!(groups[0].oldest_parked_at, Some(all.transactions[2].prepared_at));
    let none = bench.done(Frame::request(request::COUNT_TRANSACTIONS).with_field("producerGroup", "other")).await;
    assert_eq!(from_slice::<TransactionCounts>(&none.body).unwrap().groups, []);
}

/// Sends a half message that joins a transaction.
async fn joined(bench: &Bench, topic: &str, unique_id: &str, first: &Sent) -> Sent {
    let properties = [("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", unique_id)];
    let ask = send_request(topic, &properties).with_field("transactionFirst", first.id.position);
    Sent::of(&bench.done(ask).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_several_messages_is_one_entry_and_counts_once() {
    let bench = Bench::start().await;
    let lone = half(&bench, "T", "a").await.id.position;
    let first = half(&bench, "T", "b").await;
    let mut members = Vec::new();
    for (topic, id) in [("U", "c"), ("T", "d"), ("U", "e")] {
        members.push(joined(&bench, topic, id, &first).await.id.position);
    }
    let late = half(&bench, "U", "f").await.id.position;
    let first = first.id.position;

    let all = list(&bench, &[]).await;
    assert_eq!((ids(&all), all.next), (vec![lone, first, late], None));
    assert_eq!(all.transactions[1].members.len(), 3);
    assert_eq!(ids(&list(&bench, &[("allHalves", "true")]).await).len(), 6);
    // Of one topic a transaction is listed by its first message for it.
    assert_eq!(ids(&list(&bench, &[("topic", "T")]).await), [lone, first]);
    let of_topic = list(&bench, &[("topic", "U")]).await;
    assert_eq!(ids(&of_topic), [members[0], late]);
    assert_eq!(of_topic.transactions[0].first_half, Some(first.cast_unsigned()));

    for topic in [None, Some("T"), Some("U")] {
        let mut whole_fields = Vec::new();
        whole_fields.extend(topic.map(|topic| ("topic", topic)));
        let whole = ids(&list(&bench, &whole_fields).await);
        let (mut paged, mut after) = (Vec::new(), None::<u64>);
        loop {
            let from = after.map(|after| after.to_string());
            let mut fields = vec![("limit", "1")];
            fields.extend(topic.map(|topic| ("topic", topic)));
            fields.extend(from.as_deref().map(|from| ("after", from)));
            let page = list(&bench, &fields).await;
            paged.extend(ids(&page));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paged, whole, "{topic:?}");
    }

    let groups = count(&bench).await.groups;
    assert_eq!((groups[0].open, groups[0].parked), (3, 0));
    bench.done(decide(members[1], "park")).await;
    let groups = count(&bench).await.groups;
    assert_eq!((groups[0].open, groups[0].parked), (2, 1));
    assert_eq!(ids(&list(&bench, &[("state", "parked")]).await), [first]);
    assert_eq!(ids(&list(&bench, &[("state", "parked"), ("topic", "U")]).await), [members[0]]);
    for half in [members[2], lone, late] {
        bench.done(decide(half, "rollback")).await;
    }
    assert_eq!(count(&bench).await.groups, []);
    let named = bench.done(Frame::request(request::COUNT_TRANSACTIONS).with_field("producerGroup", "PG")).await;
    let named = from_slice::<TransactionCounts>(&named.body).unwrap().groups;
    assert_eq!((named.len(), named[0].open, named[0].parked), (1, 0, 0), "none is another answer than no such group");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_delivers_and_is_remembered_with_who_and_why() {
    let bench = Bench::start().await;
    let half = half(&bench, "T", "u").await;
    let (id, by_id) = (half.id.position, Frame::request(request::GET_TRANSACTION).with_field("msgId", half.id));
    let info: TransactionInfo = from_slice(&bench.done(by_id).await.body).unwrap();
    assert_eq!((info.half_id.cast_signed(), info.counter, info.state), (id, half.offset, TransactionState::Open));
    assert_eq!(info.offset_msg_id, half.id.to_string());
    assert_eq!(info.properties.unwrap()["KEYS"], "k1 k2");

    let committed = bench.done(decide(id, "commit")).await;
    assert_eq!((field(&committed, "outcome"), field(&committed, "repeated")), (Some("committed"), Some("false")));
    assert_eq!((field(&committed, "topic"), field(&committed, "queueOffset")), (Some("T"), Some("0")));
    let repeated = bench.done(decide(id, "commit")).await;
    assert_eq!(field(&repeated, "repeated"), Some("true"));
    let producer = bench.decide(&half, 8).await;
    assert_eq!((producer.code, field(&producer, "repeated")), (response::SUCCESS, Some("true")));
    for action in ["rollback", "resume", "park"] {
        let opposite = bench.call(decide(id, action)).await;
        assert_eq!(
            (opposite.code, field(&opposite, "decision")),
            (response::ILLEGAL_OPERATION, Some("commit")),
            "{action}"
        );
        assert_eq!(field(&opposite, "decidedAt"), field(&committed, "decidedAt"), "{action}");
    }

    let info = show(&bench, &half).await;
    assert_eq!((info.state, info.transaction_id.as_str()), (TransactionState::Committed, "u"));
    assert_eq!(info.properties.unwrap()["TAGS"], "t");
    let decision = info.decision.unwrap();
    assert_eq!((decision.operator.as_str(), decision.reason.as_str()), ("ops@host", "the order was paid"));
    assert_eq!(decision.queue_offset, Some(0));
    assert_eq!(count(&bench).await.groups, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_is_shown_without_its_message() {
    let bench = Bench::start().await;
    let half = half(&bench, "T", "u").await;
    bench.done(decide(half.id.position, "rollback")).await;
    let info = show(&bench, &half).await;
    assert_eq!((info.state, info.topic.as_str(), info.properties), (TransactionState::RolledBack, "T", None));
    let opposite = bench.decide(&half, 8).await;
    assert_eq!((opposite.code, field(&opposite, "decision")), (response::ILLEGAL_OPERATION, Some("rollback")));
}

#[tokio::test(flavor = "multi_thread")]
async fn parking_and_resuming_are_kept_with_who_and_why() {
    let bench = Bench::start().await;
    let half = half(&bench, "T", "u").await;
    let id = half.id.position;
    let open = bench.call(decide(id, "resume")).await;
    assert_eq!((open.code, field(&open, "decision")), (response::ILLEGAL_OPERATION, None), "{:?}", open.remark);
    bench.done(decide(id, "park")).await;
    let info = show(&bench, &half).await;
    assert_eq!((info.state, info.next_check_at), (TransactionState::Parked, None));
    assert_eq!(info.parked.unwrap().reason, "operator");
    bench.done(decide(id, "resume")).await;
    let info = show(&bench, &half).await;
    assert_eq!((info.state, info.parked, info.checks), (TransactionState::Open, None, 0));
    let acts: Vec<_> = info.acts.iter().map(|act| (act.action, act.operator.as_str(), act.reason.as_str())).collect();
    let by = |action| (action, "ops@host", "the order was paid");
    assert_eq!(acts, [by(TransactionAction::Park), by(TransactionAction::Resume)]);

    bench.subscribe("G", "T", "CLUSTERING").await;
    let asks = |seen: &Frame| seen.code == request::CHECK_TRANSACTION_STATE;
    until("a check", async || bench.incoming.seen.lock().iter().any(asks)).await;
    until("a record of the check", async || !show(&bench, &half).await.asked.is_empty()).await;
    let info = show(&bench, &half).await;
    assert_eq!((info.asked[0].client_id.as_str(), info.checks), ("me", 1));
    bench.done(decide(id, "commit")).await;
    let decided = show(&bench, &half).await;
    assert_eq!(decided.state, TransactionState::Committed);
    assert_eq!(decided.acts, info.acts, "what came before the decision is remembered with it");
    assert_eq!((&decided.asked[..1], decided.checks >= 1), (&info.asked[..1], true));
}

/// A producer's answer to the check of a half.
fn answer(half: &Sent, decision: i32) -> Frame {
    Frame::request(request::END_TRANSACTION)
        .with_field("producerGroup", "PG")
        .with_field("tranStateTableOffset", half.offset)
        .with_field("commitLogOffset", half.id.position)
        .with_field("commitOrRollback", decision)
        .with_field("fromTransactionCheck", true)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_each_check_is_shown_beside_it() {
    let bench = Bench::start_with(|config| config.transaction_time_out = Duration::from_millis(1)).await;
    bench.subscribe("G", "T", "CLUSTERING").await;
    let half = half(&bench, "T", "u").await;
    let answers = |info: &TransactionInfo| info.asked.iter().map(|asked| asked.answer.clone()).collect::<Vec<_>>();
    let asked = async |count: usize| {
        let asks = |seen: &&Frame| seen.code == request::CHECK_TRANSACTION_STATE;
        until("a check", async || bench.incoming.seen.lock().iter().filter(asks).count() >= count).await;
        until("a record of it", async || show(&bench, &half).await.asked.len() >= count).await;
        show(&bench, &half).await
    };
    assert_eq!(answers(&asked(1).await), [None]);
    bench.done(answer(&half, 0).with_field("retryAfterMillis", 20)).await;
    let in_progress = Some("inProgress".to_owned());
    assert_eq!(answers(&asked(2).await), [in_progress.clone(), None]);
    bench.done(answer(&half, 0)).await;
    let unknown = Some("unknown".to_owned());
    assert_eq!(answers(&show(&bench, &half).await), [in_progress.clone(), unknown.clone()]);
    // An answer that nobody asked for is none.
    bench.done(answer(&half, 0)).await;
    assert_eq!(answers(&show(&bench, &half).await), [in_progress.clone(), unknown.clone()]);
    bench.done(decide(half.id.position, "park")).await;
    bench.done(decide(half.id.position, "resume")).await;
    assert_eq!(answers(&asked(3).await), [in_progress.clone(), unknown.clone(), None]);
    bench.done(answer(&half, 8)).await;
    let decided = show(&bench, &half).await;
    assert_eq!(answers(&decided), [in_progress, unknown, Some("commit".to_owned())]);
    let decision = decided.decision.unwrap();
    assert_eq!((decision.operator.as_str(), decision.reason.as_str()), ("", "answer to a check"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_say_what_is_wrong_and_change_nothing() {
    let bench = Bench::start().await;
    let half = half(&bench, "T", "u").await;
    let id = half.id.position;
    let long = "x".repeat(1025);
    for (bad, says) in [
        (decide(-1, "commit"), "negative"),
        (decide(id, "undo"), "undo"),
        (decide(id, "commit").with_field("reason", " "), "reason"),
        (decide(id, "commit").with_field("reason", &long), "1025 bytes"),
        (decide(id, "commit").with_field("operator", &long[..256]), "operator"),
        (Frame::request(request::DECIDE_TRANSACTION).with_field("halfId", id), "action: missing"),
        (Frame::request(request::GET_TRANSACTION), "halfId"),
        (Frame::request(request::GET_TRANSACTION).with_field("msgId", "zz"), "msgId"),
        (Frame::request(request::LIST_TRANSACTIONS).with_field("state", "shut"), "shut"),
        (Frame::request(request::LIST_TRANSACTIONS).with_field("limit", 0), "limit"),
        (Frame::request(request::LIST_TRANSACTIONS).with_field("after", -3), "after"),
    ] {
        let answer = bench.call(bad).await;
        assert_eq!(answer.code, response::INVALID_PARAMETER, "{says}");
        assert!(answer.remark.as_deref().unwrap_or_default().contains(says), "{says}: {:?}", answer.remark);
    }
    let plain = bench.done(send_request("T", &[("UNIQ_KEY", "plain")])).await;
    assert!(plain.fields.get("msgId").is_some());
    for unknown in [get(id + 1), decide(id + 1, "commit"), decide(id + 1, "resume"), decide(id + 1, "park")] {
        let answer = bench.call(unknown).await;
        assert_eq!(answer.code, response::QUERY_NOT_FOUND, "{:?}", answer.remark);
    }
    assert_eq!(show(&bench, &half).await.state, TransactionState::Open);
}
