//! A disk in memory that does what real ones do at the worst moment.
//!
//! Every file has two contents: what a process sees, and what would be there after a power cut. Changes wait between
//! the two until a flush. A power cut ([`SimDisk::crash`]) keeps an arbitrary part of them:
//!
//! * A sector (512 bytes) is written whole or not at all; of several writes to one sector any earlier version
//!   may be the one that is kept. Sectors are independent, so writes are torn and reordered.
//! * A file's length changes in one step, in order with other changes of its length.
//! * Names change by a journal (any prefix) or, on other file systems, one by one (any subset), until the folder is
//!   flushed.
//! * A failed flush forgets: the process still sees its writes, a later flush reports success, and after a power
//!   cut they are gone.
//!
//! Operations that change something are counted, so that a test can cut the power at each one
//! ([`Faults::power_off_at`]). Randomness comes from seeds alone.

mod random;
mod recording;
mod world;

use parking_lot::Mutex;
use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::random::Random;
pub use self::recording::Replay;

use self::world::{Inode, NameChange, Operation, Step, World, power_is_off};
use super::disk::{Disk, DiskFile};

/// The faults that the disk shall have. Numbers count from 1, since the disk was made; `None` means never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The power goes off during this operation (see [`SimDisk::operations`]); it and everything after it fail.
    pub power_off_at: Option<u64>,
    /// This write of a file fails, having written a part.
    pub fail_write_at: Option<u64>,
    /// This flush of a file fails, and forgets what it should have flushed.
    pub fail_sync_at: Option<u64>,
    /// From this flush of a file on every flush fails, and forgets.
    pub fail_syncs_from: Option<u64>,
    /// Every read of a file fails with this error number.
    pub fail_reads: Option<i32>,
    /// Every opening of a file fails with this error number.
    pub fail_opens: Option<i32>,
    /// The disk's size in bytes; allocating and extending beyond it fails for want of space.
    pub capacity: Option<u64>,
}

/// A simulated disk. Clones share it.
#[derive(Clone, Default)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// A disk with these files, all of them durable.
    pub fn with(files: BTreeMap<PathBuf, Vec<u8>>) -> SimDisk {
        let mut world = World::default();
        for (path, content) in files {
            world.names.insert(path.clone(), world.inodes.len());
            world.durable_names.insert(path, world.inodes.len());
            world.inodes.push(Inode { visible: content.clone(), durable: content, pending: Vec::new() });
        }
        SimDisk { world: Arc::new(Mutex::new(world)) }
    }

    /// Plans faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world.lock().faults = faults;
    }

    /// Calls `meanwhile` during each flush of a file from now on: other work overtakes whatever does not wait for the flush.
    pub fn while_syncing(&self, meanwhile: impl Fn() + Send + Sync + 'static) {
        self.world.lock().while_syncing = Some(Arc::new(meanwhile));
    }

    /// The number of changing operations so far: writes, flushes, allocations, cuts, changes of names.
    pub fn operations(&self) -> u64 {
        self.world.lock().operations
    }

    /// The number of writes so far.
    pub fn writes(&self) -> u64 {
        self.world.lock().writes
    }

    /// The number of file flushes so far.
    pub fn syncs(&self) -> u64 {
        self.world.lock().syncs
    }

    /// Whether the planned power cut has happened.
    pub fn is_off(&self) -> bool {
        self.world.lock().off
    }

    /// Whether nothing is waiting for a flush.
    pub fn is_settled(&self) -> bool {
        let world = self.world.lock();
        world.pending_names.is_empty()
            && world.inodes.iter().all(|inode| inode.pending.is_empty() && inode.visible == inode.durable)
    }

    /// The disk as it is found after a power cut now. This one stays as it is, so that several seeds can be tried;
    /// seeds 0 and 1 keep nothing and everything of what was not flushed.
    #[must_use]
    pub fn crash(&self, seed: u64) -> SimDisk {
        let after = self.world.lock().crash(seed);
        SimDisk { world: Arc::new(Mutex::new(after)) }
    }

    /// An independent copy of the disk, as processes see it, without faults.
    #[must_use]
    pub fn fork(&self) -> SimDisk {
        let mut world = self.world.lock().clone();
        world.faults = Faults::default();
        world.off = false;
        world.while_syncing = None;
        world.locked.clear();
        SimDisk { world: Arc::new(Mutex::new(world)) }
    }

    /// Flips one bit of a file, durably, as a failing medium would.
    pub fn flip(&self, path: &Path, bit: usize) {
        let mut world = self.world.lock();
        let inode = world.names[path];
        let inode = &mut world.inodes[inode];
        for content in [&mut inode.visible, &mut inode.durable] {
            if let Some(byte) = content.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Replaces a file's content, durably.
    pub fn replace(&self, path: &Path, content: &[u8]) {
        let mut world = self.world.lock();
        let inode = world.names[path];
        world.inodes[inode] = Inode { visible: content.to_vec(), durable: content.to_vec(), pending: Vec::new() };
    }

    /// Deletes a file, durably.
    pub fn delete(&self, path: &Path) {
        let mut world = self.world.lock();
        world.names.remove(path);
        world.durable_names.remove(path);
    }

    /// The same files in another folder.
    #[must_use]
    pub fn moved(&self, from: &Path, to: &Path) -> SimDisk {
        let mut world = self.world.lock().clone();
        let moved = |names: &BTreeMap<PathBuf, usize>| {
            let place = |path: &PathBuf| path.strip_prefix(from).map_or_else(|_| path.clone(), |name| to.join(name));
            names.iter().map(|(path, inode)| (place(path), *inode)).collect()
        };
        world.names = moved(&world.names);
        world.durable_names = moved(&world.durable_names);
        world.pending_names.clear();
        SimDisk { world: Arc::new(Mutex::new(world)) }
    }

    /// All files as processes see them.
    pub fn image(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let world = self.world.lock();
        world.names.iter().map(|(path, inode)| (path.clone(), world.inodes[*inode].visible.clone())).collect()
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        // Folders exist by being named.
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let world = self.world.lock();
        world.faults.fail_opens.map_or(Ok(()), |number| Err(io::Error::from_raw_os_error(number)))?;
        let inode = world.find(path)?;
        Ok(Arc::new(SimFile { world: Arc::clone(&self.world), inode }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world.lock();
        let inode = world.change(|world| {
            let inode = world.inodes.len();
            world.execute(Operation::Name(NameChange::Link(path.into(), inode)));
            Ok(inode)
        })?;
        Ok(Arc::new(SimFile { world: Arc::clone(&self.world), inode }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.world.lock();
        let here = world.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.world.lock().change(|world| {
            world.find(path)?;
            world.execute(Operation::Name(NameChange::Unlink(path.into())));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.world.lock().change(|world| {
            let inode = world.find(from)?;
            world.execute(Operation::Name(NameChange::Rename { from: from.into(), to: to.into(), inode }));
            Ok(())
        })
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.world.lock().change(|world| {
            world.execute(Operation::SyncNames);
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut world = self.world.lock();
        if world.locked.iter().any(|locked| locked == path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        world.locked.push(path.into());
        Ok(Box::new(SimLock { world: Arc::clone(&self.world), path: path.into() }))
    }
}

struct SimLock {
    world: Arc<Mutex<World>>,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.world.lock().locked.retain(|locked| *locked != self.path);
    }
}

struct SimFile {
    world: Arc<Mutex<World>>,
    inode: usize,
}

impl DiskFile for SimFile {
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut data: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        let offset = offset as usize;
        let mut world = self.world.lock();
        let step = world.step()?;
        world.writes += 1;
        if world.faults.fail_write_at == Some(world.writes) {
            let part = world.random.below(data.len() as u64 + 1) as usize;
            data.truncate(part);
            world.execute(Operation::Write { inode: self.inode, offset, data });
            return Err(io::Error::other("the disk refused a write"));
        }
        match step {
            Step::Go => {
                world.check_space(self.inode, offset + data.len())?;
                world.execute(Operation::Write { inode: self.inode, offset, data });
                Ok(())
            }
            // Always pending: the crash decides which sectors made it.
            Step::Last { .. } => {
                world.execute(Operation::Write { inode: self.inode, offset, data });
                Err(power_is_off())
            }
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.world.lock();
        world.faults.fail_reads.map_or(Ok(()), |number| Err(io::Error::from_raw_os_error(number)))?;
        let content = &world.inodes[self.inode].visible;
        let from = content.len().min(offset as usize);
        let len = buffer.len().min(content.len() - from);
        buffer[..len].copy_from_slice(&content[from..from + len]);
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let meanwhile = self.world.lock().while_syncing.clone();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let mut world = self.world.lock();
        world.syncs += 1;
        let syncs = world.syncs;
        let fails =
            world.faults.fail_sync_at == Some(syncs) || world.faults.fail_syncs_from.is_some_and(|from| from <= syncs);
        if !world.off && fails {
            world.execute(Operation::FailedSync { inode: self.inode });
            return Err(io::Error::other("the disk refused a flush"));
        }
        world.change(|world| {
            world.execute(Operation::Sync { inode: self.inode });
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.world.lock().change(|world| {
            world.check_space(self.inode, len as usize)?;
            if world.inodes[self.inode].visible.len() < len as usize {
                world.execute(Operation::Length { inode: self.inode, len: len as usize });
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.world.lock().change(|world| {
            world.check_space(self.inode, len as usize)?;
            world.execute(Operation::Length { inode: self.inode, len: len as usize });
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.world.lock().inodes[self.inode].visible.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(disk: &SimDisk) -> (PathBuf, Arc<dyn DiskFile>) {
        let path = PathBuf::from("/d/file");
        let file = disk.create(&path).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        (path, file)
    }

    fn write(file: &dyn DiskFile, offset: u64, byte: u8, len: usize) {
        file.write_vectored_at(&[IoSlice::new(&vec![byte; len])], offset).unwrap();
    }

    #[test]
    fn only_flushed_bytes_are_sure_to_survive() {
        let disk = SimDisk::new();
        let (path, file) = file(&disk);
        write(&*file, 0, 1, 1024);
        file.sync_data().unwrap();
        write(&*file, 0, 2, 1024);
        assert_eq!(disk.crash(0).image()[&path], vec![1; 1024]);
        assert_eq!(disk.crash(1).image()[&path], vec![2; 1024]);
        let mut torn = 0;
        for seed in 2..40 {
            let content = disk.crash(seed).image()[&path].clone();
            assert!(content.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            torn += usize::from(content[0] != content[1023]);
        }
        assert!(torn > 0, "some crash tears the write");
    }

    #[test]
    fn a_failed_flush_forgets_and_the_next_one_lies() {
        let disk = SimDisk::new();
        let (path, file) = file(&disk);
        disk.set_faults(Faults { fail_sync_at: Some(1), ..Faults::default() });
        write(&*file, 0, 1, 10);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(disk.image()[&path], vec![1; 10]);
        assert_eq!(disk.crash(1).image()[&path], Vec::<u8>::new());
    }

    #[test]
    fn names_are_lost_unless_the_folder_was_flushed() {
        let disk = SimDisk::new();
        let (path, _) = file(&disk);
        disk.rename(&path, Path::new("/d/other")).unwrap();
        assert!(disk.crash(0).image().contains_key(&path));
        assert!(disk.crash(1).image().contains_key(Path::new("/d/other")));
        assert_eq!(disk.list(Path::new("/d")).unwrap(), ["other"]);
    }

    #[test]
    fn the_power_goes_off_once_and_stays_off() {
        let disk = SimDisk::new();
        let (path, file) = file(&disk);
        disk.set_faults(Faults { power_off_at: Some(disk.operations() + 2), ..Faults::default() });
        write(&*file, 0, 1, 10);
        file.write_vectored_at(&[IoSlice::new(&[2; 10])], 10).unwrap_err();
        file.sync_data().unwrap_err();
        disk.remove(&path).unwrap_err();
        assert!(disk.is_off());
        assert_eq!(disk.crash(1).image()[&path].len(), 20, "the last write may have happened");
        assert_eq!(disk.crash(0).image()[&path].len(), 0);
    }

    #[test]
    fn a_full_disk_refuses_growth_only() {
        let disk = SimDisk::new();
        let (_, file) = file(&disk);
        disk.set_faults(Faults { capacity: Some(1000), ..Faults::default() });
        file.allocate(1000).unwrap();
        assert_eq!(file.allocate(1001).unwrap_err().kind(), io::ErrorKind::StorageFull);
        write(&*file, 990, 1, 10);
        assert!(file.write_vectored_at(&[IoSlice::new(&[1])], 1000).is_err());
    }
}
