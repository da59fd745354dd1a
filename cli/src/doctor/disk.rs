//! The file system of the data folder: its kind, its room and its speed.

use std::path::Path;
use std::time::Duration;

use super::finding::{Finding, Verdict};

/// A file system, as /proc/self/mountinfo has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: String,
    pub(super) kind: String,
    pub(super) options: String,
}

/// The file system in which `path` lies, which has no links in it: the deepest mount point, of several at one point the last.
pub(super) fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let all = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(4);
        let (point, own) = (unescaped(left.next()?), left.next()?);
        let mut right = right.split(' ');
        let (kind, of_device) = (right.next()?.to_owned(), right.nth(1).unwrap_or_default());
        Some(Mount { point, kind, options: format!("{own},{of_device}") })
    });
    all.filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.len())
}

/// Blanks and the like are written as `\040`.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            out.push(char::from(code));
            out.push_str(&part[3..]);
        } else {
            out.push('\\');
            out.push_str(part);
        }
    }
    out
}

pub(super) fn file_system(folder: &Path, mount: &Mount) -> Finding {
    const CHECK: &str = "file-system";
    let Mount { point, kind, options } = mount;
    let has = |wanted: &[&str]| options.split(',').any(|option| wanted.contains(&option));
    let what = format!("{} is on {kind} ({point})", folder.display());
    if has(&["ro"]) {
        let remedy = format!("mount -o remount,rw {point}, or another storePathRootDir");
        return Finding::risk(
            CHECK,
            format!("{what}, read-only"),
            "the broker does not start, or stores nothing more",
            remedy,
        );
    }
    if has(&["nobarrier", "barrier=0"]) {
        let remedy = "mount it without nobarrier and barrier=0, unless the disk has a battery of its own";
        let hurts = "a flush does not reach the disk: a power cut takes acknowledged messages";
        return Finding::risk(CHECK, format!("{what}, mounted without barriers"), hurts, remedy);
    }
    let local = "put the data on a local disk with ext4 or xfs (storePathRootDir)";
    match kind.as_str() {
        "nfs" | "nfs4" | "cifs" | "smb3" | "smbfs" | "ceph" | "fuse.ceph" | "fuse.glusterfs" | "fuse.sshfs"
        | "fuse.s3fs" | "lustre" | "afs" | "ocfs2" | "gfs2" => Finding::risk(
            CHECK,
            what,
            "the network decides when a flush has happened and who holds the lock of the folder: two brokers may write it, and \
             acknowledged messages may be lost",
            local,
        ),
        "tmpfs" | "ramfs" | "devtmpfs" => {
            Finding::risk(CHECK, what, "it is memory: a restart of the machine takes all messages", local)
        }
        "overlay" | "aufs" => Finding::risk(
            CHECK,
            what,
            "it is the layer of a container: all messages go with the container",
            "mount a volume there (storePathRootDir)",
        ),
        "9p" | "virtiofs" => Finding::warning(
            CHECK,
            what,
            "whether a flush reaches the disk is up to the machine that shares it",
            "give the virtual machine a disk of its own, with writes through the host's cache",
        ),
        "btrfs" | "zfs" | "bcachefs" => Finding::note(
            CHECK,
            what,
            "it copies on each write: flushes take longer and the log is in pieces",
            "measure it with `escrowmq bench`; btrfs: chattr +C for the folder while it is empty",
        ),
        kind if kind.starts_with("fuse") => {
            Finding::warning(CHECK, what, "whether a flush reaches the disk is up to a program", local)
        }
        _ => Finding::ok(CHECK, what),
    }
}

/// The room of the file system, and the marks that the settings have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) percent: u32,
    pub(super) free: u64,
    /// Files that may still be made; `None` where the file system does not count them.
    pub(super) files: Option<u64>,
    /// diskMaxUsedSpaceRatio.
    pub(super) warn_above: u32,
    /// diskSpaceCleanForciblyRatio, unless messages never go before their time.
    pub(super) clean_above: Option<u32>,
    /// diskSpaceWarningLevelRatio.
    pub(super) refuse_above: u32,
    /// mappedFileSizeCommitLog.
    pub(super) segment: u64,
}

/// Files that a broker makes within a day or so.
const FILES_LEAST: u64 = 10_000;

pub(super) fn room(room: &Room) -> Finding {
    const CHECK: &str = "room";
    let Room { percent, free, files, warn_above, clean_above, refuse_above, segment } = *room;
    let what = format!("{percent} % in use, {} MiB free; new messages are refused above {refuse_above} %", free >> 20);
    let more = "more room, or a lower fileReservedTime or maxStoreSize";
    if percent > refuse_above || free < 2 * segment {
        return Finding::risk(CHECK, what, "new messages are refused (14); decisions and reads go on", more);
    }
    if let Some(files) = files.filter(|files| *files < FILES_LEAST) {
        let what = format!("{files} files more can be made");
        return Finding::risk(
            CHECK,
            what,
            "the store cannot begin another file, and refuses messages",
            "remove files of others",
        );
    }
    if clean_above.is_some_and(|mark| percent > mark) {
        let mark = clean_above.unwrap_or_default();
        let what = format!("{what}; the oldest messages go above {mark} %");
        return Finding::risk(CHECK, what, "messages are deleted before their time, read or not", more);
    }
    if percent > warn_above {
        let hurts = "soon old messages go before their time, and then new ones are refused";
        return Finding::warning(CHECK, format!("{what}; a warning is logged above {warn_above} %"), hurts, more);
    }
    Finding::ok(CHECK, what)
}

/// What some writes of 4 KiB took, each with a flush to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Speed(Vec<Duration>);

impl Speed {
    pub(super) fn new(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        Self(took)
    }

    /// The time that so many in a hundred took at most.
    fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// Half of the flushes take longer: each sender waits for at least one.
const SLOW: Duration = Duration::from_millis(20);
/// One in a hundred takes longer.
const STALLS: Duration = Duration::from_millis(200);
/// No device is as fast that keeps what it has when the power goes, but those with a battery.
const TOO_FAST: Duration = Duration::from_micros(15);

pub(super) fn speed(speed: &Speed, is_synced: bool) -> Finding {
    const CHECK: &str = "disk-speed";
    let (half, most) = (speed.percentile(50), speed.percentile(99));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let what = format!("a flush of 4 KiB takes {:.2} ms, 99 of 100 at most {:.2} ms", ms(half), ms(most));
    if half > SLOW || most > STALLS {
        let verdict = if is_synced { Verdict::Warning } else { Verdict::Note };
        let hurts =
            "each send waits for a flush (flushDiskType=SYNC_FLUSH), and members of a group for that of a majority";
        return Finding::new(
            verdict,
            CHECK,
            what,
            hurts,
            "a disk of its own: an SSD, or NVMe; see who else writes with `iostat -x`",
        );
    }
    if half < TOO_FAST {
        let hurts = "no disk is that fast: the flush may end in a cache that a power cut empties";
        return Finding::note(
            CHECK,
            what,
            hurts,
            "see whether the device has a battery, or its write cache is off (`hdparm -W`)",
        );
    }
    Finding::ok(CHECK, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
        22 21 8:2 / /var/lib rw shared:2 - xfs /dev/sda2 rw\n\
        23 21 0:40 / /mnt/my\\040share rw - nfs4 host:/x rw,vers=4.2\n\
        24 22 0:41 / /var/lib rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_deepest_mount_counts_and_the_last_one_at_a_point() {
        let kind = |path: &str| mount_of(MOUNTS, Path::new(path)).unwrap().kind;
        assert_eq!((kind("/srv/x"), kind("/var/lib/escrowmq")), ("ext4".to_owned(), "tmpfs".to_owned()));
        assert_eq!((kind("/var/libx"), kind("/mnt/my share/x")), ("ext4".to_owned(), "nfs4".to_owned()));
        assert_eq!(mount_of("", Path::new("/")), None);
    }

    #[test]
    fn kinds_that_lose_messages_are_a_risk() {
        let of = |kind: &str, options: &str| {
            let mount = Mount { point: "/d".into(), kind: kind.into(), options: options.into() };
            file_system(Path::new("/d/x"), &mount).verdict
        };
        for kind in ["nfs4", "cifs", "tmpfs", "overlay", "fuse.sshfs"] {
            assert_eq!(of(kind, "rw"), Verdict::Risk, "{kind}");
        }
        assert_eq!(
            (of("9p", "rw"), of("fuse.other", "rw"), of("zfs", "rw")),
            (Verdict::Warning, Verdict::Warning, Verdict::Note)
        );
        assert_eq!((of("ext4", "rw"), of("xfs", "rw,noatime")), (Verdict::Ok, Verdict::Ok));
        assert_eq!((of("ext4", "ro,relatime"), of("ext4", "rw,nobarrier")), (Verdict::Risk, Verdict::Risk));
    }

    #[test]
    fn room_is_measured_by_the_marks_of_the_settings() {
        let all = Room {
            percent: 50,
            free: 1 << 40,
            files: Some(1 << 20),
            warn_above: 75,
            clean_above: Some(85),
            refuse_above: 90,
            segment: 128 << 20,
        };
        let of = |change: &dyn Fn(&mut Room)| {
            let mut with = all;
            change(&mut with);
            room(&with).verdict
        };
        assert_eq!(of(&|_| {}), Verdict::Ok);
        assert_eq!(of(&|room| room.percent = 76), Verdict::Warning);
        assert_eq!(of(&|room| room.percent = 86), Verdict::Risk);
        assert_eq!(of(&|room| (room.percent, room.clean_above) = (86, None)), Verdict::Warning);
        assert_eq!(of(&|room| room.percent = 91), Verdict::Risk);
        assert_eq!(of(&|room| room.free = 100 << 20), Verdict::Risk);
        assert_eq!(of(&|room| room.files = Some(7)), Verdict::Risk);
        assert_eq!(of(&|room| room.files = None), Verdict::Ok);
    }

    #[test]
    fn flushes_are_slow_or_too_fast_to_be_true() {
        let of = |half: u64, most: u64, is_synced| {
            let took = (0..100).map(|at| Duration::from_micros(if at < 90 { half } else { most }));
            speed(&Speed::new(took.rev().collect()), is_synced).verdict
        };
        assert_eq!(of(900, 4_000, true), Verdict::Ok);
        assert_eq!((of(30_000, 40_000, true), of(30_000, 40_000, false)), (Verdict::Warning, Verdict::Note));
        assert_eq!(of(900, 300_000, true), Verdict::Warning);
        assert_eq!(of(5, 9, true), Verdict::Note);
        assert_eq!(Speed::new(Vec::new()).percentile(99), Duration::ZERO);
    }
}
