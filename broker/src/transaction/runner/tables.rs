//! The reads of a round: the index, and the instances that are connected.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use escrowmq_common::remoting::Connection;

use super::Runner;
use crate::index::listing::{self, Filter};
use crate::index::{self, HalfRow, IndexError};
use crate::shard::HalfQuery;
use crate::terms::{HalfId, ParkReason, QueueId, Stamp};
use crate::transaction::engine::{Instance, Scheduler};
use crate::transaction::round::{Page, View};

/// The broker as one round sees it.
pub(super) struct Tables<'a> {
    runner: &'a Runner,
    /// The connections of the instances that were looked up.
    contacts: RefCell<HashMap<u64, Contact>>,
}

/// How to reach an instance.
#[derive(Clone)]
pub(super) struct Contact {
    pub(super) connection: Arc<Connection>,
    pub(super) client: Arc<str>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(runner: &'a Runner) -> Self {
        Self { runner, contacts: RefCell::default() }
    }

    /// An instance that was looked up in this round.
    pub(super) fn contact(&self, connection: u64) -> Option<Contact> {
        self.contacts.borrow().get(&connection).cloned()
    }
}

impl View for Tables<'_> {
    type Error = IndexError;

    fn half(&self, half: HalfId) -> Result<Option<HalfRow>, IndexError> {
        self.runner.shard.half(half)
    }

    fn scan_due(&self, after: (Stamp, HalfId), upto: Stamp, limit: usize) -> Result<Vec<(Stamp, HalfId)>, IndexError> {
        let mut found = Vec::new();
        if after.0 > upto {
            return Ok(found);
        }
        index::half::scan_due(self.runner.shard.index(), after.0, upto, |due, half| {
            if (due, half) > after {
                found.push((due, half));
            }
            Ok(found.len() < limit)
        })?;
        Ok(found)
    }

    fn earliest_due(&self, after: Stamp) -> Result<Option<Stamp>, IndexError> {
        index::half::next_due(self.runner.shard.index(), after.saturating_add(1))
    }

    fn scan(&self, from: HalfId, each: &mut dyn FnMut(HalfRow) -> bool) -> Result<(), IndexError> {
        index::half::scan(self.runner.shard.index(), from, each)
    }

    fn parked_without_checker(&self, group: &str, after: HalfId, limit: usize) -> Result<Page<HalfId>, IndexError> {
        let query = HalfQuery { group: Some(group), parked: Some(true), after: Some(after), ..HalfQuery::default() };
        // Halves that were parked for other reasons are read and left out, so a page may show fewer than it read.
        let rows = self.runner.shard.halves(&query, limit)?;
        Ok(Page {
            next: if rows.len() < limit { None } else { rows.last().map(|row| row.half) },
            halves: rows.into_iter().filter(is_without_checker).map(|row| row.half).collect(),
        })
    }

    fn open_of_topic(&self, topic: QueueId, after: HalfId, limit: usize) -> Result<Page<HalfRow>, IndexError> {
        let open = Filter { parked: Some(false), topic: Some(topic.0), group: None };
        let (mut halves, mut read, mut last) = (Vec::new(), 0, after);
        listing::scan(self.runner.shard.index(), open, after.next(), |half| {
            halves.extend(self.half(half)?);
            (read, last) = (read + 1, half);
            Ok(read < limit)
        })?;
        Ok(Page { halves, next: (read == limit).then_some(last) })
    }

    fn has_queue(&self, queue: QueueId) -> bool {
        self.runner.shard.topics().queue(queue).is_some()
    }

    fn next_half(&self) -> HalfId {
        // A half's id is its log position, and positions after this one are not applied yet.
        HalfId::at(self.runner.shard.counters().applied_end())
    }

    fn settled_upto(&self, now: Stamp) -> Stamp {
        let shard = &self.runner.shard;
        // Nothing is on its way, so what comes is stamped at `now` or later; else not before what was applied last. A due
        // time is never earlier than the stamp of the command that gives it.
        if shard.intake().bytes() == 0 { now } else { shard.counters().stamp() }
    }

    fn instances(&self, group: &str) -> Vec<Instance> {
        let mut contacts = self.contacts.borrow_mut();
        let members = self.runner.clients.producers(group).into_iter();
        members
            .filter(|member| member.connection.is_open())
            .map(|member| {
                let (connection, client) = (member.connection.id(), Arc::clone(&member.client_id));
                let is_writable = member.connection.is_writable();
                contacts.insert(connection, Contact { connection: member.connection, client: member.client_id });
                Instance { connection, client, is_writable }
            })
            .collect()
    }

    fn with<T>(&self, change: impl FnOnce(&mut Scheduler) -> T) -> T {
        change(&mut self.runner.transactions.scheduler.lock())
    }
}

/// Of a transaction the first half stands for all.
fn is_without_checker(row: &HalfRow) -> bool {
    row.first_half.is_none() && row.parked.is_some_and(|(reason, _)| reason == ParkReason::NoChecker)
}
