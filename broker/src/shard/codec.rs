//! A command's bytes in the log: `tag u8 | body length u32 | body`. The fields of each body stand in the order of the command's
//! struct. Tags are never reused.
//!
//! Encoding refuses what is longer than [`limits`] allow. Decoding does not ask for them: a version with other limits reads the
//! same commands.

use bytes::{BufMut, BytesMut};
use escrowmq_common::limits;
use escrowmq_common::message::properties::PROPERTIES_BYTES_MAX;

use super::command::{
    Checked, CheckedHalf, Command, Extend, GiveUp, Lock, Moved, OffsetCommit, Once, Park, Prepare, Publish, Resume,
    Roll, Settings, Settle,
};
use super::message::{Message, MessageList};
use crate::log::format::RECORD_BYTES_MAX;
use crate::terms::to_u32;
use crate::terms::{
    Content, Cursor, Decision, HalfId, Malformed, ParkReason, PinOwner, Position, QueueId, QueueOffset, Stamp, TooLong,
    get_optional, get_when, put_bounded, put_optional, put_when,
};

mod tag {
    // 1, 2, 4, 5, 6, 16, 17 and 20 were used before the first release.
    pub(super) const SETTLE: u8 = 3;
    pub(super) const COMMIT_OFFSETS: u8 = 7;
    pub(super) const PUT_TOPIC: u8 = 8;
    pub(super) const DELETE_TOPIC: u8 = 9;
    pub(super) const PUT_GROUP: u8 = 10;
    pub(super) const DELETE_GROUP: u8 = 11;
    pub(super) const FIRE: u8 = 12;
    pub(super) const LOCK: u8 = 13;
    pub(super) const UNLOCK: u8 = 14;
    pub(super) const TRIM: u8 = 15;
    pub(super) const CANCEL: u8 = 18;
    pub(super) const ROLL: u8 = 19;
    pub(super) const EXTEND: u8 = 21;
    pub(super) const CHECKED: u8 = 22;
    pub(super) const PARK: u8 = 23;
    pub(super) const RESUME: u8 = 24;
    pub(super) const PREPARE: u8 = 25;
    pub(super) const GIVE_UP: u8 = 27;
    pub(super) const PUBLISH: u8 = 28;
    pub(super) const EXPIRE: u8 = 29;
    pub(super) const SETTINGS: u8 = 30;
    pub(super) const FEATURE: u8 = 31;
}

/// Most bytes of a command. A record of the log must hold it together with a batch that was just not full.
pub(super) const COMMAND_BYTES_MAX: usize = 224 << 20;
const _: () = assert!((COMMAND_BYTES_MAX + (1 << 20)) as u64 <= RECORD_BYTES_MAX);
/// Longest key and longest value of a setting of the group.
const SETTING_BYTES_MAX: usize = 32 * 1024;

impl<'a> Command<'a> {
    /// Appends the command's bytes. After an error `out` may hold a part of them.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), TooLong> {
        let start = out.len();
        out.put_slice(&[0; 5]);
        let tag = self.encode_body(out)?;
        let bytes = out.len() - start - 5;
        TooLong::check("the command", bytes, COMMAND_BYTES_MAX)?;
        out[start] = tag;
        out[start + 1..start + 5].copy_from_slice(&to_u32(bytes).to_be_bytes());
        Ok(())
    }

    fn encode_body(&self, out: &mut BytesMut) -> Result<u8, TooLong> {
        Ok(match self {
            Self::Publish(publish) => {
                out.put_u8(u8::from(publish.once.is_some()));
                if let Some(once) = &publish.once {
                    put_unique_id(out, once.unique_id)?;
                    out.put_slice(&once.content.0);
                    out.put_u64(once.window);
                }
                out.put_u32(publish.queue.0);
                put_when(out, publish.when);
                publish.messages.encode(out)?;
                tag::PUBLISH
            }
            Self::Prepare(prepare) => {
                out.put_u32(prepare.queue.0);
                put_when(out, prepare.when);
                put_optional(out, prepare.immunity);
                put_optional(out, prepare.first_half.map(HalfId::get));
                out.put_slice(&prepare.content.0);
                out.put_u64(prepare.duplicate_window);
                put_group(out, prepare.group)?;
                put_client(out, prepare.client)?;
                put_unique_id(out, prepare.unique_id)?;
                prepare.message.encode(out)?;
                tag::PREPARE
            }
            Self::Settle(settle) => {
                out.put_u64(settle.half.get());
                put_optional(out, settle.counter);
                out.put_u8(settle.decision as u8);
                out.put_u8(u8::from(settle.group.is_some()));
                put_group(out, settle.group.unwrap_or_default())?;
                put_operator(out, settle.by)?;
                put_reason(out, settle.reason)?;
                put_count(out, settle.rewritten.len())?;
                for (half, message) in &settle.rewritten {
                    out.put_u64(half.get());
                    message.encode(out)?;
                }
                tag::SETTLE
            }
            Self::Checked(checked) => {
                out.put_u64(checked.first_checked_upto.map_or(0, HalfId::get));
                put_count(out, checked.halves.len())?;
                for half in &checked.halves {
                    out.put_u64(half.half.get());
                    out.put_u64(half.next_due.get());
                    out.put_u8(u8::from(half.counts));
                    put_client(out, half.asked)?;
                }
                tag::CHECKED
            }
            Self::Extend(extend) => {
                out.put_u64(extend.half.get());
                out.put_u64(extend.counter);
                put_group(out, extend.group)?;
                out.put_u64(extend.until.get());
                out.put_u8(u8::from(extend.is_answer));
                tag::EXTEND
            }
            Self::Park(park) => {
                out.put_u64(park.half.get());
                out.put_u8(park.reason as u8);
                put_operator(out, park.by)?;
                put_reason(out, park.why)?;
                tag::PARK
            }
            Self::Resume(resume) => {
                out.put_u64(resume.half.get());
                put_operator(out, resume.by)?;
                out.put_u8(resume.only_if.map_or(0, |reason| reason as u8));
                put_reason(out, resume.why)?;
                tag::RESUME
            }
            Self::CommitOffsets(commits) => {
                put_count(out, commits.len())?;
                for commit in commits {
                    put_group(out, commit.group)?;
                    out.put_u32(commit.queue.0);
                    out.put_u64(commit.offset.get());
                }
                tag::COMMIT_OFFSETS
            }
            Self::PutTopic(settings) => {
                out.put_slice(settings);
                tag::PUT_TOPIC
            }
            Self::DeleteTopic(name) => {
                put_bounded(out, "the topic", name, limits::NAMED_TOPIC_BYTES_MAX)?;
                tag::DELETE_TOPIC
            }
            Self::PutGroup(settings) => {
                out.put_slice(settings);
                tag::PUT_GROUP
            }
            Self::DeleteGroup { group, offsets } => {
                put_group(out, group)?;
                out.put_u8(u8::from(*offsets));
                tag::DELETE_GROUP
            }
            Self::Fire { upto, limit } => {
                out.put_u64(upto.get());
                out.put_u32(*limit);
                tag::FIRE
            }
            Self::Cancel { due, position } => {
                out.put_u64(due.get());
                out.put_u64(position.get());
                tag::CANCEL
            }
            Self::Lock(lock) => {
                put_lock(out, lock)?;
                tag::LOCK
            }
            Self::Unlock(lock) => {
                put_lock(out, lock)?;
                tag::UNLOCK
            }
            Self::Trim { upto } => {
                out.put_u64(upto.get());
                tag::TRIM
            }
            Self::Roll(roll) => {
                out.put_u64(roll.halves_upto.get());
                put_count(out, roll.moved.len())?;
                for moved in &roll.moved {
                    let (kind, number) = moved.owner.parts();
                    out.put_u8(kind);
                    out.put_u64(number);
                    out.put_u64(moved.from.get());
                    moved.message.encode(out)?;
                }
                tag::ROLL
            }
            Self::GiveUp(given) => {
                out.put_u64(given.positions.start.get());
                out.put_u64(given.positions.end.get());
                out.put_u64(given.messages);
                put_operator(out, given.by)?;
                put_reason(out, given.why)?;
                tag::GIVE_UP
            }
            Self::Expire { decided_before } => {
                out.put_u64(decided_before.get());
                tag::EXPIRE
            }
            Self::Settings(settings) => {
                out.put_u8(u8::from(settings.only_missing));
                put_count(out, settings.values.len())?;
                for (key, value) in &settings.values {
                    put_bounded(out, "the setting", key, SETTING_BYTES_MAX)?;
                    put_bounded(out, "the value", value, SETTING_BYTES_MAX)?;
                }
                tag::SETTINGS
            }
            Self::Feature(level) => {
                out.put_u32(*level);
                tag::FEATURE
            }
        })
    }

    /// Reads the command at the cursor. An unknown tag is [`Malformed`]: new commands are used only after a logged
    /// feature switch, so a replica that meets one is too old to go on.
    pub fn decode(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let tag = cursor.u8("command tag")?;
        let length = cursor.u32("command length")? as usize;
        let base = cursor.position();
        let body = cursor.take(length, "command body")?;
        let mut body = Cursor::based(body, base);
        let command = Self::decode_body(tag, &mut body)?;
        if body.remaining() != 0 {
            return Err(body.malformed("end of command"));
        }
        Ok(command)
    }

    fn decode_body(tag: u8, body: &mut Cursor<'a>) -> Result<Self, Malformed> {
        Ok(match tag {
            tag::PUBLISH => {
                let once = if body.u8("once flag")? == 0 {
                    None
                } else {
                    let (unique_id, content) = (body.text("unique id")?, get_content(body)?);
                    Some(Once { unique_id, content, window: body.u64("duplicate window")? })
                };
                let queue = QueueId(body.u32("queue")?);
                Self::Publish(Publish { queue, when: get_when(body)?, messages: MessageList::decode(body)?, once })
            }
            tag::PREPARE => Self::Prepare(Prepare {
                queue: QueueId(body.u32("queue")?),
                when: get_when(body)?,
                immunity: get_optional(body)?,
                first_half: get_optional(body)?.map(HalfId),
                content: get_content(body)?,
                duplicate_window: body.u64("duplicate window")?,
                group: body.text("group")?,
                client: body.text("client")?,
                unique_id: body.text("unique id")?,
                message: Message::decode(body)?,
            }),
            tag::SETTLE => {
                let half = HalfId(body.u64("half")?);
                let counter = get_optional(body)?;
                let decision = Decision::from_u8(body.u8("decision")?).ok_or_else(|| body.malformed("decision"))?;
                let has_group = body.u8("group flag")? != 0;
                let group = body.text("group")?;
                let by = body.text("by")?;
                let reason = body.text("reason")?;
                let count = get_count(body, 24)?;
                let mut rewritten = Vec::with_capacity(count);
                for _ in 0..count {
                    rewritten.push((HalfId(body.u64("half")?), Message::decode(body)?));
                }
                Self::Settle(Settle {
                    half,
                    counter,
                    decision,
                    group: has_group.then_some(group),
                    by,
                    reason,
                    rewritten,
                })
            }
            tag::CHECKED => {
                let first_checked_upto = Some(HalfId(body.u64("first checked")?)).filter(|upto| *upto > HalfId::ZERO);
                let count = get_count(body, 19)?;
                let mut halves = Vec::with_capacity(count);
                for _ in 0..count {
                    halves.push(CheckedHalf {
                        half: HalfId(body.u64("half")?),
                        next_due: Stamp(body.u64("next due")?),
                        counts: body.u8("counts")? != 0,
                        asked: body.text("asked")?,
                    });
                }
                Self::Checked(Checked { first_checked_upto, halves })
            }
            tag::EXTEND => Self::Extend(Extend {
                half: HalfId(body.u64("half")?),
                counter: body.u64("counter")?,
                group: body.text("group")?,
                until: Stamp(body.u64("until")?),
                is_answer: body.u8("is answer")? != 0,
            }),
            tag::PARK => Self::Park(Park {
                half: HalfId(body.u64("half")?),
                reason: ParkReason::from_u8(body.u8("reason")?).ok_or_else(|| body.malformed("park reason"))?,
                by: body.text("by")?,
                why: body.text("why")?,
            }),
            tag::RESUME => Self::Resume(Resume {
                half: HalfId(body.u64("half")?),
                by: body.text("by")?,
                only_if: ParkReason::from_u8(body.u8("only if")?),
                why: body.text("why")?,
            }),
            tag::COMMIT_OFFSETS => {
                let count = get_count(body, 14)?;
                let mut commits = Vec::with_capacity(count);
                for _ in 0..count {
                    commits.push(OffsetCommit {
                        group: body.text("group")?,
                        queue: QueueId(body.u32("queue")?),
                        offset: QueueOffset(body.u64("offset")?),
                    });
                }
                Self::CommitOffsets(commits)
            }
            tag::PUT_TOPIC => Self::PutTopic(body.take(body.remaining(), "topic")?),
            tag::DELETE_TOPIC => Self::DeleteTopic(body.text("topic")?),
            tag::PUT_GROUP => Self::PutGroup(body.take(body.remaining(), "group")?),
            tag::DELETE_GROUP => {
                Self::DeleteGroup { group: body.text("group")?, offsets: body.u8("offsets flag")? != 0 }
            }
            tag::FIRE => Self::Fire { upto: Stamp(body.u64("upto")?), limit: body.u32("limit")? },
            tag::CANCEL => Self::Cancel { due: Stamp(body.u64("due")?), position: Position(body.u64("position")?) },
            tag::LOCK => Self::Lock(get_lock(body)?),
            tag::UNLOCK => Self::Unlock(get_lock(body)?),
            tag::TRIM => Self::Trim { upto: Position(body.u64("upto")?) },
            tag::ROLL => {
                let halves_upto = HalfId(body.u64("halves upto")?);
                let count = get_count(body, 33)?;
                let mut moved = Vec::with_capacity(count);
                for _ in 0..count {
                    let (kind, number) = (body.u8("owner kind")?, body.u64("owner")?);
                    let owner = PinOwner::from_parts(kind, number).ok_or_else(|| body.malformed("owner kind"))?;
                    moved.push(Moved { owner, from: Position(body.u64("from")?), message: Message::decode(body)? });
                }
                Self::Roll(Roll { halves_upto, moved })
            }
            tag::GIVE_UP => Self::GiveUp(GiveUp {
                positions: Position(body.u64("from")?)..Position(body.u64("upto")?),
                messages: body.u64("messages")?,
                by: body.text("by")?,
                why: body.text("why")?,
            }),
            tag::EXPIRE => Self::Expire { decided_before: Stamp(body.u64("decided before")?) },
            tag::SETTINGS => {
                let only_missing = body.u8("only missing")? != 0;
                let count = get_count(body, 4)?;
                let mut values = Vec::with_capacity(count);
                for _ in 0..count {
                    values.push((body.text("key")?, body.text("value")?));
                }
                Self::Settings(Settings { only_missing, values })
            }
            tag::FEATURE => Self::Feature(body.u32("feature level")?),
            _ => return Err(body.malformed("command tag: written by a newer version")),
        })
    }
}

fn get_content(body: &mut Cursor<'_>) -> Result<Content, Malformed> {
    let mut digest = [0; 16];
    digest.copy_from_slice(body.take(16, "content")?);
    Ok(Content(digest))
}

fn put_count(out: &mut BytesMut, count: usize) -> Result<(), TooLong> {
    TooLong::check("a list of the command", count, COMMAND_BYTES_MAX)?;
    out.put_u32(to_u32(count));
    Ok(())
}

fn put_group(out: &mut BytesMut, group: &str) -> Result<(), TooLong> {
    put_bounded(out, "the group", group, limits::NAMED_GROUP_BYTES_MAX)
}

fn put_client(out: &mut BytesMut, client: &str) -> Result<(), TooLong> {
    put_bounded(out, "the client id", client, limits::CLIENT_ID_BYTES_MAX)
}

/// A unique id is a property of its message, and bounded as those are.
fn put_unique_id(out: &mut BytesMut, id: &str) -> Result<(), TooLong> {
    put_bounded(out, "the unique id", id, PROPERTIES_BYTES_MAX)
}

fn put_operator(out: &mut BytesMut, operator: &str) -> Result<(), TooLong> {
    put_bounded(out, "the operator", operator, limits::OPERATOR_BYTES_MAX)
}

fn put_reason(out: &mut BytesMut, reason: &str) -> Result<(), TooLong> {
    put_bounded(out, "the reason", reason, limits::REASON_BYTES_MAX)
}

/// Reads a count and refuses one whose items, `least` bytes each, could not fit into what is left.
fn get_count(body: &mut Cursor<'_>, least: usize) -> Result<usize, Malformed> {
    let count = body.u32("count")? as usize;
    if count > body.remaining() / least {
        return Err(body.malformed("count"));
    }
    Ok(count)
}

fn put_lock(out: &mut BytesMut, lock: &Lock<'_>) -> Result<(), TooLong> {
    put_group(out, lock.group)?;
    put_client(out, lock.client)?;
    out.put_u64(lock.life);
    put_count(out, lock.queues.len())?;
    for queue in &lock.queues {
        out.put_u32(queue.0);
    }
    Ok(())
}

fn get_lock<'a>(body: &mut Cursor<'a>) -> Result<Lock<'a>, Malformed> {
    let group = body.text("group")?;
    let client = body.text("client")?;
    let life = body.u64("life")?;
    let count = get_count(body, 4)?;
    let mut queues = Vec::with_capacity(count);
    for _ in 0..count {
        queues.push(QueueId(body.u32("queue")?));
    }
    Ok(Lock { group, client, life, queues })
}
