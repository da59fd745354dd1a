//! Which subscription of a topic is a group's present one, when members name different ones.
//!
//! A subscription carries a version: the time at which it was made, by its client's clock. Clocks are wrong now and then, so the
//! broker goes by what it hears itself: a subscription that no member has named before is what somebody wants now; one that was
//! superseded comes from a member that has not followed yet. Only in the first minute after a start, when all members come back
//! in any order, versions decide between two that were heard then, unless they lie in the future.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use escrowmq_common::body::SubscriptionData;

/// The most subscriptions of one topic that are remembered for a group. Each start of a client makes another one; the oldest is
/// forgotten first.
const HEARD_MAX: usize = 1024;
/// The most subscriptions of all topics of a group together, as long as each topic has [`HEARD_MIN`].
const HEARD_OF_GROUP_MAX: usize = 16 * HEARD_MAX;
const HEARD_MIN: usize = 8;

/// The most subscriptions of each topic that are remembered for a group of `topics` topics.
pub(super) fn room(topics: usize) -> usize {
    (HEARD_OF_GROUP_MAX / topics.max(1)).clamp(HEARD_MIN, HEARD_MAX)
}

/// How long after a start members come back in any order: twice the interval of their heartbeats.
const RETURN_TIME: Duration = Duration::from_secs(60);

/// When a heartbeat came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// By the monotonic clock, since the first heartbeat after the broker's start.
    pub(super) since_start: Duration,
    /// By the wall clock, in milliseconds since 1970.
    pub(super) wall_ms: i64,
}

/// A subscription as a member named it: its version, and a hash of what it wants.
type Named = (i64, u64);

/// The subscriptions of one topic that the members of a group have named.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// When each was heard first, since the start.
    first: HashMap<Named, Duration>,
    order: VecDeque<Named>,
    /// The one in force.
    current: Option<Named>,
}

impl Heard {
    /// A member names a subscription. Says whether it is to be the group's from now on. `room` is how many are remembered.
    pub(super) fn hear(&mut self, subscription: &SubscriptionData, at: Moment, room: usize) -> bool {
        let named = (subscription.sub_version, wants(subscription));
        let is_new = !self.first.contains_key(&named);
        if is_new {
            self.remember(named, at.since_start, room);
        }
        let takes_over = match self.current {
            None => true,
            // The same wish: the highest version stands for it.
            Some((version, what)) if what == named.1 => named.0 > version,
            Some(_) if is_new => true,
            Some(current) => named.0 > current.0 && named.0 <= at.wall_ms && self.came_back(named, current),
        };
        if takes_over {
            self.current = Some(named);
        }
        takes_over
    }

    /// Whether a member has named a subscription of this version.
    pub(super) fn knows(&self, version: i64) -> bool {
        self.order.iter().any(|(known, _)| *known == version)
    }

    fn remember(&mut self, named: Named, at: Duration, room: usize) {
        while self.order.len() >= room
            && let Some(oldest) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
        self.order.push_back(named);
        self.first.insert(named, at);
    }

    /// Both were heard first while members came back after a start, so that their order says nothing.
    fn came_back(&self, one: Named, other: Named) -> bool {
        [one, other].iter().all(|named| self.first.get(named).is_some_and(|at| *at < RETURN_TIME))
    }
}

/// A hash of the messages that a subscription asks for. Its version does not count.
fn wants(subscription: &SubscriptionData) -> u64 {
    let mut hasher = DefaultHasher::new();
    (subscription.is_tag_type(), &subscription.sub_string).hash(&mut hasher);
    if !subscription.is_tag_type() {
        subscription.expression_type.hash(&mut hasher);
    }
    if subscription.sub_string.is_empty() {
        // Some clients send hashes and no text, in any order.
        let mut codes = subscription.code_set.clone();
        codes.sort_unstable();
        codes.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000;

    fn named(text: &str, version: i64) -> SubscriptionData {
        SubscriptionData { sub_string: text.to_owned(), sub_version: version, ..SubscriptionData::default() }
    }

    impl Heard {
        fn hears(&mut self, subscription: &SubscriptionData, at: Moment) -> bool {
            self.hear(subscription, at, room(1))
        }
    }

    #[test]
    fn many_topics_share_the_room_of_their_group() {
        assert_eq!((room(0), room(1), room(16), room(32), room(100_000)), (1024, 1024, 1024, 512, 8));
        let mut heard = Heard::default();
        for version in 0..100 {
            heard.hear(&named("*", version), at(0), room(10_000));
        }
        assert_eq!((heard.order.len(), heard.first.len()), (8, 8));
    }

    fn at(seconds: u64) -> Moment {
        Moment { since_start: Duration::from_secs(seconds), wall_ms: NOW + seconds as i64 * 1000 }
    }

    #[test]
    fn what_a_member_names_for_the_first_time_counts_whatever_its_clock_says() {
        for begin in [0, 1000] {
            for version in [NOW - 3_600_000, 0, -1, NOW] {
                let mut heard = Heard::default();
                assert!(heard.hears(&named("one", NOW + 86_400_000), at(begin)));
                assert!(heard.hears(&named("two", version), at(begin + 1)), "{version}");
                // The member that has not followed says what it said before.
                assert!(!heard.hears(&named("one", NOW + 86_400_000), at(begin + 2)));
                assert!(!heard.hears(&named("two", version), at(begin + 3)));
                assert!(heard.knows(version) && heard.knows(NOW + 86_400_000) && !heard.knows(7));
            }
        }
    }

    #[test]
    fn after_a_start_members_come_back_in_any_order_and_versions_decide() {
        let mut heard = Heard::default();
        assert!(heard.hears(&named("new", NOW - 10), at(1)));
        assert!(heard.hears(&named("old", NOW - 20), at(2)), "until the other one is heard again");
        assert!(heard.hears(&named("new", NOW - 10), at(31)));
        assert!(!heard.hears(&named("old", NOW - 20), at(32)));
        assert!(!heard.hears(&named("old", NOW - 20), at(1000)), "a reconnected member is not news");
        assert!(heard.hears(&named("old", NOW - 15), at(1001)), "a restarted one is");
        assert!(!heard.hears(&named("new", NOW - 10), at(1002)), "and later the order of hearing decides");
    }

    #[test]
    fn a_group_of_many_versions_of_one_wish_keeps_the_highest() {
        let mut heard = Heard::default();
        assert!(heard.hears(&named("*", 5), at(0)));
        assert!(!heard.hears(&named("*", 4), at(0)));
        assert!(heard.hears(&named("*", 6), at(0)));
        for version in 0..5_000 {
            heard.hears(&named("*", version), at(0));
        }
        assert_eq!((heard.order.len(), heard.first.len()), (HEARD_MAX, HEARD_MAX));
    }

    #[test]
    fn sets_of_hashes_are_compared_without_their_order() {
        let codes = |codes: &[i32]| wants(&SubscriptionData { code_set: codes.to_vec(), ..named("", 0) });
        assert_eq!(codes(&[1, 2]), codes(&[2, 1]));
        assert_ne!(codes(&[1, 2]), codes(&[1, 3]));
        let sql = SubscriptionData { expression_type: Some("SQL92".into()), ..named("a", 0) };
        assert_ne!(wants(&sql), wants(&named("a", 0)));
    }
}
