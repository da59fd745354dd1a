//! The tables: the first byte of every key. `D`, `E`, `O` and `W` were used before the first release.

/// `queue id u32, first offset u64` -> a page of queue entries.
pub(crate) const QUEUE: u8 = b'Q';
/// `half id u64` -> an undecided half message.
pub(crate) const HALF: u8 = b'H';
/// `due u64, half id u64` -> (): checks after the first, and first checks with a time of their own.
pub(crate) const DUE: u8 = b'U';
/// `parked u8, producer group u32, topic u32, half id u64` -> (): undecided halves in the order in which they are listed. A
/// topic is named by the id of its first queue.
pub(crate) const LISTED: u8 = b'G';
/// `producer group u32` -> its name, how many undecided halves it has.
pub(crate) const PRODUCERS: u8 = b'N';
/// `digest of group, topic, unique id` -> half id, until when: recognises a repeated send.
pub(crate) const REPEAT: u8 = b'R';
/// `place u64, number u64` -> a page of decisions.
pub(crate) const DECISION: u8 = b'S';
/// `due u64, position u64` -> a message that waits for its time.
pub(crate) const TIMER: u8 = b'T';
/// `position u64` -> queue offset of a message that waited for its time and is visible now.
pub(crate) const FIRED: u8 = b'F';
/// `position u64` -> whose bytes retention must keep there: timers, and halves that were moved.
pub(crate) const PIN: u8 = b'P';
/// `group, queue id u32` -> consumer offset.
pub(crate) const OFFSET: u8 = b'C';
/// `group, queue id u32` -> owner of a queue lock and the end of its life.
pub(crate) const LOCK: u8 = b'L';
/// `name` -> everything there is one of: applied log id, counters, topics, groups, settings.
pub(crate) const META: u8 = b'M';

/// A key of one number.
pub(crate) fn key1(table: u8, first: u64) -> [u8; 9] {
    let mut key = [table; 9];
    key[1..].copy_from_slice(&first.to_be_bytes());
    key
}

/// A key of two numbers.
pub(crate) fn key2(table: u8, first: u64, second: u64) -> [u8; 17] {
    let mut key = [table; 17];
    key[1..9].copy_from_slice(&first.to_be_bytes());
    key[9..].copy_from_slice(&second.to_be_bytes());
    key
}

/// A key of texts, each after its length, so that no two lists of texts share a key.
pub(crate) fn key_of_texts(table: u8, texts: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + texts.iter().map(|text| text.len() + 2).sum::<usize>());
    key.push(table);
    for text in texts {
        let length = u16::try_from(text.len()).expect("a text of a command has at most 65,535 bytes");
        key.extend_from_slice(&length.to_be_bytes());
        key.extend_from_slice(text.as_bytes());
    }
    key
}

/// The two numbers of a [`key2`].
pub(crate) fn numbers_of_key2(key: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = key.get(1..17)?.split_at(8);
    (key.len() == 17)
        .then(|| Some((u64::from_be_bytes(first.try_into().ok()?), u64::from_be_bytes(second.try_into().ok()?))))?
}

/// The number of a [`key1`].
pub(crate) fn number_of_key1(key: &[u8]) -> Option<u64> {
    (key.len() == 9).then(|| Some(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?)))?
}
