//! Bodies with a number, by which a consumer knows each message.

use std::sync::atomic::{AtomicU64, Ordering};

/// Makes bodies of one size, each with the next number in its first eight bytes.
#[derive(Debug)]
pub struct Bodies {
    template: Vec<u8>,
    next: AtomicU64,
}

impl Bodies {
    /// Bodies of so many bytes.
    ///
    /// # Panics
    ///
    /// If a number has no room in them.
    pub fn new(bytes: usize) -> Bodies {
        assert!(bytes >= 8, "a body holds its number, 8 bytes");
        Bodies { template: vec![b'x'; bytes], next: AtomicU64::new(0) }
    }

    /// The next one.
    pub fn next(&self) -> Vec<u8> {
        self.at(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The next one, unless there are `most` already.
    pub fn next_of(&self, most: u64) -> Option<Vec<u8>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < most).then(|| self.at(number))
    }

    fn at(&self, number: u64) -> Vec<u8> {
        let mut body = self.template.clone();
        body[..8].copy_from_slice(&number.to_be_bytes());
        body
    }

    /// The number in a body, if it is long enough to have one.
    pub fn number(body: &[u8]) -> Option<u64> {
        body.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }
}
