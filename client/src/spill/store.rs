//! The folder: its lock, its segments and its failure log. Blocking; [`writer`](super::writer) has a thread for it.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::BuildHasher as _;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use escrowmq_common::clock;
use rustix::fs::{FlockOperation, flock};

use super::failed::FailedLog;
use super::format::{self, DONE_BYTES, HEADER_BYTES, RECORD_HEADER_BYTES, SEGMENT_BYTES_MAX};
use super::record::{self, Kept};
use super::segment::{DAMAGED, DONE, Found, RECORDS, Segment, path};
use super::waiting::Entry;
use super::{FILE_MODE, FOLDER_MODE, RECORDS_MAX};
use crate::error::StartError;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// Why a message is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no room.
    Full(String),
    /// The disk fails.
    Disk {
        reason: String,
        /// The next start may find it all the same.
        maybe_kept: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    /// Held as long as the store lives.
    _lock: File,
    capacity: u64,
    segment_bytes: u64,
    sync: bool,
    segments: BTreeMap<u64, Segment>,
    /// The one that is written.
    current: Option<u64>,
    next_segment: u64,
    next_number: u64,
    failed: FailedLog,
    /// Of files that wait for a person.
    damaged_bytes: u64,
}

impl Store {
    /// Opens the folder, which is made if it is not there. Answers the messages that wait in it, in their order.
    pub(super) fn open(folder: &Path, capacity: u64, sync: bool) -> Result<(Store, Vec<Entry>), StartError> {
        let failed = |error: io::Error| StartError::Spill { folder: folder.to_owned(), reason: error.to_string() };
        make(folder).map_err(failed)?;
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(FILE_MODE).open(folder.join("lock"));
        let lock = lock.map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => StartError::SpillInUse { folder: folder.to_owned() },
            error => failed(error.into()),
        })?;
        let store = Store {
            folder: folder.to_owned(),
            _lock: lock,
            capacity,
            segment_bytes: (capacity / 16).clamp(64 << 10, 64 << 20),
            sync,
            segments: BTreeMap::new(),
            current: None,
            next_segment: 1,
            next_number: 1,
            failed: FailedLog::open(folder).map_err(failed)?,
            damaged_bytes: 0,
        };
        store.load().map_err(failed)
    }

    fn load(mut self) -> io::Result<(Store, Vec<Entry>)> {
        let (mut numbers, mut lists) = (Vec::new(), Vec::new());
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            let name = file.file_name();
            let Some((number, kind)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match kind {
                RECORDS => numbers.push(number),
                DONE => lists.push(number),
                DAMAGED => self.damaged_bytes += file.metadata()?.len(),
                _ => continue,
            }
            self.next_segment = self.next_segment.max(number + 1);
        }
        // Left by a process that died between the two steps of a deletion.
        for number in lists.into_iter().filter(|number| !numbers.contains(number)) {
            fs::remove_file(path(&self.folder, number, DONE))?;
        }
        numbers.sort_unstable();
        let mut entries = Vec::new();
        for number in &numbers {
            let is_last = Some(number) == numbers.last();
            match Segment::open(&self.folder, *number, is_last)? {
                Some(found) => self.found(*number, found, &mut entries)?,
                None => self.headless(*number, is_last)?,
            }
        }
        entries.sort_by_key(|entry| entry.number);
        Ok((self, entries))
    }

    fn found(&mut self, number: u64, found: Found, entries: &mut Vec<Entry>) -> io::Result<()> {
        let Found { mut segment, records, damaged } = found;
        for (offset, length) in damaged {
            self.report(number, offset, length)?;
            segment.done(&self.folder, number, &[offset])?;
        }
        for (offset, length, payload) in records {
            let Some(kept) = record::decode(&payload) else {
                segment.is_damaged = true;
                segment.live.remove(&offset);
                self.report(number, offset, length)?;
                segment.done(&self.folder, number, &[offset])?;
                continue;
            };
            self.next_number = self.next_number.max(kept.number + 1);
            entries.push(Entry::of(&kept, Place { segment: number, offset, length }));
        }
        let is_empty = segment.live.is_empty();
        self.segments.insert(number, segment);
        if is_empty {
            self.delete(number);
        }
        Ok(())
    }

    /// A segment without a header. Of the last one it may not have been written, and then nothing else was.
    fn headless(&mut self, number: u64, is_last: bool) -> io::Result<()> {
        let file = path(&self.folder, number, RECORDS);
        let length = fs::metadata(&file)?.len();
        if is_last && length <= HEADER_BYTES as u64 {
            return fs::remove_file(file);
        }
        self.report(number, 0, length as u32)?;
        fs::rename(file, path(&self.folder, number, DAMAGED))?;
        self.damaged_bytes += length;
        Ok(())
    }

    fn report(&mut self, number: u64, offset: u32, length: u32) -> io::Result<()> {
        let file = path(&self.folder, number, DAMAGED);
        tracing::error!(file = %file.display(), offset, length, "a part of a spill is damaged: a message or several may be lost");
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.failed.damage(&name, offset, length, clock::wall_ms())
    }

    /// Bytes that count against the capacity: of all files, those for a person too.
    pub(super) fn bytes(&self) -> u64 {
        let segments: u64 = self.segments.values().map(|segment| segment.bytes + segment.done_bytes).sum();
        // The list of what is done has room before it is written: it must not fail for want of room.
        let promised: u64 = self.segments.values().map(|segment| (segment.live.len() * DONE_BYTES) as u64).sum();
        segments + promised + self.failed.bytes() + self.damaged_bytes
    }

    /// Keeps messages, all of them with one flush for each segment that they go to. Each gets its number here.
    pub(super) fn append(&mut self, messages: &mut [Kept]) -> Vec<Result<Place, Refused>> {
        let mut results: Vec<Result<Place, Refused>> = Vec::with_capacity(messages.len());
        let mut count: usize = self.segments.values().map(|segment| segment.live.len()).sum();
        let mut used = self.bytes();
        // Bytes for the current segment, and the results that hang on them.
        let (mut bytes, mut from) = (Vec::new(), 0);
        for kept in messages {
            kept.number = self.next_number;
            let payload = record::encode(kept);
            let length = (RECORD_HEADER_BYTES + payload.len()) as u64;
            let room = length + (DONE_BYTES + HEADER_BYTES) as u64;
            if room > self.capacity {
                let reason = format!("it takes {room} bytes, and the spill may hold {}", self.capacity);
                results.push(Err(Refused::Full(reason)));
                continue;
            }
            if used + room > self.capacity || count >= RECORDS_MAX || length > SEGMENT_BYTES_MAX - HEADER_BYTES as u64 {
                results.push(Err(Refused::Full(format!(
                    "{count} messages and {used} bytes are in the spill, which may hold {RECORDS_MAX} and {}",
                    self.capacity
                ))));
                continue;
            }
            let end = self.current.map(|current| self.segments[&current].bytes + bytes.len() as u64);
            if end.is_none_or(|end| end > HEADER_BYTES as u64 && end + length > self.segment_bytes) {
                self.flush(&mut bytes, &mut results[from..]);
                from = results.len();
                if let Err(error) = self.begin() {
                    results.push(Err(Refused::Disk { reason: error.to_string(), maybe_kept: false }));
                    continue;
                }
            }
            let current = self.current.expect("a segment was begun");
            let segment = &self.segments[&current];
            let offset = (segment.bytes + bytes.len() as u64) as u32;
            bytes.extend(format::record(segment.salt, offset, &payload));
            results.push(Ok(Place { segment: current, offset, length: length as u32 }));
            self.next_number += 1;
            count += 1;
            used += room;
        }
        self.flush(&mut bytes, &mut results[from..]);
        results
    }

    /// Begins a segment.
    fn begin(&mut self) -> io::Result<()> {
        let previous = self.current.take();
        let number = self.next_segment;
        self.next_segment += 1;
        let salt = RandomState::new().hash_one(number);
        let segment = Segment::create(&self.folder, number, salt, self.sync)?;
        self.segments.insert(number, segment);
        self.current = Some(number);
        if let Some(previous) = previous {
            self.delete_if_done(previous);
        }
        Ok(())
    }

    /// Writes what was gathered for the current segment. After an error another one is begun: this one is not trusted any more.
    fn flush(&mut self, bytes: &mut Vec<u8>, results: &mut [Result<Place, Refused>]) {
        if bytes.is_empty() {
            return;
        }
        let number = self.current.expect("bytes are gathered for a segment");
        let segment = self.segments.get_mut(&number).expect("the current segment is there");
        match segment.append(bytes, self.sync) {
            Ok(()) => segment.live.extend(results.iter().flatten().map(|place| place.offset)),
            Err((error, is_gone)) => {
                for result in results.iter_mut().filter(|result| result.is_ok()) {
                    *result = Err(Refused::Disk { reason: error.to_string(), maybe_kept: !is_gone });
                }
                self.current = None;
                self.delete_if_done(number);
            }
        }
        bytes.clear();
    }

    /// The message of a record. `None` if it was damaged since; then it is in the failure log and done.
    pub(super) fn read(&mut self, place: Place) -> io::Result<Option<Kept>> {
        let Some(segment) = self.segments.get_mut(&place.segment) else { return Ok(None) };
        if let Some(kept) = segment.read(place.offset, place.length)?.as_ref().and_then(record::decode) {
            return Ok(Some(kept));
        }
        segment.is_damaged = true;
        self.report(place.segment, place.offset, place.length)?;
        self.done(&[place])?;
        Ok(None)
    }

    /// Records are done: a broker has their messages, or the failure log.
    pub(super) fn done(&mut self, places: &[Place]) -> io::Result<()> {
        let mut offsets: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for place in places {
            offsets.entry(place.segment).or_default().push(place.offset);
        }
        let mut ended = Ok(());
        for (number, mut offsets) in offsets {
            let Some(segment) = self.segments.get_mut(&number) else { continue };
            offsets.retain(|offset| segment.live.remove(offset));
            ended = ended.and(segment.done(&self.folder, number, &offsets));
            self.delete_if_done(number);
        }
        ended
    }

    /// A message is given up: it goes to the failure log. After an error it waits as before.
    pub(super) fn fail(&mut self, place: Place, reason: &str, possible_duplicate: bool) -> io::Result<()> {
        let Some(mut kept) = self.read(place)? else { return Ok(()) };
        kept.possible_duplicate |= possible_duplicate;
        self.failed.message(&kept, reason, clock::wall_ms())?;
        self.done(&[place])
    }

    fn delete_if_done(&mut self, number: u64) {
        let Some(segment) = self.segments.get(&number) else { return };
        // The current one goes too once it has reached its size: nothing is written to it any more.
        let is_full = segment.bytes >= self.segment_bytes / 2;
        if segment.live.is_empty() && (self.current != Some(number) || is_full) {
            if self.current == Some(number) {
                self.current = None;
            }
            self.delete(number);
        }
    }

    /// Deletes a segment whose records are all done. What a crash leaves of it is deleted by the next start.
    fn delete(&mut self, number: u64) {
        let Some(segment) = self.segments.remove(&number) else { return };
        let records = path(&self.folder, number, RECORDS);
        let removed = if segment.is_damaged {
            self.damaged_bytes += segment.bytes;
            fs::rename(records, path(&self.folder, number, DAMAGED))
        } else {
            fs::remove_file(records)
        };
        // In this order: records without their list would be sent again.
        let removed = removed.and_then(|()| {
            if segment.done_bytes > 0 { fs::remove_file(path(&self.folder, number, DONE)) } else { Ok(()) }
        });
        if let Err(error) = removed {
            tracing::warn!(%error, number, "a segment of a spill cannot be deleted; the next start tries again");
        }
    }
}

/// Makes the folder, and those above it that are missing, so that a power cut does not take them away.
fn make(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    const CAPACITY: u64 = 1 << 20;

    fn open(folder: &Path) -> (Store, Vec<Entry>) {
        Store::open(folder, CAPACITY, true).expect("it opens")
    }

    fn kept(text: &str, bytes: usize) -> Kept {
        let message = Message::new("T", vec![b'x'; bytes]).unique_id(text).sharding_key("k");
        Kept { number: 0, since_ms: 5, possible_duplicate: false, message }
    }

    fn id(kept: &Kept) -> String {
        kept.message.get("UNIQ_KEY").expect("an id").to_owned()
    }

    fn ids(store: &mut Store, entries: &[Entry]) -> Vec<String> {
        let mut read = |entry: &Entry| store.read(entry.place).expect("readable").expect("whole");
        entries.iter().map(|entry| id(&read(entry))).collect()
    }

    fn files(folder: &Path, kind: &str) -> Vec<PathBuf> {
        let all = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
        let mut files: Vec<_> = all.filter(|path| path.extension().is_some_and(|ext| ext == kind)).collect();
        files.sort();
        files
    }

    fn append(store: &mut Store, names: &[&str]) -> Vec<Place> {
        let mut messages: Vec<Kept> = names.iter().map(|name| kept(name, 100)).collect();
        store.append(&mut messages).into_iter().map(|place| place.expect("there is room")).collect()
    }

    #[test]
    fn what_is_kept_and_not_done_is_there_again_in_its_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, entries) = open(folder.path());
        assert!(entries.is_empty());
        let places = append(&mut store, &["a", "b", "c", "d"]);
        store.done(&[places[1]]).expect("noted");
        store.done(&[places[1]]).expect("twice is once");
        drop(store);
        let (mut store, entries) = open(folder.path());
        assert_eq!(ids(&mut store, &entries), ["a", "c", "d"]);
        assert_eq!((entries[0].key.as_deref(), entries[0].since_ms), (Some("k"), 5));
        append(&mut store, &["e"]);
        store.done(&[places[0], places[2]]).expect("noted");
        drop(store);
        let (mut store, entries) = open(folder.path());
        assert_eq!(ids(&mut store, &entries), ["d", "e"]);
        let places: Vec<Place> = entries.iter().map(|entry| entry.place).collect();
        store.done(&places).expect("noted");
        drop(store);
        let (store, entries) = open(folder.path());
        assert!(entries.is_empty() && store.bytes() == 0);
        assert!(files(folder.path(), RECORDS).is_empty() && files(folder.path(), DONE).is_empty());
    }

    #[test]
    fn a_power_cut_at_any_byte_of_the_last_record_leaves_those_before_and_room_for_new_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = open(folder.path());
        let last = append(&mut store, &["a", "b", "last"])[2];
        drop(store);
        let file = files(folder.path(), RECORDS).remove(0);
        let whole = fs::read(&file).expect("readable");
        for end in last.offset as usize..whole.len() {
            let copy = tempfile::tempdir().expect("a folder");
            fs::write(copy.path().join(file.file_name().expect("a name")), &whole[..end]).expect("written");
            let (mut store, entries) = open(copy.path());
            assert_eq!(ids(&mut store, &entries), ["a", "b"], "cut at {end}");
            append(&mut store, &["new"]);
            drop(store);
            let (mut store, entries) = open(copy.path());
            assert_eq!(ids(&mut store, &entries), ["a", "b", "new"], "cut at {end}");
            assert_eq!(store.failed.bytes(), 0, "a torn end is no damage");
        }
        // The header of a segment that was just begun.
        for end in 0..HEADER_BYTES {
            let copy = tempfile::tempdir().expect("a folder");
            fs::write(copy.path().join(file.file_name().expect("a name")), &whole[..end]).expect("written");
            let (store, entries) = open(copy.path());
            assert!(entries.is_empty() && store.failed.bytes() == 0, "cut at {end}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_told_once_and_its_bytes_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = open(folder.path());
        let places = append(&mut store, &["a", "b", "c"]);
        drop(store);
        let file = files(folder.path(), RECORDS).remove(0);
        let mut bytes = fs::read(&file).expect("readable");
        bytes[places[1].offset as usize + 40] ^= 1;
        fs::write(&file, &bytes).expect("written");
        for _ in 0..2 {
            let (mut store, entries) = open(folder.path());
            assert_eq!(ids(&mut store, &entries), ["a", "c"]);
            drop(store);
            let log = fs::read_to_string(folder.path().join("failed.jsonl")).expect("a log");
            assert_eq!(log.lines().count(), 1, "{log}");
            assert!(log.contains(&format!("\"offset\":{}", places[1].offset)), "{log}");
        }
        let (mut store, _) = open(folder.path());
        store.done(&[places[0], places[2]]).expect("noted");
        assert!(store.segments.is_empty());
        append(&mut store, &["d"]);
        drop(store);
        let (mut store, entries) = open(folder.path());
        assert_eq!(ids(&mut store, &entries), ["d"]);
        let kept = files(folder.path(), DAMAGED);
        assert_eq!(fs::read(&kept[0]).expect("kept for a person"), bytes);
        // A header that is damaged leaves nothing to read, but is no reason not to start.
        drop(store);
        let file = files(folder.path(), RECORDS).remove(0);
        let mut bytes = fs::read(&file).expect("readable");
        bytes[3] ^= 1;
        fs::write(&file, &bytes).expect("written");
        let (store, entries) = open(folder.path());
        assert!(entries.is_empty());
        assert_eq!(files(folder.path(), DAMAGED).len(), 2);
        assert!(store.bytes() > bytes.len() as u64, "what waits for a person counts");
    }

    #[test]
    fn damage_after_the_start_is_told_when_it_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = open(folder.path());
        let places = append(&mut store, &["a", "b"]);
        let file = files(folder.path(), RECORDS).remove(0);
        let mut bytes = fs::read(&file).expect("readable");
        bytes[places[0].offset as usize + 40] ^= 1;
        fs::write(&file, &bytes).expect("written");
        assert!(store.read(places[0]).expect("readable").is_none());
        assert!(store.failed.bytes() > 0);
        assert_eq!(id(&store.read(places[1]).expect("readable").expect("whole")), "b");
    }

    #[test]
    fn a_full_spill_refuses_and_keeps_what_it_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = open(folder.path());
        let mut places = Vec::new();
        let refused = loop {
            let result = store.append(&mut [kept(&places.len().to_string(), 10_000)]).remove(0);
            match result {
                Ok(place) => places.push(place),
                Err(refused) => break refused,
            }
        };
        assert!(matches!(&refused, Refused::Full(reason) if reason.contains("1048576")), "{refused:?}");
        assert!(store.bytes() <= CAPACITY && places.len() > 90, "{} of {}", store.bytes(), places.len());
        assert!(files(folder.path(), RECORDS).len() > 10);
        // Of a group those that fit are kept.
        let results = store.append(&mut [kept("large", 10_000), kept("small", 10)]);
        assert!(matches!(results[..], [Err(Refused::Full(_)), Ok(_)]));
        store.done(&places[..10]).expect("noted, although it is full");
        store.append(&mut [kept("again", 10_000)]).remove(0).expect("room again");
        assert!(store.bytes() <= CAPACITY);
        drop(store);
        let (mut store, entries) = open(folder.path());
        let ids = ids(&mut store, &entries);
        assert_eq!((ids.len(), ids.first().map(String::as_str)), (places.len() - 10 + 2, Some("10")));
    }

    #[test]
    fn a_disk_that_fails_makes_no_promise_and_loses_nothing_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = open(folder.path());
        append(&mut store, &["a"]);
        let current = store.current.expect("a segment");
        store.segments.get_mut(&current).expect("it is there").break_it(folder.path(), current);
        let refused = store.append(&mut [kept("b", 10)]).remove(0).expect_err("it cannot be written");
        assert!(matches!(refused, Refused::Disk { .. }), "{refused:?}");
        append(&mut store, &["c"]);
        drop(store);
        let (mut store, entries) = open(folder.path());
        assert_eq!(ids(&mut store, &entries), ["a", "c"]);
    }

    #[test]
    fn a_folder_has_one_spill_and_the_failure_log_takes_what_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = open(folder.path());
        let second = Store::open(folder.path(), CAPACITY, true).expect_err("in use");
        assert!(matches!(second, StartError::SpillInUse { .. }) && second.is_retryable(), "{second}");
        let places = append(&mut store, &["a", "b"]);
        store.fail(places[0], "too large", true).expect("written");
        drop(store);
        let (mut store, entries) = open(folder.path());
        assert_eq!(ids(&mut store, &entries), ["b"]);
        let failed = super::super::failed::read(folder.path()).expect("readable");
        assert_eq!((failed.len(), failed[0].reason.as_str()), (1, "too large"));
        assert!(failed[0].possible_duplicate && failed[0].message.get("UNIQ_KEY") == Some("a"));
    }
}
