//! The fake broker's halves: joined, decided once, asked about.

use std::collections::BTreeMap;
use std::sync::Arc;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{CheckTransactionStateHeader, EndTransactionHeader};
use escrowmq_common::message::properties::{Properties, name};

use super::{Broker, Kind, Stored};

/// When every decision is made, in the broker's time.
const DECIDED_AT: i64 = 1_000;

#[derive(Default)]
pub(super) struct Transactions {
    /// By position.
    halves: BTreeMap<usize, Half>,
}

/// A half, and what became of it.
struct Half {
    queue: (String, i32),
    group: String,
    unique_id: String,
    /// The half that it joined.
    first: Option<usize>,
    decided: Option<bool>,
    /// Where a commit put it.
    offset: Option<i64>,
    /// The extensions that "in progress" asked for, in ms.
    extensions: Vec<i64>,
}

/// A half as it arrives.
pub(super) struct NewHalf {
    pub(super) message: Stored,
    pub(super) queue: (String, i32),
    pub(super) group: String,
    pub(super) unique_id: String,
}

fn word(commit: bool) -> &'static str {
    if commit { "commit" } else { "rollback" }
}

impl Broker {
    /// Announces itself as something else from its next heartbeat on.
    pub(crate) fn become_kind(&self, kind: Kind) {
        *self.kind.lock() = kind;
    }

    /// Positions of the halves that nobody has decided, members included.
    pub(crate) fn open_halves(&self) -> Vec<usize> {
        let state = self.state.lock();
        let open = state.transactions.halves.iter().filter(|(_, half)| half.decided.is_none());
        open.map(|(position, _)| *position).collect()
    }

    /// Times that the half at `position` was given, in ms.
    pub(crate) fn extensions(&self, position: usize) -> Vec<i64> {
        self.state.lock().transactions.halves[&position].extensions.clone()
    }

    /// Stores a half; a repeated one gets the place of the first.
    pub(super) fn prepare(&self, frame: &Frame, new: NewHalf) -> Result<usize, Box<Frame>> {
        let first = frame.fields.get("transactionFirst").map(|first| first.parse::<usize>().expect("a half id"));
        assert!(first.is_none() || *self.kind.lock() == Kind::Ours, "nobody joins halves at a broker that cannot");
        let refuse = |remark: &str| Frame::response(frame, response::ILLEGAL_OPERATION).with_remark(remark);
        let mut state = self.state.lock();
        let known = state.transactions.halves.iter().find(|(_, half)| {
            half.unique_id == new.unique_id && half.group == new.group && half.decided != Some(false)
        });
        if let Some((position, _)) = known {
            return Ok(*position);
        }
        if let Some(first) = first {
            let Some(half) = state.transactions.halves.get(&first) else { return Err(refuse("no such half").into()) };
            if let Some(commit) = half.decided {
                return Err(refuse("it is decided").with_field("decision", word(commit)).into());
            }
            if half.group != new.group || half.first.is_some() {
                return Err(refuse("not the first half of a transaction of this group").into());
            }
        }
        let position = state.log.len();
        state.log.push(new.message);
        let half = Half {
            queue: new.queue,
            group: new.group,
            unique_id: new.unique_id,
            first,
            decided: None,
            offset: None,
            extensions: Vec::new(),
        };
        state.transactions.halves.insert(position, half);
        Ok(position)
    }

    /// Asks some producer of `group` about the half at `position`.
    pub(crate) fn check(&self, group: &str, position: usize) {
        let (connection, frame) = {
            let state = self.state.lock();
            let connection = Arc::clone(state.producers[group].values().next().expect("a producer"));
            let stored = &state.log[position];
            let half = &state.transactions.halves[&position];
            assert!(half.first.is_none(), "members are not asked about");
            let (topic, queue) = &half.queue;
            let unit = self.unit(stored, topic, *queue, position as i64, position);
            let id = Properties::new(&stored.properties).get(name::UNIQUE_KEY).unwrap_or_default().to_owned();
            let header = CheckTransactionStateHeader {
                topic: Some("RMQ_SYS_TRANS_HALF_TOPIC"),
                tran_state_table_offset: position as i64,
                commit_log_offset: position as i64,
                msg_id: Some(&id),
                transaction_id: Some(&id),
                offset_msg_id: None,
                broker_name: Some(&self.name),
            };
            (connection, Frame::request(request::CHECK_TRANSACTION_STATE).with_header(&header).with_body(unit))
        };
        connection.send_oneway(frame).expect("an open connection");
    }

    /// Decides a whole transaction, addressed by any of its halves.
    pub(crate) fn decide(&self, position: usize, commit: bool) {
        let halves = {
            let mut state = self.state.lock();
            let halves = &mut state.transactions.halves;
            let first = halves[&position].first.unwrap_or(position);
            let of_it = halves.iter_mut().filter(|(position, half)| **position == first || half.first == Some(first));
            of_it
                .map(|(position, half)| {
                    half.decided = Some(commit);
                    (*position, half.queue.clone())
                })
                .collect::<Vec<_>>()
        };
        for (position, (topic, queue)) in halves.into_iter().filter(|_| commit) {
            let message = self.state.lock().log[position].clone();
            let (_, offset) = self.append(message, &topic, queue);
            let mut state = self.state.lock();
            state.transactions.halves.get_mut(&position).expect("just seen").offset = Some(offset);
        }
    }

    /// Answers `END_TRANSACTION`.
    pub(super) fn end(&self, frame: &Frame) -> Frame {
        let header: EndTransactionHeader<'_> = frame.header().expect("a good header");
        let position = header.commit_log_offset as usize;
        let lease = frame.fields.get("retryAfterMillis").map(|millis| millis.parse().expect("a number"));
        let before = self.state.lock().transactions.halves.get(&position).map(|half| half.decided);
        let commit = match header.commit_or_rollback {
            8 => true,
            12 => false,
            _ => return self.in_progress(frame, position, lease),
        };
        match before {
            None => {
                Frame::response(frame, response::SYSTEM_ERROR).with_remark("Find prepared transaction message failed")
            }
            Some(Some(before)) if before != commit => opposite(frame, before),
            Some(before) => {
                if before.is_none() {
                    self.decide(position, commit);
                }
                self.settled(frame, position, before.is_some())
            }
        }
    }

    fn in_progress(&self, frame: &Frame, position: usize, lease: Option<i64>) -> Frame {
        assert!(
            lease.is_none() || *self.kind.lock() == Kind::Ours,
            "nobody asks a broker for time that cannot give it"
        );
        let mut state = self.state.lock();
        match state.transactions.halves.get_mut(&position) {
            Some(Half { decided: Some(commit), .. }) if lease.is_some() => opposite(frame, *commit),
            Some(half) => {
                half.extensions.extend(lease);
                Frame::response(frame, response::SUCCESS)
            }
            None => Frame::response(frame, response::SUCCESS),
        }
    }

    /// The end of the whole transaction.
    fn settled(&self, frame: &Frame, position: usize, repeated: bool) -> Frame {
        let state = self.state.lock();
        let halves = &state.transactions.halves;
        let first = halves[&position].first.unwrap_or(position);
        let commit = halves[&first].decided.expect("decided before it is answered");
        let answer = Frame::response(frame, response::SUCCESS);
        if *self.kind.lock() != Kind::Ours {
            // As it was before: the place, and nothing of a repeat.
            let Half { queue: (topic, queue), offset, .. } = &halves[&first];
            return match offset {
                Some(offset) if !repeated => {
                    answer.with_field("topic", topic).with_field("queueId", queue).with_field("queueOffset", offset)
                }
                _ => answer,
            };
        }
        let answer = answer
            .with_field("outcome", if commit { "committed" } else { "rolledBack" })
            .with_field("repeated", repeated)
            .with_field("decidedAt", DECIDED_AT)
            .with_field("storeLevel", "flushed");
        if !commit {
            return answer;
        }
        let Half { queue: (topic, queue), offset, .. } = &halves[&first];
        let offset = offset.expect("committed");
        let answer = answer.with_field("topic", topic).with_field("queueId", queue).with_field("queueOffset", offset);
        let members = halves.iter().filter(|(_, half)| half.first == Some(first)).map(|(position, half)| {
            let (topic, queue) = &half.queue;
            format!("{position}:{topic}:{queue}:{}", half.offset.expect("committed with the first"))
        });
        let members: Vec<String> = members.collect();
        if members.is_empty() { answer } else { answer.with_field("members", members.join(";")) }
    }
}

fn opposite(frame: &Frame, commit: bool) -> Frame {
    Frame::response(frame, response::ILLEGAL_OPERATION)
        .with_remark("another decision was first")
        .with_field("decision", word(commit))
        .with_field("decidedAt", DECIDED_AT)
}
