//! Asks the other members what time it is: clocks that run apart are found before one of them leads.
//!
//! ```text
//!  this member   asked |--------- round trip ---------| answered
//!  the other                   its time ^
//! ```
//!
//! Its time is compared with the middle of the round trip, so the difference is wrong by half of that at most. The answers also
//! show whether this member reaches the others, as it must to pass requests on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock::Clock;
use escrowmq_common::task::Shutdown;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::care::seat_of;
use super::question::{Answer, Question, decode, encode};
use crate::peer::{Lane, Peers, Target};
use crate::raft::Members;

/// Between questions.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Before the next ones if a member did not answer.
const RETRY: Duration = Duration::from_secs(2);
/// The time for an answer, a new connection included.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// What came of the last question to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its clock is ahead of this one by so many milliseconds; behind, if negative.
    Ahead(i64),
    /// It did not answer.
    Silent,
}

/// What came of the last questions, by member.
pub(super) type Answers = Arc<Mutex<BTreeMap<u64, Asked>>>;

/// See the module.
pub(super) struct Clocks {
    /// The Raft id of this member.
    pub(super) own: u64,
    pub(super) clock: Clock,
    pub(super) peers: Peers,
    pub(super) members: watch::Receiver<Members>,
    pub(super) answers: Answers,
}

impl Clocks {
    /// Until shutdown.
    pub(super) async fn run(mut self, shutdown: Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.ask_all() => {}
        }
    }

    async fn ask_all(&mut self) {
        loop {
            let addresses = self.members.borrow_and_update().addresses.clone();
            let others = addresses.iter().filter(|(node, _)| **node != self.own);
            let asked = others.filter_map(|(node, address)| Some((*node, seat_of(address)?)));
            let asking = asked.map(|(node, seat)| {
                let link = self.peers.link(&Target::Node(node), &seat.address(), Lane::Group);
                let clock = self.clock.clone();
                async move {
                    let answer = timeout(ANSWER_TIME, async {
                        link.ready().await.ok()?;
                        let sent = (clock.monotonic(), clock.wall_ms());
                        let answer = link.call(encode(&Question::Time), ANSWER_TIME).await.ok()?;
                        let trip = clock.monotonic().saturating_sub(sent.0);
                        match decode(&answer) {
                            Ok(Answer::Time { wall }) => Some(ahead(wall, sent.1, trip)),
                            _ => None,
                        }
                    });
                    (node, answer.await.ok().flatten().map_or(Asked::Silent, Asked::Ahead))
                }
            });
            let answers: BTreeMap<u64, Asked> = join_all(asking).await.into_iter().collect();
            let pause = if answers.values().any(|answer| *answer == Asked::Silent) { RETRY } else { ASK_EVERY };
            self.let_go(&answers);
            *self.answers.lock() = answers;
            tokio::select! {
                changed = self.members.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// A member that went while it was asked would be dialed for ever.
    fn let_go(&self, answers: &BTreeMap<u64, Asked>) {
        let members = self.members.borrow().clone();
        let is_gone = |node: &u64| answers.contains_key(node) && !members.addresses.contains_key(node);
        self.peers.retain(|target| !matches!(target, Target::Node(node) if is_gone(node)));
    }
}

/// How far the other clock is ahead, in milliseconds.
fn ahead(wall: i64, asked_at: i64, trip: Duration) -> i64 {
    let half = i64::try_from(trip.as_millis() / 2).unwrap_or(i64::MAX);
    wall.saturating_sub(asked_at.saturating_add(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_middle_of_the_round_trip() {
        assert_eq!(ahead(1_020, 1_000, Duration::from_millis(40)), 0);
        assert_eq!(ahead(4_600, 1_000, Duration::ZERO), 3_600);
        assert_eq!(ahead(400, 1_000, Duration::from_millis(10)), -605);
        assert_eq!(ahead(i64::MIN, i64::MAX, Duration::MAX), i64::MIN);
    }
}
