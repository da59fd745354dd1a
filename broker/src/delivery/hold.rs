//! Pulls that wait for a message, and the one task that answers them.
//!
//! A pull is entered here, then registered at its queue, then looks once more: whichever of arrival and registration
//! comes first, the other sees it. Apply only notes which holds are woken; the task reads and writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escrowmq_common::code::response;
use escrowmq_common::task::Shutdown;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Delivery;
use super::hold_table::{HoldId, HoldTable};
use super::pull::Pull;
use crate::shard::Ticket;
use crate::terms::{QueueOffset, TopicSettings};

/// Longest time that a pull is held: clients give up after 30 s.
pub(super) const HOLD_TIME_MAX: Duration = Duration::from_secs(30);
/// Holds that are answered before other tasks get their turn.
const TURN: usize = 64;
/// Wait of the task when nothing is held.
const IDLE: Duration = Duration::from_secs(60);

/// Which holds apply has woken.
#[derive(Default)]
struct Woken {
    ids: Mutex<Vec<HoldId>>,
    work: Notify,
}

impl Woken {
    fn push(&self, id: HoldId) {
        self.ids.lock().push(id);
        self.work.notify_one();
    }
}

/// The held pulls of a broker.
#[derive(Default)]
pub(crate) struct Holds {
    table: Mutex<HoldTable<Pull>>,
    woken: Arc<Woken>,
    /// This member does not lead any more: what would be held is answered at once.
    is_closed: AtomicBool,
}

impl Holds {
    /// How many pulls are held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.table.lock().len()
    }

    /// Drops the pulls of a connection that ended: nobody waits for their answers.
    pub(crate) fn drop_connection(&self, connection: u64) {
        loop {
            let taken = self.table.lock().take_of(connection);
            let Some((pull, ticket)) = taken else { return };
            cancel(&pull, ticket);
        }
    }

    /// Pulls are held from here on, as they are at first.
    pub(crate) fn open(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
    }

    /// Answers all held pulls, and until [`open`](Self::open) each that would be held: their clients ask again, perhaps another
    /// member.
    pub(crate) fn release(&self, delivery: &Arc<Delivery>) {
        self.is_closed.store(true, Ordering::SeqCst);
        loop {
            let taken = self.table.lock().take_due(Duration::MAX);
            let Some((pull, ticket)) = taken else { return };
            cancel(&pull, ticket);
            pull.answer_nothing(delivery);
        }
    }

    fn take(&self, id: HoldId) -> Option<Pull> {
        // A woken hold is registered nowhere any more; one that was pushed by its own second look may be.
        let (pull, ticket) = self.table.lock().take(id)?;
        cancel(&pull, ticket);
        Some(pull)
    }
}

fn cancel(pull: &Pull, ticket: Option<Ticket>) {
    if let Some(ticket) = ticket {
        pull.queue.arrivals.cancel(ticket);
    }
}

/// Holds a pull for which nothing lies before `offset`. `until` is its deadline by the broker's monotonic clock.
pub(super) fn hold(delivery: &Arc<Delivery>, mut pull: Pull, offset: QueueOffset, until: Duration) {
    let holds = &delivery.holds;
    pull.note_hold(offset, delivery.clock.monotonic());
    let queue = Arc::clone(&pull.queue);
    let (group, connection) = (Arc::clone(&pull.group), Arc::clone(pull.reply.connection()));
    let (held_max, of_connection_max) = {
        let config = delivery.config.load();
        (config.max_held_pulls, config.max_held_pulls_per_connection)
    };
    let (id, is_first, count) = {
        let mut table = holds.table.lock();
        // Beyond its share a pull is answered at once: its client asks again.
        if table.len() >= held_max || table.count_of(connection.id()) >= of_connection_max {
            drop(table);
            delivery.metrics.holds_refused.add_one();
            return pull.answer_nothing(delivery);
        }
        let id = table.insert(pull, connection.id(), until);
        (id, table.next_deadline() == Some(until), table.len())
    };
    delivery.metrics.held_pulls.set(count as u64);
    if is_first {
        // The task waits for a later deadline.
        holds.woken.work.notify_one();
    }
    let woken = Arc::clone(&holds.woken);
    let ticket = queue.arrivals.register(Box::new(move || woken.push(id)));
    if !holds.table.lock().set_ticket(id, ticket) {
        queue.arrivals.cancel(ticket);
    }
    if holds.is_closed.load(Ordering::SeqCst) {
        // The others were answered, perhaps before this one was entered.
        if let Some(pull) = holds.take(id) {
            pull.answer_nothing(delivery);
        }
        return;
    }
    if !connection.is_open() {
        // It ended before the pull was entered, so nobody else would drop it.
        holds.take(id);
        return;
    }
    let changed = queue.max_offset() > offset
        || delivery.shard.topics().queue(queue.id).is_none()
        || delivery.offsets.is_reset(&group.name, queue.id);
    if changed {
        holds.woken.push(id);
    }
}

/// Answers held pulls until the broker stops.
pub(super) async fn run(delivery: Arc<Delivery>, shutdown: Shutdown) {
    let holds = &delivery.holds;
    loop {
        let work = holds.woken.work.notified();
        let woken = std::mem::take(&mut *holds.woken.ids.lock());
        for turn in woken.chunks(TURN) {
            for pull in turn.iter().filter_map(|id| holds.take(*id)) {
                wake(&delivery, pull);
            }
            tokio::task::yield_now().await;
        }
        let now = delivery.clock.monotonic();
        loop {
            let due = holds.table.lock().take_due(now);
            let Some((pull, ticket)) = due else { break };
            cancel(&pull, ticket);
            pull.answer_nothing(&delivery);
        }
        let next = {
            let table = holds.table.lock();
            delivery.metrics.held_pulls.set(table.len() as u64);
            table.next_deadline()
        };
        let wait = next.map_or(IDLE, |next| next.saturating_sub(now));
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = work => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn may_still_pull(delivery: &Delivery, pull: &Pull) -> bool {
    let group_may = delivery.shard.groups().get(&pull.group.name).is_none_or(|group| group.consume_enable);
    let topic = delivery.shard.topics().get(&pull.queue.topic);
    let topic_may = topic.is_none_or(|topic| topic.is_readable());
    group_may && topic_may && delivery.config.load().broker_permission & TopicSettings::READ != 0
}

fn wake(delivery: &Arc<Delivery>, pull: Pull) {
    let connection = pull.reply.connection();
    if !connection.is_open() {
        return;
    }
    if delivery.shard.topics().queue(pull.queue.id).is_none() {
        let remark = format!("topic[{}] not exist, it was deleted", pull.queue.topic);
        delivery.metrics.pulls.record(response::TOPIC_NOT_EXIST);
        return pull.reply.error(response::TOPIC_NOT_EXIST, &remark);
    }
    // Its permission may have been taken away while it was held: the client asks again and hears why not.
    if !may_still_pull(delivery, &pull) {
        return pull.answer_nothing(delivery);
    }
    // Its client does not read what it got already, or all clients together do not: a small answer, and it asks again
    // when it can.
    if !connection.is_roomy() {
        return pull.answer_nothing(delivery);
    }
    pull.serve(delivery);
}
