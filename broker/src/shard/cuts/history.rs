//! The acts, the answers, and the content of the log: all that a recovered shard is judged by.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::BytesMut;

use super::act::Act;
use super::model::Model;
use crate::log::{LogReader, Record};
use crate::raft::kind;
use crate::shard::{Batch, Command, Message, Outcome, Prepared, Published, Unit};
use crate::terms::{Entered, HalfId, LogIndex, Position, QueueOffset, Stamp};

/// A command that was submitted and answered.
pub(super) struct Step {
    pub(super) act: Act,
    /// The command as it must stand in the log.
    pub(super) bytes: Vec<u8>,
}

/// A record as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    term: u64,
    kind: u8,
    position: Position,
    crc: u32,
    /// Commands in all records up to this one.
    steps: usize,
}

/// All commands so far, over all lives of the shard.
pub(super) struct History {
    pub(super) steps: Vec<Step>,
    /// The state after each number of commands, from none on.
    pub(super) models: Vec<Model>,
    records: BTreeMap<u64, Mark>,
    /// Everything that can be seen of the shard, in its order.
    trace: DefaultHasher,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            steps: Vec::new(),
            models: vec![Model::default()],
            records: BTreeMap::new(),
            trace: DefaultHasher::new(),
        }
    }

    /// The state after all commands.
    pub(super) fn model(&self) -> &Model {
        self.models.last().expect("there is one for no command")
    }

    /// Adds something that can be seen of the shard.
    pub(super) fn trace(&mut self, seen: &impl Hash) {
        seen.hash(&mut self.trace);
    }

    /// A hash of all that was seen.
    pub(super) fn digest(&self) -> u64 {
        self.trace.finish()
    }

    /// Adds an answered command; the answer must be the one that the model gives.
    /// `places` are the positions of the messages that it brought.
    pub(super) fn push(&mut self, act: Act, now: Stamp, outcome: &Outcome, places: &[Position]) -> Result<(), String> {
        self.trace(&format!("{act:?} {outcome:?}"));
        let mut model = self.model().clone();
        let expected = model.apply(&act, now, outcome, places);
        if expected != *outcome {
            return Err(format!(
                "command {}, {act:?}, was answered with\n  {outcome:?} instead of\n  {expected:?}",
                self.steps.len()
            ));
        }
        let mut bytes = BytesMut::new();
        act.with_command(|command| command.encode(&mut bytes)).expect("commands of this test are short");
        self.steps.push(Step { act, bytes: bytes.to_vec() });
        self.models.push(model);
        Ok(())
    }

    /// Notes the records that the log has got since, and which of the commands whose outcome is unknown they hold. Those
    /// happened as the model says; the others did not, or nobody will ever know.
    pub(super) fn note_unknown(&mut self, log: &LogReader, unknown: Vec<Act>, now: Stamp) -> Result<(), String> {
        let next = self.records.last_key_value().map_or(log.first_index(), |(index, _)| LogIndex(index + 1));
        let known: usize = self.steps.len() - self.records.last_key_value().map_or(0, |(_, mark)| mark.steps);
        let mut acts = unknown.into_iter();
        let mut seen = 0;
        for record in read(log, next.0)?.iter().filter(|record| record.kind == kind::BATCH) {
            let batch = Batch::decode(&record.payload).map_err(|error| error.to_string())?;
            for command in batch.commands().map_err(|error| error.to_string())? {
                seen += 1;
                if seen <= known {
                    continue;
                }
                let act = acts.next().ok_or("the log holds a command that nobody sent")?;
                let places = places(&command, record.payload_position());
                let mut model = self.model().clone();
                model.apply(&act, now, &hint(&command, &places), &places);
                let mut bytes = BytesMut::new();
                act.with_command(|command| command.encode(&mut bytes)).expect("commands of this test are short");
                self.steps.push(Step { act, bytes: bytes.to_vec() });
                self.models.push(model);
            }
        }
        self.note_records(log)
    }

    /// For each command in the records since those that were noted: the positions of the messages that it brought.
    pub(super) fn new_places(&self, log: &LogReader) -> Result<VecDeque<Vec<Position>>, String> {
        places_from(log, self.records.last_key_value().map_or(log.first_index().0, |(index, _)| index + 1))
    }

    /// Notes the records that the log has got since.
    pub(super) fn note_records(&mut self, log: &LogReader) -> Result<(), String> {
        let next = self.records.last_key_value().map_or(log.first_index(), |(index, _)| LogIndex(index + 1));
        for record in read(log, next.0)? {
            let before = self.records.last_key_value().map_or(0, |(_, mark)| mark.steps);
            let steps = before + self.count(&record, before)?;
            self.records.insert(record.index.0, mark(&record, steps));
        }
        Ok(())
    }

    /// The commands in a record, which must be those that come next.
    fn count(&self, record: &Record, before: usize) -> Result<usize, String> {
        if record.kind != kind::BATCH {
            return Ok(0);
        }
        let wrong = |what: &dyn std::fmt::Display| format!("record {}: {what}", record.index);
        let batch = Batch::decode(&record.payload).map_err(|error| wrong(&error))?;
        let mut count = 0;
        for command in batch.commands().map_err(|error| wrong(&error))? {
            let mut bytes = BytesMut::new();
            command.encode(&mut bytes).map_err(|error| wrong(&error))?;
            let step = self.steps.get(before + count).ok_or_else(|| wrong(&"a command that nobody sent"))?;
            if step.bytes != bytes {
                return Err(wrong(&format!("another command than {:?}", step.act)));
            }
            count += 1;
        }
        Ok(count)
    }

    /// How many commands a recovered log holds; an error if it holds anything that was not written like that.
    pub(super) fn steps_in(&self, log: &LogReader) -> Result<usize, String> {
        let mut steps = 0;
        if let Some(purged) = log.purged() {
            let gone = self.records.get(&purged.index.0).filter(|mark| mark.term == purged.term);
            steps = gone.ok_or_else(|| format!("{purged:?} is said to be gone, and was never written"))?.steps;
        }
        for record in read(log, log.first_index().0)? {
            let found = mark(&record, 0);
            let written = self.records.get(&record.index.0).copied();
            if written.map(|written| Mark { steps: 0, ..written }) != Some(found) {
                return Err(format!("record {} is {found:?}, written was {written:?}", record.index));
            }
            steps = written.map_or(0, |written| written.steps);
        }
        Ok(steps)
    }

    /// Forgets what a log that was recovered does not hold any more.
    pub(super) fn forget_after(&mut self, log: &LogReader, steps: usize) {
        let last = log.last().map_or(0, |last| last.index.0);
        self.records.retain(|index, _| *index <= last && log.last().is_some());
        self.steps.truncate(steps);
        self.models.truncate(steps + 1);
    }
}

fn mark(record: &Record, steps: usize) -> Mark {
    Mark {
        term: record.term,
        kind: record.kind,
        position: record.position,
        crc: crc32fast::hash(&record.payload),
        steps,
    }
}

/// The positions of the messages that a command brought, its payload beginning at this one.
fn places(command: &Command<'_>, payload: Position) -> Vec<Position> {
    let position = |message: &Message<'_>| match message.unit {
        Unit::Stored { at, .. } => payload.advance(at as u64),
        Unit::New(_) => unreachable!("the command was decoded"),
    };
    match command {
        Command::Publish(publish) => publish.messages.stored().map(|message| position(&message)).collect(),
        Command::Prepare(prepare) => vec![position(&prepare.message)],
        Command::Settle(settle) => settle.rewritten.iter().map(|(_, message)| position(message)).collect(),
        Command::Roll(roll) => roll.moved.iter().map(|moved| position(&moved.message)).collect(),
        _ => Vec::new(),
    }
}

/// As much of an outcome as the log says: where messages lie.
fn hint(command: &Command<'_>, places: &[Position]) -> Outcome {
    match command {
        Command::Publish(_) => Outcome::Published(Published {
            entered: Entered::Queue(QueueOffset::ZERO),
            position: places[0],
            more_positions: places[1..].to_vec(),
            stamp: Stamp::ZERO,
            repeats: None,
        }),
        Command::Prepare(_) => {
            Outcome::Prepared(Prepared { half: HalfId::at(places[0]), counter: 0, stamp: Stamp::ZERO, repeated: false })
        }
        _ => Outcome::Done,
    }
}

/// For each command in the records from an index on: the positions of the messages that it brought.
pub(super) fn places_from(log: &LogReader, from: u64) -> Result<VecDeque<Vec<Position>>, String> {
    let mut all = VecDeque::new();
    for record in read(log, from)?.iter().filter(|record| record.kind == kind::BATCH) {
        let batch = Batch::decode(&record.payload).map_err(|error| error.to_string())?;
        for command in batch.commands().map_err(|error| error.to_string())? {
            all.push_back(places(&command, record.payload_position()));
        }
    }
    Ok(all)
}

/// All records from an index on.
pub(super) fn read(log: &LogReader, from: u64) -> Result<Vec<Record>, String> {
    let mut records: Vec<Record> = Vec::new();
    let mut next = from;
    while let Some(last) = log.last().filter(|last| next <= last.index.0) {
        let read = log.read_entries(LogIndex(next), last.index.next(), 1 << 20).map_err(|error| error.to_string())?;
        next = (read.last().ok_or_else(|| format!("record {next} is missing"))?.index + 1).0;
        records.extend(read);
    }
    Ok(records)
}
