//! Changing the log: append, vote, truncate, purge.
//!
//! Appending assigns positions and makes records readable; the bytes follow in the background. Space is
//! allotted before a record is accepted: an accepted record never fails for want of room.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Log;
use super::disk::is_no_space;
use super::error::{AppendError, TruncateError};
use super::format::{
    Link, MARK_SLACK_BYTES, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RECORD_VERSION, RecordHeader, SEGMENT_HEADER_BYTES,
    segment_path,
};
use super::record::{NewRecord, Record, RecordId};
use super::segment::{Segment, SegmentPlace};
use super::settings::{Drive, Room};
use super::shared::{Done, Frame, Front, Op, Shared, Spare};
use super::view::View;
use super::vote::VOTE_BYTES_MAX;
use crate::latch::Failure;
use crate::terms::{LogIndex, Position, to_u32, to_usize};

impl Log {
    /// Appends records at the end of the log and returns the position of the first one (the log's end if there
    /// is none); each next one begins where its predecessor ends, see [`NewRecord::bytes`].
    ///
    /// The records are readable when this returns. `done` is called once, in the order of appends: after the
    /// flush, or with [`Flush::Async`](super::Flush::Async) after the write; from the writer thread or from within
    /// this call. It must neither block nor panic; it may call the log. On an error nothing is appended and `done`
    /// is dropped.
    ///
    /// Never waits for the disk, except that it may create the next segment's file (well below a
    /// millisecond) if the writer thread has not yet, and with `Async` writes into the page cache.
    pub fn append(
        &self,
        records: Vec<NewRecord>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> Result<Position, AppendError> {
        self.shared.append(records, None, Box::new(done))
    }

    /// Like [`Log::append`], for a replica: `position` is where the first record begins in the leader's log.
    /// Fails with [`AppendError::WrongPosition`] unless this log ends there, and with [`AppendError::Diverged`] if a record
    /// whose checksum is given would get another one.
    pub fn append_at(
        &self,
        position: Position,
        records: Vec<NewRecord>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> Result<Position, AppendError> {
        self.shared.append(records, Some(position), Box::new(done))
    }

    /// Makes sure that the next records appended, which take these numbers of bytes (see [`NewRecord::bytes`]) and come
    /// in this order, will not run out of space. For callers that must not fail once they have decided to append.
    /// Records for which `reserve` was called earlier and that were not appended yet must be among them.
    pub fn reserve(&self, records: &[u64], room: Room) -> Result<(), AppendError> {
        loop {
            let needed = {
                let front = self.shared.front.lock();
                front.check(&self.shared.settings.latch)?;
                match front.plan(records.iter().copied()) {
                    Ok(()) => return Ok(()),
                    Err(needed) => needed,
                }
            };
            self.shared.provide(&needed, room)?;
        }
    }

    /// The bytes of records that a segment takes.
    pub fn segment_capacity(&self) -> u64 {
        self.shared.default_capacity()
    }

    /// Whether the next records, which take these numbers of bytes, have their space set aside already.
    pub fn has_room(&self, records: &[u64]) -> bool {
        self.shared.front.lock().plan(records.iter().copied()).is_ok()
    }

    /// Prepares what a disk that was full lacks: the reserve, and room for the next records. An error says that there is
    /// no room yet. Does nothing if all is there. Call it where blocking is allowed.
    pub fn replenish(&self) -> Result<(), AppendError> {
        let shared = &*self.shared;
        let lacks_reserve = {
            let front = shared.front.lock();
            front.check(&shared.settings.latch)?;
            shared.settings.reserve_bytes > 0 && front.reserve.is_none()
        };
        if lacks_reserve {
            shared.make_reserve()?;
        }
        let lacks_spare = {
            let front = shared.front.lock();
            front.spares.is_empty() && front.room < shared.default_capacity() / 2
        };
        if lacks_spare {
            let spare = shared.make_spare(shared.default_capacity())?;
            shared.front.lock().spares.push_back(spare);
        }
        Ok(())
    }

    /// Saves the Raft vote, at most 4060 bytes. It is flushed in the log's own order: after the records
    /// appended before, and before those appended later. `done` is always called once.
    pub fn save_vote(&self, vote: Vec<u8>, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        if vote.len() > VOTE_BYTES_MAX {
            let why = format!("a vote of {} bytes is larger than {VOTE_BYTES_MAX}", vote.len());
            return done(Err(io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        let saved = vote.clone();
        self.shared.enqueue(Op::Vote { vote, done: Box::new(done) }, |front| front.vote = Some(saved));
    }

    /// Flushes everything appended so far. `done` is always called once, after everything queued before it.
    pub fn sync(&self, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.shared.enqueue(Op::Sync { done: Box::new(done) }, |_| ());
    }

    /// Flushes everything appended so far, and waits for it. Blocks; not from within a callback of the log.
    pub fn sync_wait(&self) -> io::Result<()> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.sync(move |result| {
            // The receiver waits below.
            let _ = sender.send(result);
        });
        if self.is_stepped() {
            while self.step() {}
            return receiver.try_recv().unwrap_or_else(|_| Err(io::Error::other("a flush that no step answers")));
        }
        receiver.recv().unwrap_or_else(|_| Err(io::Error::other(AppendError::Closed)))
    }

    /// With [`Drive::Step`]: does the writer's next piece of work. Says whether there was any. Runs callbacks of the log.
    pub fn step(&self) -> bool {
        self.is_stepped() && self.shared.step()
    }

    /// Calls `done` once everything before `position` is durable; at once if it is. Does not cause a flush.
    pub fn when_durable(&self, position: Position, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        if self.durable_end() >= position {
            return done(Ok(()));
        }
        let refused = {
            let mut front = self.shared.front.lock();
            match front.check(&self.shared.settings.latch) {
                // Looked at again under the lock, as the flush reports under it.
                Ok(()) | Err(AppendError::Closed) if self.durable_end() >= position => None,
                Ok(()) => {
                    front.waiters.push((position, Box::new(done)));
                    return;
                }
                Err(error) => Some(error),
            }
        };
        done(refused.map_or(Ok(()), |error| Err(io::Error::other(error))));
    }

    /// Cuts off all records after `index`, or all that there are if `None`. They are gone for readers when
    /// this returns; `done` is called when that is durable, and all that remains. On an error nothing is cut and `done` is dropped.
    pub fn truncate_after(
        &self,
        index: Option<LogIndex>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> Result<(), TruncateError> {
        self.shared.truncate_after(index, Box::new(done))
    }

    /// Whether each append is answered after its flush.
    pub fn flushes_each(&self) -> bool {
        self.shared.syncs_each()
    }

    /// Deletes the segments whose records all have an index of at most `index`; never the newest segment. Returns
    /// the last purged record, which may be an older one. Deletes files: call it where blocking is allowed.
    pub fn purge_upto(&self, index: LogIndex) -> io::Result<Option<RecordId>> {
        self.shared.purge_upto(index)?;
        Ok(self.purged())
    }
}

/// The current segment has no room for a record of so many bytes, and no spare takes it.
struct SpareNeeded {
    bytes: u64,
}

impl Shared {
    fn append(&self, records: Vec<NewRecord>, at: Option<Position>, done: Done) -> Result<Position, AppendError> {
        for record in &records {
            if record.bytes() > RECORD_BYTES_MAX {
                return Err(AppendError::TooLarge { bytes: record.bytes(), limit: RECORD_BYTES_MAX });
            }
        }
        // The expensive part of the checksums, before any lock.
        let payload_crcs: Vec<u32> = records.iter().map(|record| crc32fast::hash(&record.payload)).collect();
        let mut front = loop {
            let front = self.front.lock();
            front.check(&self.settings.latch)?;
            front.check_order(&records, at)?;
            front.check_chain(&records, &payload_crcs)?;
            match front.plan(records.iter().map(NewRecord::bytes)) {
                Ok(()) => break front,
                Err(needed) => {
                    drop(front);
                    self.provide(&needed, Room::Reserve)?;
                }
            }
        };
        let first = front.end;
        let ops = self.accept(&mut front, records, &payload_crcs, done);
        // Without a flush to wait for, and with nobody writing, this thread is the fastest writer there is.
        let inline = !front.writing && front.queue.is_empty() && ops.len() == 1 && !self.syncs_each();
        front.queue.extend(ops);
        if inline {
            front.writing = true;
            drop(front);
            self.drain_inline();
        } else {
            drop(front);
            self.wake.notify_one();
        }
        Ok(first)
    }

    /// Gives the records their positions and checksums, shows them to readers, and returns what is to be written.
    fn accept(&self, front: &mut Front, records: Vec<NewRecord>, payload_crcs: &[u32], done: Done) -> Vec<Op> {
        let epoch = front.epoch;
        let mut ops = Vec::with_capacity(1);
        let mut frames = Vec::with_capacity(records.len());
        let mut view = self.view.write();
        for (new, payload_crc) in records.into_iter().zip(payload_crcs) {
            let bytes = new.bytes();
            if bytes > front.room {
                if !frames.is_empty() {
                    let frames = std::mem::take(&mut frames);
                    ops.push(Op::Write { frames, end: front.end, epoch, done: None });
                }
                let at = front.fitting(bytes, &[]).expect("the plan found enough spares");
                let spare = front.spares.remove(at).expect("it was found there");
                ops.push(self.start_segment(front, &mut view, spare, new.index));
            }
            let (header, crc) = header_at(&new, front.end, front.last).encode(*payload_crc);
            frames.push(Frame { position: front.end, header, payload: new.payload.clone() });
            let record = Record {
                term: new.term,
                index: new.index,
                kind: new.kind,
                position: front.end,
                crc,
                payload: new.payload,
            };
            view.segments.last().expect("records lie in a segment").note(new.index, front.end);
            front.last = Some(Link { term: new.term, index: new.index, position: front.end, crc });
            front.end = record.end();
            front.room -= bytes;
            view.tail.push(record);
        }
        view.last = front.last;
        view.end = front.end;
        ops.push(Op::Write { frames, end: front.end, epoch, done: Some(done) });
        ops
    }

    /// A number that nobody outside can foresee; see the salt in [`super::format`].
    fn salt(&self, start: Position) -> u64 {
        match self.settings.drive {
            Drive::Thread => RandomState::new().hash_one(start.get()),
            Drive::Step { seed } => BuildHasherDefault::<DefaultHasher>::default().hash_one((seed, start)),
        }
    }

    fn start_segment(&self, front: &mut Front, view: &mut View, spare: Spare, first_index: LogIndex) -> Op {
        let place = SegmentPlace {
            start: front.end,
            previous: front.last,
            salt: self.salt(front.end),
            first_index,
            path: segment_path(&self.dir, front.end),
        };
        front.room = spare.capacity;
        let segment = Arc::new(Segment::fresh(place, spare.file));
        // An empty segment (all its records were cut off, or never came) has this very start and file name: the new
        // file replaces it.
        if view.segments.last().is_some_and(|last| last.start == segment.start) {
            view.segments.pop();
        }
        view.segments.push(Arc::clone(&segment));
        Op::Roll { segment, spare: spare.path, epoch: front.epoch }
    }

    /// Puts an operation into the queue, or answers it if the log takes none.
    fn enqueue(&self, op: Op, accepted: impl FnOnce(&mut Front)) {
        let mut front = self.front.lock();
        match front.check(&self.settings.latch) {
            Ok(()) => {
                accepted(&mut front);
                front.queue.push_back(op);
                drop(front);
                self.wake.notify_one();
            }
            Err(error) => {
                drop(front);
                if let Some(done) = op.into_done() {
                    done(Err(io::Error::other(error)));
                }
            }
        }
    }

    /// The bytes of records that a segment of the configured size takes.
    pub(crate) fn default_capacity(&self) -> u64 {
        self.settings.segment_bytes - SEGMENT_HEADER_BYTES - MARK_SLACK_BYTES
    }

    /// Adds the spare that a plan lacks; from the reserve if there is no other room and that is allowed.
    fn provide(&self, needed: &SpareNeeded, room: Room) -> Result<(), AppendError> {
        let made = self.make_spare(self.default_capacity().max(needed.bytes));
        let mut front = self.front.lock();
        let spare = match made {
            Err(AppendError::NoSpace { .. })
                if room == Room::Reserve
                    && front.reserve.as_ref().is_some_and(|reserve| reserve.capacity >= needed.bytes) =>
            {
                tracing::warn!(dir = %self.dir.display(), "no space for a log segment: using the reserve");
                front.reserve.take().expect("looked at under this lock")
            }
            made => made?,
        };
        front.spares.push_back(spare);
        Ok(())
    }

    /// Sets space aside for what must pass when the disk is full.
    pub(crate) fn make_reserve(&self) -> Result<(), AppendError> {
        let reserve = self.make_spare(self.settings.reserve_bytes)?;
        let mut front = self.front.lock();
        match &front.reserve {
            None => front.reserve = Some(reserve),
            // Somebody was faster: one more spare does no harm.
            Some(_) => front.spares.push_back(reserve),
        }
        Ok(())
    }

    /// Creates and preallocates a file for a future segment.
    pub(crate) fn make_spare(&self, capacity: u64) -> Result<Spare, AppendError> {
        let nth = self.spare_count.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{SPARE_PREFIX}{nth}"));
        let bytes = SEGMENT_HEADER_BYTES + capacity + MARK_SLACK_BYTES;
        let created = self.disk.create(&path);
        let result = created.and_then(|file| file.allocate(bytes).map(|()| file));
        match result {
            Ok(file) => Ok(Spare { path, file, capacity }),
            Err(error) => {
                // Gives back what was allocated; if even that fails the next start removes the file.
                let _ = self.disk.remove(&path);
                if is_no_space(&error) {
                    return Err(AppendError::NoSpace { bytes });
                }
                Err(AppendError::Failed(self.fail(Failure::storage("creating a segment file", error), Vec::new())))
            }
        }
    }

    fn truncate_after(&self, after: Option<LogIndex>, done: Done) -> Result<(), TruncateError> {
        let link = self.link_of(after)?;
        let mut front = self.front.lock();
        front.check(&self.settings.latch).map_err(refused)?;
        if front.last.map(|last| last.index) == after {
            // Nothing to cut. Flushed all the same: the answer says that the log up to here is durable.
            front.queue.push_back(Op::Sync { done });
            drop(front);
            self.wake.notify_one();
            return Ok(());
        }
        let mut view = self.view.write();
        let cut = match link {
            Some((_, end)) => end,
            None => view.first_position(),
        };
        front.epoch += 1;
        front.last = link.map(|(link, _)| link);
        front.end = cut;
        front.room = 0;
        view.epoch = front.epoch;
        view.last = front.last;
        view.end = cut;
        view.tail.cut(cut);
        let mut remove = Vec::new();
        while view.segments.len() > 1 && view.segments.last().is_some_and(|last| last.start >= cut) {
            remove.extend(view.segments.pop());
        }
        remove.reverse();
        let keep = view.segments.last().cloned();
        if let Some(segment) = &keep {
            segment.cut(cut);
            // Purging sees this together with the view: it must not delete what the truncation is to keep.
            self.rolled.fetch_min(segment.start.get(), Ordering::AcqRel);
        }
        drop(view);
        self.written_end.fetch_min(cut.get(), Ordering::AcqRel);
        self.durable_end.fetch_min(cut.get(), Ordering::AcqRel);
        let epoch = front.epoch;
        let lost: Vec<Done> =
            front.waiters.extract_if(.., |(position, _)| *position > cut).map(|(_, done)| done).collect();
        front.queue.push_back(Op::Truncate { cut, keep, remove, epoch, done });
        drop(front);
        self.wake.notify_one();
        for done in lost {
            done(Err(io::Error::new(io::ErrorKind::Interrupted, "the records were cut off")));
        }
        Ok(())
    }

    /// The record with this index, for the next one to chain to, and where it ends. `None` for the beginning.
    fn link_of(&self, after: Option<LogIndex>) -> Result<Option<(Link, Position)>, TruncateError> {
        let view = self.view.read();
        if let Some(committed) = self.committed().filter(|committed| after < Some(*committed)) {
            return Err(TruncateError::Committed { after, committed });
        }
        let out_of_range =
            TruncateError::OutOfRange { after, first: view.first_index(), last: view.last.map(|last| last.index) };
        let purged = view.segments.first().and_then(|segment| segment.previous);
        let Some(index) = after else {
            return if purged.is_none() { Ok(None) } else { Err(out_of_range) };
        };
        let last = view.last.ok_or_else(|| out_of_range.clone())?;
        if index == last.index {
            return Ok(Some((last, view.end)));
        }
        if let Some(purged) = purged.filter(|purged| purged.index == index) {
            return Ok(Some((purged, view.first_position())));
        }
        if index < view.first_index() || index > last.index {
            return Err(out_of_range);
        }
        if let Some(record) = view.tail.get(index) {
            let link = Link { term: record.term, index, position: record.position, crc: record.crc };
            return Ok(Some((link, record.end())));
        }
        // Old enough to be in a file: the next record's place tells where this one ends.
        let (segment, end) = view.segment_of(index).expect("an index that is held lies in a segment");
        drop(view);
        let header = self
            .header_of(&segment, end, index)
            .map_err(|source| TruncateError::Failed(Failure::storage("reading", source)))?;
        Ok(Some((header.link(), header.position.advance(u64::from(header.length)))))
    }

    /// Reads one record's header from its segment.
    fn header_of(&self, segment: &Segment, end: Position, index: LogIndex) -> io::Result<RecordHeader> {
        let file = segment.file(&*self.disk)?;
        let (mut at, mut position) = segment.near(&*self.disk, index, end)?;
        loop {
            let mut bytes = [0; to_usize(RECORD_HEADER_BYTES)];
            let read = file.read_at(&mut bytes, segment.offset_of(position))?;
            let header = RecordHeader::decode(&bytes);
            if read < bytes.len() || header.position != position || header.index != at || !header.length_is_plausible()
            {
                return Err(segment.damaged(position, "no record where one should begin"));
            }
            if at == index {
                return Ok(header);
            }
            at += 1;
            position = position.advance(u64::from(header.length));
        }
    }

    fn purge_upto(&self, index: LogIndex) -> io::Result<()> {
        let _purging = self.purging.lock();
        loop {
            let segment = {
                let mut view = self.view.write();
                let rolled = Position(self.rolled.load(Ordering::Acquire));
                // The next segment remembers the last purged record, so it must be on disk, by name and content.
                let complete = view
                    .segments
                    .get(1)
                    .is_some_and(|next| next.start <= rolled && next.previous.is_some_and(|last| last.index <= index));
                if !complete {
                    return Ok(());
                }
                view.segments.remove(0)
            };
            // One that somebody moved away is gone already, which is what is wanted.
            self.disk.remove(&segment.path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            // Each by itself: if a later deletion could survive a crash without this one, there would be a hole.
            self.disk.sync_dir(&self.dir)?;
        }
    }
}

impl Front {
    fn check_order(&self, records: &[NewRecord], at: Option<Position>) -> Result<(), AppendError> {
        if let (Some(given), Some(first)) = (at, records.first())
            && given != self.end
        {
            return Err(AppendError::WrongPosition { index: first.index, given, end: self.end });
        }
        let mut last = self.last.map(|last| RecordId { term: last.term, index: last.index });
        for record in records {
            if let Some(last) = last
                && (record.index != last.index.next() || record.term < last.term)
            {
                return Err(AppendError::OutOfOrder {
                    term: record.term,
                    index: record.index,
                    last_term: last.term,
                    last_index: last.index,
                });
            }
            last = Some(RecordId { term: record.term, index: record.index });
        }
        Ok(())
    }

    /// Whether the records get the checksums that they have in the leader's log.
    fn check_chain(&self, records: &[NewRecord], payload_crcs: &[u32]) -> Result<(), AppendError> {
        let (mut end, mut last) = (self.end, self.last);
        for (record, payload_crc) in records.iter().zip(payload_crcs) {
            let Some(given) = record.crc else { continue };
            let (_, crc) = header_at(record, end, last).encode(*payload_crc);
            if crc != given {
                return Err(AppendError::Diverged { index: record.index, position: end });
            }
            last = Some(Link { term: record.term, index: record.index, position: end, crc });
            end = end.advance(record.bytes());
        }
        Ok(())
    }

    /// Whether the records fit into the current segment and the spares, in that order.
    fn plan(&self, records: impl Iterator<Item = u64>) -> Result<(), SpareNeeded> {
        let mut room = self.room;
        let mut taken = Vec::new();
        for bytes in records {
            if bytes > room {
                let at = self.fitting(bytes, &taken).ok_or(SpareNeeded { bytes })?;
                room = self.spares[at].capacity;
                taken.push(at);
            }
            room -= bytes;
        }
        Ok(())
    }

    /// The spare that a record of so many bytes begins: the smallest that is large enough and is not taken. A larger one may be there
    /// for another record, which room was promised to, and records before that one may be cut off or never come.
    fn fitting(&self, bytes: u64, taken: &[usize]) -> Option<usize> {
        let fits = |(at, spare): &(usize, &Spare)| spare.capacity >= bytes && !taken.contains(at);
        self.spares.iter().enumerate().filter(fits).min_by_key(|(_, spare)| spare.capacity).map(|(at, _)| at)
    }
}

/// The header of a record that begins at `position`, after `last`.
fn header_at(record: &NewRecord, position: Position, last: Option<Link>) -> RecordHeader {
    RecordHeader {
        length: to_u32(to_usize(record.bytes())),
        crc: 0,
        previous_crc: last.map_or(0, |last| last.crc),
        term: record.term,
        index: record.index,
        position,
        version: RECORD_VERSION,
        kind: record.kind,
    }
}

/// File names of spares begin with this; they are removed when the log is opened.
pub(crate) const SPARE_PREFIX: &str = "spare-";

fn refused(error: AppendError) -> TruncateError {
    match error {
        AppendError::Failed(failure) => TruncateError::Failed(failure),
        _ => TruncateError::Closed,
    }
}
