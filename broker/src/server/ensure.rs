//! Topics and groups that come into being because somebody uses them.
//!
//! [`topic`] and [`group`] call back with what there is, at once if it is there already; else one command creates it,
//! however many requests want it at that moment, and all of them are called back from its completion. A callback may run
//! on the apply thread: it must not wait, but it may submit.

use std::collections::HashMap;
use std::sync::Arc;

use escrowmq_common::name;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::bounds::{self, Maker, Rates, TooMany};
use crate::broker::Broker;
use crate::index::meta::encode_cold;
use crate::shard::{Admission, Command, Completion, Outcome, Refusal, SubmitError, Topic};
use crate::terms::{GroupSettings, TopicSettings};

/// Why there is no such topic or group.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum EnsureError {
    /// Groups are not created automatically, or not under this name.
    #[error("subscription group not exist, {0}")]
    NoGroup(String),
    /// The command has no outcome.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The command was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There are as many as there may be, or the client makes them too fast.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Too many requests wait for it.
    #[error("{0} is being created, and too many requests wait for that: nothing was stored, try again")]
    Crowded(String),
    /// Deleted again before anybody saw it.
    #[error("{0} was deleted while it was created")]
    Gone(String),
}

/// The most requests that wait for one topic or group to be made. Each may hold a message, which nothing else counts.
const WAITING_MAX: usize = 1024;

type Then = Box<dyn FnOnce(&Result<(), EnsureError>) + Send>;

/// What is being created, and who waits for it.
#[derive(Default)]
pub(crate) struct Creations {
    topics: Mutex<BeingMade>,
    groups: Mutex<BeingMade>,
    /// How fast connections make them.
    pub(super) rates: Rates,
}

/// Topics, or groups, whose command is on its way.
#[derive(Default)]
struct BeingMade {
    waiting: HashMap<String, Vec<Then>>,
    /// Those that operators make, for which nobody else waits.
    placed: usize,
    /// Queues of all of them.
    queues: u64,
}

impl BeingMade {
    fn count(&self) -> usize {
        self.waiting.len() + self.placed
    }

    /// Takes room in the table that `made` guards, which is this one.
    fn take<'a>(&mut self, made: &'a Mutex<Self>, count: usize, queues: u64) -> Place<'a> {
        self.placed += count;
        self.queues += queues;
        Place { made, count, queues }
    }
}

/// Room for a topic or a group that an operator makes or changes. It is taken until this is dropped, so that requests beside each
/// other cannot all find the same room.
pub(super) struct Place<'a> {
    made: &'a Mutex<BeingMade>,
    count: usize,
    queues: u64,
}

impl<'a> Place<'a> {
    /// Room for a topic with these settings.
    pub(super) fn of_topic(broker: &'a Broker, maker: Maker, settings: &TopicSettings) -> Result<Self, TooMany> {
        let mut made = broker.creations.topics.lock();
        bounds::topic(broker, maker, settings, made.count(), made.queues)?;
        let known = broker.shard.topics().get(&settings.name).map(|topic| topic.queues.len() as u64);
        let queues = u64::from(settings.queue_count()).saturating_sub(known.unwrap_or_default());
        Ok(made.take(&broker.creations.topics, usize::from(known.is_none()), queues))
    }

    /// Room for a group of this name.
    pub(super) fn of_group(broker: &'a Broker, maker: Maker, name: &str) -> Result<Self, TooMany> {
        let mut made = broker.creations.groups.lock();
        bounds::group(broker, maker, name, made.count())?;
        let is_new = broker.shard.groups().get(name).is_none();
        Ok(made.take(&broker.creations.groups, usize::from(is_new), 0))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut made = self.made.lock();
        made.placed -= self.count;
        made.queues -= self.queues;
    }
}

/// Calls `then` with the topic of these settings' name: as it is, or created with these settings.
pub(crate) fn topic(
    broker: &Arc<Broker>,
    maker: Maker,
    settings: &TopicSettings,
    then: impl FnOnce(Result<Arc<Topic>, EnsureError>) + Send + 'static,
) {
    if let Some(topic) = broker.shard.topics().get(&settings.name) {
        return then(Ok(topic));
    }
    let (reader, name) = (Arc::clone(broker), settings.name.clone());
    let waiting: Then = Box::new(move |created| {
        then(created.clone().and_then(|()| {
            let topic = reader.shard.topics().get(&name);
            topic.ok_or(EnsureError::Gone(name))
        }));
    });
    let command = encode_cold(settings);
    let wanted = Wanted { maker, queues: u64::from(settings.queue_count()) };
    let may_be_made = |made: &BeingMade| bounds::topic(broker, maker, settings, made.count(), made.queues);
    create(broker, Kind::Topic, &settings.name, wanted, may_be_made, waiting, &Command::PutTopic(&command));
}

/// Calls `then` with the group of this name; creates it, and its retry topic, where groups are created automatically.
pub(crate) fn group(
    broker: &Arc<Broker>,
    maker: Maker,
    group: &str,
    then: impl FnOnce(Result<Arc<GroupSettings>, EnsureError>) + Send + 'static,
) {
    if let Some(settings) = broker.shard.groups().get(group) {
        return retry_topic(broker, maker, settings, then);
    }
    let allowed = broker.config().auto_create_subscription_group || name::is_system_group(group);
    if !allowed || name::validate_group(group).is_err() {
        return then(Err(EnsureError::NoGroup(group.to_owned())));
    }
    let (reader, name) = (Arc::clone(broker), group.to_owned());
    let waiting: Then = Box::new(move |created| match created {
        Err(error) => then(Err(error.clone())),
        Ok(()) => match reader.shard.groups().get(&name) {
            // Whoever may make the group gets all of it.
            Some(settings) => retry_topic(&reader, Maker::Broker, settings, then),
            None => then(Err(EnsureError::Gone(name))),
        },
    });
    let command = encode_cold(&GroupSettings::made_by_use(group));
    let wanted = Wanted { maker, queues: 0 };
    let may_be_made = |made: &BeingMade| bounds::group(broker, maker, group, made.count());
    create(broker, Kind::Group, group, wanted, may_be_made, waiting, &Command::PutGroup(&command));
}

fn retry_topic(
    broker: &Arc<Broker>,
    maker: Maker,
    group: Arc<GroupSettings>,
    then: impl FnOnce(Result<Arc<GroupSettings>, EnsureError>) + Send + 'static,
) {
    if group.retry_queues == 0 {
        return then(Ok(group));
    }
    let settings = TopicSettings::new(name::retry_topic(&group.name), group.retry_queues);
    topic(broker, maker, &settings, move |created| then(created.map(|_| group)));
}

/// The same as [`topic`], to be awaited.
pub(crate) async fn topic_of(
    broker: &Arc<Broker>,
    maker: Maker,
    settings: TopicSettings,
) -> Result<Arc<Topic>, EnsureError> {
    let (sender, receiver) = oneshot::channel();
    topic(broker, maker, &settings, move |topic| drop(sender.send(topic)));
    receiver.await.unwrap_or(Err(EnsureError::Submit(SubmitError::OutcomeUnknown)))
}

/// The same as [`group`], to be awaited.
pub(crate) async fn group_of(
    broker: &Arc<Broker>,
    maker: Maker,
    name: &str,
) -> Result<Arc<GroupSettings>, EnsureError> {
    let (sender, receiver) = oneshot::channel();
    group(broker, maker, name, move |group| drop(sender.send(group)));
    receiver.await.unwrap_or(Err(EnsureError::Submit(SubmitError::OutcomeUnknown)))
}

#[derive(Clone, Copy)]
enum Kind {
    Topic,
    Group,
}

/// What is to be made, besides its command.
#[derive(Clone, Copy)]
struct Wanted {
    maker: Maker,
    queues: u64,
}

impl Kind {
    fn creations(self, creations: &Creations) -> &Mutex<BeingMade> {
        match self {
            Self::Topic => &creations.topics,
            Self::Group => &creations.groups,
        }
    }

    fn is_there(self, broker: &Broker, name: &str) -> bool {
        match self {
            Self::Topic => broker.shard.topics().get(name).is_some(),
            Self::Group => broker.shard.groups().get(name).is_some(),
        }
    }
}

/// Submits the command if nobody has for this name, and calls `waiting` with the result in any case.
fn create(
    broker: &Arc<Broker>,
    kind: Kind,
    name: &str,
    wanted: Wanted,
    may_be_made: impl FnOnce(&BeingMade) -> Result<(), TooMany>,
    waiting: Then,
    command: &Command<'_>,
) {
    {
        let mut creations = kind.creations(&broker.creations).lock();
        if let Some(all) = creations.waiting.get_mut(name) {
            if all.len() < WAITING_MAX {
                return all.push(waiting);
            }
            drop(creations);
            return waiting(&Err(EnsureError::Crowded(name.to_owned())));
        }
        if let Err(too_many) = may_be_made(&creations) {
            drop(creations);
            return waiting(&Err(too_many.into()));
        }
        creations.waiting.insert(name.to_owned(), vec![waiting]);
        creations.queues += wanted.queues;
    }
    // Another creation may have ended between the caller's look and ours; this one must not overwrite its settings.
    let is_there = kind.is_there(broker, name);
    // What any client can make by naming it must not take the room that decisions need on a full disk.
    let admission = match wanted.maker {
        Maker::Connection(_) => Admission::Normal,
        Maker::Broker => Admission::Reserved,
    };
    let (finisher, name) = (Arc::clone(broker), name.to_owned());
    let finish = move |created: &Result<(), EnsureError>| {
        let all = {
            let mut creations = kind.creations(&finisher.creations).lock();
            creations.queues -= wanted.queues;
            creations.waiting.remove(&name).unwrap_or_default()
        };
        for waiting in all {
            waiting(created);
        }
    };
    if is_there {
        return finish(&Ok(()));
    }
    let completion: Completion = Box::new(move |outcome| finish(&done(outcome)));
    if let Err((error, completion)) = broker.shard.submit(command, admission, completion) {
        completion(Err(error));
    }
}

/// What became of a command that has no more to say than that.
pub(super) fn done(outcome: Result<Outcome, SubmitError>) -> Result<(), EnsureError> {
    match outcome? {
        Outcome::Done => Ok(()),
        Outcome::Refused(refusal) => Err(refusal.into()),
        Outcome::Published(_)
        | Outcome::Prepared(_)
        | Outcome::Settled(_)
        | Outcome::Locked(_)
        | Outcome::Handled(_) => unreachable!("settings commands are done or refused"),
    }
}
