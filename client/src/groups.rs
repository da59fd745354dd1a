//! The register of a client's members: what a heartbeat reports and where a broker's request goes.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Weak};

use escrowmq_common::frame::Frame;
use escrowmq_common::message::Message as Unit;
use escrowmq_common::remoting::Connection;
use parking_lot::Mutex;

use crate::consumer::ResetRequest;
use crate::error::StartError;
use crate::heartbeat::ConsumerReport;
use crate::stats::{ConsumerStats, ProducerStats};

/// A member's end, however it is spelled.
pub(crate) type Closing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A producer as the client sees it.
pub(crate) trait ProducerMember: Send + Sync {
    /// Its group.
    fn group(&self) -> &str;
    /// Topics whose brokers hear of it before anything was sent.
    fn topics(&self) -> &[Arc<str>];
    /// A broker asks about a transaction of this group, on `connection`.
    fn check(&self, connection: &Arc<Connection>, request: Frame, message: Unit);
    /// Its numbers.
    fn stats(&self) -> ProducerStats;
    /// Ends it; twice is once.
    fn close(&self) -> Closing<'_>;
}

/// A consumer as the client sees it.
pub(crate) trait ConsumerMember: Send + Sync {
    /// Its group.
    fn group(&self) -> &str;
    /// Its subscriptions, for the heartbeat.
    fn report(&self) -> ConsumerReport;
    /// Its numbers, if it has handlers.
    fn stats(&self) -> Option<ConsumerStats>;
    /// Something changed in the group or in a route: rebalance now.
    fn rebalance(&self);
    /// An operator set offsets.
    fn reset(self: Arc<Self>, request: ResetRequest);
    /// A tool asks something through a broker, on `connection`.
    fn asked(self: Arc<Self>, connection: &Arc<Connection>, request: Frame);
    /// Ends it; twice is once.
    fn close(&self) -> Closing<'_>;
}

/// Members by group. The register does not keep them alive: a member that was dropped without its shutdown is gone from
/// the next heartbeat on.
#[derive(Default)]
pub(crate) struct Groups {
    producers: Mutex<HashMap<String, Weak<dyn ProducerMember>>>,
    consumers: Mutex<HashMap<String, Weak<dyn ConsumerMember>>>,
}

impl Groups {
    pub(crate) fn add_producer(&self, member: &Arc<dyn ProducerMember>) -> Result<(), StartError> {
        add(&self.producers, member.group(), Arc::downgrade(member))
    }

    pub(crate) fn add_consumer(&self, member: &Arc<dyn ConsumerMember>) -> Result<(), StartError> {
        add(&self.consumers, member.group(), Arc::downgrade(member))
    }

    pub(crate) fn remove_producer(&self, group: &str) {
        self.producers.lock().remove(group);
    }

    pub(crate) fn remove_consumer(&self, group: &str) {
        self.consumers.lock().remove(group);
    }

    pub(crate) fn producer(&self, group: &str) -> Option<Arc<dyn ProducerMember>> {
        self.producers.lock().get(group)?.upgrade()
    }

    pub(crate) fn consumer(&self, group: &str) -> Option<Arc<dyn ConsumerMember>> {
        self.consumers.lock().get(group)?.upgrade()
    }

    pub(crate) fn producers(&self) -> Vec<Arc<dyn ProducerMember>> {
        live(&self.producers)
    }

    pub(crate) fn consumers(&self) -> Vec<Arc<dyn ConsumerMember>> {
        live(&self.consumers)
    }

    /// Topics that must stay routed although nothing may have been sent to or read from them yet.
    pub(crate) fn topics(&self) -> HashSet<Arc<str>> {
        let mut topics: HashSet<Arc<str>> = HashSet::new();
        for producer in self.producers() {
            topics.extend(producer.topics().iter().cloned());
        }
        for consumer in self.consumers() {
            topics.extend(consumer.report().topics());
        }
        topics
    }
}

fn add<M: ?Sized>(members: &Mutex<HashMap<String, Weak<M>>>, group: &str, member: Weak<M>) -> Result<(), StartError> {
    let mut members = members.lock();
    if members.get(group).is_some_and(|member| member.strong_count() > 0) {
        return Err(StartError::GroupInUse { group: group.to_owned() });
    }
    members.insert(group.to_owned(), member);
    Ok(())
}

fn live<M: ?Sized>(members: &Mutex<HashMap<String, Weak<M>>>) -> Vec<Arc<M>> {
    let mut members = members.lock();
    members.retain(|_, member| member.strong_count() > 0);
    members.values().filter_map(Weak::upgrade).collect()
}
