//! The fields of one frame: a short list of pairs in one string.

use std::fmt::{self, Display, Write as _};

use super::FrameError;

/// Pairs that are kept without a second allocation; the busiest requests have 13 to 20.
const INLINE_PAIRS: usize = 24;

/// Most fields that a frame may have. Requests have at most about 30; the bound keeps the index smaller than the frame.
const MAX_FIELDS: usize = 4096;

/// Where one pair lies in the text. A key begins where the value before it ends.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    key_end: u32,
    value_end: u32,
}

/// The ext fields of a frame, in the order in which they were written.
///
/// All keys and values lie one after the other in a single string that is allocated once per frame, with escapes
/// already undone. It does not point into the read buffer: a held pull must not keep a whole read buffer alive.
#[derive(Clone, Default)]
pub struct Fields {
    text: String,
    inline: [Pair; INLINE_PAIRS],
    len: u32,
    /// Holds all pairs once there are more than fit inline.
    spilled: Vec<Pair>,
}

impl Fields {
    /// No fields.
    pub fn new() -> Fields {
        Fields::default()
    }

    /// No fields yet, with room for `bytes` of keys and values.
    pub(super) fn with_text_capacity(bytes: usize) -> Fields {
        Fields { text: String::with_capacity(bytes), ..Fields::default() }
    }

    /// The value of a key; if a key was sent twice the later one counts.
    pub fn get(&self, key: &str) -> Option<&str> {
        let pairs = self.pairs();
        for (index, pair) in pairs.iter().enumerate().rev() {
            let start = start_of(pairs, index);
            // Length first: most keys differ there already.
            if pair.key_end as usize - start == key.len() && self.text[start..].starts_with(key) {
                return Some(&self.text[pair.key_end as usize..pair.value_end as usize]);
            }
        }
        None
    }

    /// All pairs in order, duplicates included.
    pub fn iter(&self) -> FieldsIter<'_> {
        FieldsIter { text: &self.text, pairs: self.pairs().iter(), start: 0 }
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a pair. A key that exists already keeps its old pair in front of the new one, which wins in [`get`](Fields::get).
    pub fn insert(&mut self, key: &str, value: impl Display) {
        self.text.push_str(key);
        let key_end = self.text.len();
        write!(self.text, "{value}").expect("writing to a string does not fail");
        self.push_pair(key_end);
    }

    /// Adds a pair of texts.
    pub fn insert_text(&mut self, key: &str, value: &str) {
        self.text.push_str(key);
        let key_end = self.text.len();
        self.text.push_str(value);
        self.push_pair(key_end);
    }

    /// The text to which a decoder appends a key and then a value, before it calls [`close_pair`](Fields::close_pair).
    pub(super) fn text_mut(&mut self) -> &mut String {
        &mut self.text
    }

    /// Ends a pair whose key ends at `key_end` and whose value ends at the end of the text.
    pub(super) fn close_pair(&mut self, key_end: usize) -> Result<(), FrameError> {
        if self.len() >= MAX_FIELDS {
            return Err(FrameError::TooManyFields(MAX_FIELDS));
        }
        self.push_pair(key_end);
        Ok(())
    }

    /// Takes back everything after the last closed pair: a key without a value.
    pub(super) fn drop_open_key(&mut self) {
        let end = self.pairs().last().map_or(0, |pair| pair.value_end as usize);
        self.text.truncate(end);
    }

    fn push_pair(&mut self, key_end: usize) {
        let pair = Pair { key_end: key_end as u32, value_end: self.text.len() as u32 };
        if self.spilled.is_empty() {
            if let Some(slot) = self.inline.get_mut(self.len as usize) {
                *slot = pair;
                self.len += 1;
                return;
            }
            self.spilled.extend_from_slice(&self.inline);
        }
        self.spilled.push(pair);
        self.len += 1;
    }

    fn pairs(&self) -> &[Pair] {
        if self.spilled.is_empty() { &self.inline[..self.len as usize] } else { &self.spilled }
    }
}

/// Where the key of pair `index` begins.
fn start_of(pairs: &[Pair], index: usize) -> usize {
    index.checked_sub(1).map_or(0, |before| pairs[before].value_end as usize)
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        self.len == other.len && self.iter().eq(other)
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = (&'a str, &'a str);
    type IntoIter = FieldsIter<'a>;

    fn into_iter(self) -> FieldsIter<'a> {
        self.iter()
    }
}

/// Pairs of a [`Fields`].
#[derive(Clone, Debug)]
pub struct FieldsIter<'a> {
    text: &'a str,
    pairs: std::slice::Iter<'a, Pair>,
    start: usize,
}

impl<'a> Iterator for FieldsIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let pair = self.pairs.next()?;
        let key = &self.text[self.start..pair.key_end as usize];
        let value = &self.text[pair.key_end as usize..pair.value_end as usize];
        self.start = pair.value_end as usize;
        Some((key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.pairs.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_duplicate_wins() {
        let mut fields = Fields::new();
        fields.insert("a", 1);
        fields.insert("b", true);
        fields.insert("a", "x");
        assert_eq!(fields.get("a"), Some("x"));
        assert_eq!(fields.get("b"), Some("true"));
        assert_eq!(fields.get("c"), None);
        assert_eq!(fields.get(""), None);
        assert_eq!(fields.len(), 3);
    }

    #[test]
    fn more_pairs_than_fit_inline_are_kept() {
        let mut fields = Fields::new();
        for n in 0..100 {
            fields.insert(&format!("key{n}"), n);
        }
        assert_eq!(fields.len(), 100);
        for n in 0..100 {
            assert_eq!(fields.get(&format!("key{n}")), Some(n.to_string().as_str()));
        }
        assert_eq!(fields.iter().count(), 100);
    }
}
