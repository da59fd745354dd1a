//! The producer that spills, as its user sees it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::message::properties::name;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::drain::{self, is_kept_after};
use super::error::SpillError;
use super::outlet::Outlet;
use super::receipt::{Receipt, Spilled};
use super::record::Kept;
use super::store::{Refused, Store};
use super::waiting::{Entry, Waiting, key};
use super::writer::{self, Command, Commands, Keep, Reservation, Shared};
use crate::batching::{Batches, BatchingBuilder, sealed};
use crate::error::SendError;
use crate::message::Message;
use crate::producer::Producer;

/// Sends messages, and keeps in a local folder what could not be sent. Cheap to clone; made by
/// [`ProducerBuilder::spill`](crate::ProducerBuilder::spill).
///
/// ```no_run
/// # async fn run(client: escrowmq_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use escrowmq_client::{Message, Receipt, Spill};
///
/// let producer = client.producer("orders").spill(Spill::dir("/var/lib/shop/spill")).start().await?;
/// match producer.send(Message::new("Orders", "order 17").sharding_key("customer 4")).await? {
///     Receipt::Stored(sent) => println!("{} is in {}", sent.message_id, sent.queue),
///     Receipt::Spilled(spilled) => println!("{} is sent when brokers are back", spilled.message_id),
///     _ => {}
/// }
/// producer.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// A message is spilled after a send that failed because brokers are away, busy or without a route, or whose outcome nobody knows;
/// a message that is itself at fault is an error, as with any producer. Messages of a sharding key stay in order: while one waits,
/// those that follow wait behind it. Messages without a key may go around those that wait, except while brokers are away: then
/// they are spilled at once, without a try that would end with the deadline. What waits is tried again after 0.1 s to 30 s.
///
/// A delay or timer that is relative begins when a broker gets the message.
///
/// A producer that is merely dropped stops sending what waits; the next start goes on. So does one after a kill or a power cut.
#[derive(Clone, Debug)]
pub struct SpillingProducer {
    core: Arc<Core<Producer>>,
}

/// How a spill does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpillStats {
    /// Messages that wait.
    pub waiting: usize,
    /// Bytes of those.
    pub waiting_bytes: u64,
    /// Bytes of all files, which count against the capacity.
    pub file_bytes: u64,
    /// What they may be.
    pub capacity: u64,
    /// Age of the oldest message that waits, by the wall clock; `None` if none does.
    pub oldest: Option<Duration>,
    /// Messages that were spilled since the start.
    pub spilled: u64,
    /// Messages that were sent from the spill since the start.
    pub sent: u64,
    /// Messages that went to the failure log since the start.
    pub failed: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl SpillingProducer {
    pub(super) fn begin(
        producer: Producer,
        store: Store,
        entries: Vec<Entry>,
        capacity: u64,
        is_synced: bool,
        is_strict: bool,
    ) -> io::Result<SpillingProducer> {
        Ok(SpillingProducer { core: Arc::new(Core::start(producer, store, entries, capacity, is_synced, is_strict)?) })
    }

    /// Sends a message, or keeps it to be sent later. The receipt says which.
    ///
    /// A send whose future is dropped before its end may or may not have stored or kept the message.
    ///
    /// # Errors
    ///
    /// [`SpillError::Send`] if waiting would not help, [`SpillError::Full`] and [`SpillError::Disk`] if the message could not be kept
    /// either.
    pub async fn send(&self, message: Message) -> Result<Receipt, SpillError> {
        self.core.send(message).await
    }

    /// Begins a producer that gathers messages into batches by itself, and spills those that could not be sent.
    pub fn batching(&self) -> BatchingBuilder<SpillingProducer> {
        BatchingBuilder::new(self.clone(), self.core.outlet.settings())
    }

    /// The producer inside, for what needs no spill. Messages of a sharding key that are sent by it do not wait for those that are
    /// spilled.
    pub fn producer(&self) -> &Producer {
        &self.core.outlet
    }

    /// How the spill does now.
    pub fn stats(&self) -> SpillStats {
        self.core.stats()
    }

    /// Refuses further sends, waits for those in flight, and closes the folder. What waits there stays for the next start. The
    /// client's own shutdown does the same, but does not wait until another process may have the folder.
    pub async fn shutdown(&self) {
        self.core.outlet.shutdown().await;
        self.core.shutdown().await;
    }
}

impl sealed::Sealed for SpillingProducer {}

impl Batches for SpillingProducer {
    type Receipt = Receipt;
    type Error = SpillError;

    fn seal(&self, message: &mut Message) -> Result<String, SendError> {
        Producer::seal(&self.core.outlet, message)
    }

    async fn send_lane(&self, messages: Vec<Message>, messages_max: usize) -> Vec<Result<Receipt, SpillError>> {
        self.core.send_lane(messages, messages_max).await
    }
}

/// Everything but the kind of what it sends by.
#[derive(Debug)]
pub(super) struct Core<O> {
    pub(super) outlet: Arc<O>,
    shared: Arc<Shared>,
    commands: Arc<Commands>,
    capacity: u64,
    is_synced: bool,
    is_strict: bool,
    shutdown: Shutdown,
    tasks: Tasks,
}

/// A message that the thread has.
struct Handed {
    message_id: String,
    possible_duplicate: bool,
    cause: Option<Box<SendError>>,
    told: oneshot::Receiver<Result<(), Refused>>,
}

/// Where a message goes first.
enum Way {
    /// To brokers.
    Free,
    /// Behind those that wait, with a place among those of its key if it has one.
    Behind(Option<Reservation>),
}

/// How far a message of a lane is.
enum Step {
    Ended(Result<Receipt, SpillError>),
    Handed(Handed),
}

impl<O: Outlet> Core<O> {
    pub(super) fn start(
        outlet: O,
        store: Store,
        entries: Vec<Entry>,
        capacity: u64,
        is_synced: bool,
        is_strict: bool,
    ) -> io::Result<Core<O>> {
        let shared = Arc::new(Shared { waiting: Mutex::new(Waiting::of(entries)), ..Shared::default() });
        let (shutdown, tasks, outlet) = (Shutdown::new(), Tasks::new(), Arc::new(outlet));
        let commands = writer::start(store, Arc::clone(&shared), &tasks)?;
        let commands = Arc::new(Commands::new(commands));
        let drain = drain::run(Arc::clone(&outlet), Arc::clone(&shared), Arc::clone(&commands), shutdown.clone());
        tasks.spawn("spill drain", drain);
        Ok(Core { outlet, shared, commands, capacity, is_synced, is_strict, shutdown, tasks })
    }

    pub(super) async fn send(&self, mut message: Message) -> Result<Receipt, SpillError> {
        self.outlet.seal(&mut message)?;
        let commands = self.commands()?;
        let (reservation, cause) = match self.way(&message) {
            Way::Behind(reservation) => (reservation, None),
            Way::Free => match self.outlet.send(message.clone()).await {
                Ok(sent) => return Ok(Receipt::Stored(sent)),
                Err(error) if is_kept_after(&error) => {
                    (self.reserve(&mut self.shared.waiting.lock(), &message), Some(error))
                }
                Err(error) => return Err(error.into()),
            },
        };
        let handed = self.hand_over(&commands, message, reservation, cause).await;
        self.told(handed).await
    }

    /// Sends messages of one topic, those of a sharding key in their order. They are sealed.
    pub(super) async fn send_lane(
        &self,
        messages: Vec<Message>,
        messages_max: usize,
    ) -> Vec<Result<Receipt, SpillError>> {
        let commands = match self.commands() {
            Ok(commands) => commands,
            Err(error) => return messages.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let ways: Vec<Way> = messages.iter().map(|message| self.way(message)).collect();
        let first = messages.iter().zip(&ways).filter(|(_, way)| matches!(way, Way::Free));
        let first = first.map(|(message, _)| message.clone()).collect();
        let mut sent = self.outlet.send_lane(first, messages_max).await.into_iter();
        let mut ended = Vec::with_capacity(messages.len());
        for (message, way) in messages.into_iter().zip(ways) {
            let (reservation, cause) = match way {
                Way::Behind(reservation) => (reservation, None),
                Way::Free => match sent.next().expect("each message has a result") {
                    Ok(sent) => {
                        ended.push(Step::Ended(Ok(Receipt::Stored(sent))));
                        continue;
                    }
                    Err(error) if is_kept_after(&error) => {
                        (self.reserve(&mut self.shared.waiting.lock(), &message), Some(error))
                    }
                    Err(error) => {
                        ended.push(Step::Ended(Err(error.into())));
                        continue;
                    }
                },
            };
            ended.push(Step::Handed(self.hand_over(&commands, message, reservation, cause).await));
        }
        // All are handed over by now, so that they share a flush.
        let mut results = Vec::with_capacity(ended.len());
        for ended in ended {
            results.push(match ended {
                Step::Handed(handed) => self.told(handed).await,
                Step::Ended(result) => result,
            });
        }
        results
    }

    fn commands(&self) -> Result<mpsc::Sender<Command>, SendError> {
        self.commands.get().ok_or(SendError::ShutDown)
    }

    /// Whether a message has to wait behind others.
    fn way(&self, message: &Message) -> Way {
        let mut waiting = self.shared.waiting.lock();
        if waiting.must_wait(&message.topic_shared(), key(message)) {
            Way::Behind(self.reserve(&mut waiting, message))
        } else {
            Way::Free
        }
    }

    /// Gives a message to the thread that writes.
    async fn hand_over(
        &self,
        commands: &mpsc::Sender<Command>,
        message: Message,
        reservation: Option<Reservation>,
        cause: Option<SendError>,
    ) -> Handed {
        let message_id = message.get(name::UNIQUE_KEY).unwrap_or_default().to_owned();
        let possible_duplicate = cause.as_ref().is_some_and(SendError::outcome_unknown);
        let cause = cause.map(Box::new);
        let kept = Kept { number: 0, since_ms: clock::wall_ms(), possible_duplicate, message };
        let (reply, told) = oneshot::channel();
        // If the thread is gone, so is the reply.
        let _ = commands.send(Command::Keep(Keep { kept, reservation, reply })).await;
        Handed { message_id, possible_duplicate, cause, told }
    }

    /// What the thread says.
    async fn told(&self, handed: Handed) -> Result<Receipt, SpillError> {
        let Handed { message_id, possible_duplicate, cause, told } = handed;
        let no_thread = || Refused::Disk { reason: "its thread has ended".to_owned(), maybe_kept: true };
        match told.await.unwrap_or_else(|_| Err(no_thread())) {
            Ok(()) => {
                let spilled = Spilled { message_id, is_synced: self.is_synced, possible_duplicate, cause };
                if self.is_strict { Err(SpillError::Spilled(spilled)) } else { Ok(Receipt::Spilled(spilled)) }
            }
            Err(Refused::Full(reason)) => Err(SpillError::Full { message_id, reason, cause }),
            Err(Refused::Disk { reason, maybe_kept }) => {
                Err(SpillError::Disk { message_id, reason, cause, maybe_kept })
            }
        }
    }

    fn reserve(&self, waiting: &mut Waiting, message: &Message) -> Option<Reservation> {
        let key = key(message)?;
        Some(Reservation::new(&self.shared, waiting, &message.topic_shared(), key))
    }

    pub(super) fn stats(&self) -> SpillStats {
        let shared = &*self.shared;
        let ((waiting, waiting_bytes), oldest_ms) = {
            let waiting = shared.waiting.lock();
            (waiting.size(), waiting.oldest_ms())
        };
        let age = |since: i64| Duration::from_millis(u64::try_from(clock::wall_ms() - since).unwrap_or(0));
        SpillStats {
            waiting,
            waiting_bytes,
            file_bytes: shared.file_bytes.load(Ordering::Relaxed),
            capacity: self.capacity,
            oldest: oldest_ms.map(age),
            spilled: shared.spilled.load(Ordering::Relaxed),
            sent: shared.sent.load(Ordering::Relaxed),
            failed: shared.failed.load(Ordering::Relaxed),
            last_error: shared.last_error.lock().clone(),
        }
    }

    pub(super) async fn shutdown(&self) {
        self.shutdown.cancel();
        // The thread ends when the drain and the sends in flight have let go of theirs.
        self.commands.close();
        self.tasks.join().await;
    }
}

impl<O> Drop for Core<O> {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
