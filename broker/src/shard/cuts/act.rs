//! The acts of a workload on a shard, as values that can be written down, encoded and predicted.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use escrowmq_common::message::UnitBuilder;

use crate::retention::Load;
use crate::shard::{
    Checked, CheckedHalf, Command, Extend, GiveUp, Lock, Message, MessageList, Moved, OffsetCommit, Once, Park,
    Prepare, Publish, Resume, Roll, Settings, Settle,
};
use crate::terms::encode_cold;
use crate::terms::{
    Content, Decision, GroupSettings, HalfId, ParkReason, PinOwner, Position, QueueId, QueueOffset, Stamp,
    TopicSettings, When,
};

/// The producer group of all halves.
pub(in crate::shard) const PRODUCERS: &str = "producers";
/// How long a repeated half is recognised after its decision, in milliseconds.
pub(in crate::shard) const WINDOW_MS: u64 = 5_000;

/// A topic, and the number of a queue in it.
pub(in crate::shard) type Place = (String, i32);

/// A message that is written once more: its owner, where it was, hash of its tag, its unit.
pub(in crate::shard) type Piece = (PinOwner, Position, i32, Bytes);

/// One command. Names are made up by the workload; ids are those that the shard gave out.
#[derive(Clone, Debug)]
pub(in crate::shard) enum Act {
    PutTopic {
        name: String,
        queues: u32,
    },
    DeleteTopic {
        name: String,
    },
    PutGroup {
        name: String,
    },
    DeleteGroup {
        name: String,
        offsets: bool,
    },
    /// With `once` the body of the first one is the unique key, too.
    Publish {
        queue: u32,
        place: Place,
        when: When,
        bodies: Vec<String>,
        once: bool,
    },
    Prepare {
        queue: u32,
        place: Place,
        when: When,
        unique_id: String,
        body: String,
        first_half: Option<HalfId>,
    },
    Settle {
        half: HalfId,
        counter: u64,
        group: String,
        decision: Decision,
        rewritten: Vec<(HalfId, i32, Bytes)>,
    },
    Checked {
        halves: Vec<CheckedHalf<'static>>,
    },
    Extend {
        half: HalfId,
        counter: u64,
        until: Stamp,
        is_answer: bool,
    },
    Park {
        half: HalfId,
    },
    Resume {
        half: HalfId,
        only_if: Option<ParkReason>,
    },
    Offsets(Vec<(String, u32, QueueOffset)>),
    Fire {
        upto: Stamp,
        limit: u32,
    },
    Cancel {
        due: Stamp,
        position: Position,
    },
    Expire {
        decided_before: Stamp,
    },
    GiveUp {
        positions: std::ops::Range<Position>,
        messages: u64,
    },
    Settings {
        only_missing: bool,
        values: Vec<(String, String)>,
    },
    Feature(u32),
    Lock {
        group: String,
        client: String,
        life: u64,
        queues: Vec<u32>,
    },
    Unlock {
        group: String,
        client: String,
        queues: Vec<u32>,
    },
    Trim {
        upto: Position,
    },
    Roll {
        halves_upto: HalfId,
        moved: Vec<Piece>,
    },
}

impl Act {
    /// Hands the command to `with`.
    pub(in crate::shard) fn with_command<T>(&self, with: impl FnOnce(&Command<'_>) -> T) -> T {
        match self {
            Act::PutTopic { name, queues } => {
                with(&Command::PutTopic(&encode_cold(&TopicSettings::new(name.as_str(), *queues))))
            }
            Act::DeleteTopic { name } => with(&Command::DeleteTopic(name)),
            Act::PutGroup { name } => with(&Command::PutGroup(&encode_cold(&GroupSettings::new(name.as_str())))),
            Act::DeleteGroup { name, offsets } => with(&Command::DeleteGroup { group: name, offsets: *offsets }),
            Act::Publish { queue, place, when, bodies, once } => {
                let units: Vec<BytesMut> = bodies.iter().map(|body| unit(place, body, body)).collect();
                let units: Vec<Vec<u8>> = units.iter().map(|unit| unit.to_vec()).collect();
                let messages: Vec<Message<'_>> = units.iter().map(|unit| Message::new(7, unit)).collect();
                with(&Command::Publish(Publish {
                    queue: QueueId(*queue),
                    when: *when,
                    messages: MessageList::Many(&messages),
                    once: once.then(|| Once {
                        unique_id: &bodies[0],
                        content: Content::of(bodies.concat().as_bytes(), ""),
                        window: WINDOW_MS,
                    }),
                }))
            }
            Act::Prepare { queue, place, when, unique_id, body, first_half } => {
                let unit = unit(place, body, unique_id).to_vec();
                with(&Command::Prepare(Prepare {
                    queue: QueueId(*queue),
                    when: *when,
                    immunity: None,
                    first_half: *first_half,
                    content: Content::of(body.as_bytes(), ""),
                    duplicate_window: WINDOW_MS,
                    group: PRODUCERS,
                    client: "client",
                    unique_id,
                    message: Message::new(7, &unit),
                }))
            }
            Act::Settle { half, counter, group, decision, rewritten } => with(&Command::Settle(Settle {
                half: *half,
                counter: Some(*counter),
                decision: *decision,
                group: Some(group),
                by: "",
                reason: "",
                rewritten: rewritten.iter().map(|(half, tag, unit)| (*half, Message::new(*tag, unit))).collect(),
            })),
            Act::Checked { halves } => {
                with(&Command::Checked(Checked { first_checked_upto: None, halves: halves.clone() }))
            }
            Act::Extend { half, counter, until, is_answer } => with(&Command::Extend(Extend {
                half: *half,
                counter: *counter,
                group: PRODUCERS,
                until: *until,
                is_answer: *is_answer,
            })),
            Act::Park { half } => {
                let (reason, by, why) = (ParkReason::Operator, "me", "to see");
                with(&Command::Park(Park { half: *half, reason, by, why }))
            }
            Act::Resume { half, only_if } => {
                with(&Command::Resume(Resume { half: *half, by: "me", why: "seen", only_if: *only_if }))
            }
            Act::Offsets(commits) => {
                let commits = commits.iter().map(|(group, queue, offset)| OffsetCommit {
                    group,
                    queue: QueueId(*queue),
                    offset: *offset,
                });
                with(&Command::CommitOffsets(commits.collect()))
            }
            Act::Fire { upto, limit } => with(&Command::Fire { upto: *upto, limit: *limit }),
            Act::Cancel { due, position } => with(&Command::Cancel { due: *due, position: *position }),
            Act::Expire { decided_before } => with(&Command::Expire { decided_before: *decided_before }),
            Act::GiveUp { positions, messages } => {
                let (positions, messages) = (positions.clone(), *messages);
                with(&Command::GiveUp(GiveUp { positions, messages, by: "me", why: "lost" }))
            }
            Act::Settings { only_missing, values } => {
                let values = values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                with(&Command::Settings(Settings { only_missing: *only_missing, values }))
            }
            Act::Feature(level) => with(&Command::Feature(*level)),
            Act::Lock { group, client, life, queues } => {
                with(&Command::Lock(Lock { group, client, life: *life, queues: queue_ids(queues) }))
            }
            Act::Unlock { group, client, queues } => {
                with(&Command::Unlock(Lock { group, client, life: 0, queues: queue_ids(queues) }))
            }
            Act::Trim { upto } => with(&Command::Trim { upto: *upto }),
            Act::Roll { halves_upto, moved } => {
                let moved = moved.iter().map(|(owner, from, tag_hash, unit)| Moved {
                    owner: *owner,
                    from: *from,
                    message: Message::new(*tag_hash, unit),
                });
                with(&Command::Roll(Roll { halves_upto: *halves_upto, moved: moved.collect() }))
            }
        }
    }

    /// The command that moves what retention has gathered.
    pub(in crate::shard) fn roll(load: &Load) -> Act {
        Act::Roll { halves_upto: load.halves_upto(), moved: load.pieces().collect() }
    }
}

fn queue_ids(queues: &[u32]) -> Vec<QueueId> {
    queues.iter().copied().map(QueueId).collect()
}

/// A message as a handler stores it; `key` is its unique key and its key.
fn unit((topic, queue_id): &Place, body: &str, key: &str) -> BytesMut {
    let host: SocketAddr = "127.0.0.1:10911".parse().expect("an address");
    let properties = format!("UNIQ_KEY\u{1}{key}\u{2}KEYS\u{1}{key}\u{2}");
    let mut out = BytesMut::new();
    UnitBuilder { born_timestamp: 1, ..UnitBuilder::to_store(topic, *queue_id, host, body.as_bytes(), &[&properties]) }
        .write(&mut out)
        .expect("small enough");
    out
}
