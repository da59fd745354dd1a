//! Allocation of queues to consumers: the rule every member of a group computes for itself, and the changes it makes.
//!
//! Nobody hands out queues. Each member sorts the same queues and the same member ids and takes its share by the same
//! rule, so all of them agree as long as they see the same two lists. The rule is therefore protocol, not taste: it must
//! give exactly what the Java and Go clients compute, or one queue would have two owners and another none.

use std::collections::BTreeSet;

use crate::queue::MessageQueue;

/// The share of `me` under the strategy `AVG`: consecutive runs of the sorted queues, the first members one longer when
/// it does not divide evenly.
///
/// `None` when `me` is not among the members: the caller must not conclude that its share is empty (the broker may just
/// have forgotten it), only that this round decides nothing.
pub(crate) fn allocate_average(
    queues: &BTreeSet<MessageQueue>,
    members: &BTreeSet<String>,
    me: &str,
) -> Option<BTreeSet<MessageQueue>> {
    let index = members.iter().position(|member| member == me)?;
    let (queue_count, member_count) = (queues.len(), members.len());
    let remainder = queue_count % member_count;
    let share = queue_count / member_count + usize::from(index < remainder);
    let start = index * (queue_count / member_count) + index.min(remainder);
    Some(queues.iter().skip(start).take(share).cloned().collect())
}

/// The difference that a new allocation makes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reassignment {
    /// Held until now and belonging to somebody else from now on: stop, store the offset, unlock.
    pub(crate) lost: Vec<MessageQueue>,
    /// New here: find the start offset and pull.
    pub(crate) won: Vec<MessageQueue>,
}

impl Reassignment {
    /// The way from `held` to `target`.
    pub(crate) fn between<'a>(
        held: impl IntoIterator<Item = &'a MessageQueue>,
        target: &BTreeSet<MessageQueue>,
    ) -> Reassignment {
        let held: BTreeSet<&MessageQueue> = held.into_iter().collect();
        Reassignment {
            lost: held.iter().filter(|queue| !target.contains(**queue)).map(|queue| (*queue).clone()).collect(),
            won: target.iter().filter(|queue| !held.contains(queue)).cloned().collect(),
        }
    }

    /// Whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.won.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(count: i32) -> BTreeSet<MessageQueue> {
        (0..count).map(|id| MessageQueue::new("T", "a", id)).collect()
    }

    fn members(count: usize) -> BTreeSet<String> {
        (0..count).map(|n| format!("c{n}")).collect()
    }

    fn ids(share: Option<BTreeSet<MessageQueue>>) -> Vec<i32> {
        share.expect("a member").iter().map(MessageQueue::id).collect()
    }

    /// The rule as the Java client spells it out, to compare with.
    fn java_average(queues: &[i32], members: usize, index: usize) -> Vec<i32> {
        let remainder = queues.len() % members;
        let average = if queues.len() <= members {
            1
        } else if remainder > 0 && index < remainder {
            queues.len() / members + 1
        } else {
            queues.len() / members
        };
        let start = if remainder > 0 && index < remainder { index * average } else { index * average + remainder };
        let range = average.min(queues.len().saturating_sub(start));
        (0..range).map(|i| queues[(start + i) % queues.len()]).collect()
    }

    #[test]
    fn the_share_is_what_other_clients_compute() {
        for queue_count in 0..20 {
            for member_count in 1..9 {
                let all: Vec<i32> = (0..queue_count).collect();
                for index in 0..member_count {
                    let share = allocate_average(&queues(queue_count), &members(member_count), &format!("c{index}"));
                    assert_eq!(
                        ids(share),
                        java_average(&all, member_count, index),
                        "{queue_count} queues, member {index} of {member_count}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_queue_has_exactly_one_owner() {
        for queue_count in 0..20 {
            for member_count in 1..9 {
                let mut owned = Vec::new();
                for index in 0..member_count {
                    owned.extend(ids(allocate_average(
                        &queues(queue_count),
                        &members(member_count),
                        &format!("c{index}"),
                    )));
                }
                assert_eq!(owned, (0..queue_count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_stranger_learns_nothing() {
        assert_eq!(allocate_average(&queues(4), &members(2), "somebody"), None);
        assert_eq!(allocate_average(&queues(4), &BTreeSet::new(), "c0"), None);
    }

    #[test]
    fn the_difference_names_only_what_moves() {
        let held = queues(4);
        let target: BTreeSet<_> = (2..6).map(|id| MessageQueue::new("T", "a", id)).collect();
        let change = Reassignment::between(&held, &target);
        assert_eq!(change.lost.iter().map(MessageQueue::id).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(change.won.iter().map(MessageQueue::id).collect::<Vec<_>>(), [4, 5]);
        assert!(Reassignment::between(&held, &held).is_empty());
    }
}
