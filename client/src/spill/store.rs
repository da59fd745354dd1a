//! The folder: its lock, its segments and its failure log. Blocking; [`writer`](super::writer) has a thread for it.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::BuildHasher as _;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use escrowmq_common::clock;
use escrowmq_common::message::properties::name;
use rustix::fs::{FlockOperation, flock};

use super::failed::FailedLog;
use super::format::{self, DONE_BYTES, HEADER_BYTES, RECORD_HEADER_BYTES, SEGMENT_BYTES_MAX};
use super::record::{self, Kept};
use super::segment::{DAMAGED, DONE, Found, Live, RECORDS, Segment, path};
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
    /// Where records are now that were moved, by where they were first.
    moved: HashMap<(u64, u32), Place>,
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
            moved: HashMap::new(),
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
        let mut seen = HashSet::new();
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
                Some(found) => self.found(*number, found, &mut entries, &mut seen)?,
                None => self.headless(*number, is_last)?,
            }
        }
        // After a power cut, numbers of records that were done may have been given again.
        entries.sort_by_key(|entry| (entry.number, entry.place.segment, entry.place.offset));
        for (number, entry) in (1..).zip(&mut entries) {
            entry.number = number;
        }
        self.next_number = self.next_number.max(entries.len() as u64 + 1);
        Ok((self, entries))
    }

    fn found(
        &mut self,
        number: u64,
        found: Found,
        entries: &mut Vec<Entry>,
        seen: &mut HashSet<(u64, i64, String)>,
    ) -> io::Result<()> {
        let Found { mut segment, records, damaged } = found;
        for (offset, length) in damaged {
            self.report(number, offset, length)?;
            segment.done(&self.folder, number, &[offset])?;
        }
        for (offset, length, payload) in records {
            let Some(kept) = record::decode(&payload) else {
                segment.is_damaged = true;
                segment.drop_live(offset);
                self.report(number, offset, length)?;
                segment.done(&self.folder, number, &[offset])?;
                continue;
            };
            let id = kept.message.get(name::UNIQUE_KEY).unwrap_or_default().to_owned();
            if !seen.insert((kept.number, kept.since_ms, id)) {
                // It was moved here by a process that died before it deleted the segment in which it was.
                segment.drop_live(offset);
                segment.done(&self.folder, number, &[offset])?;
                continue;
            }
            self.next_number = self.next_number.max(kept.number + 1);
            entries.push(Entry::of(&kept, Place { segment: number, offset, length }));
        }
        let is_empty = segment.count() == 0;
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
        let promised: u64 = self.segments.values().map(|segment| (segment.count() * DONE_BYTES) as u64).sum();
        segments + promised + self.failed.bytes() + self.damaged_bytes
    }

    /// Keeps messages, all of them with one flush for each segment that they go to. Each gets its number here.
    pub(super) fn append(&mut self, messages: &mut [Kept]) -> Vec<Result<Place, Refused>> {
        let mut gathered = Gathered::default();
        let mut count: usize = self.segments.values().map(Segment::count).sum();
        let mut used = self.bytes() + self.reserve();
        for kept in messages {
            kept.number = self.next_number;
            let payload = record::encode(kept);
            let length = (RECORD_HEADER_BYTES + payload.len()) as u64;
            let room = length + (DONE_BYTES + HEADER_BYTES) as u64;
            if room + self.reserve() > self.capacity {
                let reason = format!("it takes {room} bytes, and the spill may hold {}", self.capacity);
                gathered.results.push(Err(Refused::Full(reason)));
                continue;
            }
            if used + room > self.capacity || count >= RECORDS_MAX || length > SEGMENT_BYTES_MAX - HEADER_BYTES as u64 {
                gathered.results.push(Err(Refused::Full(format!(
                    "{count} messages and {used} bytes are in the spill, which may hold {RECORDS_MAX} and {}",
                    self.capacity
                ))));
                continue;
            }
            if self.gather(&payload, None, &mut gathered) {
                self.next_number += 1;
                count += 1;
                used += room;
            }
        }
        self.flush(&mut gathered);
        self.move_sparse();
        gathered.results
    }

    /// Bytes that are kept free, so that a segment can be moved in a spill that is full.
    fn reserve(&self) -> u64 {
        self.segment_bytes / 2
    }

    /// Puts a record behind those that were gathered for the current segment, or into another segment. Says whether it has a place.
    fn gather(&mut self, payload: &[u8], first: Option<(u64, u32)>, gathered: &mut Gathered) -> bool {
        let length = (RECORD_HEADER_BYTES + payload.len()) as u64;
        let end = self.current.map(|current| self.segments[&current].bytes + gathered.bytes.len() as u64);
        if end.is_none_or(|end| end > HEADER_BYTES as u64 && end + length > self.segment_bytes) {
            self.flush(gathered);
            if let Err(error) = self.begin() {
                gathered.results.push(Err(Refused::Disk { reason: error.to_string(), maybe_kept: false }));
                return false;
            }
        }
        let current = self.current.expect("a segment was begun");
        let segment = &self.segments[&current];
        let offset = (segment.bytes + gathered.bytes.len() as u64) as u32;
        gathered.bytes.extend(format::record(segment.salt, offset, payload));
        gathered.records.push((offset, Live { length: length as u32, first }));
        gathered.results.push(Ok(Place { segment: current, offset, length: length as u32 }));
        true
    }

    /// Moves what is not done out of segments that are done for the most part: one message that stays would keep the bytes of all
    /// those around it. Nothing is lost if the process dies here: for a while a record is there twice, which the next start finds.
    fn move_sparse(&mut self) {
        while let Some(number) = self.sparse() {
            if let Err(error) = self.move_out(number) {
                tracing::warn!(%error, number, "a segment of a spill that is nearly done cannot be moved; it stays as it is");
                return;
            }
        }
    }

    /// A segment to be moved, for which there is room.
    fn sparse(&self) -> Option<u64> {
        let mut others = self.segments.iter().filter(|(number, _)| Some(**number) != self.current);
        let sparse = others.find(|(_, segment)| segment.is_sparse() && !segment.is_damaged)?;
        // Another segment may have to be begun for it.
        let room = sparse.1.live_bytes() + (HEADER_BYTES + sparse.1.count() * DONE_BYTES) as u64;
        (self.bytes() + room <= self.capacity).then_some(*sparse.0)
    }

    fn move_out(&mut self, number: u64) -> io::Result<()> {
        let mut records = Vec::new();
        for (offset, Live { length, first }) in self.segments[&number].live() {
            let Some(payload) = self.segments[&number].read(offset, length)? else {
                // This tells of it. A segment that is damaged is a person's, and stays as it is.
                return self.read(Place { segment: number, offset, length }).map(drop);
            };
            records.push((offset, first.unwrap_or((number, offset)), payload));
        }
        let mut gathered = Gathered::default();
        for (_, first, payload) in &records {
            self.gather(payload, Some(*first), &mut gathered);
        }
        self.flush(&mut gathered);
        let Some(segment) = self.segments.get_mut(&number) else { return Ok(()) };
        let (mut left, mut ended) = (Vec::new(), Ok(()));
        for ((offset, first, _), result) in records.into_iter().zip(gathered.results) {
            match result {
                Ok(place) => {
                    self.moved.insert(first, place);
                    segment.drop_live(offset);
                    left.push(offset);
                }
                Err(Refused::Disk { reason, .. } | Refused::Full(reason)) => ended = Err(io::Error::other(reason)),
            }
        }
        if ended.is_err() {
            segment.done(&self.folder, number, &left)?;
        }
        self.delete_if_done(number);
        ended
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
    fn flush(&mut self, gathered: &mut Gathered) {
        let Gathered { bytes, records, results, from } = gathered;
        if bytes.is_empty() {
            return;
        }
        let number = self.current.expect("bytes are gathered for a segment");
        let segment = self.segments.get_mut(&number).expect("the current segment is there");
        match segment.append(bytes, self.sync) {
            Ok(()) => records.drain(..).for_each(|(offset, record)| segment.keep(offset, record)),
            Err((error, is_gone)) => {
                for result in results[*from..].iter_mut().filter(|result| result.is_ok()) {
                    *result = Err(Refused::Disk { reason: error.to_string(), maybe_kept: !is_gone });
                }
                self.current = None;
                self.delete_if_done(number);
            }
        }
        bytes.clear();
        records.clear();
        *from = results.len();
    }

    /// Where a record is now.
    fn now(&self, place: Place) -> Place {
        self.moved.get(&(place.segment, place.offset)).copied().unwrap_or(place)
    }

    /// The message of a record. `None` if it was damaged since; then it is in the failure log and done.
    pub(super) fn read(&mut self, place: Place) -> io::Result<Option<Kept>> {
        let place = self.now(place);
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
            let place = self.now(*place);
            offsets.entry(place.segment).or_default().push(place.offset);
        }
        let mut ended = Ok(());
        for (number, mut offsets) in offsets {
            let Some(segment) = self.segments.get_mut(&number) else { continue };
            offsets.retain(|offset| {
                let record = segment.drop_live(*offset);
                if let Some(first) = record.and_then(|record| record.first) {
                    self.moved.remove(&first);
                }
                record.is_some()
            });
            ended = ended.and(segment.done(&self.folder, number, &offsets));
            self.delete_if_done(number);
        }
        self.move_sparse();
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
        if segment.count() == 0 && (self.current != Some(number) || is_full) {
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

/// Records on their way into segments.
#[derive(Debug, Default)]
struct Gathered {
    /// Bytes for the current segment, and the records in them.
    bytes: Vec<u8>,
    records: Vec<(u32, Live)>,
    /// The results of all records; those from the number on depend on the next flush.
    results: Vec<Result<Place, Refused>>,
    from: usize,
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

    /// Every tenth message stays, the others are done. Answers the places of those that stay, by their names.
    fn mostly_done(store: &mut Store) -> Vec<(String, Place)> {
        let mut stay = Vec::new();
        for number in 0..300 {
            let name = format!("{number:03}");
            let place = store.append(&mut [kept(&name, 3_000)]).remove(0).expect("there is room");
            if number % 10 == 0 {
                stay.push((name, place));
            } else {
                store.done(&[place]).expect("noted");
            }
        }
        stay
    }

    #[test]
    fn messages_that_stay_keep_no_more_than_their_own_bytes_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = open(folder.path());
        let stay = mostly_done(&mut store);
        let live: u64 = stay.iter().map(|(_, place)| u64::from(place.length)).sum();
        let most = 2 * live + 2 * store.segment_bytes;
        assert!(store.bytes() <= most, "{} of {most}", store.bytes());
        for (name, place) in &stay {
            assert_eq!(&id(&store.read(*place).expect("readable").expect("it is there")), name);
        }
        // Those who know it by its first place are done with it, wherever it is.
        store.done(&[stay[0].1, stay[29].1]).expect("noted");
        let names: Vec<&String> = stay[1..29].iter().map(|(name, _)| name).collect();
        drop(store);
        let (mut store, entries) = open(folder.path());
        assert_eq!(ids(&mut store, &entries).iter().collect::<Vec<_>>(), names, "in their order");
        let places: Vec<Place> = entries.iter().map(|entry| entry.place).collect();
        store.done(&places).expect("noted");
        assert!(store.moved.is_empty());
        drop(store);
        assert!(open(folder.path()).1.is_empty());
    }

    #[test]
    fn a_death_between_a_move_and_its_end_leaves_each_message_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = open(folder.path());
        let (before, mut names) = (tempfile::tempdir().expect("a folder"), Vec::new());
        // Until a segment is moved; what the folder was like before each step is kept.
        let copy = || {
            for file in files(folder.path(), RECORDS).into_iter().chain(files(folder.path(), DONE)) {
                fs::copy(&file, before.path().join(file.file_name().expect("a name"))).expect("copied");
            }
        };
        for number in 0.. {
            let name = format!("{number:03}");
            let place = store.append(&mut [kept(&name, 3_000)]).remove(0).expect("there is room");
            copy();
            if number % 10 == 0 {
                names.push(name);
            } else {
                store.done(&[place]).expect("noted");
            }
            if !store.moved.is_empty() {
                break;
            }
        }
        // The copies hold the segment that is gone, and those that there are hold what was moved.
        for file in files(folder.path(), RECORDS) {
            fs::copy(&file, before.path().join(file.file_name().expect("a name"))).expect("copied");
        }
        let (mut store, entries) = open(before.path());
        let mut found = ids(&mut store, &entries);
        // The last step was not noted in the copy.
        found.retain(|name| name.ends_with('0'));
        assert_eq!(found, names);
        let places: Vec<Place> = entries.iter().map(|entry| entry.place).collect();
        store.done(&places).expect("noted");
        drop(store);
        assert!(open(before.path()).1.is_empty());
    }

    #[test]
    fn a_full_spill_is_moved_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = open(folder.path());
        let mut places = Vec::new();
        while let Ok(place) = store.append(&mut [kept(&places.len().to_string(), 3_000)]).remove(0) {
            places.push(place);
        }
        for (number, place) in places.iter().enumerate() {
            if number % 10 > 0 {
                store.done(&[*place]).expect("noted");
            }
            assert!(store.bytes() <= CAPACITY);
        }
        let again =
            (0..places.len() * 6 / 10).all(|number| store.append(&mut [kept(&number.to_string(), 3_000)])[0].is_ok());
        assert!(again && store.bytes() <= CAPACITY);
    }

    #[test]
    fn a_number_that_was_given_twice_is_no_message_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = open(folder.path());
        let places = append(&mut store, &["a", "b", "done"]);
        store.done(&[places[2]]).expect("noted");
        drop(store);
        let (mut store, _) = open(folder.path());
        append(&mut store, &["c"]);
        drop(store);
        // A power cut takes the notes of what is done.
        for file in files(folder.path(), DONE) {
            fs::remove_file(file).expect("removed");
        }
        let (mut store, entries) = open(folder.path());
        assert_eq!(ids(&mut store, &entries), ["a", "b", "done", "c"]);
        assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
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
