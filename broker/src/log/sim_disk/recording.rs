//! The operations of a disk, kept to be looked at afterwards: one run of a workload, a power cut at each of its
//! operations.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use parking_lot::Mutex;

use super::world::{Operation, Recording, World};
use super::{Random, SimDisk};

/// Goes through what was done to a disk, from its beginning on.
pub struct Replay {
    world: World,
    operations: std::vec::IntoIter<(u64, Operation)>,
    next: Option<(u64, Operation)>,
}

impl SimDisk {
    /// Remembers from now on all that is done to this disk.
    pub fn record(&self) {
        let mut world = self.world.lock();
        world.recording = None;
        let mut start = Box::new(world.clone());
        start.locked.clear();
        start.while_syncing = None;
        world.recording = Some(Recording { start, operations: Vec::new() });
    }

    /// A hash of all that was done since [`record`](Self::record), in its order, with every byte; 0 without a recording.
    pub fn digest(&self) -> u64 {
        let world = self.world.lock();
        let hash =
            |recording: &Recording| BuildHasherDefault::<DefaultHasher>::default().hash_one(&recording.operations);
        world.recording.as_ref().map_or(0, hash)
    }

    /// The operations since [`record`](Self::record).
    ///
    /// # Panics
    /// If nothing is being recorded.
    pub fn replay(&self) -> Replay {
        let recording = self.world.lock().recording.clone().expect("a disk that records");
        let mut replay = Replay { world: *recording.start, operations: recording.operations.into_iter(), next: None };
        replay.next = replay.operations.next();
        replay
    }
}

impl Replay {
    /// The number of the operation that comes next, as [`SimDisk::operations`] counts.
    pub fn next_operation(&self) -> Option<u64> {
        self.next.as_ref().map(|(number, _)| *number)
    }

    /// The disk as it is found if the power goes off during the next operation; seeds as for [`SimDisk::crash`].
    #[must_use]
    pub fn cut(&self, seed: u64) -> SimDisk {
        let mut world = self.world.clone();
        match &self.next {
            // A write waits for a flush, so that the crash decides which of its sectors are kept.
            Some((_, write @ Operation::Write { .. })) => world.perform(write),
            Some((_, operation)) if Random::new(seed ^ 0x5EED).below(2) == 0 => world.perform(operation),
            _ => {}
        }
        SimDisk { world: Arc::new(Mutex::new(world.crash(seed))) }
    }

    /// The disk as the next process finds it if this one dies before the next operation.
    #[must_use]
    pub fn kill(&self) -> SimDisk {
        SimDisk { world: Arc::new(Mutex::new(self.world.clone())) }
    }

    /// Goes past the next operation.
    pub fn advance(&mut self) {
        if let Some((_, operation)) = self.next.take() {
            self.world.perform(&operation);
            self.world.forget_unnamed();
        }
        self.next = self.operations.next();
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;

    use super::*;
    use crate::log::Disk as _;

    #[test]
    fn a_replay_passes_the_same_states() {
        let disk = SimDisk::new();
        disk.record();
        let mut states = vec![disk.image()];
        let file = disk.create(Path::new("/d/file")).unwrap();
        states.push(disk.image());
        for byte in 1..=3 {
            file.write_vectored_at(&[IoSlice::new(&[byte; 700])], 300 * u64::from(byte)).unwrap();
            states.push(disk.image());
            file.sync_data().unwrap();
            states.push(disk.image());
        }
        disk.sync_dir(Path::new("/d")).unwrap();
        states.push(disk.image());
        let mut replay = disk.replay();
        for (done, state) in (0..).zip(&states) {
            assert_eq!(replay.next_operation(), (done < 8).then_some(done + 1));
            assert_eq!(&replay.kill().image(), state);
            // Nothing but what is flushed, names included: they are flushed last of all.
            assert!(done == 8 || replay.cut(0).image().is_empty() || done == 7);
            replay.advance();
        }
        assert_eq!(replay.cut(0).image(), states[8]);
    }
}
