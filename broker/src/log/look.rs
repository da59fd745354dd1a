//! A disk that is read and never written.
//!
//! Opening a log repairs what a crash left: it rewrites the vote, cuts a torn tail, removes leftovers. On this disk all
//! of that seems to happen and nothing is changed, so that tools can open the log of a stopped broker and read it.

use std::any::Any;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::disk::{Disk, DiskFile, files_in, read_whole};

/// The machine's file system, read only: writes, cuts, renames and removals succeed and do nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct LookingDisk;

impl Disk for LookingDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LookedAt(File::open(path)?)))
    }

    fn create(&self, _path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Nowhere(AtomicU64::new(0))))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        files_in(dir)
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// A missing lock file is not created: nobody can have locked it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        match File::open(path) {
            Ok(file) => {
                flock(&file, FlockOperation::NonBlockingLockExclusive)?;
                Ok(Box::new(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(())),
            Err(error) => Err(error),
        }
    }
}

struct LookedAt(File);

impl DiskFile for LookedAt {
    fn write_vectored_at(&self, _buffers: &[IoSlice<'_>], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_whole(&self.0, buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// A file that was created on a disk that is only looked at: it has a length and no bytes.
struct Nowhere(AtomicU64);

impl DiskFile for Nowhere {
    fn write_vectored_at(&self, _buffers: &[IoSlice<'_>], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.fetch_max(len, Ordering::Relaxed);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }
}
