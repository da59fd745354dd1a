//! Reads the folder of a stopped member: `escrowmq fsck` judges it, and its log is taken as bytes, to be compared with those of others.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::processes::binary;

/// Bytes of a segment's header, and of what a record has besides its payload (docs/storage.md).
const SEGMENT_HEADER_BYTES: usize = 4096;
const RECORD_BYTES_MIN: usize = 60;
/// The last bytes of a record say how far this member's disk had come. They are its own, the rest is the group's.
const NOTE_BYTES: usize = 20;

/// The log of a stopped member.
#[derive(Debug)]
pub struct Stored {
    /// The Raft index of its last record.
    pub last_index: u64,
    start: usize,
    /// From `start` to its end, with zeros for each note.
    bytes: Vec<u8>,
}

impl Stored {
    /// Reads the log in a folder of data.
    ///
    /// # Panics
    ///
    /// If fsck finds anything wrong there.
    pub fn read(data: &Path) -> Stored {
        let output = Command::new(binary("escrowmq")).args(["fsck", "--json"]).arg(data).output().expect("fsck runs");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "fsck of {}: {} {told}", data.display(), output.status);
        let report: Value = serde_json::from_str(&told).expect("fsck prints JSON");
        let figure = |name: &str| report["figures"][name].as_u64().expect("a figure");
        let mut stored =
            Stored { last_index: figure("lastIndex"), start: position(figure("logStart")), bytes: Vec::new() };
        stored.read_segments(&data.join("log"), position(figure("logEnd")));
        stored
    }

    fn read_segments(&mut self, log: &Path, end: usize) {
        let mut segments: Vec<(usize, PathBuf)> = fs::read_dir(log)
            .expect("the folder of the log")
            .map(|entry| entry.expect("an entry").path())
            .filter_map(|path| Some((start_of(&path)?, path)))
            .collect();
        segments.sort();
        let starts = segments.iter().map(|(start, _)| *start);
        let ends: Vec<usize> = starts.skip(1).chain([usize::MAX]).map(|next| next.min(end)).collect();
        for ((start, path), end) in segments.into_iter().zip(ends) {
            // One that was made for what comes next has nothing yet.
            if start < end {
                assert_eq!(start, self.end(), "{} does not follow", path.display());
                let content = fs::read(&path).expect("a segment can be read");
                self.bytes.extend(records(&content[SEGMENT_HEADER_BYTES..][..end - start]));
            }
        }
        assert_eq!(self.end(), end, "segments end where the log ends");
    }

    fn end(&self) -> usize {
        self.start + self.bytes.len()
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.start - self.start..range.end - self.start]
    }

    /// Compares all that both have; says how many bytes that is.
    ///
    /// # Panics
    ///
    /// If they differ, with the position.
    pub fn assert_same(&self, other: &Stored) -> usize {
        let common = self.start.max(other.start)..self.end().min(other.end());
        assert!(!common.is_empty(), "{:?} and {:?}", self.start..self.end(), other.start..other.end());
        let (one, two) = (self.slice(&common), other.slice(&common));
        let differs = one.iter().zip(two).position(|(one, two)| one != two);
        if let Some(at) = differs {
            panic!("logs differ at position {} of {common:?}", common.start + at);
        }
        common.len()
    }
}

fn position(figure: u64) -> usize {
    usize::try_from(figure).expect("a log of a test fits into memory")
}

fn start_of(path: &Path) -> Option<usize> {
    if path.extension()? == "log" { path.file_stem()?.to_str()?.parse().ok() } else { None }
}

/// These records with zeros for their notes.
fn records(segment: &[u8]) -> Vec<u8> {
    let mut bytes = segment.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let length = *bytes[at..].first_chunk().expect("the length of a record");
        let length = u32::from_be_bytes(length) as usize;
        assert!(length >= RECORD_BYTES_MIN && at + length <= bytes.len(), "{length} is no length of a record");
        at += length;
        bytes[at - NOTE_BYTES..at].fill(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &[u8], note: u8) -> Vec<u8> {
        let length = u32::try_from(RECORD_BYTES_MIN + payload.len()).unwrap();
        [&length.to_be_bytes()[..], &[7; 36], payload, &[note; NOTE_BYTES]].concat()
    }

    fn log(start: usize, segments: &[Vec<u8>]) -> Stored {
        let folder = tempfile::tempdir().unwrap();
        let mut at = start;
        for segment in segments {
            let content = [&[1; SEGMENT_HEADER_BYTES][..], segment, &[0; 500]].concat();
            fs::write(folder.path().join(format!("{at:020}.log")), content).unwrap();
            at += segment.len();
        }
        fs::write(folder.path().join("vote"), "no segment").unwrap();
        let mut stored = Stored { last_index: 0, start, bytes: Vec::new() };
        stored.read_segments(folder.path(), at);
        stored
    }

    #[test]
    fn logs_are_compared_as_far_as_both_have_them_and_without_their_notes() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|payload| record(payload, 1));
        let all = log(0, &[[a.clone(), b.clone()].concat(), c.clone()]);
        let later = log(a.len(), &[record(b"b", 2), record(b"c", 3)]);
        assert_eq!(all.assert_same(&later), b.len() + c.len());
        assert_eq!(later.assert_same(&all), b.len() + c.len());
        assert_eq!(all.assert_same(&log(0, std::slice::from_ref(&a))), a.len());
    }

    #[test]
    #[should_panic(expected = "logs differ at position 101 of 0..122")]
    fn a_byte_that_differs_is_found() {
        let [a, b, other] = [b"a", b"b", b"c"].map(|payload| record(payload, 1));
        log(0, &[[a.clone(), b].concat()]).assert_same(&log(0, &[[a, other].concat()]));
    }
}
