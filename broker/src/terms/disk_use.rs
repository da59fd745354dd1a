//! How full the disk is.

use std::io;
use std::path::Path;

/// The use of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that this process may still use.
    pub free: u64,
}

impl DiskUse {
    /// That of the file system in which `path` lies.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        let block = stat.f_frsize;
        Ok(Self { used: stat.f_blocks.saturating_sub(stat.f_bfree) * block, free: stat.f_bavail * block })
    }

    /// Percent in use of what this process may use, rounded up, as `df` shows it.
    pub fn percent(&self) -> u32 {
        let all = self.used.saturating_add(self.free);
        let percent = if all == 0 { 0 } else { (u128::from(self.used) * 100).div_ceil(u128::from(all)) };
        u32::try_from(percent).expect("a part is at most 100 percent")
    }

    /// The same as a part of 1, not rounded: 0 to 1.
    pub fn ratio(&self) -> f64 {
        let all = self.used.saturating_add(self.free);
        if all == 0 { 0.0 } else { self.used as f64 / all as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_those_of_df() {
        assert_eq!(DiskUse { used: 0, free: 0 }.percent(), 0);
        assert_eq!(DiskUse { used: 1, free: 99 }.percent(), 1);
        assert_eq!(DiskUse { used: 75, free: 25 }.percent(), 75);
        assert_eq!(DiskUse { used: 7501, free: 2499 }.percent(), 76);
        assert_eq!(DiskUse { used: u64::MAX / 2, free: 0 }.percent(), 100);
        // Room that other users or a quota keep from this process counts for neither side.
        let ratio = DiskUse { used: 25, free: 75 }.ratio();
        assert!((ratio - 0.25).abs() < f64::EPSILON, "{ratio}");
        assert!(DiskUse { used: 0, free: 0 }.ratio().abs() < f64::EPSILON);
    }

    #[test]
    fn a_real_disk_answers() {
        let disk = DiskUse::of(Path::new(".")).expect("this folder lies somewhere");
        assert!(disk.used + disk.free > 0);
    }
}
