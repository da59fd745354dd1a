//! One segment file, and beside it the list of its records that are done.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::FILE_MODE;
use super::format::{self, DONE_BYTES, HEADER_BYTES, Part};

/// What a file's name ends with.
pub(super) const RECORDS: &str = "spill";
pub(super) const DONE: &str = "done";
pub(super) const DAMAGED: &str = "damaged";

/// The file of a segment.
pub(super) fn path(folder: &Path, number: u64, kind: &str) -> PathBuf {
    folder.join(format!("{number:012}.{kind}"))
}

/// A segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) salt: u64,
    file: File,
    done: Option<File>,
    pub(super) bytes: u64,
    pub(super) done_bytes: u64,
    /// The records that are not done, by their offsets, and how many bytes those are.
    live: HashMap<u32, Live>,
    live_bytes: u64,
    /// Its file is kept under another name when all records are done.
    pub(super) is_damaged: bool,
}

/// A record that is not done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) length: u32,
    /// Where it was before it was moved, for those who know it by that.
    pub(super) first: Option<(u64, u32)>,
}

/// A segment as it was found.
pub(super) struct Found {
    pub(super) segment: Segment,
    /// Records that are not done, in their order: offset and payload.
    pub(super) records: Vec<(u32, u32, bytes::Bytes)>,
    /// Parts that are damaged and were not reported yet.
    pub(super) damaged: Vec<(u32, u32)>,
}

impl Segment {
    /// Makes the files of a new segment.
    pub(super) fn create(folder: &Path, number: u64, salt: u64, sync: bool) -> io::Result<Segment> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        let path = path(folder, number, RECORDS);
        let file = options.open(&path)?;
        let written = file
            .write_all_at(&format::header(salt), 0)
            .and_then(|()| if sync { file.sync_all().and_then(|()| File::open(folder)?.sync_all()) } else { Ok(()) });
        if let Err(error) = written {
            // Its name is used again, or passed over at the next start: it holds nothing.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let bytes = HEADER_BYTES as u64;
        let (live, live_bytes) = (HashMap::new(), 0);
        Ok(Segment { salt, file, done: None, bytes, done_bytes: 0, live, live_bytes, is_damaged: false })
    }

    /// Reads a segment that is there. A torn end is cut off. `None` if its header is damaged.
    pub(super) fn open(folder: &Path, number: u64, is_last: bool) -> io::Result<Option<Found>> {
        let file = OpenOptions::new().read(true).write(true).open(path(folder, number, RECORDS))?;
        let all: bytes::Bytes = fs::read(path(folder, number, RECORDS))?.into();
        let Some(salt) = format::salt(&all) else { return Ok(None) };
        let list = match fs::read(path(folder, number, DONE)) {
            Ok(list) => list,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let done: HashSet<u32> = format::dones(salt, &list).collect();
        let mut segment = Segment {
            salt,
            file,
            done: None,
            bytes: all.len() as u64,
            done_bytes: (list.len() - list.len() % DONE_BYTES) as u64,
            live: HashMap::new(),
            live_bytes: 0,
            is_damaged: false,
        };
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for part in format::parts(&all, salt, is_last) {
            match part {
                Part::Record { offset, .. } if done.contains(&offset) => {}
                Part::Record { offset, length } => {
                    let record = &all[offset as usize..(offset + length) as usize];
                    let payload = format::payload(salt, offset, record).expect("the part is a whole record");
                    records.push((offset, length, all.slice_ref(payload)));
                }
                Part::Damaged { offset, length } => {
                    segment.is_damaged = true;
                    if !done.contains(&offset) {
                        damaged.push((offset, length));
                    }
                }
                Part::Torn { offset } => {
                    tracing::info!(
                        file = %path(folder, number, RECORDS).display(),
                        bytes = all.len() as u64 - u64::from(offset),
                        "the end of a spill was cut off while it was written; nobody was told that it is kept"
                    );
                    segment.file.set_len(offset.into())?;
                    segment.file.sync_all()?;
                    segment.bytes = offset.into();
                }
            }
        }
        for (offset, length, _) in &records {
            segment.keep(*offset, Live { length: *length, first: None });
        }
        Ok(Some(Found { segment, records, damaged }))
    }

    /// A record is there that is not done.
    pub(super) fn keep(&mut self, offset: u32, record: Live) {
        self.live_bytes += u64::from(record.length);
        self.live.insert(offset, record);
    }

    /// It is done. `None` if it was before.
    pub(super) fn drop_live(&mut self, offset: u32) -> Option<Live> {
        let record = self.live.remove(&offset)?;
        self.live_bytes -= u64::from(record.length);
        Some(record)
    }

    /// The records that are not done, in their order.
    pub(super) fn live(&self) -> Vec<(u32, Live)> {
        let mut live: Vec<(u32, Live)> = self.live.iter().map(|(offset, record)| (*offset, *record)).collect();
        live.sort_unstable_by_key(|(offset, _)| *offset);
        live
    }

    /// How many those are.
    pub(super) fn count(&self) -> usize {
        self.live.len()
    }

    /// Whether at most half of it is not done, but something is.
    pub(super) fn is_sparse(&self) -> bool {
        !self.live.is_empty() && self.live_bytes * 2 <= self.bytes
    }

    /// Bytes of the records that are not done.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Writes at the end, for good with `sync`. After an error nothing of it counts; the flag says whether it is certain that a
    /// later start does not find it.
    pub(super) fn append(&mut self, bytes: &[u8], sync: bool) -> Result<(), (io::Error, bool)> {
        let written = self.file.write_all_at(bytes, self.bytes);
        let is_written = written.is_ok();
        let synced = written.and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        match synced {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                let is_cut = self.file.set_len(self.bytes).is_ok();
                // After a flush that failed the system may have written it all the same.
                Err((error, is_cut && !is_written))
            }
        }
    }

    /// The payload of a record; `None` if it is damaged.
    pub(super) fn read(&self, offset: u32, length: u32) -> io::Result<Option<bytes::Bytes>> {
        let mut record = vec![0; length as usize];
        self.file.read_exact_at(&mut record, offset.into())?;
        let record: bytes::Bytes = record.into();
        Ok(format::payload(self.salt, offset, &record).map(|payload| record.slice_ref(payload)))
    }

    /// Writes down that records are done. That is not flushed: after a power cut they may be sent again.
    pub(super) fn done(&mut self, folder: &Path, number: u64, offsets: &[u32]) -> io::Result<()> {
        let list: Vec<u8> = offsets.iter().flat_map(|offset| format::done(self.salt, *offset)).collect();
        if self.done.is_none() {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(FILE_MODE);
            let file = options.open(path(folder, number, DONE))?;
            // Without the half of an entry that a killed process may have left.
            file.set_len(self.done_bytes)?;
            self.done = Some(file);
        }
        let file = self.done.as_ref().expect("it was just opened");
        if let Err(error) = file.write_all_at(&list, self.done_bytes) {
            self.done = None;
            return Err(error);
        }
        self.done_bytes += list.len() as u64;
        Ok(())
    }

    /// Lets each write fail from now on.
    #[cfg(test)]
    pub(super) fn break_it(&mut self, folder: &Path, number: u64) {
        self.file = File::open(path(folder, number, RECORDS)).expect("it is there");
    }
}
