//! Finding out which queues are ours, again and again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use escrowmq_common::body::{ConsumerIdList, json};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::GetConsumerListByGroupHeader;
use escrowmq_common::name::is_retry_topic;
use futures_util::future::join_all;

use super::group::{Group, HeldQueue};
use super::offsets::Start;
use super::rebalance::{Reassignment, allocate_average};
use super::subscription::Subscription;
use super::{lock, offsets, pull};
use crate::error::RequestError;
use crate::heartbeat::{Force, greet};
use crate::queue::MessageQueue;
use crate::route::{MASTER, Route};

/// After a round in which something failed the next one comes so soon, then doubling up to the interval.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Rebalances until the consumer ends.
pub(super) async fn run(group: Arc<Group>) {
    let interval = group.settings.rebalance_interval;
    let mut pause = RETRY_FIRST.min(interval);
    let mut told = Told::default();
    loop {
        let complete = tokio::select! {
            biased;
            () = group.intake.cancelled() => return,
            complete = round(&group, &mut told) => complete,
        };
        let wait = if complete { interval } else { pause };
        pause = if complete { RETRY_FIRST.min(interval) } else { (pause * 2).min(interval) };
        tokio::select! {
            biased;
            () = group.intake.cancelled() => return,
            () = group.rebalance_soon.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The last log line about each topic, so that a round that ends as the one before writes none.
#[derive(Debug, Default)]
struct Told(HashMap<Arc<str>, String>);

impl Told {
    /// The topic could be decided.
    fn balanced(&mut self, topic: &Arc<str>) {
        self.0.remove(topic);
    }

    /// It could not. Answers whether that is news.
    fn failed(&mut self, topic: &Arc<str>, error: &RequestError) -> bool {
        let text = error.to_string();
        self.0.insert(Arc::clone(topic), text.clone()).is_none_or(|before| before != text)
    }
}

/// One round over all topics. Answers whether each of them could be decided.
async fn round(group: &Arc<Group>, told: &mut Told) -> bool {
    let mut complete = true;
    for Subscription { topic, .. } in &group.subscriptions {
        let Err(error) = balance_topic(group, topic).await else {
            told.balanced(topic);
            continue;
        };
        complete = false;
        if error.is_outage() || !told.failed(topic, &error) {
            continue;
        }
        if !matches!(error, RequestError::NoRoute { .. }) {
            tracing::warn!(group = %group.name, %topic, %error, "not rebalanced");
        } else if !is_retry_topic(topic) {
            // Consumers of a new topic often start before its first message.
            tracing::info!(group = %group.name, %topic, "topic is not there yet; it is consumed as soon as it is");
        }
        // A retry topic appears with the group's first heartbeat; that it is missing in the first moments is normal.
    }
    complete
}

async fn balance_topic(group: &Arc<Group>, topic: &Arc<str>) -> Result<(), RequestError> {
    let route = group.core.routes.for_reading(topic).await?;
    let assigned = group.assigned.lock().clone();
    let target = match assigned {
        Some(assigned) => route.readable.intersection(&assigned).cloned().collect(),
        None if group.offset_file.is_some() => route.readable.clone(),
        None => share(group, topic, &route).await?,
    };
    let held: Vec<MessageQueue> = group.held.lock().keys().filter(|queue| queue.topic() == &**topic).cloned().collect();
    let change = Reassignment::between(&held, &target);
    if change.is_empty() {
        return Ok(());
    }
    tracing::info!(group = %group.name, %topic, lost = ?change.lost, won = ?change.won, "rebalanced");
    if group.settings.order.is_ordered() {
        // Handlers may take their time; other queues need not wait for them.
        for queue in change.lost {
            let group = Arc::clone(group);
            group.tasks.clone().spawn("queue release", async move { group.release(&queue).await });
        }
    } else {
        join_all(change.lost.iter().map(|queue| group.release(queue))).await;
    }
    let taken = join_all(change.won.iter().map(|queue| take(group, queue))).await;
    taken.into_iter().collect()
}

/// Our share of the topic, among the members that a broker knows.
async fn share(group: &Group, topic: &str, route: &Route) -> Result<BTreeSet<MessageQueue>, RequestError> {
    let (addr, members) = members(group, topic, route).await?;
    if let Some(share) = allocate_average(&route.readable, &members, &group.core.id) {
        return Ok(share);
    }
    // The broker does not know us (yet, or any more). The queues that we hold stay ours until it does.
    greet(&group.core, &addr, Force::Always).await?;
    Err(RequestError::malformed(&addr, "this client is not among the members of its group"))
}

/// The members of the group, from any broker of the topic, and the address that named them.
async fn members(group: &Group, topic: &str, route: &Route) -> Result<(Arc<str>, BTreeSet<String>), RequestError> {
    let mut failure = RequestError::NoRoute { topic: topic.to_owned() };
    for broker in route.brokers.keys() {
        let Some((_, addr)) = group.core.routes.reader(broker, MASTER) else {
            continue;
        };
        match members_from(group, &addr).await {
            Ok(members) => return Ok((addr, members)),
            Err(error) => failure = error,
        }
    }
    if failure.is_outage() {
        // All brokers gone: perhaps they only moved.
        let _ = group.core.routes.refresh(topic, false).await;
    }
    Err(failure)
}

async fn members_from(group: &Group, addr: &str) -> Result<BTreeSet<String>, RequestError> {
    greet(&group.core, addr, Force::IfNeeded).await?;
    let header = GetConsumerListByGroupHeader { consumer_group: &group.name };
    let ask = Frame::request(request::GET_CONSUMER_LIST_BY_GROUP).with_header(&header);
    let answer = group.core.request(addr, ask).await?;
    let list: ConsumerIdList = json::from_slice(&answer.body).map_err(|error| RequestError::malformed(addr, error))?;
    Ok(list.consumer_id_list.into_iter().collect())
}

/// Takes a queue over: finds its start and begins to pull.
async fn take(group: &Arc<Group>, queue: &MessageQueue) -> Result<(), RequestError> {
    if group.leaving.lock().contains(queue) {
        return Err(RequestError::malformed(queue.broker(), format!("{queue} still has handlers from before")));
    }
    let start = match group.offset_file.as_ref().and_then(|file| file.get(queue)) {
        Some(offset) => Start { offset, is_stored: true },
        None if group.offset_file.is_some() => offsets::first_of(&group.core, queue, group.settings.from).await?,
        None => offsets::start_of(&group.core, &group.name, queue, group.settings.from).await?,
    };
    let held = Arc::new(HeldQueue::new(queue.clone(), start.offset, group.intake.child()));
    // A start that is not the group's offset yet is stored with the first round, so that the group keeps its place also
    // on a queue that stays empty.
    if start.is_stored {
        held.stored.store(start.offset, Ordering::Release);
    }
    if group.settings.order.is_ordered() {
        lock::lock(group, &[Arc::clone(&held)]).await;
        if !held.is_locked() {
            let reason = format!("{queue} is still locked by another member");
            return Err(RequestError::malformed(queue.broker(), reason));
        }
    }
    group.held.lock().insert(queue.clone(), Arc::clone(&held));
    group.tasks.spawn("pull", pull::run(Arc::clone(group), held, start.offset));
    Ok(())
}
