//! The property string as it is stored: the sender's own, followed by the broker's.
//!
//! On the usual path nothing is joined: the pieces stay where they are and are copied once, into the batch.

use std::borrow::Cow;

use escrowmq_common::message::Properties;
use escrowmq_common::message::properties::{PropertyEditor, name};

use crate::config::BrokerConfig;

/// Pieces that a message has at most: the sender's string, a separator, that of its batch, and three for each property that
/// is added.
const PIECES: usize = 3 + 3 * 10;

/// A property string in pieces.
pub(super) struct Pieces<'a> {
    pieces: [&'a str; PIECES],
    count: usize,
}

impl<'a> Pieces<'a> {
    /// Begins with the sender's string.
    pub(super) fn new(own: &'a str) -> Self {
        let mut pieces = Self { pieces: [""; PIECES], count: 0 };
        pieces.push(own);
        if Properties::new(own).needs_item_end() {
            pieces.push("\u{2}");
        }
        pieces
    }

    /// Adds a whole property string, which is empty or ends with a separator.
    pub(super) fn join(&mut self, text: &'a str) {
        debug_assert!(!Properties::new(text).needs_item_end(), "{text:?}");
        self.push(text);
    }

    /// Adds a property. `name` ends with 0x01.
    pub(super) fn add(&mut self, name: &'static str, value: &'a str) {
        debug_assert!(name.ends_with('\u{1}'), "{name:?}");
        self.push(name);
        self.push(value);
        self.push("\u{2}");
    }

    fn push(&mut self, piece: &'a str) {
        self.pieces[self.count] = piece;
        self.count += 1;
    }

    /// The pieces in order.
    pub(super) fn as_slice(&self) -> &[&'a str] {
        &self.pieces[..self.count]
    }

    /// Bytes of the whole string.
    #[cfg(test)]
    fn joined(&self) -> String {
        self.as_slice().concat()
    }

    /// Adds what every stored message has.
    pub(super) fn add_origin(&mut self, config: &'a BrokerConfig) {
        self.add("MSG_REGION\u{1}", &config.region_id);
        self.add("TRACE_ON\u{1}", if config.trace_on { "true" } else { "false" });
        self.add("CLUSTER\u{1}", &config.broker_cluster_name);
    }

    /// Adds where the message goes, for one that does not go there at once.
    pub(super) fn add_real(&mut self, topic: &'a str, queue: &'a str) {
        self.add("REAL_TOPIC\u{1}", topic);
        self.add("REAL_QID\u{1}", queue);
    }
}

/// The sender's string without what the broker sets itself, and without what must not be stored.
pub(super) fn cleaned(own: &str, needs_edit: bool) -> Cow<'_, str> {
    if !needs_edit {
        return Cow::Borrowed(own);
    }
    let mut editor = PropertyEditor::new(own);
    for name in [
        name::POP_CK,
        name::MSG_REGION,
        name::TRACE_ON,
        name::CLUSTER,
        name::REAL_TOPIC,
        name::REAL_QUEUE_ID,
        name::TIMER_OUT_MS,
        name::TIMER_ENQUEUE_MS,
    ] {
        editor.remove(name);
    }
    for (name, _) in Properties::new(own).iter().filter(|(name, _)| name.starts_with(name::TRANSIENT_PREFIX)) {
        editor.remove(name);
    }
    Cow::Owned(editor.finish())
}

/// A number in decimal, on the stack.
pub(super) struct Decimal {
    digits: [u8; 20],
    from: usize,
}

impl Decimal {
    pub(super) fn new(value: u64) -> Self {
        let mut decimal = Self { digits: [b'0'; 20], from: 20 };
        let mut rest = value;
        loop {
            decimal.from -= 1;
            decimal.digits[decimal.from] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return decimal;
            }
        }
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.digits[self.from..]).expect("digits are ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_a_readable_string() {
        let config = BrokerConfig::default();
        let mut pieces = Pieces::new("KEYS\u{1}k");
        pieces.add_origin(&config);
        pieces.add_real("T", "3");
        let text = pieces.joined();
        let read: Vec<_> = Properties::new(&text).iter().collect();
        let expected = [
            ("KEYS", "k"),
            ("MSG_REGION", "DefaultRegion"),
            ("TRACE_ON", "true"),
            ("CLUSTER", "DefaultCluster"),
            ("REAL_TOPIC", "T"),
            ("REAL_QID", "3"),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn an_empty_string_gets_no_separator() {
        let mut pieces = Pieces::new("");
        pieces.add("UNIQ_KEY\u{1}", "u");
        assert_eq!(pieces.joined(), "UNIQ_KEY\u{1}u\u{2}");
    }

    #[test]
    fn cleaning_takes_out_what_is_the_brokers_and_leaves_the_rest() {
        let own = "POP_CK\u{1}x\u{2}color\u{1}red\u{2}CLUSTER\u{1}c\u{2}__RMQ.TRANSIENT.y\u{1}1\u{2}REAL_TOPIC\u{1}Z";
        assert_eq!(cleaned(own, true), "color\u{1}red\u{2}");
        assert!(matches!(cleaned("color\u{1}red", false), Cow::Borrowed("color\u{1}red")));
    }

    #[test]
    fn numbers_in_decimal() {
        for number in [0, 7, 10, 1_795_209_251_001, u64::MAX] {
            assert_eq!(Decimal::new(number).as_str(), number.to_string());
        }
    }
}
