//! Marks in Redis, and effects beside them: weaker, as the documentation says. An effect is there at least once, and again only after
//! a death between it and its mark.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use escrowmq_client::idempotent::{Begun, KeepError, StoreError};
use escrowmq_client::{
    Client, ConsumeFrom, Idempotent, MarkStore, Message, MessageExt, OnceError, PushConsumer, RedisStore, Verdict,
};
use escrowmq_tests::dying::dying_at_sleep;
use escrowmq_tests::{Cluster, Redis, Settings, until_within};
use redis::aio::ConnectionManager;
use tokio::sync::Semaphore;

use super::{CONSUMING, GROUP, ORDER, body, deaths, start_child, until_some};
use crate::outbox::{TOPIC, names};

/// Short, so that what a dead process has leased comes soon.
const LEASE: Duration = Duration::from_secs(2);
/// Enough for all children: a message takes less than with a database.
const MESSAGES: usize = 1200;
const KEEP: Duration = Duration::from_secs(600);

async fn connect(url: &str) -> ConnectionManager {
    let client = redis::Client::open(url).expect("a URL");
    client.get_connection_manager().await.expect("Redis takes connections")
}

/// Effects as they happened: the message's body, and who did it.
async fn effect(connection: &mut ConnectionManager, body: &str, who: &str) -> Result<(), StoreError> {
    let write = redis::cmd("RPUSH").arg("effects").arg(format!("{body} {who}")).exec_async(connection).await;
    write.map_err(StoreError::from)
}

async fn effects(connection: &mut ConnectionManager) -> BTreeMap<String, Vec<String>> {
    let read = redis::cmd("LRANGE").arg("effects").arg(0).arg(-1).query_async::<Vec<String>>(connection).await;
    let mut effects = BTreeMap::<String, Vec<String>>::new();
    for line in read.expect("effects") {
        let (body, who) = line.split_once(' ').expect("two words");
        effects.entry(body.to_owned()).or_default().push(who.to_owned());
    }
    effects
}

/// How often a handler answered what.
#[derive(Debug, Default)]
struct Answers {
    done: AtomicU32,
    busy: AtomicU32,
    away: AtomicU32,
    others: AtomicU32,
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    until_within(CONSUMING, what, async || reached().then_some(())).await;
}

fn read(count: &AtomicU32) -> u32 {
    count.load(Ordering::Relaxed)
}

/// A cluster, Redis, and a connection to it.
struct Scene {
    cluster: Cluster,
    client: Client,
    redis: Redis,
    connection: ConnectionManager,
}

impl Scene {
    async fn open(test: &str) -> Option<Scene> {
        let redis = Redis::start(test).await?;
        // What failed comes again soon.
        let settings = Settings::default().with("messageDelayLevel", ["1s"; 18].join(" "));
        let cluster = Cluster::start(settings).await;
        let client = cluster.client_with_topic(TOPIC, 4).await;
        let connection = connect(&redis.url()).await;
        Some(Scene { cluster, client, redis, connection })
    }

    fn idempotent(&self) -> Idempotent<RedisStore<ConnectionManager>> {
        Idempotent::new(RedisStore::new(self.connection.clone()), GROUP).lease(LEASE)
    }

    /// A consumer, and what its handler answers.
    async fn consume<F, R>(&self, client: &Client, once: F) -> (PushConsumer, Arc<Answers>)
    where
        F: Fn(MessageExt) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Verdict, OnceError<StoreError>>> + Send + 'static,
    {
        let answers = Arc::<Answers>::default();
        let told = Arc::clone(&answers);
        let builder = client.push_consumer(GROUP).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
        let handler = move |message| {
            let (run, told) = (once(message), Arc::clone(&told));
            async move {
                let said = run.await;
                let count = match &said {
                    Ok(_) => &told.done,
                    Err(OnceError::Busy { .. }) => &told.busy,
                    Err(OnceError::Store { .. }) => &told.away,
                    Err(_) => &told.others,
                };
                count.fetch_add(1, Ordering::Relaxed);
                said
            }
        };
        (builder.start(handler).await.expect("a consumer"), answers)
    }

    async fn send(&self, all: &[String], times: usize) {
        let producer = self.client.producer("shop").start().await.expect("a producer");
        for name in all {
            for _ in 0..times {
                let message = Message::new(TOPIC, name.clone()).unique_id(format!("id-of-{name}"));
                producer.send(message).await.expect("sent");
            }
        }
    }

    async fn until_done(&self, all: &[String]) -> BTreeMap<String, Vec<String>> {
        let all: BTreeSet<&String> = all.iter().collect();
        until_within(CONSUMING, "an effect of each message", async || {
            let effects = effects(&mut self.connection.clone()).await;
            (effects.keys().collect::<BTreeSet<_>>() == all).then_some(effects)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_end_and_marks_outlive_the_server() {
    let Some(mut redis) = Redis::start("idempotent::redis::leases").await else { return };
    let store = RedisStore::new(connect(&redis.url()).await).prefix("marks/");
    let begin = async |token: &str, lease| store.begin("k", token, lease).await.expect("an answer");
    assert_eq!(begin("a", KEEP).await, Begun::Leased);
    assert!(matches!(begin("b", KEEP).await, Begun::Busy { left } if left <= KEEP && left > KEEP / 2));
    assert_eq!(begin("a", Duration::from_millis(300)).await, Begun::Leased, "renewed");
    until_within(CONSUMING, "the end of a lease", async || (begin("b", KEEP).await == Begun::Leased).then_some(()))
        .await;
    store.give_up("k", "a").await.expect("an answer");
    assert!(matches!(begin("a", KEEP).await, Begun::Busy { .. }), "it is b's");
    store.give_up("k", "b").await.expect("an answer");
    assert_eq!(begin("a", KEEP).await, Begun::Leased);
    assert!(store.done("k", "a", KEEP).await.expect("an answer"));
    assert!(!store.done("k", "b", KEEP).await.expect("an answer"), "somebody else has done it");
    store.give_up("k", "a").await.expect("an answer");

    redis.kill();
    store.begin("k", "c", KEEP).await.expect_err("nobody is there");
    redis.start_again().await;
    let again = until_within(CONSUMING, "a connection", async || store.begin("k", "c", KEEP).await.ok()).await;
    assert_eq!(again, Begun::Done);
    store.done("k", "a", Duration::from_millis(1)).await.expect("an answer");
    until_within(CONSUMING, "the end of a mark", async || (begin("c", KEEP).await == Begun::Leased).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_and_a_server_that_goes_away_have_the_effect_once() {
    let Some(mut scene) = Scene::open("idempotent::redis::two_instances").await else { return };
    let all = names("mail", 60);
    let calls = Arc::new(AtomicU32::new(0));
    let handler = |who: &'static str| {
        let (connection, calls) = (scene.connection.clone(), Arc::clone(&calls));
        scene.idempotent().once(move |message| {
            let (mut connection, calls) = (connection.clone(), Arc::clone(&calls));
            async move {
                if calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(5) {
                    return Err("unlucky".into());
                }
                effect(&mut connection, &body(&message), who).await
            }
        })
    };
    let other = scene.cluster.client().await;
    let (first, one) = scene.consume(&scene.client, handler("first")).await;
    let (second, two) = scene.consume(&other, handler("second")).await;
    // A queue that goes to the other one later would bring messages again, and the counts below would not be met.
    until("both have queues, and none has one of the other's", || {
        let (one, two) = (first.assignment(), second.assignment());
        !one.is_empty() && !two.is_empty() && one.iter().all(|queue| !two.contains(queue))
    })
    .await;
    let sum = |count: fn(&Answers) -> &AtomicU32| read(count(&one)) + read(count(&two));
    scene.send(&all[..30], 2).await;
    // Then no effect waits for its mark, and so the end of the server makes none happen again.
    until("both copies of the first half", || sum(|answers| &answers.done) == 60).await;
    let calls_before = read(&calls);
    scene.redis.kill();
    scene.send(&all[30..], 2).await;
    until("messages that meet no server", || sum(|answers| &answers.away) >= 10).await;
    assert_eq!(read(&calls), calls_before, "no handler runs without its lease");
    scene.redis.start_again().await;
    until("both copies of the second half", || sum(|answers| &answers.done) == 120).await;
    let effects = scene.until_done(&all).await;
    first.shutdown().await;
    second.shutdown().await;
    assert!(effects.values().all(|who| who.len() == 1), "{effects:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_while_it_is_handled_waits_and_is_not_handled_again() {
    let Some(scene) = Scene::open("idempotent::redis::a_message").await else { return };
    let may_end = Arc::new(Semaphore::new(0));
    let (connection, end) = (scene.connection.clone(), Arc::clone(&may_end));
    let once = scene.idempotent().once(move |message| {
        let (mut connection, end) = (connection.clone(), Arc::clone(&end));
        async move {
            effect(&mut connection, &body(&message), "me").await?;
            end.acquire().await.expect("it is not closed").forget();
            Ok(())
        }
    });
    let (consumer, answers) = scene.consume(&scene.client, once).await;
    let one = names("slow", 1);
    scene.send(&one, 2).await;
    // More often than one lease lasts: it is renewed while the handler runs.
    until("answers that somebody works on it", || read(&answers.busy) >= 4).await;
    may_end.add_permits(2);
    until("both copies", || read(&answers.done) == 2).await;
    consumer.shutdown().await;
    assert_eq!(effects(&mut scene.connection.clone()).await, BTreeMap::from([(one[0].clone(), vec!["me".to_owned()])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_must_stay_as_long_as_the_broker_says() {
    let cluster = Cluster::start(Settings::default().with("fileReservedTime", 100)).await;
    let client = cluster.client().await;
    let idempotent = |hours: u64| {
        Idempotent::new(escrowmq_client::MemoryStore::new(), GROUP).keep(Duration::from_secs(hours * 3600))
    };
    idempotent(105).check(&client).await.expect("100 hours, and less than 5 of retries");
    let said = idempotent(104).check(&client).await.expect_err("too short");
    assert!(matches!(said, KeepError::TooShort { stored, .. } if stored == Duration::from_secs(360_000)), "{said}");
    drop(cluster);
    let said = idempotent(105).check(&client).await.expect_err("nobody is there");
    assert!(matches!(said, KeepError::NotTold { .. }), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_wherever_a_handler_waits() {
    let Some(scene) = Scene::open("idempotent::redis::dying_wherever_a_handler_waits").await else { return };
    let all = names("mail", MESSAGES);
    scene.send(&all, 1).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dead = deaths(|(number, point)| {
        let order = format!("{} {} {point} {number}", scene.cluster.nameserver.address(), scene.redis.url());
        start_child("idempotent::redis::child", order, &folder.path().join(number.to_string()))
    })
    .await;
    let before = effects(&mut scene.connection.clone()).await.len();
    let connection = scene.connection.clone();
    let (last, _) = scene
        .consume(
            &scene.client,
            scene.idempotent().once(move |message| {
                let mut connection = connection.clone();
                async move { effect(&mut connection, &body(&message), "last").await }
            }),
        )
        .await;
    let effects = scene.until_done(&all).await;
    last.shutdown().await;
    let mut again = 0;
    for (name, who) in &effects {
        for earlier in &who[..who.len() - 1] {
            let is_dead = earlier.parse().is_ok_and(|number| dead.contains(&number));
            assert!(is_dead, "{name} was done again after {earlier}, who lived: {who:?}");
            again += 1;
        }
    }
    eprintln!(
        "marks in Redis: {} deaths, {before} effects before the last consumer, {again} of them again",
        dead.len()
    );
    assert!(!dead.is_empty() && before > 0, "{} deaths, {before} effects", dead.len());
}

#[test]
#[ignore = "the process that the test above kills"]
fn child() {
    let Ok(words) = std::env::var(ORDER) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let [nameserver, url, point, number] = words[..] else { panic!("{ORDER}={words:?}") };
    let point: u32 = point.parse().expect("a number");
    let counts = Arc::new(AtomicBool::new(false));
    dying_at_sleep(point, Arc::clone(&counts)).block_on(work(nameserver, url, number.to_owned(), counts));
}

/// Handles some messages, and counts sleeps from the first one on.
async fn work(nameserver: &str, url: &str, number: String, counts: Arc<AtomicBool>) {
    let connection = connect(url).await;
    let client = Client::builder(nameserver).connect().await.expect("a client connects");
    let handled = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&handled);
    let handler = Idempotent::new(RedisStore::new(connection.clone()), GROUP).lease(LEASE).once(move |message| {
        counts.store(true, Ordering::Relaxed);
        let (mut connection, number, told) = (connection.clone(), number.clone(), Arc::clone(&told));
        async move {
            effect(&mut connection, &body(&message), &number).await?;
            told.fetch_add(1, Ordering::Relaxed);
            Ok::<(), StoreError>(())
        }
    });
    // One at a time, so that a child leaves messages for the others.
    let builder = client.push_consumer(GROUP).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First).concurrency(1);
    until_some(builder.start(handler).await.expect("a consumer"), &handled).await;
}
