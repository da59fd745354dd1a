//! One pull on its way: looked up, filtered, written or held.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::code::response;
use escrowmq_common::frame::FieldWriter;
use escrowmq_common::header::{Header as _, PullMessageResponse};
use escrowmq_common::message::{MessageUnit, UnitError};
use escrowmq_common::some_lines;

use super::Delivery;
use super::helpers::Helpers;
use super::hold::{HOLD_TIME_MAX, hold};
use super::place::{Place, PullStatus, place};
use crate::client_registry::Subscription;
use crate::filter::{Expression, Filter};
use crate::index::QueueEntry;
use crate::reply::Reply;
use crate::shard::{Queue, ReadError, Topic};
use crate::terms::{GroupSettings, QueueOffset};

/// Entries that one pull looks at in the index. With a rare tag the client comes again with the offset reached.
const SCAN_MAX: usize = 4096;
/// Messages that one pull reads for an expression.
const READ_COUNT_MAX: usize = 1024;
/// Bytes that one pull reads for an expression.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The messages that a pull wants of its queue.
#[derive(Debug, Clone)]
pub(crate) enum Wants {
    /// Those that the group's members subscribed to; the filter was compiled well.
    Subscribed(Arc<Subscription>),
    /// Those that the request names itself.
    Named(Arc<Filter>),
}

impl Wants {
    /// Whether messages must be read to decide.
    pub(crate) fn is_expression(&self) -> bool {
        self.filter().expression().is_some()
    }

    fn filter(&self) -> &Filter {
        match self {
            Self::Subscribed(subscription) => {
                subscription.filter().as_ref().expect("a pull with a bad filter is refused before it gets here")
            }
            Self::Named(filter) => filter,
        }
    }
}

/// A pull that passed its checks.
pub(crate) struct Pull {
    /// The way back.
    pub reply: Reply,
    /// The group that pulls.
    pub group: Arc<GroupSettings>,
    /// The topic.
    pub topic: Arc<Topic>,
    /// The queue.
    pub queue: Arc<Queue>,
    /// The messages that it wants.
    pub wants: Wants,
    /// The offset that the client named.
    pub asked: i64,
    /// Most messages that the client takes at once, at least 1.
    pub count_max: usize,
    /// Bytes after which the client takes no further message.
    pub bytes_max: usize,
    /// Until when it may be held, by the broker's monotonic clock; `None` if it must be answered at once.
    pub until: Option<Duration>,
    /// While it is held: the offset up to which nothing was for it.
    progress: Option<QueueOffset>,
    /// Since when it is held, by the broker's monotonic clock.
    held: Option<Duration>,
}

/// The numbers of a pull request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// The offset that the client named.
    pub offset: i64,
    /// Most messages that it takes at once.
    pub count_max: i32,
    /// Bytes after which it takes no further message, if it says so.
    pub bytes_max: Option<i32>,
    /// Until when it may be held.
    pub until: Option<Duration>,
}

/// Where messages may be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heat {
    Memory,
    Files,
}

/// The result of a look at the messages.
enum Look {
    /// In memory a moment ago; to be copied straight into the connection's buffer.
    Entries { entries: Vec<QueueEntry>, next: QueueOffset },
    /// Copied already.
    Units { bytes: BytesMut, count: usize, next: QueueOffset },
    /// Everything up to `next` is for others.
    NothingFor { next: QueueOffset },
    /// The message at `at` cannot be served.
    Failed { at: QueueOffset, error: LookError },
    /// Files must be read.
    Cold,
}

/// Why a message cannot be served.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the index has no entry")]
    Missing,
    #[error("the stored message does not decode: {0}")]
    Malformed(#[from] UnitError),
}

impl Pull {
    /// A pull that was not looked at yet.
    pub(crate) fn new(
        reply: Reply,
        group: Arc<GroupSettings>,
        topic: Arc<Topic>,
        queue: Arc<Queue>,
        wants: Wants,
        ask: Ask,
    ) -> Self {
        let positive = |number: i32| usize::try_from(number).ok().filter(|number| *number > 0);
        Self {
            reply,
            group,
            topic,
            queue,
            wants,
            asked: ask.offset,
            count_max: positive(ask.count_max).unwrap_or(1),
            bytes_max: ask.bytes_max.and_then(positive).unwrap_or(usize::MAX),
            until: ask.until,
            progress: None,
            held: None,
        }
    }

    /// How long a pull that asks for `suspend` milliseconds is held.
    pub(crate) fn hold_time(suspend: i64) -> Duration {
        Duration::from_millis(u64::try_from(suspend).unwrap_or_default()).min(HOLD_TIME_MAX)
    }

    /// Answers, holds, or hands over to the readers of files. Never blocks.
    pub(crate) fn serve(self, delivery: &Arc<Delivery>) {
        let offsets = &delivery.offsets;
        let (group, queue) = (&self.group.name, self.queue.id);
        let reset = if self.progress.is_none() {
            let asked = QueueOffset(u64::try_from(self.asked).unwrap_or_default());
            offsets.pulled(group, queue, self.reply.connection().id(), asked)
        } else {
            offsets.take_reset(group, queue)
        };
        if let Some(reset) = reset
            && self.asked != reset.signed()
        {
            return self.answer(delivery, PullStatus::OffsetReset, reset);
        }
        let from = self.progress.map_or(self.asked, QueueOffset::signed);
        if !self.reply.connection().is_roomy() {
            // All clients together have more unread than the broker can hold: this one asks again.
            delivery.metrics.pulls_put_off.add_one();
            return self.answer_nothing(delivery);
        }
        match place(from, self.queue.min_offset(), self.queue.max_offset()) {
            Place::At(offset) => {
                let is_old = offset <= self.queue.old_until();
                if !is_old || !Helpers::has_company(self.reply.connection().id(), delivery.clock.monotonic()) {
                    return self.serve_from(delivery, offset);
                }
                if let Err(pull) = delivery.helpers.give(self, offset) {
                    pull.serve_from(delivery, offset);
                }
            }
            Place::Next(status, offset) => match self.until {
                Some(until) if until > delivery.clock.monotonic() => hold(delivery, self, offset, until),
                _ => self.answer(delivery, status, offset),
            },
            Place::Outside(status, offset) => self.answer(delivery, status, offset),
        }
    }

    /// Looks from an offset of the queue on, and goes on as that says.
    pub(super) fn serve_from(self, delivery: &Arc<Delivery>, offset: QueueOffset) {
        let look = self.look(delivery, offset, Heat::Memory);
        self.finish(delivery, offset, look);
    }

    /// It is held: nothing before `offset` is for it.
    pub(super) fn note_hold(&mut self, offset: QueueOffset, now: Duration) {
        self.progress = Some(offset);
        self.held.get_or_insert(now);
    }

    /// It is answered: counts the code, and the time for which it was held.
    fn count(&self, delivery: &Delivery, code: i32) {
        delivery.metrics.pulls.record(code);
        if let Some(since) = self.held {
            delivery.metrics.pull_waits.record(delivery.clock.monotonic().saturating_sub(since));
        }
    }

    /// Answers a held pull for which nothing came.
    pub(super) fn answer_nothing(self, delivery: &Arc<Delivery>) {
        let next = self.progress.unwrap_or(QueueOffset(self.asked.cast_unsigned()));
        let status = if next.signed() != self.asked {
            PullStatus::NoMatchedMessage
        } else if self.queue.max_offset() == QueueOffset::ZERO {
            PullStatus::NoMessageInQueue
        } else {
            PullStatus::OffsetOverflowOne
        };
        self.answer(delivery, status, next);
    }

    fn finish(self, delivery: &Arc<Delivery>, from: QueueOffset, look: Look) {
        match look {
            Look::Entries { entries, next } => self.write(delivery, from, entries, next),
            Look::Units { bytes, count, next } => {
                self.count_found(delivery, count, bytes.len());
                let fields = self.fields(next);
                self.reply.send(response::SUCCESS, Some(PullStatus::Found.name()), fields, &[&bytes]);
            }
            Look::NothingFor { next } => match self.until {
                // The message that woke it is for others: it goes on waiting.
                Some(until) if self.progress.is_some() && until > delivery.clock.monotonic() => {
                    hold(delivery, self, next, until);
                }
                _ => self.answer(delivery, PullStatus::NoMatchedMessage, next),
            },
            Look::Failed { at, error } => self.fail(delivery, at, &error),
            Look::Cold => self.read_files(delivery, from),
        }
    }

    fn look(&self, delivery: &Delivery, from: QueueOffset, heat: Heat) -> Look {
        let config = delivery.config.load();
        let (count, bytes) = match heat {
            Heat::Memory => (config.max_transfer_count, config.max_transfer_bytes),
            Heat::Files => (config.max_transfer_count_cold, config.max_transfer_bytes_cold),
        };
        let limits = Limits { count: self.count_max.min(count.max(1)), bytes: self.bytes_max.min(bytes) };
        match self.wants.filter().expression() {
            None => self.look_by_index(delivery, from, limits, heat),
            Some(expression) => self.look_by_expression(delivery, from, limits, heat, expression),
        }
    }

    /// Decides by the index alone.
    fn look_by_index(&self, delivery: &Delivery, from: QueueOffset, limits: Limits, heat: Heat) -> Look {
        let filter = self.wants.filter();
        let found =
            delivery.shard.entries(&self.queue, from, limits.count, SCAN_MAX, |entry| filter.may_match(entry.tag_hash));
        let found = match found {
            Ok(found) if found.next_offset <= from => return self.missing(from),
            Ok(found) => found,
            Err(error) => return Look::Failed { at: from, error: error.into() },
        };
        let (mut entries, mut next) = (found.wanted, found.next_offset);
        if entries.is_empty() {
            return Look::NothingFor { next };
        }
        let fitting = limits.fitting(&entries);
        if fitting < entries.len() {
            next = entries[fitting].offset;
            entries.truncate(fitting);
        }
        if heat == Heat::Memory {
            return Look::Entries { entries, next };
        }
        let mut bytes = BytesMut::with_capacity(entries.iter().map(|entry| entry.length as usize).sum());
        let mut count = 0;
        for entry in &entries {
            match delivery.shard.unit(&self.queue, entry, &mut bytes) {
                Ok(()) => count += 1,
                // Its bytes went with old files, before those of messages that came into the queue earlier; or an operator has
                // given them up.
                Err(error) if error.is_gone() => {}
                // The messages before the one that fails are served; the next pull gets the error.
                Err(_) if count > 0 => return Look::Units { bytes, count, next: entry.offset },
                Err(error) => return Look::Failed { at: entry.offset, error: error.into() },
            }
        }
        if count > 0 { Look::Units { bytes, count, next } } else { Look::NothingFor { next } }
    }

    /// Reads each message to decide.
    fn look_by_expression(
        &self,
        delivery: &Delivery,
        from: QueueOffset,
        limits: Limits,
        heat: Heat,
        expression: &Expression,
    ) -> Look {
        let found = match delivery.shard.entries(&self.queue, from, READ_COUNT_MAX, READ_COUNT_MAX, |_| true) {
            Ok(found) if found.next_offset <= from => return self.missing(from),
            Ok(found) => found,
            Err(error) => return Look::Failed { at: from, error: error.into() },
        };
        let mut bytes = BytesMut::new();
        let (mut count, mut read, mut next) = (0, 0, from);
        for entry in &found.wanted {
            let start = bytes.len();
            let unit = match heat {
                Heat::Memory => delivery.shard.hot_unit(&self.queue, entry, &mut bytes),
                Heat::Files => Some(delivery.shard.unit(&self.queue, entry, &mut bytes)),
            };
            let passes = match unit {
                Some(Err(error)) if error.is_gone() => false,
                // The messages that were decided stay decided; the next look begins here.
                None | Some(Err(_)) if next > from => break,
                None => return Look::Cold,
                Some(Err(error)) => return Look::Failed { at: entry.offset, error: error.into() },
                Some(Ok(())) => match MessageUnit::decode(&bytes[start..]) {
                    Ok(unit) => expression.passes(&unit),
                    Err(_) if next > from => break,
                    Err(error) => return Look::Failed { at: entry.offset, error: error.into() },
                },
            };
            if passes {
                if count > 0 && bytes.len() > limits.bytes {
                    bytes.truncate(start);
                    break;
                }
                count += 1;
            } else {
                bytes.truncate(start);
            }
            next = entry.offset.next();
            read += entry.length as usize;
            if count >= limits.count || read >= READ_BYTES_MAX {
                break;
            }
        }
        if count > 0 { Look::Units { bytes, count, next } } else { Look::NothingFor { next } }
    }

    /// There should be an entry at `from` and there is none.
    fn missing(&self, from: QueueOffset) -> Look {
        let min = self.queue.min_offset();
        if min > from { Look::NothingFor { next: min } } else { Look::Failed { at: from, error: LookError::Missing } }
    }

    /// Copies messages from memory straight into the connection's buffer.
    fn write(self, delivery: &Arc<Delivery>, from: QueueOffset, mut entries: Vec<QueueEntry>, mut next: QueueOffset) {
        loop {
            let length = entries.iter().map(|entry| entry.length as usize).sum();
            let remark = Some(PullStatus::Found.name());
            let written = self.reply.send_with(response::SUCCESS, remark, self.fields(next), length, |out| {
                for (at, entry) in entries.iter().enumerate() {
                    match delivery.shard.hot_unit(&self.queue, entry, out) {
                        Some(Ok(())) => {}
                        Some(Err(error)) => return Err((at, Some(error))),
                        None => return Err((at, None)),
                    }
                }
                Ok(())
            });
            match written {
                Ok(()) => {
                    if entries[0].position < delivery.shard.log().memory_start() {
                        self.queue.note_old(next);
                    }
                    return self.count_found(delivery, entries.len(), length);
                }
                Err((0, None)) => return self.read_files(delivery, from),
                // Reading files passes what is gone.
                Err((0, Some(error))) if error.is_gone() => return self.read_files(delivery, from),
                Err((0, Some(error))) => return self.fail(delivery, entries[0].offset, &error.into()),
                // The messages before it are served; the next pull begins at this one.
                Err((at, _)) => {
                    next = entries[at].offset;
                    entries.truncate(at);
                }
            }
        }
    }

    fn read_files(self, delivery: &Arc<Delivery>, from: QueueOffset) {
        let reply = self.reply.clone();
        let reader = Arc::clone(delivery);
        let refused = delivery.cold.read(&delivery.tasks, move || {
            let look = self.look(&reader, from, Heat::Files);
            self.finish(&reader, from, look);
        });
        if refused.is_err() {
            delivery.metrics.pulls.record(response::SYSTEM_BUSY);
            reply.error(response::SYSTEM_BUSY, "too many pulls wait for the disk, try again");
        }
    }

    fn fail(self, delivery: &Delivery, at: QueueOffset, error: &LookError) {
        let min = self.queue.min_offset();
        if min > at {
            // It was deleted while it was looked for.
            return self.answer(delivery, PullStatus::MessageWasRemoving, min);
        }
        let (topic, queue) = (&self.queue.topic, self.queue.index);
        some_lines!(error, event = "message_unreadable", %topic, queue, offset = %at, %error, "message not served: the queue waits there");
        delivery.metrics.messages_unreadable.add_one();
        self.count(delivery, response::SYSTEM_ERROR);
        let remark = format!("offset {at} of queue {queue} of topic {topic}: {error}");
        self.reply.error(response::SYSTEM_ERROR, &remark);
    }

    fn answer(self, delivery: &Delivery, status: PullStatus, next: QueueOffset) {
        let code = status.code(self.asked);
        self.count(delivery, code);
        let fields = self.fields(next);
        self.reply.send(code, Some(status.name()), fields, &[]);
    }

    fn count_found(&self, delivery: &Delivery, messages: usize, bytes: usize) {
        self.count(delivery, response::SUCCESS);
        delivery.metrics.messages_out.add(messages as u64);
        delivery.metrics.bytes_out.add(bytes as u64);
        let (group, topic) = (&self.group.name, &self.topic.settings.name);
        delivery.stats.group_get(group, topic, messages as u64, bytes as u64);
    }

    fn fields(&self, next: QueueOffset) -> impl FnOnce(&mut FieldWriter<'_>) + use<> {
        let response = PullMessageResponse {
            suggest_which_broker_id: 0,
            next_begin_offset: next.signed(),
            min_offset: self.queue.min_offset().signed(),
            max_offset: self.queue.max_offset().signed(),
            topic_sys_flag: Some(self.topic.settings.sys_flag.cast_signed()),
            group_sys_flag: Some(self.group.group_sys_flag.cast_signed()),
            offset_delta: None,
            forbidden_type: None,
        };
        move |writer| response.write(writer)
    }
}

/// Bounds of one answer.
#[derive(Debug, Clone, Copy)]
struct Limits {
    count: usize,
    bytes: usize,
}

impl Limits {
    /// How many of the entries fit; always the first one.
    fn fitting(self, entries: &[QueueEntry]) -> usize {
        let mut bytes = 0_usize;
        let fits = |entry: &&QueueEntry| {
            bytes += entry.length as usize;
            bytes <= self.bytes
        };
        entries.iter().take_while(fits).count().clamp(1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::EntryFlags;
    use crate::terms::HalfId;
    use crate::terms::Position;
    use crate::terms::QueueOffset;
    use crate::terms::Stamp;

    fn entries(lengths: &[u32]) -> Vec<QueueEntry> {
        let entry = |(offset, length): (usize, &u32)| QueueEntry {
            offset: QueueOffset(offset as u64),
            position: Position::ZERO,
            length: *length,
            tag_hash: 0,
            store_time: Stamp::ZERO,
            flags: EntryFlags::PLAIN,
            half: HalfId::ZERO,
        };
        lengths.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn answers_are_bounded_and_never_empty() {
        let limits = Limits { count: 3, bytes: 100 };
        assert_eq!(limits.fitting(&entries(&[50, 50, 1])), 2);
        assert_eq!(limits.fitting(&entries(&[50, 51])), 1);
        assert_eq!(limits.fitting(&entries(&[500, 1])), 1);
        assert_eq!(limits.fitting(&entries(&[1, 1, 1, 1])), 3);
        assert_eq!(Limits { count: 1, bytes: 0 }.fitting(&entries(&[1, 1])), 1);
    }

    #[test]
    fn hold_times_are_capped() {
        assert_eq!(Pull::hold_time(15_000), Duration::from_secs(15));
        assert_eq!(Pull::hold_time(-1), Duration::ZERO);
        assert_eq!(Pull::hold_time(i64::MAX), HOLD_TIME_MAX);
    }
}
