//! Rows in key order, out of memory and files.

use std::ops::Bound;
use std::sync::Arc;

use rocksdb::DBRawIterator;

use super::error::IndexError;
use super::memory::{Key, Known, Layer};
use super::reader::Row;

/// A cursor over the rows of a range: at a row, or past the last one. Borrowed: no copy per row of a file.
///
/// Rows that are written while it is on its way may be seen or not.
pub struct RowCursor<'a> {
    files: DBRawIterator<'a>,
    /// The newest first: what it knows of a key is what counts.
    layers: Vec<Head>,
    from: Vec<u8>,
    to: Vec<u8>,
    at: Source,
}

/// A layer and the place that was reached in it.
struct Head {
    layer: Arc<Layer>,
    next: Option<(Key, Known)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Layer(usize),
    Files,
    End,
}

impl<'a> RowCursor<'a> {
    /// Over the rows from `from` up to `to`, exclusive, to which `files` is bounded. To be placed first.
    pub(super) fn new(
        files: DBRawIterator<'a>,
        layers: impl Iterator<Item = Arc<Layer>>,
        from: &[u8],
        to: &[u8],
    ) -> Self {
        let layers = layers.map(|layer| Head { layer, next: None }).collect();
        Self { files, layers, from: from.to_owned(), to: to.to_owned(), at: Source::End }
    }

    /// The row at hand; `None` past the last one.
    pub fn row(&self) -> Option<(&[u8], &[u8])> {
        match self.at {
            Source::End => None,
            Source::Files => self.files.item(),
            Source::Layer(nth) => match &self.layers[nth].next {
                Some((key, Known::Row(value))) => Some((key.as_slice(), value)),
                _ => unreachable!("a cursor stands at rows only"),
            },
        }
    }

    /// Goes to the next row.
    pub fn advance(&mut self) -> Result<(), IndexError> {
        match self.at {
            Source::End => return Ok(()),
            // Nothing in memory lies ahead: the usual case for what is old.
            Source::Files if self.layers.iter().all(|head| head.next.is_none()) => self.files.next(),
            _ => {
                let key = self.row().map(|(key, _)| key.to_vec()).expect("it stands at a row");
                self.pass(&key);
            }
        }
        self.settle()
    }

    /// Goes to the first row at or above `key`.
    pub(super) fn seek(&mut self, key: &[u8]) -> Result<(), IndexError> {
        self.files.seek(key);
        self.seek_layers(key);
        self.settle()
    }

    /// Goes to the last row at or below `key`; to the first one if there is none.
    pub fn seek_back(&mut self, key: impl AsRef<[u8]>) -> Result<(), IndexError> {
        let key = key.as_ref();
        self.files.seek_for_prev(key);
        self.files.status()?;
        let within = key < self.to.as_slice();
        let mut below = if within { Bound::Included(key.to_vec()) } else { Bound::Excluded(self.to.clone()) };
        loop {
            let upto = below.as_ref().map(Vec::as_slice);
            let last = self.layers.iter().filter_map(|head| head.layer.last(&self.from, upto)).max();
            let found = match (self.files.key(), &last) {
                (Some(file), Some(key)) => file.max(key.as_slice()),
                (Some(file), None) => file,
                (None, Some(key)) => key.as_slice(),
                (None, None) => {
                    self.files.seek_to_first();
                    let from = self.from.clone();
                    self.seek_layers(&from);
                    return self.settle();
                }
            };
            let found = found.to_vec();
            let is_in_file = self.files.key() == Some(&found);
            if self.is_seen(&found) {
                if !is_in_file {
                    // The last one at or below stands before the row that was found.
                    if self.files.valid() { self.files.next() } else { self.files.seek_to_first() }
                }
                self.seek_layers(&found);
                return self.settle();
            }
            if is_in_file {
                self.files.prev();
            }
            below = Bound::Excluded(found);
        }
    }

    /// Whether there is a row with this key, of which something is known.
    fn is_seen(&self, key: &[u8]) -> bool {
        for head in &self.layers {
            match head.layer.get(key) {
                Some(Known::Row(_)) => return true,
                Some(Known::Removed) => return false,
                None => {}
            }
        }
        self.files.key() == Some(key)
    }

    fn seek_layers(&mut self, key: &[u8]) {
        for head in &mut self.layers {
            head.next = head.layer.first(Bound::Included(key), &self.to);
        }
    }

    /// Moves everything that stands at `key` beyond it.
    fn pass(&mut self, key: &[u8]) {
        for head in &mut self.layers {
            if head.next.as_ref().is_some_and(|(next, _)| next.as_slice() == key) {
                head.next = head.layer.first(Bound::Excluded(key), &self.to);
            }
        }
        if self.files.key() == Some(key) {
            self.files.next();
        }
    }

    /// Finds the lowest of the rows at which the files and the layers stand, and passes those that are removed.
    fn settle(&mut self) -> Result<(), IndexError> {
        loop {
            if !self.files.valid() {
                self.files.status()?;
            }
            let mut first: Option<(&[u8], Source)> = None;
            for (nth, head) in self.layers.iter().enumerate() {
                if let Some((key, _)) = &head.next
                    && first.is_none_or(|(first, _)| key.as_slice() < first)
                {
                    first = Some((key.as_slice(), Source::Layer(nth)));
                }
            }
            if let Some(key) = self.files.key()
                && first.is_none_or(|(first, _)| key < first)
            {
                first = Some((key, Source::Files));
            }
            let Some((key, source)) = first else {
                self.at = Source::End;
                return Ok(());
            };
            let above = match source {
                Source::Layer(nth) => nth,
                Source::Files | Source::End => self.layers.len(),
            };
            let is_removed = match source {
                Source::Layer(nth) => matches!(self.layers[nth].next, Some((_, Known::Removed))),
                Source::Files | Source::End => false,
            };
            if !is_removed && !self.layers[..above].iter().any(|head| head.layer.has_removed_around(key)) {
                self.at = source;
                return Ok(());
            }
            let key = key.to_vec();
            self.pass(&key);
        }
    }
}

/// The rows of a cursor, copied.
pub(super) struct Rows<'a> {
    pub(super) cursor: RowCursor<'a>,
    /// Of placing it.
    pub(super) placed: Result<(), IndexError>,
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = std::mem::replace(&mut self.placed, Ok(())) {
            self.cursor.at = Source::End;
            return Some(Err(error));
        }
        let (key, value) = self.cursor.row()?;
        let row = (Box::from(key), Box::from(value));
        self.placed = self.cursor.advance();
        Some(Ok(row))
    }
}
