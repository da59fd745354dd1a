//! Topics and groups that come into being because somebody uses them.
//!
//! [`topic`] and [`group`] call back with what there is, at once if it is there already; else one command creates it,
//! however many requests want it at that moment, and all of them are called back from its completion. A callback may run
//! on the apply thread: it must not wait, but it may submit.

use std::collections::HashMap;
use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::name;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::bounds::{self, Maker, Rates, TooMany};
use super::reply::{code_of, code_of_refusal};
use crate::broker::Broker;
use crate::index::meta::encode_cold;
use crate::shard::{
    Admission, Command, Completion, GroupSettings, Outcome, Refusal, SubmitError, Topic, TopicSettings,
};

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
    /// Deleted again before anybody saw it.
    #[error("{0} was deleted while it was created")]
    Gone(String),
}

impl EnsureError {
    /// The response code that says so.
    pub(crate) fn code(&self) -> i32 {
        match self {
            Self::NoGroup(_) => response::SUBSCRIPTION_GROUP_NOT_EXIST,
            Self::Submit(error) => code_of(error),
            Self::Refused(refusal) => code_of_refusal(refusal),
            Self::TooMany(_) => response::SYSTEM_BUSY,
            Self::Gone(_) => response::SYSTEM_ERROR,
        }
    }
}

type Then = Box<dyn FnOnce(&Result<(), EnsureError>) + Send>;

/// What is being created, and who waits for it.
#[derive(Default)]
pub struct Creations {
    topics: Mutex<BeingMade>,
    groups: Mutex<BeingMade>,
    /// How fast connections make them.
    pub(super) rates: Rates,
}

/// Topics, or groups, whose command is on its way.
#[derive(Default)]
struct BeingMade {
    waiting: HashMap<String, Vec<Then>>,
    /// Queues of all of them.
    queues: u64,
}

impl Creations {
    /// A connection ended.
    pub(super) fn closed(&self, connection: u64) {
        self.rates.forget(connection);
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
    let may_be_made = |made: &BeingMade| bounds::topic(broker, maker, settings, made.waiting.len(), made.queues);
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
    let may_be_made = |made: &BeingMade| bounds::group(broker, maker, group, made.waiting.len());
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
            return all.push(waiting);
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
