//! Values that attackers have learned from answers: without them requests would end at the first look-up.

use std::collections::VecDeque;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;

use super::draft::Draft;
use crate::dice::Dice;

/// How many of each kind are remembered.
const RECENT: usize = 24;

/// A half message that is stored.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its producer group, as it was sent.
    pub group: Vec<u8>,
    /// Its topic.
    pub topic: Vec<u8>,
    /// Its unique id.
    pub unique_id: Vec<u8>,
    /// Its offset message id.
    pub message_id: String,
    /// Its position, which is the half id.
    pub position: i64,
    /// The broker's counter.
    pub counter: i64,
}

/// A message that is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its topic.
    pub topic: Vec<u8>,
    /// Its unique id.
    pub unique_id: Vec<u8>,
    /// Its offset message id.
    pub message_id: String,
    /// Its position.
    pub position: i64,
    /// Its queue.
    pub queue: i64,
    /// Its offset there.
    pub offset: i64,
}

/// The newest of a kind.
#[derive(Clone, Debug)]
pub struct Recent<T>(VecDeque<T>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent(VecDeque::new())
    }
}

impl<T> Recent<T> {
    fn add(&mut self, new: T) {
        self.0.push_front(new);
        self.0.truncate(RECENT);
    }

    /// One of them, mostly of the newest. Takes the same numbers from the dice whatever is known.
    pub fn pick(&self, dice: &mut Dice) -> Option<&T> {
        let (range, at) = (*dice.pick(&[1, 4, RECENT]), dice.roll() as usize);
        self.0.get(at % range.min(self.0.len().max(1)))
    }
}

/// Everything learned.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Halves.
    pub halves: Recent<Held>,
    /// Messages.
    pub stored: Recent<Stored>,
    /// Handles of timer messages, with their topics.
    pub handles: Recent<(Vec<u8>, Vec<u8>)>,
    /// Prepared backups.
    pub backups: Recent<Vec<u8>>,
}

/// The lesson that the answer to a request will teach.
#[derive(Clone, Debug)]
pub enum Lesson {
    /// The request stored a message, half or whole.
    Send {
        /// Its producer group.
        group: Vec<u8>,
        /// Its topic.
        topic: Vec<u8>,
        /// Its unique id.
        unique_id: Vec<u8>,
        /// Whether it is half.
        is_half: bool,
    },
    /// The request prepared a backup.
    Backup,
}

impl Lesson {
    /// The lesson of the answer to this request, if there is one.
    pub fn of(draft: &Draft) -> Option<Lesson> {
        match draft.code {
            request::SEND_MESSAGE | request::SEND_MESSAGE_V2 => {
                let field = |short, long| draft.field(short).or_else(|| draft.field(long)).unwrap_or_default();
                let properties = field("i", "properties");
                let property = |name: &str| {
                    let pairs = properties.split(|byte| *byte == 2);
                    let mut values = pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(&[1]));
                    values.next().map(<[u8]>::to_vec)
                };
                Some(Lesson::Send {
                    group: property("PGROUP").unwrap_or_else(|| field("a", "producerGroup")),
                    topic: field("b", "topic"),
                    unique_id: property("UNIQ_KEY").unwrap_or_default(),
                    is_half: property("TRAN_MSG").is_some_and(|value| value.eq_ignore_ascii_case(b"true")),
                })
            }
            request::PREPARE_BACKUP => Some(Lesson::Backup),
            _ => None,
        }
    }
}

impl Known {
    /// Learns from an answer.
    pub fn learn(&mut self, lesson: Lesson, answer: &Frame) {
        if answer.code != response::SUCCESS {
            return;
        }
        match lesson {
            Lesson::Backup => {
                let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
                if let Some(id) = body.as_ref().and_then(|body| body["id"].as_str()) {
                    self.backups.add(id.as_bytes().to_vec());
                }
            }
            Lesson::Send { group, topic, unique_id, is_half } => {
                let text = |name| answer.fields.get(name).unwrap_or_default().to_owned();
                let number = |name| text(name).parse::<i64>().unwrap_or_default();
                let (message_id, offset) = (text("msgId"), number("queueOffset"));
                let position = message_id
                    .get(message_id.len().saturating_sub(16)..)
                    .and_then(|digits| i64::from_str_radix(digits, 16).ok())
                    .unwrap_or_default();
                if let Some(handle) = answer.fields.get("recallHandle") {
                    self.handles.add((topic.clone(), handle.as_bytes().to_vec()));
                }
                if is_half {
                    self.halves.add(Held { group, topic, unique_id, message_id, position, counter: offset });
                } else {
                    let queue = number("queueId");
                    self.stored.add(Stored { topic, unique_id, message_id, position, queue, offset });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_is_learned_with_the_group_that_was_sent() {
        let draft = Draft::new(request::SEND_MESSAGE_V2)
            .with("a", "header-group")
            .with("b", "T")
            .with("i", "TRAN_MSG\u{1}true\u{2}UNIQ_KEY\u{1}u\u{2}");
        let answer = Frame::request(response::SUCCESS)
            .with_field("msgId", "7F00000100002A9F0000000000000010")
            .with_field("queueOffset", 3);
        let mut known = Known::default();
        known.learn(Lesson::of(&draft).unwrap(), &answer);
        let half = known.halves.pick(&mut Dice::new(1)).unwrap();
        assert_eq!((half.position, half.counter, &half.group[..]), (16, 3, &b"header-group"[..]));
    }
}
