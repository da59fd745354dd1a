//! The KV configuration: small texts by namespace and key, set by operators.
//!
//! Promises: a change is answered after it is on disk; a reader sees no change that is not; after a crash all changes that
//! were answered are there. Readers never wait for the disk. Many changes at once cost one write, and a change costs what it
//! is long, however much is there already. How much that may be is bounded ([`NAMESPACES_MAX`], [`KEYS_MAX`], `kvBytesMax`
//! and the lengths beside them); more is refused, and what is there stays.
//!
//! The file holds `{"configTable":{namespace:{key:value}}}`, the form that RocketMQ's nameserver keeps, so that one can be
//! taken over; changes since it was written stand in a journal beside it, and go into it when the process stops. Each
//! nameserver has its own: tools write to all of them.

mod journal;
mod store;
mod tables;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

pub use tables::{KEY_BYTES_MAX, KEYS_MAX, LIST_BYTES_MAX, NAMESPACE_BYTES_MAX, NAMESPACES_MAX, VALUE_BYTES_MAX};

use store::Store;
use tables::{Growth, KvTables, Namespace};

/// The namespace in which clients look for the queue order of topics.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// Bytes that all entries may take together, unless `kvBytesMax` says otherwise.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Changes that may wait for the disk; more are refused as busy.
const CHANGES_WAITING_MAX: usize = 256;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvChange {
    /// Sets a value.
    Put {
        /// The namespace; made if it is new.
        namespace: String,
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Removes a value, if there is one.
    Delete {
        /// The namespace.
        namespace: String,
        /// The key.
        key: String,
    },
}

impl KvChange {
    fn namespace(&self) -> &str {
        match self {
            KvChange::Put { namespace, .. } | KvChange::Delete { namespace, .. } => namespace,
        }
    }
}

/// The value that a change took away, if there was one.
pub type Old = Option<String>;

/// Why the files could not be read or written, or a change was refused. None of these leaves a change half made.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// A file or folder cannot be read or written. A start that met this has loaded nothing. A change that met it is not in
    /// force, and is gone for good with the next change that succeeds or a clean stop; a start after a crash before either
    /// may find it in the journal, if the file system had taken it after all. Trying again is safe.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// The step that failed.
        step: &'static str,
        /// With which file or folder; some words where none is known.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The file is there but is not what we write. Starting without it would lose it.
    #[error(
        "{} is no KV configuration: {why}; repair it, or move it away to start with what is left",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        why: String,
    },
    /// Too many changes wait for the disk already.
    #[error("too many changes of the KV configuration at once")]
    Busy,
    /// A name or value is longer than it may be.
    #[error("{what}: {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Which.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The most that it may have.
        limit: usize,
    },
    /// There is no room left.
    #[error("the KV configuration is full: the limit of {what} is {limit}; delete some entries first")]
    Full {
        /// Of what there are as many as there may be.
        what: &'static str,
        /// How many.
        limit: usize,
    },
}

impl KvError {
    /// Whether the same change may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            KvError::Io { .. } | KvError::Busy | KvError::Full { .. } => true,
            KvError::Corrupt { .. } | KvError::TooLong { .. } => false,
        }
    }
}

/// Told when a change is on disk, or why not.
type Answer = Box<dyn FnOnce(Result<Old, &KvError>) + Send>;

/// The handle: reads at once, hands changes to the [`KvWriter`].
#[derive(Debug, Clone)]
pub struct Kv {
    tables: Arc<RwLock<KvTables>>,
    changes: mpsc::Sender<(KvChange, AnswerBox)>,
}

/// Boxed closures have no `Debug`.
struct AnswerBox(Answer);

impl std::fmt::Debug for AnswerBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

/// Changes that are written together, with the answers to them; or one that is refused.
#[derive(Debug, Default)]
struct Batch {
    changes: Vec<KvChange>,
    answers: Vec<AnswerBox>,
    refused: Option<(AnswerBox, KvError)>,
}

/// The one that writes the files; its owner runs it as a task.
#[derive(Debug)]
pub struct KvWriter {
    store: Arc<Mutex<Store>>,
    tables: Arc<RwLock<KvTables>>,
    changes: mpsc::Receiver<(KvChange, AnswerBox)>,
    bytes_max: usize,
}

impl Kv {
    /// Loads the file and its journal, which need not exist. Nothing is written before the first change. All entries
    /// together may take `bytes_max`; what is there already stays, if it is more.
    pub fn open(path: &Path, bytes_max: usize) -> Result<(Kv, KvWriter), KvError> {
        let (store, tables) = Store::open(path)?;
        if tables.bytes() > bytes_max {
            tracing::warn!(
                path = %path.display(), bytes = tables.bytes(), kvBytesMax = bytes_max,
                "the KV configuration is larger than it may be: entries can only be deleted"
            );
        }
        let tables = Arc::new(RwLock::new(tables));
        let (sender, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
        let kv = Kv { tables: Arc::clone(&tables), changes: sender };
        let writer = KvWriter { store: Arc::new(Mutex::new(store)), tables, changes: receiver, bytes_max };
        Ok((kv, writer))
    }

    /// One value.
    pub fn get(&self, namespace: &str, key: &str) -> Option<String> {
        self.tables.read().get(namespace, key).cloned()
    }

    /// A namespace as `{"table":{key:value}}`, the form in which it travels; `None` if nothing was ever put there. It is made
    /// at the first call after a change, which takes a while if it is long: [`Kv::listed`] says how long.
    pub fn list(&self, namespace: &str) -> Option<Bytes> {
        // The lock is for the look-up alone: changes wait for it, and all readers for them.
        let namespace = self.tables.read().namespace(namespace)?;
        Some(namespace.list())
    }

    /// Bytes of the entries of a namespace in its list; 0 if there are none. Costs a look-up.
    pub fn listed(&self, namespace: &str) -> usize {
        self.tables.read().listed(namespace)
    }

    /// Hands a change over; `answer` is called once, on another task, or right here if it cannot be taken.
    pub fn change(&self, change: KvChange, answer: impl FnOnce(Result<Old, &KvError>) + Send + 'static) {
        let answer = AnswerBox(Box::new(answer));
        if let Err(refused) = self.changes.try_send((change, answer)) {
            let (_, AnswerBox(answer)) = refused.into_inner();
            answer(Err(&KvError::Busy));
        }
    }
}

impl KvWriter {
    /// Writes changes until shutdown; what was taken by then is written and answered, and the file is left complete.
    pub async fn run(mut self, tasks: Tasks, shutdown: Shutdown) {
        let mut taken = Vec::new();
        loop {
            tokio::select! {
                biased;
                n = self.changes.recv_many(&mut taken, CHANGES_WAITING_MAX) => if n == 0 { break },
                () = shutdown.cancelled() => break,
            }
            self.write(&tasks, taken.drain(..).collect()).await;
        }
        let closed = self.on_disk(&tasks, |store, tables| store.close(&tables.read())).await;
        if let Err(error) = closed {
            tracing::warn!(%error, "the KV configuration stays in its journal, where the next start finds it");
        }
    }

    async fn write(&self, tasks: &Tasks, mut taken: VecDeque<(KvChange, AnswerBox)>) {
        while !taken.is_empty() {
            let Batch { changes, answers, refused } = self.next_batch(&mut taken);
            if let Some((AnswerBox(answer), error)) = refused {
                answer(Err(&error));
            }
            if changes.is_empty() {
                continue;
            }
            let outcome = self.on_disk(tasks, move |store, tables| {
                store.append(&changes, &tables.read())?;
                Ok(apply(tables, changes))
            });
            let applied = match outcome.await {
                Ok(applied) => applied,
                Err(error) => {
                    tracing::error!(%error, "a change of the KV configuration was refused");
                    for AnswerBox(answer) in answers {
                        answer(Err(&error));
                    }
                    continue;
                }
            };
            for (AnswerBox(answer), old) in answers.into_iter().zip(applied) {
                answer(Ok(old));
            }
            self.rewrite_if_large(tasks).await;
        }
    }

    /// The changes from the front that fit together. One that does not fit is refused when it is the first: then all before
    /// it are applied, and the answer is exact. It is given by the caller, without the lock of the tables: whoever is
    /// answered may go on with requests that read them.
    fn next_batch(&self, taken: &mut VecDeque<(KvChange, AnswerBox)>) -> Batch {
        let tables = self.tables.read();
        let mut batch = Batch::default();
        let mut growth = Growth::default();
        while let Some((change, answer)) = taken.pop_front() {
            match tables.admit(&change, &mut growth, self.bytes_max) {
                Ok(()) => {
                    batch.changes.push(change);
                    batch.answers.push(answer);
                }
                Err(error) if batch.changes.is_empty() => {
                    batch.refused = Some((answer, error));
                    break;
                }
                Err(_) => {
                    taken.push_front((change, answer));
                    break;
                }
            }
        }
        batch
    }

    async fn rewrite_if_large(&self, tasks: &Tasks) {
        let rewritten = self.on_disk(tasks, |store, tables| {
            let tables = tables.read();
            if store.wants_rewrite(&tables) { store.rewrite(&tables) } else { Ok(()) }
        });
        if let Err(error) = rewritten.await {
            tracing::error!(%error, "the KV configuration was not written anew; its journal goes on");
        }
    }

    /// Runs work on the files away from the runtime's workers.
    async fn on_disk<T: Send + 'static>(
        &self,
        tasks: &Tasks,
        work: impl FnOnce(&mut Store, &RwLock<KvTables>) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        let (store, tables) = (Arc::clone(&self.store), Arc::clone(&self.tables));
        let work = tasks.spawn_blocking("kv-write", move || work(&mut store.lock(), &tables));
        work.await.ok().flatten().unwrap_or_else(|| {
            let source = io::Error::other("the write was abandoned");
            Err(KvError::Io { step: "write", path: PathBuf::from("the KV configuration"), source })
        })
    }
}

/// Applies changes that are on disk, and returns what was there before each. Namespaces that somebody makes a list of are copied
/// before the lock is taken for good: a long one takes a while, and all readers would wait for it. Nobody else changes them.
fn apply(tables: &RwLock<KvTables>, changes: Vec<KvChange>) -> Vec<Old> {
    let mut locked = tables.write();
    let shared = locked.shared(&changes);
    if !shared.is_empty() {
        drop(locked);
        let copies = shared.iter().map(|(name, namespace)| (name.clone(), Arc::new(Namespace::clone(namespace))));
        let copies = copies.collect();
        locked = tables.write();
        locked.replace(copies);
    }
    let old = changes.into_iter().map(|change| locked.apply(change)).collect();
    // Before what was copied, which takes a while to drop.
    drop(locked);
    old
}
