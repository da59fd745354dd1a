//! Looking at undecided transactions: pages of them, who has how many, and what became of one.

use super::handle::Shard;
use crate::index::listing::{self, Filter};
use crate::index::{self, DecisionRow, HalfRow, IndexError};
use crate::terms::{HalfId, Stamp};

/// Which undecided halves are looked at. The default takes all.
#[derive(Debug, Clone, Default)]
pub struct HalfQuery<'a> {
    /// Only those of this producer group.
    pub group: Option<&'a str>,
    /// Only those of this topic.
    pub topic: Option<&'a str>,
    /// Only parked ones, or only open ones.
    pub parked: Option<bool>,
    /// Only those that were prepared at or before this time.
    pub prepared_until: Option<Stamp>,
    /// Only those with a higher id: where the last page ended.
    pub after: Option<HalfId>,
}

impl Shard {
    /// Undecided halves, oldest first, at most `limit`. Costs what it shows, however many there are.
    pub fn halves(&self, query: &HalfQuery<'_>, limit: usize) -> Result<Vec<HalfRow>, IndexError> {
        self.pick(query, limit, |_| Ok(true))
    }

    /// Undecided transactions, each by one of its halves: the first one that the query takes. Of those that are of one topic
    /// this may be a further half; else it is the one that stands for the transaction. Oldest first, at most `limit`.
    ///
    /// Costs what it shows, times the halves of a transaction.
    pub fn transactions(&self, query: &HalfQuery<'_>, limit: usize) -> Result<Vec<HalfRow>, IndexError> {
        self.pick(query, limit, |row| {
            let Some(first) = row.first_half else { return Ok(true) };
            // Without its first half it would not be undecided: it was decided while we looked.
            let Some(first) = self.half(first)? else { return Ok(false) };
            if query.topic.is_none() || first.topic == row.topic {
                return Ok(false);
            }
            for earlier in first.members.iter().take_while(|member| **member < row.half) {
                if self.half(*earlier)?.is_some_and(|earlier| earlier.topic == row.topic) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// The halves that the query takes and `is_shown` does, too.
    fn pick(
        &self,
        query: &HalfQuery<'_>,
        limit: usize,
        is_shown: impl Fn(&HalfRow) -> Result<bool, IndexError>,
    ) -> Result<Vec<HalfRow>, IndexError> {
        let mut rows = Vec::new();
        let mut filter = Filter { parked: query.parked, ..Filter::default() };
        if let Some(group) = query.group {
            let Some(group) = self.producers().get(group) else { return Ok(rows) };
            filter.group = Some(group.id);
        }
        if let Some(topic) = query.topic {
            let topic = self.topics().get(topic);
            let Some(first) = topic.as_ref().and_then(|topic| topic.queues.first()) else { return Ok(rows) };
            filter.topic = Some(first.id.0);
        }
        let from = query.after.map_or(HalfId::ZERO, HalfId::next).max(self.counters().halves_from());
        listing::scan(self.index(), filter, from, |half| {
            // One that was decided meanwhile is not shown.
            let Some(row) = self.half(half)? else { return Ok(rows.len() < limit) };
            if rows.len() == limit || query.prepared_until.is_some_and(|until| row.prepared_at > until) {
                return Ok(false);
            }
            if is_shown(&row)? {
                rows.push(row);
            }
            Ok(rows.len() < limit)
        })?;
        Ok(rows)
    }

    /// How a half was decided, if it was and that is remembered.
    pub fn decision(&self, half: HalfId) -> Result<Option<DecisionRow>, IndexError> {
        index::decision::get(self.index(), half)
    }
}
