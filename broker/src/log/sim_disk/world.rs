//! The state of the simulated disk, and what a power cut leaves of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Faults, Random};

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) inodes: Vec<Inode>,
    /// Names as processes see them.
    pub(super) names: BTreeMap<PathBuf, usize>,
    /// Names as a power cut would leave them, if none of the pending changes were kept.
    pub(super) durable_names: BTreeMap<PathBuf, usize>,
    pub(super) pending_names: Vec<NameChange>,
    pub(super) locked: Vec<PathBuf>,
    pub(super) faults: Faults,
    /// Called during each flush of a file; belongs to this disk and not to its copies.
    pub(super) while_syncing: Option<Arc<dyn Fn() + Send + Sync>>,
    pub(super) operations: u64,
    pub(super) writes: u64,
    pub(super) syncs: u64,
    pub(super) off: bool,
    /// The changes so far with the number of each operation, if they are being recorded.
    pub(super) recording: Option<Recording>,
    /// Decides what becomes of the operation that the power cut hits.
    pub(super) random: Random,
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) visible: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Hash)]
pub(super) enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename { from: PathBuf, to: PathBuf, inode: usize },
}

/// Something done to the disk.
#[derive(Clone, Hash)]
pub(super) enum Operation {
    Name(NameChange),
    SyncNames,
    Write {
        inode: usize,
        offset: usize,
        data: Vec<u8>,
    },
    Length {
        inode: usize,
        len: usize,
    },
    Sync {
        inode: usize,
    },
    /// A flush that failed: what it should have flushed is forgotten.
    FailedSync {
        inode: usize,
    },
}

/// The changes to a disk since some moment.
#[derive(Clone)]
pub(super) struct Recording {
    /// The disk at that moment.
    pub(super) start: Box<World>,
    pub(super) operations: Vec<(u64, Operation)>,
}

/// How much of the pending changes a power cut keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    Everything,
    /// Changes up to some point, as a device with an ordered queue would.
    Prefix,
    /// Each sector and each name by itself.
    Any,
}

pub(super) enum Step {
    Go,
    /// The power goes off during this operation; it may or may not have its effect.
    Last {
        effective: bool,
    },
}

impl World {
    /// Counts an operation; an error if the power is off.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        if self.off {
            return Err(power_is_off());
        }
        self.operations += 1;
        if self.faults.power_off_at == Some(self.operations) {
            self.off = true;
            return Ok(Step::Last { effective: self.random.below(2) == 0 });
        }
        Ok(Step::Go)
    }

    /// Counts an operation and executes it.
    pub(super) fn change<T>(&mut self, effect: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        match self.step()? {
            Step::Go => effect(self),
            Step::Last { effective } => {
                if effective {
                    let _ = effect(self);
                }
                Err(power_is_off())
            }
        }
    }

    /// Does something, and notes it if that is asked for.
    pub(super) fn execute(&mut self, operation: Operation) {
        self.perform(&operation);
        let number = self.operations;
        if let Some(recording) = &mut self.recording {
            recording.operations.push((number, operation));
        }
    }

    /// Does something.
    pub(super) fn perform(&mut self, operation: &Operation) {
        match operation {
            Operation::Name(change) => {
                if let NameChange::Link(_, inode) = change
                    && self.inodes.len() <= *inode
                {
                    self.inodes.resize_with(inode + 1, Inode::default);
                }
                apply_name(&mut self.names, change);
                self.pending_names.push(change.clone());
            }
            Operation::SyncNames => {
                self.durable_names = self.names.clone();
                self.pending_names.clear();
            }
            Operation::Write { inode, offset, data } => {
                let inode = &mut self.inodes[*inode];
                if inode.visible.len() < offset + data.len() {
                    inode.visible.resize(offset + data.len(), 0);
                }
                inode.visible[*offset..offset + data.len()].copy_from_slice(data);
                inode.pending.push(Change::Write { offset: *offset, data: data.clone() });
            }
            Operation::Length { inode, len } => {
                let inode = &mut self.inodes[*inode];
                inode.visible.resize(*len, 0);
                inode.pending.push(Change::Length(*len));
            }
            Operation::Sync { inode } => {
                let inode = &mut self.inodes[*inode];
                // Not simply the visible content: what a failed flush forgot stays forgotten.
                inode.durable = inode.after_crash(Keep::Everything, &mut Random::new(0));
                inode.pending.clear();
            }
            Operation::FailedSync { inode } => self.inodes[*inode].pending.clear(),
        }
    }

    /// The content of the disk after a power cut now; see [`SimDisk::crash`](super::SimDisk::crash).
    pub(super) fn crash(&self, seed: u64) -> World {
        let mut random = Random::new(seed);
        let keep = match seed {
            0 => Keep::Nothing,
            1 => Keep::Everything,
            _ if random.below(3) == 0 => Keep::Prefix,
            _ => Keep::Any,
        };
        let names = surviving_names(self, keep, &mut random);
        let inodes = self
            .inodes
            .iter()
            .map(|inode| {
                let content = inode.after_crash(keep, &mut random);
                Inode { visible: content.clone(), durable: content, pending: Vec::new() }
            })
            .collect();
        let mut after = World { inodes, durable_names: names.clone(), names, random, ..World::default() };
        after.forget_unnamed();
        after
    }

    /// Frees the memory of files that no name leads to any more.
    pub(super) fn forget_unnamed(&mut self) {
        let named: BTreeSet<usize> = self.names.values().chain(self.durable_names.values()).copied().collect();
        for (nth, inode) in self.inodes.iter_mut().enumerate() {
            if !named.contains(&nth) && self.pending_names.is_empty() {
                *inode = Inode::default();
            }
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].visible.len() as u64).sum()
    }

    /// Fails if the file cannot grow to `len` bytes.
    pub(super) fn check_space(&self, inode: usize, len: usize) -> io::Result<()> {
        let growth = len.saturating_sub(self.inodes[inode].visible.len()) as u64;
        match self.faults.capacity {
            Some(capacity) if growth > 0 && self.used() + growth > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
        NameChange::Rename { from, to, inode } => {
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
    }
}

fn surviving_names(world: &World, keep: Keep, random: &mut Random) -> BTreeMap<PathBuf, usize> {
    let mut names = world.durable_names.clone();
    let prefix = random.below(world.pending_names.len() as u64 + 1) as usize;
    for (nth, change) in world.pending_names.iter().enumerate() {
        let kept = match keep {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::Prefix => nth < prefix,
            Keep::Any => random.below(2) == 0,
        };
        if kept {
            apply_name(&mut names, change);
        }
    }
    names
}

impl Inode {
    fn after_crash(&self, keep: Keep, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        let prefix = random.below(self.pending.len() as u64 + 1) as usize;
        let lengths = self.pending.iter().filter(|change| matches!(change, Change::Length(_))).count();
        let lengths_kept = random.below(lengths as u64 + 1) as usize;
        // How many writes touch each sector, and up to which of them it is kept.
        let mut versions: BTreeMap<usize, u64> = BTreeMap::new();
        for change in &self.pending {
            if let Change::Write { offset, data } = change {
                for sector in sectors(*offset, data.len()) {
                    *versions.entry(sector).or_default() += 1;
                }
            }
        }
        for version in versions.values_mut() {
            *version = random.below(*version + 1);
        }
        let (mut seen_lengths, mut seen_versions) = (0, BTreeMap::<usize, u64>::new());
        for (nth, change) in self.pending.iter().enumerate() {
            match change {
                Change::Length(len) => {
                    seen_lengths += 1;
                    let kept = match keep {
                        Keep::Nothing => false,
                        Keep::Everything => true,
                        Keep::Prefix => nth < prefix,
                        Keep::Any => seen_lengths <= lengths_kept,
                    };
                    if kept {
                        content.resize(*len, 0);
                    }
                }
                Change::Write { offset, data } => {
                    for sector in sectors(*offset, data.len()) {
                        let version = seen_versions.entry(sector).or_default();
                        *version += 1;
                        let kept = match keep {
                            Keep::Nothing => false,
                            Keep::Everything => true,
                            // The write at the border is torn.
                            Keep::Prefix => nth < prefix || nth == prefix && random.below(2) == 0,
                            Keep::Any => *version <= versions[&sector],
                        };
                        if kept {
                            write_sector(&mut content, sector, *offset, data);
                        }
                    }
                }
            }
        }
        content
    }
}

fn sectors(offset: usize, len: usize) -> std::ops::Range<usize> {
    offset / SECTOR_BYTES..(offset + len).div_ceil(SECTOR_BYTES)
}

/// Writes the part of `data` that falls into one sector.
fn write_sector(content: &mut Vec<u8>, sector: usize, offset: usize, data: &[u8]) {
    let from = offset.max(sector * SECTOR_BYTES);
    let to = (offset + data.len()).min((sector + 1) * SECTOR_BYTES);
    if content.len() < to {
        content.resize(to, 0);
    }
    content[from..to].copy_from_slice(&data[from - offset..to - offset]);
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}
