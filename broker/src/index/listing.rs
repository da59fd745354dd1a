//! Undecided halves in the order in which they are listed: open or parked, by producer group, by topic, oldest first.
//!
//! A page costs what it shows and a look at each pair of group and topic that has halves; ids rise with time, so several
//! pairs are merged by id.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::error::IndexError;
use super::reader::IndexReader;
use super::table;
use crate::terms::HalfId;

/// Length of a key.
pub(super) const LISTED_BYTES: usize = 18;
/// Ids read ahead of each pair.
const AHEAD: usize = 64;

/// The key of a half.
pub(super) fn listed_key(parked: bool, group: u32, topic: u32, half: HalfId) -> [u8; LISTED_BYTES] {
    let mut key = [0; LISTED_BYTES];
    key[..10].copy_from_slice(&Pair { parked, group, topic }.prefix());
    key[10..].copy_from_slice(&half.get().to_be_bytes());
    key
}

/// Halves in one state, of one group and topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    parked: bool,
    group: u32,
    topic: u32,
}

impl Pair {
    fn prefix(self) -> [u8; 10] {
        let mut prefix = [table::LISTED; 10];
        prefix[1] = u8::from(self.parked);
        prefix[2..6].copy_from_slice(&self.group.to_be_bytes());
        prefix[6..].copy_from_slice(&self.topic.to_be_bytes());
        prefix
    }

    fn of_key(key: &[u8]) -> Option<(Self, HalfId)> {
        let number = |at: usize| Some(u32::from_be_bytes(key.get(at..at + 4)?.try_into().ok()?));
        let pair = Self { parked: *key.get(1)? != 0, group: number(2)?, topic: number(6)? };
        Some((pair, HalfId(u64::from_be_bytes(key.get(10..LISTED_BYTES)?.try_into().ok()?))))
    }

    /// The first key after all of its halves; `None` after the last pair of all.
    fn behind(self) -> Option<[u8; 10]> {
        let Self { parked, group, topic } = self;
        let next = match (topic.checked_add(1), group.checked_add(1)) {
            (Some(topic), _) => Self { parked, group, topic },
            (None, Some(group)) => Self { parked, group, topic: 0 },
            (None, None) if parked => return None,
            (None, None) => Self { parked: true, group: 0, topic: 0 },
        };
        Some(next.prefix())
    }
}

/// Which halves are listed. `None` takes all.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filter {
    /// Parked ones, or else open ones.
    pub parked: Option<bool>,
    /// Id of the producer group.
    pub group: Option<u32>,
    /// Id of the topic's first queue.
    pub topic: Option<u32>,
}

impl Filter {
    fn takes(self, pair: Pair) -> bool {
        self.parked.is_none_or(|parked| parked == pair.parked)
            && self.group.is_none_or(|group| group == pair.group)
            && self.topic.is_none_or(|topic| topic == pair.topic)
    }

    /// The pairs that it takes: each is found with one look, and so is each that it does not take of a group that it does.
    fn pairs(self, index: &IndexReader) -> Result<Vec<Pair>, IndexError> {
        let mut pairs = Vec::new();
        for parked in [false, true] {
            if self.parked.is_some_and(|wanted| wanted != parked) {
                continue;
            }
            let low = Pair { parked, group: self.group.unwrap_or_default(), topic: self.topic.unwrap_or_default() };
            if self.group.is_some() && self.topic.is_some() {
                pairs.push(low);
                continue;
            }
            let low = Pair { topic: if self.group.is_some() { low.topic } else { 0 }, ..low };
            let mut from = Some(low.prefix());
            while let Some(key) = from {
                let next = index.scan_prefix(&[table::LISTED, u8::from(parked)], &key).next().transpose()?;
                let Some((pair, _)) = next.and_then(|(key, _)| Pair::of_key(&key)) else { break };
                if self.group.is_some_and(|group| group != pair.group) {
                    break;
                }
                if self.takes(pair) {
                    pairs.push(pair);
                }
                from = pair.behind();
            }
        }
        Ok(pairs)
    }
}

/// The ids of one pair that are not taken yet.
struct Ahead {
    pair: Pair,
    ids: VecDeque<HalfId>,
}

impl Ahead {
    /// Reads more of them, from `from` on.
    fn fill(&mut self, index: &IndexReader, from: HalfId) -> Result<(), IndexError> {
        let prefix = self.pair.prefix();
        let low = listed_key(self.pair.parked, self.pair.group, self.pair.topic, from);
        for row in index.scan_prefix(&prefix, &low).take(AHEAD) {
            self.ids.extend(Pair::of_key(&row?.0).map(|(_, half)| half));
        }
        Ok(())
    }
}

/// Calls `each` with the ids of the halves that the filter takes, from `from` on, oldest first, until it says stop.
pub(crate) fn scan(
    index: &IndexReader,
    filter: Filter,
    from: HalfId,
    mut each: impl FnMut(HalfId) -> Result<bool, IndexError>,
) -> Result<(), IndexError> {
    let mut heads = Vec::new();
    let mut first = BinaryHeap::new();
    for pair in filter.pairs(index)? {
        let mut head = Ahead { pair, ids: VecDeque::new() };
        head.fill(index, from)?;
        first.extend(head.ids.front().map(|id| Reverse((*id, heads.len()))));
        heads.push(head);
    }
    while let Some(Reverse((id, nth))) = first.pop() {
        if !each(id)? {
            break;
        }
        let head = &mut heads[nth];
        head.ids.pop_front();
        if head.ids.is_empty() && id < HalfId::MAX {
            head.fill(index, id.next())?;
        }
        first.extend(head.ids.front().map(|id| Reverse((*id, nth))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]

    use super::super::batch::IndexBatch;
    use super::super::store::Index;
    use super::*;

    fn put(batch: &mut IndexBatch, parked: bool, group: u32, topic: u32, half: HalfId) {
        batch.put(listed_key(parked, group, topic, half), Vec::new());
    }

    fn index() -> Index {
        let index = Index::in_memory().expect("an index");
        let mut batch = IndexBatch::default();
        for half in 0..1000_u64 {
            put(&mut batch, half % 10 == 0, half as u32 % 3, half as u32 % 7, HalfId(half));
        }
        put(&mut batch, true, u32::MAX, u32::MAX, HalfId(5000));
        put(&mut batch, false, u32::MAX, u32::MAX, HalfId(5001));
        index.write(batch);
        index
    }

    fn ids(index: &Index, filter: Filter, from: HalfId, limit: usize) -> Vec<HalfId> {
        let mut ids = Vec::new();
        scan(index, filter, from, |id| {
            ids.push(id);
            Ok(ids.len() < limit)
        })
        .expect("readable");
        ids
    }

    #[test]
    fn every_filter_lists_what_it_takes_in_order() {
        let index = index();
        let all: Vec<u64> = (0..1000).chain([5000, 5001]).collect();
        for parked in [None, Some(false), Some(true)] {
            for group in [None, Some(0), Some(2), Some(9)] {
                for topic in [None, Some(0), Some(6), Some(8)] {
                    let pair = |half: u64| match half {
                        5000 | 5001 => (half == 5000, u32::MAX, u32::MAX),
                        _ => (half.is_multiple_of(10), half as u32 % 3, half as u32 % 7),
                    };
                    let taken = all.iter().copied().filter(|half| {
                        let (is_parked, its_group, its_topic) = pair(*half);
                        parked.is_none_or(|parked| parked == is_parked)
                            && group.is_none_or(|group| group == its_group)
                            && topic.is_none_or(|topic| topic == its_topic)
                    });
                    let filter = Filter { parked, group, topic };
                    assert_eq!(
                        ids(&index, filter, HalfId::ZERO, usize::MAX),
                        taken.map(HalfId).collect::<Vec<_>>(),
                        "{filter:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn pages_follow_each_other() {
        let index = index();
        let filter = Filter { group: Some(1), ..Filter::default() };
        let whole = ids(&index, filter, HalfId::ZERO, usize::MAX);
        let mut paged = Vec::new();
        while let page = ids(&index, filter, paged.last().map_or(HalfId::ZERO, |last: &HalfId| last.next()), 50)
            && !page.is_empty()
        {
            paged.extend(page);
        }
        assert_eq!(paged, whole);
    }
}
