//! Histories: what clients asked, what they were told, what they saw, and when. One JSON object per line, so that a run can
//! be kept, looked at with ordinary tools, and judged again.
//!
//! A message is named by a *key* that its sender made up and that travels with it; nothing the broker makes up identifies
//! it. Several histories of one run (of several clients, of several processes) are one history if put together.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in microseconds since the run began, by one clock.
    pub at: u64,
    /// The client, which does one thing after the other.
    pub client: String,
    /// The deed.
    #[serde(flatten)]
    pub what: What,
}

/// How a transaction ends, or should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Consumers get it.
    Commit,
    /// Nobody gets it.
    Rollback,
}

/// Which fault an acknowledgement survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The end of the process.
    Written,
    /// A power cut.
    Flushed,
}

/// A place in a queue. Queues are named by whoever writes the history, such as `topic/0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The queue.
    pub queue: String,
    /// The offset there.
    pub offset: u64,
}

/// Something that was asked, told or seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// A message is about to be sent, with what a hash says its body is.
    Send {
        /// The message.
        key: String,
        /// Hash of its body.
        hash: u32,
    },
    /// It was acknowledged.
    Sent {
        /// The message.
        key: String,
        /// The level that the acknowledgement promises.
        level: Level,
        /// Where it is; `None` for one that waits for its time.
        place: Option<Place>,
    },
    /// A half message is about to be sent.
    Half {
        /// The message.
        key: String,
        /// Hash of its body.
        hash: u32,
    },
    /// It was acknowledged.
    HalfStored {
        /// The message.
        key: String,
    },
    /// The ledger: what the local transaction came to, durable before this line is.
    Local {
        /// The message.
        key: String,
        /// How it ended.
        ending: Ending,
    },
    /// A decision was confirmed.
    Decided {
        /// The message.
        key: String,
        /// The decision.
        ending: Ending,
        /// Where the message is, if the answer says so.
        place: Option<Place>,
    },
    /// A decision was refused, because the opposite had been made.
    Conflict {
        /// The message.
        key: String,
        /// The decision that was refused.
        ending: Ending,
    },
    /// A consumer group got a message.
    Delivered {
        /// The group.
        group: String,
        /// The message.
        key: String,
        /// Where it was.
        place: Place,
        /// Hash of its body.
        hash: u32,
        /// How often it had been delivered to the group before, as the broker says.
        attempt: u32,
    },
    /// Another view than delivery showed a message: by id, by key, a retry, a dead letter.
    Shown {
        /// Which view.
        view: String,
        /// The message.
        key: String,
    },
    /// A message became a dead letter of a group.
    DeadLetter {
        /// The group.
        group: String,
        /// The message.
        key: String,
    },
    /// A consumer group's offset was stored: the next one to consume.
    OffsetCommitted {
        /// The group.
        group: String,
        /// Queue and offset.
        place: Place,
    },
    /// A consumer group's offset was asked for.
    OffsetSeen {
        /// The group.
        group: String,
        /// Queue and offset.
        place: Place,
    },
    /// Somebody set an offset on purpose.
    OffsetReset {
        /// The group.
        group: String,
        /// Queue and offset.
        place: Place,
    },
    /// A fault was to happen; whether it did.
    Fault {
        /// Which.
        kind: String,
        /// Whether it happened.
        fired: bool,
    },
    /// The last fault is over: from here on everything must come to its end.
    Healed,
    /// In the end: what is in a queue. One line for each message, of all queues.
    Stored {
        /// The message.
        key: String,
        /// Where it is.
        place: Place,
        /// Hash of its body.
        hash: u32,
    },
    /// In the end: a half that is still undecided.
    Pending {
        /// The message.
        key: String,
        /// Why it is parked, if it is.
        parked: Option<String>,
    },
    /// In the end: the broker's own counts of halves.
    Counted {
        /// All that were ever stored.
        halves: u64,
        /// Committed.
        committed: u64,
        /// Rolled back.
        rolled_back: u64,
        /// Undecided and not parked.
        pending: u64,
        /// Parked.
        parked: u64,
    },
}

/// Writes a history down while it happens, from any number of threads.
#[derive(Clone, Debug)]
pub struct Recorder {
    started: Duration,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { started: clock::monotonic(), events: Arc::default() }
    }
}

impl Recorder {
    /// Notes that this happens now.
    pub fn note(&self, client: &str, what: What) {
        let mut events = self.events.lock();
        let at = clock::monotonic().saturating_sub(self.started).as_micros() as u64;
        events.push(Event { at, client: client.to_owned(), what });
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// The events but for the first `count`.
    pub fn since(&self, count: usize) -> Vec<Event> {
        self.events.lock().get(count..).unwrap_or_default().to_vec()
    }
}

/// Hash of a body as histories carry it.
pub fn hash(body: &[u8]) -> u32 {
    // FNV-1a: small, and enough to tell a changed body.
    body.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Writes events, one per line.
pub fn write(events: &[Event], mut out: impl Write) -> io::Result<()> {
    for event in events {
        serde_json::to_writer(&mut out, event)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Reads events, one per line.
pub fn read(input: impl BufRead) -> io::Result<Vec<Event>> {
    input.lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// Keeps a history as a file.
pub fn save(events: &[Event], path: &Path) -> io::Result<()> {
    write(events, io::BufWriter::new(std::fs::File::create(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_of_json() {
        let place = Place { queue: "T/0".into(), offset: 3 };
        let events = vec![
            Event { at: 1, client: "a".into(), what: What::Send { key: "k".into(), hash: hash(b"body") } },
            Event {
                at: 2,
                client: "a".into(),
                what: What::Sent { key: "k".into(), level: Level::Flushed, place: Some(place) },
            },
            Event { at: 3, client: "nobody".into(), what: What::Healed },
        ];
        let mut bytes = Vec::new();
        write(&events, &mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes).lines().count(), 3);
        assert!(String::from_utf8_lossy(&bytes).contains(r#""what":"sent""#));
        assert_eq!(read(&bytes[..]).unwrap(), events);
        assert!(read(&b"{}"[..]).is_err());
    }
}
