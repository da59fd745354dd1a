//! The side that has the state: makes copies of links and lets other members read them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use escrowmq_common::clock;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;

use super::Cut;
use super::place::remove;
use super::question::{Ask, CHUNK_BYTES, Offer, OfferedFile, Told};
use crate::backup::PreparedFile;
use crate::backup::links::{LinkError, link_store};
use crate::raft::{Hold, Pace, Purger};
use crate::shard::{Applier, Shard};
use crate::terms::LogIndex;

/// An offer ends when it was not asked for so long. A member that has all of it needs that time to open it and to ask for
/// the entries behind it.
pub(super) const LEASE: Duration = Duration::from_secs(60);
/// Between looks for offers that have ended.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Members that may have an offer at the same time: those of a group of five.
const OFFERS_MAX: usize = 4;

/// The folder in the store where the links lie.
pub(super) const FOLDER: &str = "offered";

/// The copies that a member offers. Clones are the same.
#[derive(Clone)]
pub(crate) struct Offers {
    inner: Arc<Inner>,
}

struct Inner {
    store: PathBuf,
    shard: Shard,
    applier: Arc<Applier>,
    purger: Purger,
    tasks: Tasks,
    offers: Mutex<BTreeMap<u64, Offered>>,
    /// One is made at a time: it flushes the index.
    making: Mutex<u64>,
}

/// An offer to one member.
struct Offered {
    number: u64,
    folder: PathBuf,
    files: Arc<Vec<PreparedFile>>,
    until: Duration,
    pace: Pace,
    /// Entries behind the copy stay in the log.
    _hold: Hold,
}

impl Offers {
    /// Those of a store, where an earlier process left none: see [`settle`](super::settle).
    pub(crate) fn new(store: &Path, shard: Shard, applier: Arc<Applier>, purger: Purger, tasks: Tasks) -> Self {
        let (store, offers, making) = (store.to_owned(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { store, shard, applier, purger, tasks, offers, making }) }
    }

    /// Ends offers that nobody asks for, until shutdown; then all of them.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        loop {
            let stops = tokio::select! {
                biased;
                () = shutdown.cancelled() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let (inner, now) = (Arc::clone(&self.inner), clock::monotonic());
            let ended: Vec<_> = {
                let mut offers = inner.offers.lock();
                let is_over = |offered: &Offered| stops || offered.until <= now;
                let over: Vec<u64> = offers.iter().filter(|(_, one)| is_over(one)).map(|(node, _)| *node).collect();
                over.iter().filter_map(|node| offers.remove(node)).collect()
            };
            if !ended.is_empty() {
                // Without an answer it goes on by itself.
                let _ = self.inner.tasks.spawn_blocking("snapshot", move || drop_all(ended)).await;
            }
            if stops {
                return;
            }
        }
    }

    /// Answers a member. `None` if the question is none.
    pub(crate) fn serve(&self, from: u64, question: &[u8]) -> impl Future<Output = Option<Bytes>> + Send + use<> {
        let asked = Ask::decode(question);
        let inner = Arc::clone(&self.inner);
        async move {
            let asked = asked.ok()?;
            if matches!(asked, Ask::Read { .. }) {
                tokio::time::sleep(inner.claim(from)).await;
            }
            let tasks = inner.tasks.clone();
            let told = tasks.spawn_blocking("snapshot", move || inner.answer(from, &asked)).await.ok().flatten()?;
            Some(told.encode())
        }
    }
}

impl Inner {
    /// Blocks.
    fn answer(&self, from: u64, asked: &Ask) -> Told {
        match asked {
            Ask::Offer => self.offer(from).unwrap_or_else(Told::No),
            Ask::Read { offer, file, offset } => self.read(from, *offer, *file, *offset),
            // The lease goes on: the member opens the copy now, and needs the entries behind it.
            Ask::Done { offer } => self.files(from, *offer).map_or(Told::Gone, |_| Told::Fine),
        }
    }

    fn offer(&self, from: u64) -> Result<Told, String> {
        let mut made = self.making.lock();
        let before = {
            let mut offers = self.offers.lock();
            let before = offers.remove(&from);
            if offers.len() >= OFFERS_MAX {
                return Err("as many copies as there may be are being fetched".to_owned());
            }
            before
        };
        drop_all(before);
        *made += 1;
        let number = *made;
        let folder = self.store.join(FOLDER).join(number.to_string());
        let offered = self.link(number, &folder).map_err(|error| {
            drop_folder(&folder);
            error.to_string()
        });
        let (offer, offered) = offered?;
        tracing::info!(
            node = from, upto = %offer.cut.index, bytes = offer.bytes(), files = offer.files.len(),
            "a member needs entries that are gone from the log: it gets a copy of the state"
        );
        self.offers.lock().insert(from, offered);
        Ok(Told::Offer(offer))
    }

    fn link(&self, number: u64, folder: &Path) -> Result<(Offer, Offered), LinkError> {
        // What is applied now at the latest: the copy ends there, or later.
        let applied = self.applier.applied().map_or(LogIndex::ZERO, |applied| applied.index);
        let hold = self.purger.hold(applied);
        let linked = link_store(&self.store, &self.shard, &self.applier, folder)?;
        let (term, index) = linked.applied.map_or((0, LogIndex::ZERO), |applied| (applied.term, applied.index));
        let cut = Cut { term, index, end: linked.log_end };
        let name = |file: &PreparedFile| OfferedFile { name: file.name.clone(), bytes: file.bytes };
        let offer = Offer { number, cut, files: linked.files.iter().map(name).collect() };
        let files = Arc::new(linked.files);
        let until = clock::monotonic() + LEASE;
        Ok((offer, Offered { number, folder: folder.to_owned(), files, until, pace: Pace::default(), _hold: hold }))
    }

    /// The files of an offer, which is asked for.
    fn files(&self, from: u64, number: u64) -> Option<Arc<Vec<PreparedFile>>> {
        let mut offers = self.offers.lock();
        let offered = offers.get_mut(&from).filter(|offered| offered.number == number)?;
        offered.until = clock::monotonic() + LEASE;
        Some(Arc::clone(&offered.files))
    }

    /// How long the next read waits, so that it leaves room for clients.
    fn claim(&self, from: u64) -> Duration {
        let applied = self.applier.applied().map(|applied| applied.index);
        let mut offers = self.offers.lock();
        let Some(offered) = offers.get_mut(&from) else { return Duration::ZERO };
        offered.pace.claim(CHUNK_BYTES as u64, clock::monotonic(), applied)
    }

    fn read(&self, from: u64, number: u64, file: u32, offset: u64) -> Told {
        let Some(files) = self.files(from, number) else { return Told::Gone };
        let Some(file) = files.get(file as usize) else { return Told::Gone };
        let left = usize::try_from(file.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::zeroed(left.min(CHUNK_BYTES));
        let read = File::open(&file.path).and_then(|open| open.read_exact_at(&mut bytes, offset));
        match read {
            Ok(()) => Told::Bytes(bytes.freeze()),
            Err(error) => Told::No(format!("{} cannot be read: {error}", file.name)),
        }
    }
}

fn drop_all(offers: impl IntoIterator<Item = Offered>) {
    for offered in offers {
        drop_folder(&offered.folder);
    }
}

fn drop_folder(folder: &Path) {
    if let Err(error) = remove(folder) {
        tracing::warn!(%error, folder = %folder.display(), "cannot remove an offered copy; the next start does");
    }
}
