//! Plain messages, batches, delays, offsets, locks.

use std::sync::Arc;

use super::*;
use crate::shard::{Lock, OffsetCommit, Refusal};
use crate::terms::{Entered, GroupSettings, QueueOffset, Stamp};

#[tokio::test]
async fn messages_are_read_back_in_order_before_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 2).await;
    let first = queue(&opened.shard, "T", 0);
    let one = publish(&opened.shard, &first, When::Now, &["a"]).await;
    let batch = publish(&opened.shard, &first, When::Now, &["b", "c", "d"]).await;
    assert_eq!(
        (one.entered, batch.entered, batch.more_positions.len()),
        (Entered::Queue(QueueOffset::ZERO), Entered::Queue(QueueOffset(1)), 2)
    );
    assert!(batch.position > one.position);
    assert_eq!(bodies(&opened.shard, &first), ["a", "b", "c", "d"]);
    assert_eq!(bodies(&opened.shard, &queue(&opened.shard, "T", 1)), [] as [&str; 0]);
    opened.close().await.expect("closes");

    let opened = open(dir.path()).await;
    let first = queue(&opened.shard, "T", 0);
    assert_eq!(first.max_offset(), QueueOffset(4));
    assert_eq!(bodies(&opened.shard, &first), ["a", "b", "c", "d"]);
    let more = publish(&opened.shard, &first, When::Now, &["e"]).await;
    assert_eq!(more.entered, Entered::Queue(QueueOffset(4)));
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_delayed_message_is_visible_only_after_it_was_fired() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    let queue = queue(&opened.shard, "T", 0);
    let delayed = publish(&opened.shard, &queue, When::After(1_000), &["later"]).await;
    publish(&opened.shard, &queue, When::Now, &["now"]).await;
    let due = delayed.entered.due().expect("it waits");
    assert_eq!(bodies(&opened.shard, &queue), ["now"]);
    assert_eq!(opened.shard.locate(delayed.position, queue.id).expect("readable").map(|at| at.entry.offset), None);
    let early = Command::Fire { upto: Stamp(due.0 - 1), limit: 10 };
    assert_eq!(opened.shard.propose(&early, Admission::Reserved).await, Ok(Outcome::Handled(0)));
    let fire = Command::Fire { upto: due, limit: 10 };
    assert_eq!(opened.shard.propose(&fire, Admission::Reserved).await, Ok(Outcome::Handled(1)));
    assert_eq!(bodies(&opened.shard, &queue), ["now", "later"]);
    let at = opened.shard.locate(delayed.position, queue.id).expect("readable").expect("it is in the queue");
    assert_eq!(at.entry.offset, QueueOffset(1));
    assert_eq!(opened.shard.propose(&fire, Admission::Reserved).await, Ok(Outcome::Handled(0)), "once");
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn positions_and_times_find_their_entry() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    let queue = queue(&opened.shard, "T", 0);
    let mut positions = Vec::new();
    for number in 0..200 {
        let published = publish(&opened.shard, &queue, When::Now, &[&format!("m{number}"), "x"]).await;
        positions.extend([published.position, published.more_positions[0]]);
    }
    for (offset, position) in (0..).zip(&positions) {
        let at = opened.shard.locate(*position, queue.id).expect("readable").expect("found");
        assert_eq!(at.entry.offset, QueueOffset(offset));
    }
    assert!(opened.shard.locate(positions[3].advance(1), queue.id).expect("readable").is_none(), "inside a message");
    let last = opened.shard.entry(&queue, QueueOffset(399)).expect("readable").expect("there");
    assert_eq!(opened.shard.offset_at_time(&queue, Stamp::ZERO).expect("readable"), QueueOffset::ZERO);
    assert!(opened.shard.offset_at_time(&queue, last.store_time).expect("readable") <= QueueOffset(399));
    assert_eq!(opened.shard.offset_at_time(&queue, last.store_time + 1).expect("readable"), QueueOffset(400));
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_deleted_topic_takes_its_messages_and_its_queue_numbers_along() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    let old = queue(&opened.shard, "T", 0);
    publish(&opened.shard, &old, When::Now, &["a"]).await;
    let delete = Command::DeleteTopic("T");
    assert_eq!(opened.shard.propose(&delete, Admission::Reserved).await, Ok(Outcome::Done));
    assert!(opened.shard.topics().get("T").is_none());
    let unit = unit("T", "late").to_vec();
    let publish =
        Publish { queue: old.id, when: When::Now, messages: MessageList::One(Message::new(0, &unit)), once: None };
    let late = opened.shard.propose(&Command::Publish(publish), Admission::Normal).await;
    assert_eq!(late, Ok(Outcome::Refused(Refusal::NoSuchQueue(old.id))));
    make_topic(&opened.shard, "T", 1).await;
    let new = queue(&opened.shard, "T", 0);
    assert_ne!(new.id, old.id);
    assert_eq!(bodies(&opened.shard, &new), [] as [&str; 0]);
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn offsets_and_locks_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 2).await;
    let (first, second) = (queue(&opened.shard, "T", 0).id, queue(&opened.shard, "T", 1).id);
    for group in ["g", "gg"] {
        let settings = encode_cold(&GroupSettings::new(group));
        opened.shard.propose(&Command::PutGroup(&settings), Admission::Normal).await.expect("taken");
    }
    let commits = vec![
        OffsetCommit { group: "g", queue: first, offset: QueueOffset(5) },
        OffsetCommit { group: "g", queue: second, offset: QueueOffset(9) },
        OffsetCommit { group: "gg", queue: first, offset: QueueOffset(1) },
    ];
    opened.shard.propose(&Command::CommitOffsets(commits), Admission::Reserved).await.expect("taken");
    let lock = |client| Lock { group: "g", client, life: 60_000, queues: vec![first, second] };
    let shard = &opened.shard;
    let taken = shard.propose(&Command::Lock(lock("one")), Admission::Reserved).await;
    assert_eq!(taken, Ok(Outcome::Locked(vec![first, second])));
    opened.close().await.expect("closes");

    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    assert_eq!(shard.offset("g", first).expect("readable"), Some(QueueOffset(5)));
    assert_eq!(shard.offsets("g").expect("readable"), [(first, QueueOffset(5)), (second, QueueOffset(9))]);
    assert_eq!(shard.offsets("gg").expect("readable"), [(first, QueueOffset(1))]);
    assert_eq!(shard.offset("none", first).expect("readable"), None);
    let refused = shard.propose(&Command::Lock(lock("two")), Admission::Reserved).await;
    assert_eq!(refused, Ok(Outcome::Locked(vec![])));
    shard.propose(&Command::Unlock(lock("two")), Admission::Reserved).await.expect("taken");
    let renewed = shard.propose(&Command::Lock(lock("one")), Admission::Reserved).await;
    assert_eq!(renewed, Ok(Outcome::Locked(vec![first, second])), "a stranger's unlock frees nothing");
    shard.propose(&Command::Unlock(lock("one")), Admission::Reserved).await.expect("taken");
    let free = shard.propose(&Command::Lock(lock("two")), Admission::Reserved).await;
    assert_eq!(free, Ok(Outcome::Locked(vec![first, second])));
    opened.close().await.expect("closes");
}

/// The log's writer and whoever flushes the index wait for each other in one direction only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushing_the_index_beside_asynchronous_appends_ends() {
    const FLUSHES: usize = 200;
    let dir = tempfile::tempdir().expect("a folder");
    let open = open_async(dir.path()).await;
    let shard = open.shard.clone();
    make_topic(&shard, "Topic", 1).await;
    let queue = queue(&shard, "Topic", 0);
    let applier = Arc::clone(open.applier());
    let tasks = escrowmq_common::task::Tasks::new();
    let flushing = tasks.spawn_blocking("flushes", move || (0..FLUSHES).all(|_| applier.flush().is_ok()));
    let sending = async {
        let mut flushing = std::pin::pin!(flushing);
        loop {
            tokio::select! {
                biased;
                flushed = &mut flushing => return flushed.ok().flatten(),
                _ = publish(&shard, &queue, When::Now, &["body"]) => {}
            }
        }
    };
    let flushed = tokio::time::timeout(Duration::from_secs(60), sending).await.expect("neither waits for ever");
    assert_eq!(flushed, Some(true));
    open.close().await.expect("closes");
}
