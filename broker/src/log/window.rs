//! Reads a file through a buffer, for code that walks along records.

use std::io;

use super::disk::DiskFile;
use crate::terms::to_usize;

/// A view of a file that loads a chunk at a time.
pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    file_len: u64,
    /// Least bytes per read.
    chunk: usize,
    buffer: Vec<u8>,
    /// File offset of the buffer's first byte.
    base: u64,
}

impl<'a> Window<'a> {
    /// A window that reads at least `chunk` bytes at once.
    pub(crate) fn new(file: &'a dyn DiskFile, chunk: usize) -> io::Result<Window<'a>> {
        Ok(Window { file, file_len: file.len()?, chunk, buffer: Vec::new(), base: 0 })
    }

    /// The file's length when the window was made.
    pub(crate) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// The bytes at `offset`; `None` if the file ends before `offset + len`, so that no length read from a
    /// damaged file makes us allocate more than the file's own size.
    pub(crate) fn get(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.file_len) {
            return Ok(None);
        }
        let held = offset >= self.base && offset + len as u64 <= self.base + self.buffer.len() as u64;
        if !held {
            let rest = self.file_len - offset;
            let want = to_usize((self.chunk.max(len) as u64).min(rest));
            self.buffer.resize(want, 0);
            let read = self.file.read_at(&mut self.buffer, offset)?;
            self.buffer.truncate(read);
            self.base = offset;
            if read < len {
                return Ok(None);
            }
        }
        let from = to_usize(offset - self.base);
        Ok(Some(&self.buffer[from..from + len]))
    }
}
