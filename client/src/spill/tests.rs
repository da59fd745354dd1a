//! The parts together, against an outlet that does as it is told.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::error::SpillError;
use super::outlet::Outlet;
use super::producer::Core;
use super::receipt::Receipt;
use super::store::Store;
use crate::error::{EARLIER, RequestError, SendError};
use crate::message::Message;
use crate::producer::{SendResult, SentInOrder, StoreLevel, seal};
use crate::queue::MessageQueue;

/// What becomes of a message that is sent.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Stored,
    /// And nobody is told.
    StoredSilently,
    Lost,
    Away,
    Illegal,
    Forbidden,
}

/// Decides by the number of the attempt.
type Plan = Box<dyn Fn(u64, &Message) -> Fate + Send + Sync>;

/// Brokers of the test's own.
struct Brokers {
    plan: Mutex<Plan>,
    attempts: Mutex<u64>,
    /// Unique ids and bodies, in the order in which they were stored.
    stored: Mutex<Vec<(String, String)>>,
}

#[derive(Clone)]
struct Fake(Arc<Brokers>);

impl Fake {
    fn new(plan: impl Fn(u64, &Message) -> Fate + Send + Sync + 'static) -> Fake {
        Fake(Arc::new(Brokers {
            plan: Mutex::new(Box::new(plan)),
            attempts: Mutex::default(),
            stored: Mutex::default(),
        }))
    }

    fn plan(&self, plan: impl Fn(u64, &Message) -> Fate + Send + Sync + 'static) {
        *self.0.plan.lock() = Box::new(plan);
    }

    fn bodies(&self) -> Vec<String> {
        self.0.stored.lock().iter().map(|(_, body)| body.clone()).collect()
    }

    fn attempt(&self, message: &Message) -> Result<SendResult, SendError> {
        let number = {
            let mut attempts = self.0.attempts.lock();
            *attempts += 1;
            *attempts
        };
        let fate = (self.0.plan.lock())(number, message);
        let message_id = message.get("UNIQ_KEY").expect("sealed").to_owned();
        let refused = |code| RequestError::Refused { addr: "a".into(), code, remark: "no".into() };
        let lost = || RequestError::ConnectionLost { addr: "a".into(), reason: "gone".into() };
        if matches!(fate, Fate::Stored | Fate::StoredSilently) {
            let body = String::from_utf8_lossy(message.body()).into_owned();
            self.0.stored.lock().push((message_id.clone(), body));
        }
        match fate {
            Fate::Stored => Ok(SendResult {
                message_id,
                offset_message_id: String::new(),
                queue: MessageQueue::new(message.topic(), "a", 0),
                queue_offset: 0,
                transaction_id: None,
                level: StoreLevel::Full,
                attempts: 1,
                possible_duplicate: false,
                recall_handle: None,
                traced_in: None,
            }),
            Fate::StoredSilently | Fate::Lost => {
                Err(SendError::OutcomeUnknown { message_id, attempts: 1, last: lost() })
            }
            Fate::Away => {
                Err(SendError::NotStored { attempts: 1, last: RequestError::NoRoute { topic: message.topic().into() } })
            }
            Fate::Illegal => Err(SendError::NotStored { attempts: 1, last: refused(13) }),
            Fate::Forbidden => Err(SendError::NotStored { attempts: 1, last: refused(16) }),
        }
    }
}

impl Outlet for Fake {
    fn seal(&self, message: &mut Message) -> Result<String, SendError> {
        message.validate(1 << 20)?;
        Ok(seal(message, true))
    }

    async fn closing(&self) {
        std::future::pending::<()>().await;
    }

    async fn send(&self, message: Message) -> Result<SendResult, SendError> {
        // Others get their turn in between.
        tokio::task::yield_now().await;
        self.attempt(&message)
    }

    async fn send_lane(&self, messages: Vec<Message>, _: usize) -> Vec<Result<SendResult, SendError>> {
        let mut results: Vec<Result<SendResult, SendError>> = Vec::new();
        for message in messages {
            tokio::task::yield_now().await;
            let failed = results.last().is_some_and(Result::is_err);
            let last = || RequestError::NoRoute { topic: "T".into() }.before_sending(EARLIER);
            results.push(if failed {
                Err(SendError::NotStored { attempts: 0, last: last() })
            } else {
                self.attempt(&message)
            });
        }
        results
    }

    async fn send_page(&self, page: Vec<(u64, Message)>) -> SentInOrder<u64> {
        let mut sent = SentInOrder::default();
        for (number, message) in page {
            tokio::task::yield_now().await;
            match self.attempt(&message) {
                Ok(_) => sent.stored.push(number),
                Err(error) if crate::producer::concerns_message(&error) => {
                    sent.refused.push((number, error));
                    break;
                }
                Err(error) => {
                    sent.away.push((number, error));
                    break;
                }
            }
        }
        sent
    }
}

fn start(folder: &Path, fake: &Fake, is_strict: bool) -> Core<Fake> {
    let capacity = 1 << 20;
    let (store, entries) = Store::open(folder, capacity, false).expect("it opens");
    Core::start(fake.clone(), store, entries, capacity, false, is_strict).expect("it starts")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let waiting = async {
        while !condition() {
            ticks.tick().await;
        }
    };
    // By the clock of the test, which runs ahead of the thread that writes.
    tokio::time::timeout(Duration::from_secs(100_000), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn message(key: &str, body: &str) -> Message {
    let message = Message::new("T", body.to_owned());
    if key.is_empty() { message } else { message.sharding_key(key) }
}

#[tokio::test(start_paused = true)]
async fn messages_wait_while_brokers_are_away_and_go_in_order_when_they_are_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = Fake::new(|_, _| Fate::Away);
    let core = start(folder.path(), &fake, false);
    for body in ["1", "2", "3"] {
        let receipt = core.send(message("k", body)).await.expect("kept");
        let spilled = receipt.spilled().expect("at no broker");
        assert_eq!((spilled.is_synced, spilled.possible_duplicate), (false, false));
        assert_eq!(spilled.cause.is_some(), body == "1", "the others wait behind it");
    }
    let stats = core.stats();
    assert_eq!((stats.waiting, stats.spilled, stats.sent), (3, 3, 0));
    assert!(stats.oldest.is_some() && stats.file_bytes > 0);
    until("a try", || core.stats().last_error.is_some()).await;
    fake.plan(|_, _| Fate::Stored);
    until("an empty spill", || core.stats().waiting == 0).await;
    assert_eq!(fake.bodies(), ["1", "2", "3"]);
    assert!(core.send(message("k", "4")).await.expect("sent").stored().is_some());
    core.shutdown().await;
    assert!(matches!(core.send(message("k", "5")).await, Err(SpillError::Send(SendError::ShutDown))));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_kept_under_its_id_and_said_to_be_a_possible_duplicate() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = Fake::new(|number, _| if number == 1 { Fate::StoredSilently } else { Fate::Stored });
    let core = start(folder.path(), &fake, false);
    let receipt = core.send(message("", "x")).await.expect("kept");
    assert!(receipt.spilled().is_some_and(|spilled| spilled.possible_duplicate));
    until("an empty spill", || core.stats().waiting == 0).await;
    let stored = fake.0.stored.lock().clone();
    assert_eq!(stored, vec![(receipt.message_id().to_owned(), "x".to_owned()); 2]);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_at_fault_is_an_error_at_once_and_goes_to_the_failure_log_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = Fake::new(|_, message| match &message.body()[..] {
        b"illegal" => Fate::Illegal,
        b"forbidden" => Fate::Forbidden,
        _ => Fate::Stored,
    });
    let core = start(folder.path(), &fake, false);
    for body in ["illegal", "forbidden"] {
        let error = core.send(message("k", body)).await.expect_err("refused");
        assert!(matches!(error, SpillError::Send(_)) && !error.outcome_unknown(), "{error}");
    }
    assert!(matches!(core.send(message("k", "")).await, Err(SpillError::Send(SendError::Invalid { .. }))));
    assert_eq!(core.stats().waiting, 0);
    // Behind one that waits nobody knows yet that they are at fault.
    let refusing = |_: u64, message: &Message| match &message.body()[..] {
        b"illegal" => Fate::Illegal,
        b"forbidden" => Fate::Forbidden,
        _ => Fate::Stored,
    };
    fake.plan(|_, _| Fate::Away);
    for body in ["first", "illegal", "forbidden", "last"] {
        assert!(core.send(message("k", body)).await.expect("kept").spilled().is_some());
    }
    fake.plan(refusing);
    until("an empty spill", || core.stats().waiting == 0).await;
    core.shutdown().await;
    assert_eq!(fake.bodies(), ["first", "last"]);
    assert_eq!((core.stats().failed, core.stats().sent), (2, 2));
    let failed = super::Spill::failed(folder.path()).expect("readable");
    let bodies: Vec<_> = failed.iter().map(|one| one.message.body().clone()).collect();
    assert_eq!(bodies, ["illegal", "forbidden"]);
    assert!(failed[1].reason.contains("code 16"), "{}", failed[1].reason);
}

#[tokio::test(start_paused = true)]
async fn a_full_spill_is_a_retryable_error_that_keeps_what_is_known_of_the_outcome() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = Fake::new(|_, _| Fate::Away);
    let core = start(folder.path(), &fake, false);
    let large = "x".repeat(100_000);
    let mut kept = 0;
    let error = loop {
        match core.send(message("", &large)).await {
            Ok(receipt) => assert!(receipt.spilled().is_some()),
            Err(error) => break error,
        }
        kept += 1;
    };
    assert!(matches!(&error, SpillError::Full { .. }), "{error}");
    assert!(error.is_retryable() && !error.outcome_unknown());
    // Of a message whose key waits behind nobody, so that it is tried first.
    fake.plan(|_, _| Fate::Lost);
    let error = core.send(message("k", &large)).await.expect_err("full");
    assert!(error.is_retryable() && error.outcome_unknown(), "{error}");
    fake.plan(|_, _| Fate::Stored);
    assert!(core.send(message("k", &large)).await.expect("sent").stored().is_some(), "it holds nobody back");
    until("an empty spill", || core.stats().waiting == 0).await;
    assert_eq!(fake.bodies().len(), kept + 1);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn strict_takes_spilled_for_no_success() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = Fake::new(|_, _| Fate::Away);
    let core = start(folder.path(), &fake, true);
    let error = core.send(message("k", "x")).await.expect_err("at no broker");
    assert!(matches!(error, SpillError::Spilled(_)) && !error.is_retryable() && error.outcome_unknown(), "{error}");
    fake.plan(|_, _| Fate::Stored);
    until("an empty spill", || core.stats().waiting == 0).await;
    core.shutdown().await;
    assert_eq!(fake.bodies(), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn a_send_that_is_given_up_leaves_no_key_held() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = Fake::new(|_, _| Fate::Away);
    let core = start(folder.path(), &fake, false);
    for polls in 0..6 {
        let mut send = Box::pin(core.send(message("k", "x")));
        for _ in 0..polls {
            let _ = futures_util::poll!(&mut send);
        }
    }
    fake.plan(|_, _| Fate::Stored);
    until("a send that waits for nobody", || core.stats().waiting == 0).await;
    core.send(message("k", "last")).await.map(drop).expect("sent or kept");
    until("an empty spill", || core.stats().waiting == 0).await;
    assert!(core.send(message("k", "y")).await.expect("sent").stored().is_some());
    core.shutdown().await;
}

/// Numbers that look random, by xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % count
    }
}

/// Several keys, each of which awaits its sends, over brokers that come and go and restarts of the process: nothing is lost, and
/// messages of a key arrive first in their order.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_and_keys_keep_their_order_whatever_fails() {
    for seed in 1..=40_u64 {
        let folder = tempfile::tempdir().expect("a folder");
        let dice = Mutex::new(Dice(seed * 0x9e37_79b9_7f4a_7c15));
        let fake = Fake::new(move |_, _| match dice.lock().below(10) {
            0..=3 => Fate::Stored,
            4 => Fate::StoredSilently,
            5 => Fate::Lost,
            _ => Fate::Away,
        });
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for run in 0..3 {
            let core = start(folder.path(), &fake, false);
            let keys = ["", "a", "b", "c"].map(|key| {
                let core = &core;
                async move {
                    let mut acknowledged = Vec::new();
                    let bodies: Vec<String> = (0..12).map(|number| format!("{key}-{run}-{number:02}")).collect();
                    // One key is sent in batches.
                    for together in bodies.chunks(if key == "b" { 4 } else { 1 }) {
                        let mut messages: Vec<Message> = together.iter().map(|body| message(key, body)).collect();
                        let receipts = if messages.len() == 1 {
                            vec![core.send(messages.remove(0)).await]
                        } else {
                            for message in &mut messages {
                                core.outlet.seal(message).expect("good");
                            }
                            core.send_lane(messages, 64).await
                        };
                        for receipt in receipts {
                            assert!(matches!(receipt, Ok(Receipt::Stored(_) | Receipt::Spilled(_))), "{receipt:?}");
                        }
                    }
                    acknowledged.extend(bodies);
                    (key.to_owned(), acknowledged)
                }
            });
            for (key, bodies) in join_all(keys).await {
                expected.entry(key).or_default().extend(bodies);
            }
            core.shutdown().await;
        }
        fake.plan(|_, _| Fate::Stored);
        let core = start(folder.path(), &fake, false);
        until("an empty spill", || core.stats().waiting == 0).await;
        core.shutdown().await;
        let mut ids: HashMap<String, String> = HashMap::new();
        let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, body) in fake.0.stored.lock().iter() {
            let known = ids.insert(body.clone(), id.clone());
            assert!(known.is_none() || known.as_ref() == Some(id), "seed {seed}: {body} under two ids");
            if known.is_none() {
                let key = body.split('-').next().expect("a key").to_owned();
                first.entry(key).or_default().push(body.clone());
            }
        }
        for (key, bodies) in &mut expected {
            let mut arrived = first.remove(key).unwrap_or_default();
            if key.is_empty() {
                arrived.sort();
            }
            assert_eq!(&arrived, bodies, "seed {seed}, key {key:?}");
        }
    }
}
