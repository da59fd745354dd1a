//! The KV configuration: small texts by namespace and key, set by operators.
//!
//! Promises: a change is answered after it is on disk; a reader sees no change that is not; the file is at any
//! moment whole, the old one or the new one. Readers never wait for the disk. Many changes at once cost one write.
//!
//! The file holds `{"configTable":{namespace:{key:value}}}`, the form that RocketMQ's nameserver keeps, so that
//! one can be taken over. Each nameserver has its own: tools write to all of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use escrowmq_common::task::{Shutdown, Tasks};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// The namespace in which clients look for the queue order of topics.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// Changes that may wait for the disk; more are refused as busy.
const CHANGES_WAITING_MAX: usize = 256;

/// All namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvTables {
    #[serde(rename = "configTable", default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl KvTables {
    /// One value.
    pub fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        Some(self.namespace(namespace)?.get(key)?.as_str())
    }

    /// All of a namespace; `None` if nothing was ever put there.
    pub fn namespace(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)
    }

    /// A namespace as `{"table":{key:value}}`, the form in which it travels.
    pub fn list(&self, namespace: &str) -> Option<String> {
        #[derive(Serialize)]
        struct List<'a> {
            table: &'a BTreeMap<String, String>,
        }
        let table = self.namespace(namespace)?;
        Some(serde_json::to_string(&List { table }).expect("texts by text are JSON"))
    }

    fn apply(&mut self, change: KvChange) {
        match change {
            KvChange::Put { namespace, key, value } => {
                let table = self.namespaces.entry(namespace).or_default();
                table.insert(key, value);
            }
            KvChange::Delete { namespace, key } => {
                if let Some(table) = self.namespaces.get_mut(&namespace) {
                    table.remove(&key);
                }
            }
        }
    }
}

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

/// Why the file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The file system said no. A change that met this is not in force.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there but is not what we write. Starting without it would lose it at the next change.
    #[error(
        "{} is no KV configuration: {why}; repair it, or move it away to start with an empty one",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Too many changes wait for the disk already.
    #[error("too many changes of the KV configuration at once")]
    Busy,
}

impl KvError {
    /// Whether the same change may succeed later. None of these leaves a change half made.
    pub fn is_retryable(&self) -> bool {
        match self {
            KvError::Io { .. } | KvError::Busy => true,
            KvError::Corrupt { .. } => false,
        }
    }
}

/// Told when a change is on disk, or why not.
type Answer = Box<dyn FnOnce(Result<(), &KvError>) + Send>;

/// The handle: reads at once, hands changes to the [`KvWriter`].
#[derive(Debug, Clone)]
pub struct Kv {
    tables: Arc<ArcSwap<KvTables>>,
    changes: mpsc::Sender<(KvChange, AnswerBox)>,
}

/// Boxed closures have no `Debug`.
struct AnswerBox(Answer);

impl std::fmt::Debug for AnswerBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

/// The one that writes the file; its owner runs it as a task.
#[derive(Debug)]
pub struct KvWriter {
    file: KvFile,
    tables: Arc<ArcSwap<KvTables>>,
    changes: mpsc::Receiver<(KvChange, AnswerBox)>,
}

impl Kv {
    /// Loads the file, which need not exist. Nothing is written before the first change.
    pub fn open(path: &Path) -> Result<(Kv, KvWriter), KvError> {
        let file = KvFile { path: path.to_owned() };
        let tables = Arc::new(ArcSwap::from_pointee(file.load()?));
        let (sender, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
        let kv = Kv { tables: Arc::clone(&tables), changes: sender };
        let writer = KvWriter { file, tables, changes: receiver };
        Ok((kv, writer))
    }

    /// Everything as of now.
    pub fn tables(&self) -> Arc<KvTables> {
        self.tables.load_full()
    }

    /// Hands a change over; `answer` is called once, on another task, or right here if it cannot be taken.
    pub fn change(&self, change: KvChange, answer: impl FnOnce(Result<(), &KvError>) + Send + 'static) {
        let answer = AnswerBox(Box::new(answer));
        if let Err(refused) = self.changes.try_send((change, answer)) {
            let (_, AnswerBox(answer)) = refused.into_inner();
            answer(Err(&KvError::Busy));
        }
    }
}

impl KvWriter {
    /// Writes changes until shutdown; what was taken by then is written and answered.
    pub async fn run(mut self, tasks: Tasks, shutdown: Shutdown) {
        let mut taken = Vec::new();
        loop {
            tokio::select! {
                biased;
                n = self.changes.recv_many(&mut taken, CHANGES_WAITING_MAX) => if n == 0 { return },
                () = shutdown.cancelled() => return,
            }
            self.write(&tasks, &mut taken).await;
        }
    }

    async fn write(&self, tasks: &Tasks, taken: &mut Vec<(KvChange, AnswerBox)>) {
        let mut next = KvTables::clone(&self.tables.load());
        let mut answers = Vec::with_capacity(taken.len());
        for (change, answer) in taken.drain(..) {
            next.apply(change);
            answers.push(answer);
        }
        let next = Arc::new(next);
        let (file, written) = (self.file.clone(), Arc::clone(&next));
        let work = tasks.spawn_blocking("kv-write", move || file.store(&written));
        let outcome = work.await.ok().flatten();
        let outcome = outcome.unwrap_or_else(|| {
            Err(KvError::Io {
                step: "write",
                path: self.file.path.clone(),
                source: io::Error::other("the write was abandoned"),
            })
        });
        match &outcome {
            Ok(()) => self.tables.store(next),
            Err(error) => tracing::error!(%error, "a change of the KV configuration was refused"),
        }
        for AnswerBox(answer) in answers {
            answer(outcome.as_ref().copied());
        }
    }
}

/// The file and how it is written.
#[derive(Debug, Clone)]
struct KvFile {
    path: PathBuf,
}

impl KvFile {
    fn load(&self) -> Result<KvTables, KvError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(KvTables::default());
            }
            Err(source) => return Err(failed("read", &self.path)(source)),
        };
        serde_json::from_slice(&bytes).map_err(|error| KvError::Corrupt {
            path: self.path.clone(),
            why: if bytes.is_empty() { "it is empty".to_owned() } else { error.to_string() },
        })
    }

    fn store(&self, tables: &KvTables) -> Result<(), KvError> {
        let json = serde_json::to_vec_pretty(tables).expect("texts by text are JSON");
        replace_file(&self.path, &json).map_err(|(step, path, source)| KvError::Io { step, path, source })
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KvError {
    let path = path.to_owned();
    move |source| KvError::Io { step, path, source }
}

/// Puts `bytes` in the place of a file such that a crash leaves the old or the new one, and a return means the
/// new one for good. The error says which step failed with which path.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), (&'static str, PathBuf, io::Error)> {
    let at = |step: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error| (step, path, error)
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(at("make", folder))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = folder.join(name);
    // A crash up to the rename leaves a stray temporary file, which the next change overwrites.
    let mut file = File::create(&temporary).map_err(at("make", &temporary))?;
    file.write_all(bytes).map_err(at("write", &temporary))?;
    // Without this the rename could reach the disk before the bytes: an empty file after a power cut.
    file.sync_all().map_err(at("sync", &temporary))?;
    drop(file);
    fs::rename(&temporary, path).map_err(at("replace", path))?;
    // Until the folder is synced a power cut may bring the old file back, so nobody is answered before.
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(at("sync", folder))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    async fn change(kv: &Kv, change: KvChange) -> Result<(), String> {
        let (sender, receiver) = oneshot::channel();
        kv.change(change, move |outcome| {
            let _ = sender.send(outcome.map_err(ToString::to_string));
        });
        receiver.await.expect("every change is answered")
    }

    fn put(namespace: &str, key: &str, value: &str) -> KvChange {
        KvChange::Put { namespace: namespace.into(), key: key.into(), value: value.into() }
    }

    fn start(path: &Path) -> (Kv, Tasks, Shutdown) {
        let (kv, writer) = Kv::open(path).unwrap();
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        tasks.spawn("kv", writer.run(tasks.clone(), shutdown.clone()));
        (kv, tasks, shutdown)
    }

    #[tokio::test]
    async fn changes_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/kvConfig.json");
        let (kv, tasks, shutdown) = start(&path);
        change(&kv, put("N", "k", "v\"1")).await.unwrap();
        change(&kv, put("N", "gone", "x")).await.unwrap();
        let delete = KvChange::Delete { namespace: "N".into(), key: "gone".into() };
        change(&kv, delete).await.unwrap();
        assert_eq!(kv.tables().get("N", "k"), Some("v\"1"));
        shutdown.cancel();
        tasks.join().await;

        let (again, _) = Kv::open(&path).unwrap();
        assert_eq!(again.tables(), kv.tables());
        assert_eq!(again.tables().namespace("N").unwrap().len(), 1);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file stays");
    }

    #[test]
    fn a_file_of_the_java_nameserver_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvConfig.json");
        fs::write(&path, r#"{"configTable":{"ORDER_TOPIC_CONFIG":{"T":"a:4"}}}"#).unwrap();
        let (kv, _) = Kv::open(&path).unwrap();
        assert_eq!(kv.tables().get(ORDER_TOPIC_CONFIG, "T"), Some("a:4"));
    }

    #[test]
    fn a_corrupt_file_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvConfig.json");
        for text in ["", "{\"configTable\":{\"N\":", "[1]", "{\"configTable\":7}"] {
            fs::write(&path, text).unwrap();
            let error = Kv::open(&path).unwrap_err();
            assert!(matches!(error, KvError::Corrupt { .. }), "{text:?}: {error}");
            assert!(error.to_string().contains("kvConfig.json"), "{error}");
            assert!(!error.is_retryable());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_written_is_not_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/kvConfig.json");
        let (kv, _tasks, _shutdown) = start(&path);
        change(&kv, put("N", "k", "old")).await.unwrap();
        // The temporary file's place is taken by a folder: the write fails, for whatever user the test runs as.
        fs::create_dir(folder.path().join("sub/kvConfig.json.tmp")).unwrap();
        let refused = change(&kv, put("N", "k", "new")).await.unwrap_err();
        assert!(refused.contains("kvConfig.json.tmp"), "{refused}");
        assert_eq!(kv.tables().get("N", "k"), Some("old"));
        fs::remove_dir(folder.path().join("sub/kvConfig.json.tmp")).unwrap();
        change(&kv, put("N", "k", "new")).await.unwrap();
        assert_eq!(kv.tables().get("N", "k"), Some("new"));
    }

    #[tokio::test]
    async fn more_changes_than_may_wait_are_refused_as_busy() {
        let folder = tempfile::tempdir().unwrap();
        let (kv, _writer_that_never_runs) = Kv::open(&folder.path().join("kv.json")).unwrap();
        for _ in 0..CHANGES_WAITING_MAX {
            kv.change(put("N", "k", "v"), |_| {});
        }
        let refused = change(&kv, put("N", "k", "v")).await.unwrap_err();
        assert_eq!(refused, KvError::Busy.to_string());
    }
}
