//! A file system of its own that is small, for brokers whose disk runs full. Needs privileges; elsewhere a test says
//! that it is skipped.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The size of such a disk in MiB.
pub const DISK_MIB: usize = 64;

/// A folder whose `data` is a file system of 64 MiB. It goes when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// `None`, and a line that says so, where file systems cannot be mounted.
    pub fn mount(test: &str) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK_MIB}m"), "tmpfs"]).arg(&data);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("SKIPPED {test}: mounting a file system needs privileges that are not there");
            return None;
        }
        Some(SmallDisk { folder })
    }

    /// The folder around the file system: a broker's settings and its own log are not on the small disk.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The root of the file system.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Takes all the room there is, or as much as is asked for.
    pub fn fill(&self, bytes: usize) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).expect("a file");
        let chunk = vec![1; 4096];
        for _ in 0..bytes / chunk.len() {
            if filler.write_all(&chunk).is_err() {
                break;
            }
        }
    }

    /// Gives back what [`fill`](SmallDisk::fill) took.
    pub fn empty(&self) {
        fs::remove_file(self.filler()).expect("the filler is there");
    }

    fn filler(&self) -> PathBuf {
        self.data().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a broker that is being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.data()).status();
    }
}
