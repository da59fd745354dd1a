//! When other members last answered a leader.
//!
//! Openraft knows a time like this, and it is not good enough for answering reads: the answer to one append counts there for
//! later ones that carry no entries, which nobody may have got. Here each answer counts for its own request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;

/// See the module. Shared by the clients of all members and by whoever asks.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    term: u64,
    /// When the newest answered request of this term was sent, by member.
    sent: BTreeMap<u64, Duration>,
}

impl Contacts {
    /// A member has taken a request that the leader of this term sent at this time.
    pub(super) fn note(&self, term: u64, member: u64, sent: Duration) {
        let mut heard = self.heard.lock();
        if term > heard.term {
            *heard = Heard { term, sent: BTreeMap::new() };
        }
        if term == heard.term {
            let known = heard.sent.entry(member).or_insert(sent);
            *known = sent.max(*known);
        }
    }

    /// The latest time after which a majority of each of these sets of voters has heard from this member as the leader of this
    /// term. None if one of them never did. This member hears itself at any time.
    pub(super) fn majority_since(
        &self,
        term: u64,
        own: u64,
        voters: &[BTreeSet<u64>],
        now: Duration,
    ) -> Option<Duration> {
        let heard = self.heard.lock();
        let of = |set: &BTreeSet<u64>| {
            let known = |member: &u64| {
                if *member == own { Some(now) } else { heard.sent.get(member).filter(|_| heard.term == term).copied() }
            };
            let mut times: Vec<Duration> = set.iter().filter_map(known).collect();
            times.sort_unstable_by(|one, other| other.cmp(one));
            times.get(set.len() / 2).copied()
        };
        voters.iter().map(of).min().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_majority_of_each_set_counts() {
        let contacts = Contacts::default();
        let three = BTreeSet::from([1, 2, 3]);
        let five = BTreeSet::from([1, 2, 3, 4, 5]);
        let since = |voters: &[BTreeSet<u64>]| contacts.majority_since(7, 1, voters, ms(100));
        assert_eq!(since(std::slice::from_ref(&three)), None);
        contacts.note(7, 2, ms(10));
        assert_eq!(since(std::slice::from_ref(&three)), Some(ms(10)));
        assert_eq!(since(&[three.clone(), five.clone()]), None);
        contacts.note(7, 3, ms(20));
        contacts.note(7, 3, ms(15));
        assert_eq!(since(std::slice::from_ref(&three)), Some(ms(20)), "an older answer takes nothing back");
        assert_eq!(since(&[three.clone(), five]), Some(ms(10)));
        assert_eq!(since(&[BTreeSet::from([1])]), Some(ms(100)));
        contacts.note(6, 2, ms(90));
        assert_eq!(since(std::slice::from_ref(&three)), Some(ms(20)), "an answer to an earlier leadership");
        contacts.note(8, 2, ms(50));
        assert_eq!(since(&[three]), None, "that was another leadership");
    }
}
