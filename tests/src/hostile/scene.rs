//! The names that attackers use, and what a generator draws from.

use escrowmq_common::message::properties;

use super::known::{Held, Known, Stored};
use super::values;
use crate::dice::Dice;

/// Topics of the attackers that are created again and again.
pub const TOPICS: usize = 4;
/// Their groups, of each kind.
pub const GROUPS: usize = 4;

/// The material from which a generator makes its request.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Chance.
    pub dice: Dice,
    /// The facts that were learned.
    pub known: &'a Known,
    /// Whether the request comes from another address than the machine's own loop.
    pub is_far: bool,
    /// The time, in milliseconds since 1970.
    pub now: i64,
}

impl Scene<'_> {
    /// A topic that is mostly there.
    pub fn topic(&mut self) -> String {
        let number = self.dice.below(TOPICS);
        match self.dice.below(24) {
            0 => format!("EvilNew-{}", self.dice.below(60)),
            1 => format!("%RETRY%evil-group-{number}"),
            2 => format!("%DLQ%evil-group-{number}"),
            3 => values::name(&mut self.dice).to_owned(),
            _ => format!("Evil{number}"),
        }
    }

    /// A consumer group that is mostly there.
    pub fn group(&mut self) -> String {
        match self.dice.below(24) {
            0 => format!("evil-new-{}", self.dice.below(60)),
            1 => values::name(&mut self.dice).to_owned(),
            _ => format!("evil-group-{}", self.dice.below(GROUPS)),
        }
    }

    /// A producer group.
    pub fn producers(&mut self) -> String {
        format!("evil-producer-{}", self.dice.below(GROUPS))
    }

    /// A client id.
    pub fn client(&mut self) -> String {
        format!("evil-client-{}", self.dice.below(8))
    }

    /// A queue that is mostly there.
    pub fn queue(&mut self) -> i32 {
        *self.dice.pick(&[0, 0, 0, 1, 2, 3, -1])
    }

    /// An offset of a queue.
    pub fn offset(&mut self) -> i64 {
        *self.dice.pick(&[0, 0, 1, 2, 10, 100, -1, i64::MAX])
    }

    /// A unique id, seldom one that was there before.
    pub fn unique_id(&mut self) -> String {
        let number = if self.dice.one_in(12) { self.dice.below(3) as u64 } else { self.dice.roll() };
        format!("{:032X}", u128::from(number) | 1 << 100)
    }

    /// A half that is mostly stored.
    pub fn half(&mut self) -> Held {
        let nobody = Held {
            group: b"evil-producer-0".to_vec(),
            topic: b"Evil0".to_vec(),
            unique_id: b"nothing".to_vec(),
            message_id: "7F00000100002A9F0000000000000010".to_owned(),
            position: 16,
            counter: 0,
        };
        self.known.halves.pick(&mut self.dice).cloned().unwrap_or(nobody)
    }

    /// A message that is mostly stored.
    pub fn stored(&mut self) -> Stored {
        let nothing = Stored {
            topic: b"Evil0".to_vec(),
            unique_id: b"nothing".to_vec(),
            message_id: "7F00000100002A9F0000000000000010".to_owned(),
            position: 16,
            queue: 0,
            offset: 0,
        };
        self.known.stored.pick(&mut self.dice).cloned().unwrap_or(nothing)
    }
}

/// A property string.
pub fn property_string(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        properties::append(&mut text, name, value);
    }
    text
}
