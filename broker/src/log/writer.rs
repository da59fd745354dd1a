//! The writer: takes all that is queued, writes once, flushes once, answers all.
//!
//! While a flush runs, appends queue up and form the next group: the slower the device, the larger the groups.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::files::{Active, Files};
use super::format::{Claim, SegmentHeader};
use super::segment::Segment;
use super::settings::Flush;
use super::shared::{Done, Frame, Front, Op, Shared};
use crate::latch::Failure;
use crate::planted::{Bug, planted};
use crate::terms::Position;

/// Groups larger than this are not prepared for by zero-filling: a flush of that size dwarfs what it saves.
const SMALL_GROUP_BYTES: u64 = 64 << 10;
/// Time between attempts to prepare a segment while the disk is full. An append that needs it does not wait.
const SPARE_RETRY: Duration = Duration::from_secs(1);
/// The name of the step that failed, as a noun, and the error.
type Failed = (&'static str, io::Error);

fn during(action: &'static str) -> impl FnOnce(io::Error) -> Failed {
    move |source| (action, source)
}

impl Shared {
    fn claim(&self) -> Claim {
        Claim { durable_end: Position(self.durable_end.load(Ordering::Acquire)), committed: self.committed() }
    }

    /// The writer thread: runs until the log is closed.
    pub(crate) fn run_writer(&self) {
        let _guard = FailOnPanic(self);
        let mut ops = VecDeque::new();
        loop {
            match self.wait_for_work(&mut ops) {
                Work::Stop => break,
                work => self.work(&work, &mut ops),
            }
        }
        self.end();
    }

    /// Does what the writer thread would do next. Says whether there was something to do.
    pub(crate) fn step(&self) -> bool {
        let mut ops = VecDeque::new();
        let next = self.next_work(&mut self.front.lock(), &mut ops);
        match next {
            None | Some(Work::Stop) => false,
            Some(work) => {
                self.work(&work, &mut ops);
                true
            }
        }
    }

    fn work(&self, work: &Work, ops: &mut VecDeque<Op>) {
        match work {
            Work::Ops => {
                self.run_ops(&mut self.files.lock(), ops, true);
                self.front.lock().writing = false;
            }
            Work::Flush => self.flush_beside(),
            Work::Stop => {}
        }
        self.prepare_spare();
    }

    /// The log is closed, and everything accepted is written: flushes, and leaves a mark.
    pub(crate) fn end(&self) {
        let mut files = self.files.lock();
        if !self.settings.latch.is_closed() {
            let epoch = self.front.lock().epoch;
            let end = files.active.as_ref().map_or(Position::ZERO, |active| active.written);
            match files.sync() {
                Ok(()) => self.note_durable(end, epoch),
                Err(source) => drop(self.fail(Failure::storage("flush", source), Vec::new())),
            }
            if !self.settings.latch.is_closed() {
                // Best effort: the log is closed and durable either way.
                let _ = files.mark(self.claim());
            }
        }
    }

    /// Waits for something to do.
    fn wait_for_work(&self, ops: &mut VecDeque<Op>) -> Work {
        let mut front = self.front.lock();
        loop {
            if let Some(work) = self.next_work(&mut front, ops) {
                return work;
            }
            match front.flush_due {
                Some(due) => {
                    let rest = due.saturating_sub(self.settings.clock.monotonic());
                    self.wake.wait_for(&mut front, rest);
                }
                None => self.wake.wait(&mut front),
            }
        }
    }

    /// Something to do, if there is; takes the writing role if it is operations.
    fn next_work(&self, front: &mut Front, ops: &mut VecDeque<Op>) -> Option<Work> {
        if front.flush_due.is_some_and(|due| self.settings.clock.monotonic() >= due) {
            front.flush_due = None;
            return Some(Work::Flush);
        }
        if front.writing {
            return None;
        }
        if !front.queue.is_empty() {
            front.writing = true;
            std::mem::swap(ops, &mut front.queue);
            return Some(Work::Ops);
        }
        front.closing.then_some(Work::Stop)
    }

    /// Called by an appender that took the writing role: writes what is queued on its own thread, as long as
    /// that needs neither a flush nor another file.
    pub(crate) fn drain_inline(&self) {
        let _guard = FailOnPanic(self);
        let mut files = self.files.lock();
        let mut ops = VecDeque::new();
        loop {
            let mut front = self.front.lock();
            while let Some(Op::Write { .. }) = front.queue.front() {
                ops.extend(front.queue.pop_front());
            }
            if ops.is_empty() {
                // The look at the queue and the end of the role are under one lock. With a gap between them an append
                // could be queued that nobody writes:
                //
                //   this thread                        an appender
                //   finds the queue empty
                //                                      queues its write, sees that the role is taken
                //                                      wakes the writer thread, which sees the same and waits
                //   ends the role, wakes nobody
                //
                // For operations that are left in the queue the writer is woken here: when they were queued, it woke
                // and found the role taken.
                front.writing = false;
                let for_the_writer = !front.queue.is_empty() || front.closing;
                drop(front);
                if for_the_writer {
                    self.wake.notify_one();
                }
                return;
            }
            drop(front);
            self.run_ops(&mut files, &mut ops, false);
        }
    }

    /// Executes operations in order and answers them. On an error the log fails.
    fn run_ops(&self, files: &mut Files, ops: &mut VecDeque<Op>, may_sync: bool) {
        let mut answers = Vec::with_capacity(ops.len());
        if let Err((action, source)) = self.try_ops(files, ops, may_sync, &mut answers) {
            answers.extend(ops.drain(..).filter_map(Op::into_done));
            self.fail(Failure::storage(action, source), answers);
        }
    }

    fn try_ops(
        &self,
        files: &mut Files,
        ops: &mut VecDeque<Op>,
        may_sync: bool,
        answers: &mut Vec<Done>,
    ) -> Result<(), Failed> {
        if let Some(failure) = self.settings.latch.failure() {
            // The flush beside this group failed, or another holder of the latch: nothing may be written after that.
            return Err(("writing", failure.to_io_error()));
        }
        let mut group = Group::default();
        while let Some(op) = ops.pop_front() {
            match op {
                Op::Write { frames, end, epoch, done } => {
                    group.bytes += frames.iter().map(|frame| frame.payload.len() as u64).sum::<u64>();
                    if group.frames.is_empty() {
                        group.frames = frames;
                    } else {
                        group.frames.extend(frames);
                    }
                    group.end = Some((end, epoch));
                    answers.extend(done);
                }
                Op::Sync { done } => {
                    group.must_sync = true;
                    answers.push(done);
                }
                Op::Roll { segment, spare, epoch } => {
                    self.finish(files, &mut group, true, answers)?;
                    let start = segment.start;
                    self.roll(files, segment, &spare).map_err(during("starting a segment"))?;
                    self.note_rolled(start, epoch);
                }
                Op::Vote { vote, done } => {
                    // Records queued before the vote are durable before it, in any flush mode: a vote without the
                    // membership that it was cast in would be a member of no group.
                    let finished = self.finish(files, &mut group, true, answers);
                    // Before the error: it is answered as well.
                    answers.push(done);
                    finished?;
                    let durable = self.claim().durable_end;
                    files.vote.save(vote, durable).map_err(during("saving the vote"))?;
                    answer(answers);
                }
                Op::Truncate { cut, keep, remove, epoch, done } => {
                    let sync = group.must_sync || self.syncs_each();
                    let finished = self.finish(files, &mut group, sync, answers);
                    answers.push(done);
                    finished?;
                    let kept = keep.as_ref().map_or(Position::ZERO, |segment| segment.start);
                    self.truncate(files, cut, keep, &remove).map_err(during("truncation"))?;
                    self.note_rolled(kept, epoch);
                    if self.front.lock().epoch == epoch {
                        self.written_end.store(cut.get(), Ordering::Release);
                    }
                    self.note_durable(cut, epoch);
                    answer(answers);
                }
            }
        }
        let sync = may_sync && (group.must_sync || self.syncs_each());
        let (small, wrote) = (group.bytes <= SMALL_GROUP_BYTES, group.end.is_some());
        self.finish(files, &mut group, sync, answers)?;
        if sync && wrote {
            if small && self.syncs_each() && self.settings.zero_ahead_bytes > 0 {
                files.zero_ahead(self.settings.zero_ahead_bytes).map_err(during("zero-filling"))?;
            }
            if self.front.lock().queue.is_empty() {
                files.mark(self.claim()).map_err(during("writing the mark"))?;
            }
        }
        Ok(())
    }

    /// Writes a group, flushes it if asked to, and answers it.
    fn finish(&self, files: &mut Files, group: &mut Group, sync: bool, answers: &mut Vec<Done>) -> Result<(), Failed> {
        // Looked at on the last line before the bytes go out.
        if let Some(broken) = files.gap(&group.frames) {
            return Err(("write", self.settings.latch.close(Failure::Broken(broken)).to_io_error()));
        }
        files.write(&group.frames, self.claim()).map_err(during("write"))?;
        if planted(Bug::AckBeforeFlush) {
            answer(answers);
        }
        group.frames.clear();
        if let Some((end, epoch)) = group.end {
            self.note_written(end, epoch, sync);
        }
        if sync {
            self.sync(files).map_err(during("flush"))?;
            if let Some((end, epoch)) = group.end.take() {
                self.note_durable(end, epoch);
            } else if let Some(active) = &files.active {
                let epoch = self.front.lock().epoch;
                self.note_durable(active.written.min(Position(self.written_end.load(Ordering::Acquire))), epoch);
            }
        }
        *group = Group::default();
        answer(answers);
        self.evict();
        Ok(())
    }

    fn sync(&self, files: &mut Files) -> io::Result<()> {
        let has_work = files.active.as_ref().is_some_and(|active| active.unsynced);
        if has_work { self.timed(|| files.sync()) } else { Ok(()) }
    }

    /// Flushes by `sync`, and counts how long that took.
    fn timed(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let began = self.settings.clock.monotonic();
        sync()?;
        self.flushes.record(self.settings.clock.monotonic().saturating_sub(began));
        Ok(())
    }

    fn note_written(&self, end: Position, epoch: u64, syncing: bool) {
        let mut front = self.front.lock();
        if front.epoch == epoch {
            self.written_end.store(end.get(), Ordering::Release);
        }
        if syncing {
            front.flush_due = None;
        } else if let Flush::Async { interval } = self.settings.flush
            && front.flush_due.is_none()
        {
            front.flush_due = Some(self.settings.clock.monotonic() + interval);
            drop(front);
            // The writer may be waiting without a deadline.
            self.wake.notify_one();
        }
    }

    /// The periodic flush. Runs without the writing role, so that appends go on meanwhile.
    fn flush_beside(&self) {
        let (end, epoch) = {
            let front = self.front.lock();
            (Position(self.written_end.load(Ordering::Acquire)), front.epoch)
        };
        // Only this thread changes which file is active, so nothing can roll or truncate during the flush.
        let file = {
            let mut files = self.files.lock();
            files.active.as_mut().map(|active| {
                active.unsynced = false;
                Arc::clone(&active.file)
            })
        };
        let Some(file) = file else { return };
        if let Err(source) = self.timed(|| file.sync_data()) {
            return drop(self.fail(Failure::storage("flush", source), Vec::new()));
        }
        self.note_durable(end, epoch);
        // Idle now: leave a mark, unless an appender is writing.
        let idle = {
            let mut front = self.front.lock();
            let idle = !front.writing && front.queue.is_empty() && front.flush_due.is_none();
            front.writing |= idle;
            idle
        };
        if idle {
            if let Err(source) = self.files.lock().mark(self.claim()) {
                self.fail(Failure::storage("writing the mark", source), Vec::new());
            }
            self.front.lock().writing = false;
        }
    }

    /// Starts a segment. Its predecessor is flushed already, and everything here is durable before the first
    /// record: a crash leaves either no such segment or an empty one with a good header.
    fn roll(&self, files: &mut Files, segment: Arc<Segment>, spare: &std::path::Path) -> io::Result<()> {
        let file = segment.file(&*self.disk)?;
        let header = SegmentHeader {
            start: segment.start,
            salt: segment.salt,
            previous: segment.previous,
            committed: self.committed(),
        };
        file.write_vectored_at(&[IoSlice::new(&header.encode())], 0)?;
        file.sync_data()?;
        self.disk.rename(spare, &segment.path)?;
        if !planted(Bug::SegmentNameUnsynced) {
            self.disk.sync_dir(&self.dir)?;
        }
        let file_len = file.len()?;
        if let Some(old) = files.active.take() {
            // Readers open it again if they need it.
            old.segment.close_file();
        }
        files.active =
            Some(Active { written: segment.start, zeroed: segment.start, file_len, unsynced: false, segment, file });
        Ok(())
    }

    /// Cuts the log at `cut`, in an order that leaves a prefix of the log after a crash at any point: the claim
    /// first, then whole segments from the newest on, then the end of the one that stays.
    fn truncate(
        &self,
        files: &mut Files,
        cut: Position,
        keep: Option<Arc<Segment>>,
        remove: &[Arc<Segment>],
    ) -> io::Result<()> {
        files.vote.lower_durable_end(cut)?;
        for segment in remove.iter().rev() {
            self.disk.remove(&segment.path)?;
            self.disk.sync_dir(&self.dir)?;
        }
        files.active = None;
        let Some(segment) = keep else { return Ok(()) };
        let file = segment.file(&*self.disk)?;
        let file_len = segment.offset_of(cut);
        // Cutting the file, and not overwriting it, makes this one step and leaves nothing of the old suffix. The next
        // record goes to a new segment.
        if !planted(Bug::SuffixRevived) {
            file.set_len(file_len)?;
        }
        file.sync_data()?;
        files.active = Some(Active { segment, file, written: cut, zeroed: cut, file_len, unsynced: false });
        Ok(())
    }

    /// Prepares the next segment's file while there is time, so that no append has to.
    fn prepare_spare(&self) {
        let (spare, reserve) = {
            let front = self.front.lock();
            if self.settings.latch.is_closed()
                || front.closing
                || front.last.is_none()
                || front.spare_retry.is_some_and(|retry| self.settings.clock.monotonic() < retry)
            {
                return;
            }
            let spare = front.spares.is_empty() && front.room < self.settings.segment_bytes / 2;
            (spare, self.settings.reserve_bytes > 0 && front.reserve.is_none())
        };
        // An append that needs the segment tries again and reports the error.
        let reserved = if reserve { self.make_reserve() } else { Ok(()) };
        let made =
            reserved.and_then(|()| if spare { self.make_spare(self.default_capacity()).map(Some) } else { Ok(None) });
        match made {
            Ok(spare) => self.front.lock().spares.extend(spare),
            Err(error) => {
                self.front.lock().spare_retry = Some(self.settings.clock.monotonic() + SPARE_RETRY);
                tracing::warn!(dir = %self.dir.display(), %error, "cannot prepare the next log segment");
            }
        }
    }
}

/// Records that are written and flushed together.
#[derive(Default)]
struct Group {
    frames: Vec<Frame>,
    bytes: u64,
    /// End of the newest record and the epoch in which it was queued.
    end: Option<(Position, u64)>,
    must_sync: bool,
}

enum Work {
    Ops,
    Flush,
    Stop,
}

fn answer(answers: &mut Vec<Done>) {
    for done in answers.drain(..) {
        done(Ok(()));
    }
}

/// A callback that panics would otherwise leave the writing role taken for ever.
struct FailOnPanic<'a>(&'a Shared);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let source = io::Error::other("a thread panicked while it was writing the log");
            self.0.fail(Failure::storage("writing", source), Vec::new());
        }
    }
}
