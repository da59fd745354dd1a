//! The side that lacks the state: reads an offered copy file by file, and checks it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::clock;
use escrowmq_common::task::Tasks;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::place::{self, folder, remove, sync, write_durably};
use super::question::{Ask, CHUNK_BYTES, Offer, OfferedFile, Told};
use super::{Cut, Progress, SnapshotError, failed};
use crate::check::Folder;
use crate::log::{LogReader, encode_vote_file};
use crate::raft::Link;
use crate::shard::make_base;
use crate::terms::DiskUse;

/// Chunks that are asked for before the first of them is here.
const WINDOW: usize = 8;
/// Bytes that must be free beside the copy.
const SPARE_BYTES: u64 = 64 << 20;
/// A way that breaks is tried again for so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between tries.
const RETRY: Duration = Duration::from_millis(300);
/// The log is told at most once in this time how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// A copy that is being fetched.
pub(crate) struct Fetch<L> {
    /// The way to the member that has it.
    pub(crate) link: L,
    /// The own data folder.
    pub(crate) store: PathBuf,
    /// The own log.
    pub(crate) log: LogReader,
    /// Where files are written.
    pub(crate) tasks: Tasks,
    /// Told how far it is.
    pub(crate) progress: Arc<Progress>,
}

impl<L: Link> Fetch<L> {
    /// Returns when a whole copy is on disk and was checked; the next start puts it into its place. After an error the files
    /// that came whole stay, for the next try. Dropping it does the same.
    pub(crate) async fn run(&self) -> Result<Cut, SnapshotError> {
        let fetched = self.fetch().await;
        self.progress.set(0, 0);
        fetched
    }

    async fn fetch(&self) -> Result<Cut, SnapshotError> {
        let offer = match self.ask(&Ask::Offer).await? {
            Told::Offer(offer) => offer,
            other => return Err(refused(other)),
        };
        if !place::may_replace(self.log.last().or(self.log.purged()), &offer.cut) {
            let store = self.store.clone();
            self.blocking(move || place::discard(&store)).await?;
            return Err(SnapshotError::Newer);
        }
        let store = self.store.clone();
        let wanted = offer.clone();
        let missing = self.blocking(move || prepare(&store, &wanted)).await?;
        let total = offer.bytes();
        let mut done = total - missing.iter().map(|(_, file)| file.bytes).sum::<u64>();
        tracing::info!(upto = %offer.cut.index, bytes = total, here = done, "fetching a copy of the group's state");
        self.progress.set(done, total);
        let mut tell_at = clock::monotonic() + TOLD_EVERY;
        for (nth, file) in missing {
            done = self.fetch_file(offer.number, nth, &file, (done, total), &mut tell_at).await?;
        }
        let (store, cut) = (self.store.clone(), offer.cut);
        // A copy that is wrong is fetched whole the next time.
        let checked = self.blocking(move || check(&store, &cut)).await;
        if matches!(checked, Err(SnapshotError::Damaged(_))) {
            let store = self.store.clone();
            self.blocking(move || place::discard(&store)).await?;
        }
        checked?;
        // The offer ends by itself as well.
        let _ = self.ask(&Ask::Done { offer: offer.number }).await;
        Ok(cut)
    }

    /// Asks until there is an answer, or the way has been broken for too long.
    async fn ask(&self, question: &Ask) -> Result<Told, SnapshotError> {
        let mut broken_since = None;
        loop {
            let error = match self.link.call(question.encode()).await {
                Ok(answer) => match Told::decode(&answer) {
                    Ok(told) => return Ok(told),
                    Err(why) => io::Error::new(io::ErrorKind::InvalidData, why),
                },
                Err(error) => error,
            };
            let now = clock::monotonic();
            if now.saturating_sub(*broken_since.get_or_insert(now)) >= PATIENCE {
                return Err(SnapshotError::Lost(error));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Says how much is done then.
    async fn fetch_file(
        &self,
        offer: u64,
        nth: u32,
        file: &OfferedFile,
        (mut done, total): (u64, u64),
        tell_at: &mut Duration,
    ) -> Result<u64, SnapshotError> {
        let path = folder(&self.store).join(&file.name);
        let part = part_of(&path);
        let creating = part.clone();
        let open = self.blocking(move || {
            let open = OpenOptions::new().write(true).create(true).truncate(true).open(&creating);
            open.map(Arc::new).map_err(failed("create", &creating))
        });
        let open = open.await?;
        let offsets = (0..file.bytes).step_by(CHUNK_BYTES);
        let mut chunks = stream::iter(offsets)
            .map(|offset| async move {
                let told = self.ask(&Ask::Read { offer, file: nth, offset }).await?;
                match told {
                    Told::Bytes(bytes) if bytes.len() as u64 == (file.bytes - offset).min(CHUNK_BYTES as u64) => {
                        Ok((offset, bytes))
                    }
                    Told::Bytes(_) => Err(SnapshotError::Damaged(format!("{} has another length", file.name))),
                    other => Err(refused(other)),
                }
            })
            .buffered(WINDOW);
        while let Some(chunk) = chunks.next().await {
            let (offset, bytes) = chunk?;
            let (writing, path, length) = (Arc::clone(&open), part.clone(), bytes.len() as u64);
            self.blocking(move || write_at(&writing, &bytes, offset).map_err(failed("write", &path))).await?;
            done += length;
            self.progress.set(done, total);
            if clock::monotonic() >= *tell_at {
                *tell_at = clock::monotonic() + TOLD_EVERY;
                tracing::info!(done, total, "fetching a copy of the group's state");
            }
        }
        let finish = move || {
            open.sync_all().map_err(failed("flush", &part))?;
            fs::rename(&part, &path).map_err(failed("rename", &part))
        };
        self.blocking(finish).await?;
        Ok(done)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let ended = || SnapshotError::Lost(io::Error::other("this member stops, or a task panicked"));
        self.tasks.spawn_blocking("snapshot", work).await.ok().flatten().ok_or_else(ended)?
    }
}

fn write_at(file: &File, bytes: &Bytes, offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

fn refused(told: Told) -> SnapshotError {
    match told {
        Told::Gone => SnapshotError::Gone,
        Told::No(why) => SnapshotError::No(why),
        Told::Offer(_) | Told::Bytes(_) | Told::Fine => {
            SnapshotError::Damaged("an answer to another question".to_owned())
        }
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Makes the folder ready: of an earlier try stay the segments that came whole and are the same in this copy. Says which
/// files are missing, with their numbers. Blocks.
fn prepare(store: &Path, offer: &Offer) -> Result<Vec<(u32, OfferedFile)>, SnapshotError> {
    let folder = folder(store);
    place::revoke(store)?;
    for name in place::FOLDERS {
        let path = folder.join(name);
        if name != "log" {
            remove(&path)?;
        }
        fs::create_dir_all(&path).map_err(failed("create", &path))?;
    }
    for name in ["base", "base.new", "base.old"] {
        remove(&folder.join(name))?;
    }
    sync(&folder).map_err(failed("flush", &folder))?;
    let sizes: BTreeMap<&str, u64> = offer.files.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
    let log = folder.join("log");
    for entry in fs::read_dir(&log).map_err(failed("list", &log))? {
        let entry = entry.map_err(failed("list", &log))?;
        let (path, name) = (entry.path(), format!("log/{}", entry.file_name().to_string_lossy()));
        let length = entry.metadata().map_err(failed("measure", &path))?.len();
        if sizes.get(name.as_str()) != Some(&length) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    let is_missing = |file: &OfferedFile| !folder.join(&file.name).exists();
    let numbered = (0..).zip(&offer.files).filter(|(_, file)| is_missing(file));
    let missing: Vec<(u32, OfferedFile)> = numbered.map(|(nth, file)| (nth, file.clone())).collect();
    let needed = missing.iter().fold(SPARE_BYTES, |sum, (_, file)| sum.saturating_add(file.bytes));
    let disk = DiskUse::of(store).map_err(failed("measure the disk of", store))?;
    if disk.free < needed {
        return Err(SnapshotError::NoRoom { path: store.to_owned(), needed, free: disk.free });
    }
    Ok(missing)
}

/// Checks a copy as `escrowmq fsck` does, makes what is made from it, and says that it is whole. Blocks.
fn check(store: &Path, cut: &Cut) -> Result<(), SnapshotError> {
    let folder = folder(store);
    // The own one comes in its place at the end.
    let vote = folder.join(place::VOTE);
    write_durably(&vote, &encode_vote_file(None, cut.end)).map_err(failed("write", &vote))?;
    make_base(&folder).map_err(failed("copy", &folder.join("index")))?;
    for name in place::FOLDERS {
        sync(&folder.join(name)).map_err(failed("flush", &folder.join(name)))?;
    }
    let report = Folder::take(&folder)?.check(false, &mut |_| ())?;
    if let Some(finding) = report.findings.first() {
        return Err(SnapshotError::Damaged(finding.to_string()));
    }
    if report.figures.applied != Some((cut.index, cut.end)) || report.figures.log_end != cut.end {
        return Err(SnapshotError::Damaged(format!("it does not end with entry {}", cut.index)));
    }
    place::complete(store, cut)
}
