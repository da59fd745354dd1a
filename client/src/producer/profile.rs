//! Profiles: what a producer takes for success. And the question to a broker whether its settings can keep that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::message::properties::name;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::StoreLevel;
use crate::core::Core;
use crate::error::{PASSING, RequestError, SendError};
use crate::message::Message;
use crate::queue::MessageQueue;

/// How much a producer gives for safety. docs/producing.md has a table of what each can lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// A send succeeds once a broker has stored the message as safely as it is configured to
    /// ([`StoreLevel::Full`]), and that outlives a power cut of the broker's machine.
    ///
    /// * A lower level is [`SendError::BelowAsked`], which says where the message is.
    /// * `wait_stored(false)` and one-way sends are refused with [`SendError::Invalid`]: nothing is sent.
    /// * Each broker is asked for its settings before it gets a message. One that answers before a flush, and is no member of
    ///   a group that keeps several copies, is [`SendError::UnsafeBroker`]: nothing is sent. One that refuses to tell its
    ///   settings is taken at its word, with a warning in the log.
    /// * A message that is only spilled is an error ([`SpillError::Spilled`](crate::SpillError::Spilled)).
    Strict,
    /// A send succeeds once a broker has stored the message; [`SendResult::level`](crate::SendResult::level) says how
    /// safely. Brokers answer after flush and replication as they are configured, or after their own time limit for them.
    #[default]
    Balanced,
    /// A send succeeds once a broker has the message in memory: messages that do not say otherwise have
    /// [`wait_stored(false)`](Message::wait_stored), and a batching producer gathers larger
    /// batches. The end of a broker's machine loses messages that it has answered.
    Fast,
}

impl Profile {
    /// Whether a message may be sent under this profile.
    pub(super) fn admits(self, message: &Message) -> Result<(), SendError> {
        if self == Profile::Strict && message.get(name::WAIT).is_some_and(|wait| wait == "false") {
            return Err(SendError::invalid(
                "Profile::Strict refuses wait_stored(false), after which a broker answers before it has stored the \
                 message: leave it out, or use another profile",
            ));
        }
        Ok(())
    }

    /// Whether a broker is to answer after flush and replication, for a message that says nothing about it.
    pub(super) fn waits(self) -> bool {
        self != Profile::Fast
    }

    /// Whether what the broker reached is enough.
    pub(super) fn accepts(self, level: StoreLevel, message_id: &str, queue: &MessageQueue) -> Result<(), SendError> {
        if self == Profile::Strict && level != StoreLevel::Full {
            return Err(SendError::BelowAsked { message_id: message_id.to_owned(), queue: queue.clone(), level });
        }
        Ok(())
    }
}

/// How long an answer about settings counts: a broker that was restarted with others is noticed after this time.
const COUNTS_FOR: Duration = Duration::from_secs(60);

/// Whether settings keep what a broker answers; the error says why not.
type Judgement = Result<(), String>;

/// Brokers that were asked for their settings. Bounded by the number of brokers.
#[derive(Debug, Default)]
pub(super) struct Safety {
    asked: Mutex<HashMap<Arc<str>, (Instant, Judgement)>>,
}

impl Safety {
    /// The judgement of the broker's settings.
    pub(super) async fn of(&self, core: &Core, addr: &Arc<str>) -> Result<Judgement, RequestError> {
        if let Some((at, known)) = self.asked.lock().get(addr)
            && at.elapsed() < COUNTS_FOR
        {
            return Ok(known.clone());
        }
        let told = match core.request(addr, Frame::request(request::GET_BROKER_CONFIG)).await {
            Ok(answer) => judged(&String::from_utf8_lossy(&answer.body)),
            // A broker that is busy or leads no more says nothing about its settings; one that refuses does not tell them.
            Err(error @ RequestError::Refused { code, .. }) if !PASSING.contains(&code) => {
                tracing::warn!(%addr, %error, "a broker does not tell whether its settings are safe");
                Ok(())
            }
            Err(error) => return Err(error),
        };
        self.asked.lock().insert(Arc::clone(addr), (Instant::now(), told.clone()));
        Ok(told)
    }
}

/// Whether settings outlive a power cut. Text without them says nothing against them.
fn judged(settings: &str) -> Judgement {
    let setting = |wanted: &str| {
        let mut pairs = settings.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(key, _)| key.trim() == wanted).map(|(_, value)| value.trim().to_owned())
    };
    // Members of an EscrowMQ group answer when most of them have the message on disk, however a single one flushes. Other brokers
    // have a setting of that name which promises nothing about the disk.
    let is_escrowmq = setting("transactionParkAfter").is_some();
    let is_member = is_escrowmq && setting("dLegerPeers").is_some_and(|peers| peers.contains(';'));
    match setting("flushDiskType") {
        Some(flush) if flush.eq_ignore_ascii_case("ASYNC_FLUSH") && !is_member => {
            Err(format!("flushDiskType={flush} answers before the message is on disk"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_a_power_cut_defeats_are_named() {
        assert!(judged("a=b\nflushDiskType=ASYNC_FLUSH\ndLegerPeers=\n").is_err_and(|why| why.contains("ASYNC_FLUSH")));
        assert_eq!(judged("flushDiskType=SYNC_FLUSH\n"), Ok(()));
        let group = "flushDiskType=ASYNC_FLUSH\ndLegerPeers=n0-h:1;n1-h:2;n2-h:3\n";
        assert_eq!(judged(&format!("{group}transactionParkAfter=1000\n")), Ok(()));
        assert!(judged(group).is_err(), "a RocketMQ broker");
        assert!(judged("flushDiskType=ASYNC_FLUSH\ndLegerPeers=n0-h:1\ntransactionParkAfter=1000\n").is_err(), "alone");
        assert_eq!(judged(""), Ok(()));
    }

    #[test]
    fn only_strict_refuses_less() {
        let queue = MessageQueue::new("T", "b", 0);
        for profile in [Profile::Strict, Profile::Balanced, Profile::Fast] {
            let is_strict = profile == Profile::Strict;
            assert_eq!(profile.accepts(StoreLevel::FlushTimedOut, "m", &queue).is_err(), is_strict);
            assert!(profile.accepts(StoreLevel::Full, "m", &queue).is_ok());
            assert_eq!(profile.admits(&Message::new("T", "b").wait_stored(false)).is_err(), is_strict);
            assert!(profile.admits(&Message::new("T", "b").wait_stored(true)).is_ok());
        }
    }
}
