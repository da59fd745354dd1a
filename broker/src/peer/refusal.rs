//! Why one member does not talk to another.

use std::fmt;

/// Longest text of a refusal that is sent or kept, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// What is wrong, for programs. The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    /// They speak different versions of the protocol.
    Version = 1,
    /// They are of different groups.
    Group = 2,
    /// The secret is missing, or another one.
    Secret = 3,
    /// The member is of an incarnation of the group that has ended, or that this member has not heard of.
    Incarnation = 4,
    /// Neither reads what the other writes.
    Formats = 5,
    /// The member has our own id: we dialed ourselves, or a folder was copied.
    Itself = 6,
    /// Another member answers at this address than the one that was meant.
    OtherMember = 7,
    /// The member is none of the group, or none any more.
    Membership = 8,
    /// The member speaks a lower feature level than its group is of.
    FeatureLevel = 9,
    /// A reason that this version does not know.
    Other = 255,
}

impl Reason {
    fn from_number(number: i32) -> Reason {
        use Reason::{
            FeatureLevel, Formats, Group, Incarnation, Itself, Membership, Other, OtherMember, Secret, Version,
        };
        let known = [Version, Group, Secret, Incarnation, Formats, Itself, OtherMember, Membership, FeatureLevel];
        known.into_iter().find(|reason| *reason as i32 == number).unwrap_or(Other)
    }
}

/// A refusal with its reason for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For programs.
    pub(crate) reason: Reason,
    /// For people: what is wrong and what to do. Both sides show it, so it names the members rather than saying "you".
    pub(crate) text: String,
}

impl Refusal {
    /// A refusal; a text that is too long for the wire is cut.
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Refusal {
        Refusal { reason, text: cut(text.into()) }
    }

    /// A refusal as the other side sent it. The text may be a stranger's.
    pub(super) fn received(number: i32, text: Option<&str>) -> Refusal {
        let text = text.unwrap_or("no reason was given").chars().take(TEXT_BYTES_MAX);
        Refusal::new(Reason::from_number(number), text.flat_map(shown).collect::<String>())
    }
}

/// Control characters are spelled out, so that a text from outside stays within its line of the log.
fn shown(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_debug());
    let plain = escaped.is_none().then_some(character);
    escaped.into_iter().flatten().chain(plain)
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
    }
    text
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_is_short_and_stays_in_its_line() {
        let refusal = Refusal::received(2, Some("a\nb\u{1b}[0m \"é\""));
        assert_eq!(refusal, Refusal { reason: Reason::Group, text: "a\\nb\\u{1b}[0m \"é\"".to_owned() });
        let long = Refusal::received(-7, Some(&"é\n".repeat(10_000)));
        assert_eq!((long.reason, long.text.len()), (Reason::Other, TEXT_BYTES_MAX));
        assert_eq!(Refusal::received(4, None).text, "no reason was given");
    }
}
