//! The seam between the log and the file system.
//!
//! The log needs few operations: append-like positioned writes, positioned reads, flushes, and names in one
//! folder. Everything goes through these two traits, so that a test can run the same code on a disk that
//! loses, tears and refuses writes (`sim_disk`).

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::terms::to_usize;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fdatasync, flock, fsync};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev};

/// A folder tree that files live in.
pub trait Disk: Send + Sync + 'static {
    /// Creates the folder and its parents if they are missing, durably.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates an empty file, replacing an existing one. The name is durable after [`Disk::sync_dir`].
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The names of the files in a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Removes a file. Handles that are open keep working.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Renames a file within its folder, replacing an existing target in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes created, removed and renamed names durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive right to a folder until the returned value is dropped; fails with
    /// [`io::ErrorKind::WouldBlock`] if another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
}

/// An open file. All methods may be called from several threads.
pub trait DiskFile: Send + Sync {
    /// Writes all buffers one after the other at `offset`. After an error any part may have been written.
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Reads until `buffer` is full or the file ends; answers the number of bytes read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Fills all buffers one after the other if the bytes can be had without waiting for the device; answers whether it
    /// did. If not, the content of the buffers is undefined.
    fn read_cached(&self, _buffers: &mut [IoSliceMut<'_>], _offset: u64) -> bool {
        false
    }
    /// Makes everything written so far durable, and the file's length.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves space so that the file has at least `len` bytes, new ones being zero, and writes within it
    /// cannot run out of space.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts or extends the file. After a crash the file has the old or the new length, none between.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Whether an error says that there is no room, as opposed to a broken device.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(dir)?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => Ok(()),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        files_in(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fsync(File::open(dir)?).map_err(io::Error::from)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
}

/// An open file of the machine's file system.
struct RealFile(File);

/// The kernel's bound on buffers per call.
const BUFFERS_PER_WRITE: usize = 1024;

impl DiskFile for RealFile {
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        // `whole` counts buffers that are entirely written, `part` the bytes of the next one.
        let (mut whole, mut part) = (0, 0);
        while whole < buffers.len() {
            let result = if part > 0 {
                pwritev(&self.0, &[IoSlice::new(&buffers[whole][part..])], offset)
            } else {
                let upto = buffers.len().min(whole + BUFFERS_PER_WRITE);
                pwritev(&self.0, &buffers[whole..upto], offset)
            };
            let mut written = match result {
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(written) => written,
            };
            offset += written as u64;
            let progressed = written > 0;
            while whole < buffers.len() && written >= buffers[whole].len() - part {
                written -= buffers[whole].len() - part;
                whole += 1;
                part = 0;
            }
            part += written;
            if !progressed && whole < buffers.len() && !buffers[whole].is_empty() {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_whole(&self.0, buffer, offset)
    }

    fn read_cached(&self, buffers: &mut [IoSliceMut<'_>], offset: u64) -> bool {
        let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        // Less than all, or an error, such as from a file system that cannot tell: whoever may wait reads it again.
        preadv2(&self.0, buffers, offset, ReadWriteFlags::NOWAIT).is_ok_and(|read| read == wanted)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not repeated on an error: the kernel may have dropped the pages, and a second call would report success.
        fdatasync(&self.0).map_err(io::Error::from)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        loop {
            match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP) => return self.fill_with_zeros(len),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// The names of the files in a folder.
pub(super) fn files_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            // Names that are not UTF-8 are not ours.
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_whole(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl RealFile {
    /// The slow way to reserve space, for file systems without preallocation.
    fn fill_with_zeros(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; 64 << 10];
        let mut offset = self.len()?;
        while offset < len {
            let part = zeros.len().min(to_usize(len - offset));
            self.0.write_all_at(&zeros[..part], offset)?;
            offset += part as u64;
        }
        Ok(())
    }
}
