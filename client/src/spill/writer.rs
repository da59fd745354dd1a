//! The thread that has the [`Store`]: it writes what comes together with one flush, and tells each sender.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use escrowmq_common::task::Tasks;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::record::{Kept, payload_bytes};
use super::store::{Place, Refused, Store};
use super::waiting::{Entry, Waiting};

/// Commands that wait for the thread.
const COMMANDS: usize = 1024;
/// Bytes of messages that one flush makes durable; a single larger one goes alone.
const GROUP_BYTES: usize = 8 << 20;

/// What sends, the thread and the drain share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) waiting: Mutex<Waiting>,
    /// Something waits that did not before.
    pub(super) wake: Notify,
    pub(super) spilled: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Bytes of all files in the folder.
    pub(super) file_bytes: AtomicU64,
    pub(super) last_error: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn went_wrong(&self, error: String) {
        *self.last_error.lock() = Some(error);
    }
}

/// A message of a key that is about to wait. Others of its key wait behind it, unless it ends without being kept.
#[derive(Debug)]
pub(super) struct Reservation {
    shared: Arc<Shared>,
    topic: Arc<str>,
    key: Arc<str>,
    is_kept: bool,
}

impl Reservation {
    /// `waiting` is that of `shared`, locked.
    pub(super) fn new(shared: &Arc<Shared>, waiting: &mut Waiting, topic: &Arc<str>, key: &str) -> Reservation {
        let key: Arc<str> = key.into();
        waiting.reserve(topic, &key);
        Reservation { shared: Arc::clone(shared), topic: Arc::clone(topic), key, is_kept: false }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_kept {
            self.shared.waiting.lock().release(&self.topic, &self.key);
        }
    }
}

/// A message to be kept.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) kept: Kept,
    pub(super) reservation: Option<Reservation>,
    pub(super) reply: oneshot::Sender<Result<(), Refused>>,
}

/// A wish to the thread.
#[derive(Debug)]
pub(super) enum Command {
    Keep(Keep),
    /// The messages of records; none for one that is damaged.
    Read {
        places: Vec<Place>,
        reply: oneshot::Sender<io::Result<Vec<Option<Kept>>>>,
    },
    Done(Vec<Place>),
    /// Gives up a message; the answer says whether the failure log has it.
    Fail {
        entry: Entry,
        reason: String,
        reply: oneshot::Sender<bool>,
    },
}

/// The way to the thread, until it is closed.
#[derive(Debug)]
pub(super) struct Commands(Mutex<Option<mpsc::Sender<Command>>>);

impl Commands {
    pub(super) fn new(sender: mpsc::Sender<Command>) -> Commands {
        Commands(Mutex::new(Some(sender)))
    }

    /// `None` once it is closed.
    pub(super) fn get(&self) -> Option<mpsc::Sender<Command>> {
        self.0.lock().clone()
    }

    /// The thread ends when those who have a sender still have let go of it.
    pub(super) fn close(&self) {
        self.0.lock().take();
    }
}

/// Starts the thread. It ends, and lets go of the folder, when the last sender is gone.
pub(super) fn start(store: Store, shared: Arc<Shared>, tasks: &Tasks) -> io::Result<mpsc::Sender<Command>> {
    let (sender, receiver) = mpsc::channel(COMMANDS);
    shared.file_bytes.store(store.bytes(), Ordering::Relaxed);
    tasks.spawn_thread("spill writer", move || run(store, &shared, receiver))?;
    Ok(sender)
}

fn run(mut store: Store, shared: &Shared, mut commands: mpsc::Receiver<Command>) {
    while let Some(first) = commands.blocking_recv() {
        let (mut group, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Keep(keep) => {
                    bytes += payload_bytes(&keep.kept.message);
                    group.push(keep);
                }
                other => obey(&mut store, shared, other),
            }
            next = if bytes < GROUP_BYTES { commands.try_recv().ok() } else { None };
        }
        keep_all(&mut store, shared, group);
        shared.file_bytes.store(store.bytes(), Ordering::Relaxed);
    }
}

fn keep_all(store: &mut Store, shared: &Shared, group: Vec<Keep>) {
    if group.is_empty() {
        return;
    }
    let (mut messages, mut rest) = (Vec::new(), Vec::new());
    for Keep { kept, reservation, reply } in group {
        messages.push(kept);
        rest.push((reservation, reply));
    }
    let results = store.append(&mut messages);
    for ((kept, (reservation, reply)), result) in messages.into_iter().zip(rest).zip(results) {
        let told = match result {
            Ok(place) => {
                shared.waiting.lock().insert(Entry::of(&kept, place));
                if let Some(mut reservation) = reservation {
                    reservation.is_kept = true;
                }
                shared.spilled.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(refused) => {
                drop(reservation);
                Err(refused)
            }
        };
        // A sender that has gone is told nothing; its message is kept all the same.
        let _ = reply.send(told);
    }
    shared.wake.notify_one();
}

fn obey(store: &mut Store, shared: &Shared, command: Command) {
    match command {
        Command::Keep(_) => unreachable!("kept in groups"),
        Command::Read { places, reply } => {
            let read = places.into_iter().map(|place| store.read(place)).collect();
            // The drain may have ended meanwhile.
            let _ = reply.send(read);
        }
        Command::Done(places) => {
            if let Err(error) = store.done(&places) {
                tracing::warn!(%error, "messages that were sent from a spill may be sent again after a restart");
                shared.went_wrong(error.to_string());
            }
        }
        Command::Fail { entry, reason, reply } => {
            let written = store.fail(entry.place, &reason, entry.possible_duplicate);
            if let Err(error) = &written {
                tracing::error!(%error, "the failure log of a spill cannot be written; its message goes on waiting");
                shared.went_wrong(error.to_string());
            }
            let _ = reply.send(written.is_ok());
        }
    }
}
