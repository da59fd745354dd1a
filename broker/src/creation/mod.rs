//! Topics and groups that come into being: because somebody uses them, or because an operator makes them.
//!
//! [`Creations::topic`] and [`Creations::group`] call back with what there is, at once if it is there already; else one command
//! creates it, however many requests want it at that moment, and all of them are called back from its completion. A callback may
//! run on the apply thread: it must not wait, but it may submit.
//!
//! Promises: no client makes more than the settings allow, neither alone nor together with others ([`bounds`]). Left to others:
//! the topics and groups themselves (`shard`), and whether a request may ask for one (`server`).

mod bounds;
mod error;
mod place;

use std::sync::Arc;

use escrowmq_common::clock::Clock;
use escrowmq_common::name;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config::CurrentConfig;
use crate::metrics::Metrics;
use crate::shard::{Admission, Command, Completion, Shard, SubmitError, Topic};
use crate::terms::encode_cold;
use crate::terms::{GroupSettings, TopicSettings};
use bounds::Rates;
use place::{BeingMade, Then};

pub(crate) use bounds::{Maker, TooMany};
pub(crate) use error::{CreationError, done};
pub(crate) use place::Place;

/// The most requests that wait for one topic or group to be made. Each may hold a message, which nothing else counts.
const WAITING_MAX: usize = 1024;

/// The topics and groups that are being created, and the requests that wait for them.
pub(crate) struct Creations {
    shard: Shard,
    config: CurrentConfig,
    metrics: Arc<Metrics>,
    clock: Clock,
    topics: Mutex<BeingMade>,
    groups: Mutex<BeingMade>,
    /// How fast connections make them.
    rates: Rates,
}

#[derive(Clone, Copy)]
enum Kind {
    Topic,
    Group,
}

/// A topic or a group that is to be made.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    kind: Kind,
    name: &'a str,
    maker: Maker,
    queues: u64,
}

impl Creations {
    /// Nothing is being created.
    pub(crate) fn new(shard: Shard, config: CurrentConfig, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let (topics, groups) = (Mutex::default(), Mutex::default());
        Self { shard, config, metrics, clock, topics, groups, rates: Rates::default() }
    }

    /// Room for a topic with these settings.
    pub(crate) fn place_of_topic(&self, maker: Maker, settings: &TopicSettings) -> Result<Place<'_>, TooMany> {
        let mut made = self.topics.lock();
        self.may_make_topic(maker, settings, made.count(), made.queues)?;
        let known = self.shard.topics().get(&settings.name).map(|topic| topic.queues.len() as u64);
        let queues = u64::from(settings.queue_count()).saturating_sub(known.unwrap_or_default());
        Ok(made.take(&self.topics, usize::from(known.is_none()), queues))
    }

    /// Room for a group of this name.
    pub(crate) fn place_of_group(&self, maker: Maker, name: &str) -> Result<Place<'_>, TooMany> {
        let mut made = self.groups.lock();
        self.may_make_group(maker, name, made.count())?;
        let is_new = self.shard.groups().get(name).is_none();
        Ok(made.take(&self.groups, usize::from(is_new), 0))
    }

    /// Calls `then` with the topic of these settings' name: as it is, or created with these settings.
    pub(crate) fn topic(
        self: &Arc<Self>,
        maker: Maker,
        settings: &TopicSettings,
        then: impl FnOnce(Result<Arc<Topic>, CreationError>) + Send + 'static,
    ) {
        if let Some(topic) = self.shard.topics().get(&settings.name) {
            return then(Ok(topic));
        }
        let (shard, name) = (self.shard.clone(), settings.name.clone());
        let waiting: Then = Box::new(move |created| {
            then(created.clone().and_then(|()| {
                let topic = shard.topics().get(&name);
                topic.ok_or(CreationError::Gone(name))
            }));
        });
        let wanted =
            Wanted { kind: Kind::Topic, name: &settings.name, maker, queues: u64::from(settings.queue_count()) };
        let may_be_made = |made: &BeingMade| self.may_make_topic(maker, settings, made.count(), made.queues);
        self.create(wanted, may_be_made, waiting, &Command::PutTopic(&encode_cold(settings)));
    }

    /// Calls `then` with the group of this name; creates it, and its retry topic, where groups are created automatically.
    pub(crate) fn group(
        self: &Arc<Self>,
        maker: Maker,
        group: &str,
        then: impl FnOnce(Result<Arc<GroupSettings>, CreationError>) + Send + 'static,
    ) {
        if let Some(settings) = self.shard.groups().get(group) {
            return self.retry_topic(maker, settings, then);
        }
        let allowed = self.config.load().auto_create_subscription_group || name::is_system_group(group);
        if !allowed || name::validate_group(group).is_err() {
            return then(Err(CreationError::NoGroup(group.to_owned())));
        }
        let (creations, name) = (Arc::clone(self), group.to_owned());
        let waiting: Then = Box::new(move |created| match created {
            Err(error) => then(Err(error.clone())),
            Ok(()) => match creations.shard.groups().get(&name) {
                // A client that may make the group gets all of it.
                Some(settings) => creations.retry_topic(Maker::Broker, settings, then),
                None => then(Err(CreationError::Gone(name))),
            },
        });
        let wanted = Wanted { kind: Kind::Group, name: group, maker, queues: 0 };
        let may_be_made = |made: &BeingMade| self.may_make_group(maker, group, made.count());
        let command = encode_cold(&GroupSettings::made_by_use(group));
        self.create(wanted, may_be_made, waiting, &Command::PutGroup(&command));
    }

    fn retry_topic(
        self: &Arc<Self>,
        maker: Maker,
        group: Arc<GroupSettings>,
        then: impl FnOnce(Result<Arc<GroupSettings>, CreationError>) + Send + 'static,
    ) {
        if group.retry_queues == 0 {
            return then(Ok(group));
        }
        let settings = TopicSettings::new(name::retry_topic(&group.name), group.retry_queues);
        self.topic(maker, &settings, move |created| then(created.map(|_| group)));
    }

    /// The same as [`topic`](Self::topic), to be awaited.
    pub(crate) async fn topic_of(
        self: &Arc<Self>,
        maker: Maker,
        settings: TopicSettings,
    ) -> Result<Arc<Topic>, CreationError> {
        let (sender, receiver) = oneshot::channel();
        self.topic(maker, &settings, move |topic| drop(sender.send(topic)));
        receiver.await.unwrap_or(Err(CreationError::Submit(SubmitError::OutcomeUnknown)))
    }

    /// The same as [`group`](Self::group), to be awaited.
    pub(crate) async fn group_of(
        self: &Arc<Self>,
        maker: Maker,
        name: &str,
    ) -> Result<Arc<GroupSettings>, CreationError> {
        let (sender, receiver) = oneshot::channel();
        self.group(maker, name, move |group| drop(sender.send(group)));
        receiver.await.unwrap_or(Err(CreationError::Submit(SubmitError::OutcomeUnknown)))
    }

    fn being_made(&self, kind: Kind) -> &Mutex<BeingMade> {
        match kind {
            Kind::Topic => &self.topics,
            Kind::Group => &self.groups,
        }
    }

    fn is_there(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Topic => self.shard.topics().get(name).is_some(),
            Kind::Group => self.shard.groups().get(name).is_some(),
        }
    }

    /// Submits the command if nobody has for this name, and calls `waiting` with the result in any case.
    fn create(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        may_be_made: impl FnOnce(&BeingMade) -> Result<(), TooMany>,
        waiting: Then,
        command: &Command<'_>,
    ) {
        let Wanted { kind, name, maker, queues } = wanted;
        {
            let mut made = self.being_made(kind).lock();
            if let Some(all) = made.waiting.get_mut(name) {
                if all.len() < WAITING_MAX {
                    return all.push(waiting);
                }
                drop(made);
                return waiting(&Err(CreationError::Crowded(name.to_owned())));
            }
            if let Err(too_many) = may_be_made(&made) {
                drop(made);
                return waiting(&Err(too_many.into()));
            }
            made.waiting.insert(name.to_owned(), vec![waiting]);
            made.queues += queues;
        }
        // Another creation may have ended between the caller's look and ours; this one must not overwrite its settings.
        let is_there = self.is_there(kind, name);
        // Any client can make these by naming them, so they must not take the room that decisions need on a full disk.
        let admission = match maker {
            Maker::Connection(_) => Admission::Normal,
            Maker::Broker => Admission::Reserved,
        };
        let (creations, name) = (Arc::clone(self), name.to_owned());
        let finish = move |created: &Result<(), CreationError>| {
            let all = {
                let mut made = creations.being_made(kind).lock();
                made.queues -= queues;
                made.waiting.remove(&name).unwrap_or_default()
            };
            for waiting in all {
                waiting(created);
            }
        };
        if is_there {
            return finish(&Ok(()));
        }
        let completion: Completion = Box::new(move |outcome| finish(&done(outcome)));
        if let Err((error, completion)) = self.shard.submit(command, admission, completion) {
            completion(Err(error));
        }
    }
}
