//! The routes of the topics in use: asked for once, kept until they fail, refreshed in the background.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_common::body::{TopicConfig, TopicRouteData, json};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{GetRouteInfoHeader, GetTopicConfigHeader};
use escrowmq_common::name::{AUTO_CREATE_TOPIC, DUPLICATE_WINDOW, Perm};
use escrowmq_common::remoting::Remote;
use futures_util::{StreamExt, stream};
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::{Core, refused};
use crate::error::RequestError;
use crate::members::{Members, Trouble};
use crate::names::{LookUpError, NameServers};
use crate::queue::MessageQueue;
use crate::route::{BrokerLine, QueueLine, Route, RouteError, RouteLines};
use crate::stats::ServerAway;

/// Topics that nobody asked about for this many refreshes are forgotten.
const UNUSED_REFRESHES_MAX: u32 = 20;
/// Questions to the name servers at the same time during a refresh of all topics.
const REFRESH_CONCURRENCY: usize = 8;
/// An answer is not asked for again this soon after it came.
const REFRESH_GAP: Duration = Duration::from_millis(200);
/// How long a broker's word on its duplicate window counts. It is asked for when a send is in doubt.
const WINDOW_COUNTS: Duration = Duration::from_secs(10);

/// The route cache.
#[derive(Debug)]
pub(crate) struct Routes {
    names: NameServers,
    remote: Remote,
    timeout: Duration,
    topics: RwLock<HashMap<Arc<str>, Arc<Entry>>>,
    /// The members of each broker group, over all topics. Each answer overwrites what older answers said of its brokers.
    groups: RwLock<HashMap<Arc<str>, Members>>,
    /// The members that failed: while there are none, answers need no lock.
    failures: AtomicUsize,
    /// Signalled when a broker address appears that was not there before, or another member leads its group.
    pub(crate) broker_appeared: Notify,
    /// Signalled when a member fails: its group may have another leader.
    pub(crate) member_failed: Notify,
}

/// One topic.
#[derive(Debug, Default)]
struct Entry {
    /// The last answer. A failed refresh keeps it: brokers outlive name servers.
    known: RwLock<Known>,
    /// Held by the one that asks, so that a crowd asks once.
    asking: tokio::sync::Mutex<()>,
    /// For how long each broker recognises a message that is sent again, and when it said so. Held while one asks.
    windows: tokio::sync::Mutex<HashMap<Arc<str>, (Duration, Instant)>>,
    used: AtomicBool,
    unused_refreshes: RwLock<u32>,
}

/// The name servers' last word on a topic.
#[derive(Debug, Default)]
struct Known {
    route: Option<Arc<Route>>,
    /// When they said so.
    at: Option<Instant>,
}

impl Routes {
    pub(crate) fn new(names: NameServers, remote: Remote, timeout: Duration) -> Routes {
        Routes {
            names,
            remote,
            timeout,
            topics: RwLock::default(),
            groups: RwLock::default(),
            failures: AtomicUsize::new(0),
            broker_appeared: Notify::new(),
            member_failed: Notify::new(),
        }
    }

    /// The route for sending to `topic`. A topic that does not exist yet gets the route it will have once the first send
    /// creates it, if the cluster allows that.
    pub(crate) async fn for_sending(&self, topic: &str) -> Result<Arc<Route>, RequestError> {
        match self.cached(topic) {
            Some(route) if !route.writable.is_empty() => Ok(route),
            _ => self.refresh(topic, true).await,
        }
    }

    /// The route for reading `topic`.
    pub(crate) async fn for_reading(&self, topic: &str) -> Result<Arc<Route>, RequestError> {
        match self.cached(topic) {
            Some(route) if !route.is_template => Ok(route),
            _ => self.refresh(topic, false).await,
        }
    }

    /// The route as it was last heard of.
    pub(crate) fn cached(&self, topic: &str) -> Option<Arc<Route>> {
        let topics = self.topics.read();
        let entry = topics.get(topic)?;
        // Read before write: the line stays shared between senders.
        if !entry.used.load(Ordering::Relaxed) {
            entry.used.store(true, Ordering::Relaxed);
        }
        entry.known.read().route.clone()
    }

    /// Asks the name servers for somebody who uses the topic, unless somebody else asks right now: then shares the answer.
    pub(crate) async fn refresh(&self, topic: &str, or_template: bool) -> Result<Arc<Route>, RequestError> {
        let entry = self.entry(topic);
        entry.used.store(true, Ordering::Relaxed);
        self.refresh_entry(topic, &entry, or_template).await
    }

    async fn refresh_entry(&self, topic: &str, entry: &Entry, or_template: bool) -> Result<Arc<Route>, RequestError> {
        let _asking = entry.asking.lock().await;
        {
            // A caller that waited for the lock shares the answer: many queues that fail at once cause one request.
            let known = entry.known.read();
            if let Known { route: Some(route), at: Some(at) } = &*known
                && at.elapsed() < REFRESH_GAP
                && (or_template || !route.is_template)
            {
                return Ok(Arc::clone(route));
            }
        }
        let pass_on = |broker: &str| self.pass_on(broker);
        let answer = match self.ask(topic, |lines| Route::of(topic, &lines, pass_on)).await {
            Ok(None) if or_template => {
                self.ask(AUTO_CREATE_TOPIC, |lines| Route::from_template(topic, &lines, pass_on)).await
            }
            other => other,
        };
        match answer {
            Ok(Some(route)) => Ok(self.learn(entry, route)),
            // No such topic, or nobody to ask: what was known before is the better guess.
            failure => match entry.known.read().route.clone() {
                Some(route) if or_template || !route.is_template => Ok(route),
                _ => Err(match failure {
                    Err(error) => error.into(),
                    Ok(_) => RequestError::NoRoute { topic: topic.to_owned() },
                }),
            },
        }
    }

    /// Refreshes every topic in use and forgets the others, except for `pinned`. Answers whether any route changed.
    pub(crate) async fn refresh_all(&self, pinned: &HashSet<Arc<str>>) -> bool {
        let due: Vec<(Arc<str>, Arc<Entry>)> = {
            let mut topics = self.topics.write();
            topics.retain(|topic, entry| {
                let mut unused = entry.unused_refreshes.write();
                *unused = if entry.used.swap(false, Ordering::Relaxed) { 0 } else { *unused + 1 };
                *unused < UNUSED_REFRESHES_MAX || pinned.contains(topic)
            });
            topics.iter().map(|(topic, entry)| (Arc::clone(topic), Arc::clone(entry))).collect()
        };
        stream::iter(due)
            .map(|(topic, entry)| async move {
                let before = entry.known.read().route.clone();
                let or_template = before.as_ref().is_some_and(|route| route.is_template);
                // Asking for its own sake is no use of the topic: else none would ever be forgotten.
                match self.refresh_entry(&topic, &entry, or_template).await {
                    Ok(after) => before.is_none_or(|before| *before != *after),
                    Err(error) => {
                        tracing::debug!(%topic, %error, "route not refreshed");
                        false
                    }
                }
            })
            .buffer_unordered(REFRESH_CONCURRENCY)
            .fold(false, |any, changed| async move { any | changed })
            .await
    }

    /// Where a request goes that the leader of `broker` carries out.
    pub(crate) fn way(&self, broker: &str) -> Option<Arc<str>> {
        self.groups.read().get(broker)?.way(Instant::now()).cloned()
    }

    /// Whether there is a member of `broker` that did not fail and is, or finds, the leader.
    pub(crate) fn has_way(&self, broker: &str) -> bool {
        self.groups.read().get(broker).is_some_and(|members| members.has_way(Instant::now()))
    }

    /// The addresses of the members of `broker`.
    pub(crate) fn members(&self, broker: &str) -> Vec<Arc<str>> {
        self.groups.read().get(broker).map(|members| members.addrs().cloned().collect()).unwrap_or_default()
    }

    /// Whether the members of `broker` are ours, and pass requests on to the leader.
    pub(crate) fn pass_on(&self, broker: &str) -> bool {
        self.groups.read().get(broker).is_some_and(Members::pass_on)
    }

    /// Where to read from `broker`: its replica `preferred`, else the master, else any replica.
    pub(crate) fn reader(&self, broker: &str, preferred: i64) -> Option<(i64, Arc<str>)> {
        let groups = self.groups.read();
        let (id, addr) = groups.get(broker)?.reader(preferred, Instant::now())?;
        Some((id, Arc::clone(addr)))
    }

    /// The broker addresses of the routes. `leaders_only`: none of a replica, but those of members that are the way to a leader
    /// who is away.
    pub(crate) fn broker_addrs(&self, leaders_only: bool) -> Vec<Arc<str>> {
        let groups = self.groups.read();
        let now = Instant::now();
        let mut all: Vec<Arc<str>> = Vec::new();
        for members in groups.values() {
            if leaders_only && (members.is_settled(now) || !members.pass_on()) {
                all.extend(members.leader().cloned());
            } else {
                all.extend(members.addrs().cloned());
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether the leader of each broker group is known and did not fail.
    pub(crate) fn is_settled(&self) -> bool {
        let now = Instant::now();
        self.groups.read().values().all(|members| members.is_settled(now))
    }

    /// The member at `addr` is ours, so its group passes requests on.
    pub(crate) fn is_ours(&self, addr: &str) {
        let is_news = |members: &Members| !members.pass_on() && members.has(addr);
        if self.groups.read().values().any(is_news) {
            self.groups.write().values_mut().filter(|members| members.has(addr)).for_each(Members::set_pass_on);
        }
    }

    /// A request to the broker at `addr` failed: others are the way to the leader, and who leads may have changed.
    pub(crate) fn failed(&self, addr: &str, trouble: Trouble) {
        let mut groups = self.groups.write();
        let now = Instant::now();
        groups.values_mut().for_each(|members| members.failed(addr, trouble, now));
        self.count_failures(&groups);
        drop(groups);
        self.member_failed.notify_one();
    }

    /// The broker at `addr` answered what was asked at `asked`: a request, if `served`, else a heartbeat.
    pub(crate) fn answered(&self, addr: &str, asked: Instant, served: bool) {
        if self.failures.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut groups = self.groups.write();
        groups.values_mut().for_each(|members| members.answered(addr, asked, served));
        self.count_failures(&groups);
    }

    fn count_failures(&self, groups: &HashMap<Arc<str>, Members>) {
        self.failures.store(groups.values().map(Members::failures).sum(), Ordering::Release);
    }

    fn entry(&self, topic: &str) -> Arc<Entry> {
        if let Some(entry) = self.topics.read().get(topic) {
            return Arc::clone(entry);
        }
        Arc::clone(self.topics.write().entry(topic.into()).or_default())
    }

    fn learn(&self, entry: &Entry, route: Route) -> Arc<Route> {
        let route = Arc::new(route);
        {
            let mut known = entry.known.write();
            *known = Known { route: Some(Arc::clone(&route)), at: Some(Instant::now()) };
        }
        self.index_addrs(&route);
        route
    }

    /// Takes the addresses of `latest` over; other topics may still hold older ones. Brokers that no route names go.
    fn index_addrs(&self, latest: &Route) {
        let named: HashSet<Arc<str>> = {
            let topics = self.topics.read();
            let routes = topics.values().filter_map(|entry| entry.known.read().route.clone());
            routes.flat_map(|route| route.brokers.keys().cloned().collect::<Vec<_>>()).collect()
        };
        let mut groups = self.groups.write();
        let known: HashSet<Arc<str>> = groups.values().flat_map(Members::addrs).cloned().collect();
        groups.retain(|broker, _| named.contains(broker));
        let mut is_news = latest.brokers.values().flat_map(BTreeMap::values).any(|addr| !known.contains(addr));
        for (broker, by_id) in &latest.brokers {
            is_news |= groups.entry(Arc::clone(broker)).or_default().update(by_id);
        }
        self.count_failures(&groups);
        if is_news {
            self.broker_appeared.notify_one();
        }
    }

    /// For how long the broker of `queue` recognises a message that is sent again. Zero if it does not, or does not answer.
    pub(crate) async fn duplicate_window(&self, core: &Core, queue: &MessageQueue) -> Duration {
        let entry = self.entry(queue.topic());
        let mut windows = entry.windows.lock().await;
        if let Some((window, at)) = windows.get(queue.broker())
            && at.elapsed() < WINDOW_COUNTS
        {
            return *window;
        }
        let header = GetTopicConfigHeader { topic: queue.topic(), logical: false };
        let ask = Frame::request(request::GET_TOPIC_CONFIG).with_header(&header);
        let Ok((_, answer)) = core.ask(queue.broker(), queue.topic(), &ask).await else { return Duration::ZERO };
        let topic: TopicConfig = json::from_slice(&answer.body).unwrap_or_default();
        let seconds = topic.attributes.get(DUPLICATE_WINDOW).and_then(|seconds| seconds.parse().ok());
        let window = Duration::from_secs(seconds.unwrap_or(0));
        windows.insert(queue.broker_shared(), (window, Instant::now()));
        window
    }

    /// The name servers that are away now.
    pub(crate) fn name_servers_away(&self) -> Vec<ServerAway> {
        self.names.away()
    }

    /// Any question to the name servers.
    pub(crate) async fn ask_names(&self, question: &Frame) -> Result<(Arc<str>, Frame), LookUpError> {
        self.names.call(&self.remote, question, self.timeout).await
    }

    /// One question about one topic, and what is concluded from the answer; `None` if the name server knows no such topic.
    async fn ask(
        &self,
        topic: &str,
        conclude: impl FnOnce(RouteLines) -> Result<Route, RouteError>,
    ) -> Result<Option<Route>, LookUpError> {
        let header = GetRouteInfoHeader {
            topic: Some(topic),
            accept_standard_json_only: true,
            zone_name: None,
            zone_mode: false,
        };
        let question = Frame::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(&header);
        let (addr, answer) = self.ask_names(&question).await?;
        match answer.code {
            response::SUCCESS => {}
            response::TOPIC_NOT_EXIST => return Ok(None),
            _ => return Err(LookUpError::refused(refused(&addr, answer))),
        }
        let data: TopicRouteData =
            json::from_slice(&answer.body).map_err(|error| LookUpError::malformed(&addr, error))?;
        conclude(lines_of(data)).map(Some).map_err(|error| LookUpError::malformed(&addr, error))
    }
}

fn lines_of(data: TopicRouteData) -> RouteLines {
    RouteLines {
        brokers: data
            .broker_datas
            .into_iter()
            .map(|broker| BrokerLine {
                name: broker.broker_name.into(),
                addrs: broker.broker_addrs.into_iter().map(|(id, addr)| (id, addr.into())).collect(),
            })
            .collect(),
        queues: data
            .queue_datas
            .into_iter()
            .map(|queue| QueueLine {
                broker: queue.broker_name.into(),
                read_count: queue.read_queue_nums,
                write_count: queue.write_queue_nums,
                perm: Perm(queue.perm),
            })
            .collect(),
        order: data.order_topic_conf,
    }
}
