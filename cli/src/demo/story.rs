//! The story: ten transactions, a dead producer, a dead broker.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use escrowmq_client::{Client, ConsumeFrom, Decision, Message, Outcome, PushConsumer, TransactionProducer};

use super::cluster::Cluster;
use super::ledger::Ledger;
use super::observer::{Observer, Visible};
use super::orders::{COMMITTED, ORPHANED, Orders, ROLLED_BACK, RUNNING, UNKNOWN, arrival, messages, short};
use super::stage::Stage;
use super::timeline::{Fact, Timeline};
use crate::processes::{DEADLINE, Process, binary, until};

const QUEUES: u32 = 4;

/// What the story is told with.
struct Names {
    topic: String,
    producers: String,
    consumers: String,
}

impl Names {
    /// Those of earlier stories at the same services are others.
    fn new(is_elsewhere: bool) -> Names {
        let end = if is_elsewhere { format!("-{}", std::process::id()) } else { String::new() };
        Names {
            topic: format!("TransactionTopic{end}"),
            producers: format!("test-group-1{end}"),
            consumers: format!("test-consumer-1{end}"),
        }
    }
}

/// Transactions of the first act.
const TEN: usize = 10;

/// Everything that the acts share.
struct Cast {
    timeline: Timeline,
    stage: Stage,
    orders: Orders,
    producer: TransactionProducer,
    consumer: PushConsumer,
    client: Client,
    namesrv: String,
    names: Names,
}

/// Tells the whole story; at the services of `elsewhere`, all but the death of the broker, which is somebody else's.
pub(super) async fn tell(cluster: &mut Cluster, timeline: Timeline, elsewhere: Option<&str>) -> anyhow::Result<()> {
    timeline.chapter("A nameserver, a broker, a transactional producer and a consumer");
    let cast = assemble(cluster, timeline, elsewhere).await?;
    timeline.chapter(&format!(
        "1. Ten transactions: {COMMITTED} commits, {ROLLED_BACK} rolls back, {UNKNOWN} answers unknown and is checked back"
    ));
    let mut expected = ten_transactions(&cast).await?;
    timeline.chapter("2. The producer dies between its local transaction and its decision");
    expected.push(producer_dies(&cast, cluster).await?);
    if elsewhere.is_none() {
        timeline.chapter("3. The broker dies with a half message undecided");
        expected.push(broker_dies(&cast, cluster).await?);
    }
    timeline.chapter("Summary");
    conclude(&cast, expected, elsewhere.is_none()).await?;
    cast.consumer.shutdown().await;
    cast.producer.shutdown().await;
    cast.client.shutdown().await;
    if elsewhere.is_some() {
        let topic = &cast.names.topic;
        timeline.note(&format!("\nThe topic {topic} stays there; `escrowmq admin topic delete {topic}` deletes it."));
    }
    timeline.note(&format!("\nEverything went as promised, in {:.1} s.", timeline.elapsed().as_secs_f64()));
    Ok(())
}

async fn assemble(cluster: &mut Cluster, timeline: Timeline, elsewhere: Option<&str>) -> anyhow::Result<Cast> {
    let namesrv = if let Some(namesrv) = elsewhere {
        timeline.tell(Fact::Process, &format!("the services of nameserver {namesrv}"));
        namesrv.to_owned()
    } else {
        let (namesrv, id) = cluster.start_nameserver().await?;
        timeline.tell(Fact::Process, &format!("nameserver at {namesrv}, process {id}"));
        let (broker, id) = cluster.start_broker().await?;
        let told = format!("broker at {broker}, process {id}; it checks back after 2 s, every 2 s");
        timeline.tell(Fact::Process, &told);
        namesrv
    };
    let names = Names::new(elsewhere.is_some());
    let topic = names.topic.as_str();
    let client = Client::builder(&namesrv).connect().await?;
    let admin = client.admin();
    // The broker serves before the nameserver knows of it.
    until(DEADLINE, "route to the topic", async || {
        admin.create_topic(topic, QUEUES).await?;
        Ok(admin.queues(topic).await.ok().filter(|queues| queues.len() == QUEUES as usize))
    })
    .await?;
    let stage = Stage::default();
    let orders = Orders {
        timeline,
        stage: stage.clone(),
        ledger: Ledger::at(&cluster.folder().join("ledger")),
        observer: Arc::new(Observer::start(&client, topic).await?),
    };
    let producer = client.transaction_producer(&names.producers, orders.clone()).topics([topic]).start().await?;
    let arrivals = stage.clone();
    let consumer = client
        .push_consumer(&names.consumers)
        .subscribe(topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message| {
            arrivals.push(arrival(timeline, &message));
            async { Ok::<(), std::convert::Infallible>(()) }
        })
        .await?;
    let members = format!("producer group {}, consumer group {}, topic {topic}", names.producers, names.consumers);
    timeline.tell(Fact::Process, &members);
    Ok(Cast { timeline, stage, orders, producer, consumer, client, namesrv, names })
}

/// The names of the messages that must have arrived.
async fn ten_transactions(cast: &Cast) -> anyhow::Result<Vec<String>> {
    let mut expected = Vec::new();
    for number in 1..=TEN {
        let tag = [COMMITTED, ROLLED_BACK, UNKNOWN][(number - 1) % 3];
        let name = format!("order-{number:02}");
        let result = cast.producer.send(Message::new(cast.names.topic.as_str(), name.clone()).tag(tag)).await?;
        cast.stage.intact()?;
        let told = match (&result.outcome, tag) {
            (Outcome::Committed { queue_offset: Some(offset), queue, .. }, COMMITTED) => {
                format!("commit; the broker confirms: queue {}, offset {offset}", queue.id())
            }
            (Outcome::RolledBack { .. }, ROLLED_BACK) => {
                "rollback; the broker confirms: nobody will ever see it".to_owned()
            }
            (Outcome::Undecided, UNKNOWN) => "unknown; the broker will ask".to_owned(),
            (outcome, _) => bail!("{name} {tag} ended with {outcome:?}"),
        };
        cast.timeline.tell(Fact::Decided, &format!("{name} {tag}: {told}"));
        if tag != ROLLED_BACK {
            expected.push(name);
        }
    }
    arrive(cast, &expected).await?;
    let visible = cast.orders.observer.look().await?;
    exactly(&visible, &expected)?;
    let proof = format!("{} visible: every {COMMITTED} and {UNKNOWN}, no {ROLLED_BACK}", messages(visible.count()));
    cast.timeline.tell(Fact::Proved, &proof);
    Ok(expected)
}

/// The name of the message that must have arrived.
async fn producer_dies(cast: &Cast, cluster: &mut Cluster) -> anyhow::Result<String> {
    let name = "order-11".to_owned();
    let mut other = start_other_producer(cast, cluster, &name)?;
    let id = other.id();
    cast.timeline.tell(Fact::Process, &format!("another producer of {}, process {id}", cast.names.producers));
    let said = tokio::time::timeout(DEADLINE, other.line()).await.context("the other producer says nothing")?;
    let transaction_id = said?;
    let story = format!("{name} {ORPHANED} by process {id}, transaction {}", short(&transaction_id));
    cast.timeline.tell(Fact::Half, &story);
    other.kill()?;
    cast.timeline.tell(Fact::Killed, &format!("process {id}: its ledger says commit, the broker was never told"));
    let visible = cast.orders.observer.look().await?;
    ensure!(!visible.has(&transaction_id), "{name} is visible before its decision");
    cast.timeline.tell(Fact::Hidden, &format!("{name}: {} visible, and not this one", messages(visible.count())));
    checked(cast, &transaction_id, 0).await?;
    arrive(cast, std::slice::from_ref(&name)).await?;
    let proof = format!("{name} was settled by process {}, which never sent it", std::process::id());
    cast.timeline.tell(Fact::Proved, &proof);
    Ok(name)
}

fn start_other_producer(cast: &Cast, cluster: &mut Cluster, name: &str) -> anyhow::Result<Process> {
    let mut command = Command::new(binary("escrowmq")?);
    let Names { topic, producers, .. } = &cast.names;
    command.args(["demo-producer", "--topic", topic, "--group", producers, "--body", name]);
    command.args(["--namesrv", &cast.namesrv]).arg("--ledger").arg(cast.orders.ledger.path());
    cluster.start_other("producer", &mut command)
}

/// The name of the message that must have arrived.
async fn broker_dies(cast: &Cast, cluster: &mut Cluster) -> anyhow::Result<String> {
    let name = "order-12".to_owned();
    let result = cast.producer.send(Message::new(cast.names.topic.as_str(), name.clone()).tag(RUNNING)).await?;
    cast.stage.intact()?;
    let transaction_id = result.half.transaction_id.context("a half message has a transaction id")?;
    cast.timeline.tell(Fact::Decided, &format!("{name} {RUNNING}: unknown, its local transaction still runs"));
    let id = cluster.kill_broker()?;
    let checks_before = cast.stage.checks_of(&transaction_id);
    cast.timeline.tell(Fact::Killed, &format!("broker, process {id}"));
    let (address, id) = cluster.start_broker().await?;
    cast.timeline.tell(Fact::Process, &format!("broker again at {address}, process {id}, same data"));
    let visible = until(DEADLINE, "pull from the restarted broker", async || {
        // The client needs a moment to find its connections gone.
        Ok(cast.orders.observer.look().await.ok())
    })
    .await?;
    ensure!(!visible.has(&transaction_id), "{name} is visible before its decision");
    cast.timeline.tell(
        Fact::Hidden,
        &format!("{name}: what was visible before still is, {}; this one is not", messages(visible.count())),
    );
    // A check of this broker: it has kept the half message.
    checked(cast, &transaction_id, checks_before).await?;
    cast.orders.ledger.write(&transaction_id, Decision::Commit)?;
    cast.timeline.tell(Fact::Decided, &format!("{name} {RUNNING}: its local transaction commits in the ledger"));
    arrive(cast, std::slice::from_ref(&name)).await?;
    cast.timeline.tell(Fact::Proved, &format!("{name} outlived its broker and is settled"));
    Ok(name)
}

/// Waits for one more check of a transaction than there were.
async fn checked(cast: &Cast, transaction_id: &str, before: usize) -> anyhow::Result<()> {
    cast.stage.wait("check", |stage| (stage.checks_of(transaction_id) > before).then_some(())).await
}

/// Waits until the consumer has all of these.
async fn arrive(cast: &Cast, names: &[String]) -> anyhow::Result<()> {
    let all = |stage: &Stage| {
        let delivered = stage.delivered();
        names.iter().all(|name| delivered.contains(name)).then_some(())
    };
    cast.stage.wait(&format!("delivery of {}", names.join(", ")), all).await
}

/// The final count: what is visible is exactly what was committed, and the consumer has all of it.
async fn conclude(cast: &Cast, mut expected: Vec<String>, broker_died: bool) -> anyhow::Result<()> {
    expected.sort();
    let visible = cast.orders.observer.look().await?;
    exactly(&visible, &expected)?;
    cast.stage.intact()?;
    let mut delivered = cast.stage.delivered();
    let deliveries = delivered.len();
    delivered.sort();
    delivered.dedup();
    ensure!(delivered == expected, "delivered were {delivered:?}, committed {expected:?}");
    let checks = cast.stage.checks();
    let sent = TEN + 1 + usize::from(broker_died);
    let kills = if broker_died { "1 kill of a producer and 1 kill of the broker" } else { "1 kill of a producer" };
    for line in [
        format!("{sent} half messages stored, none seen before its decision"),
        format!("{} committed: each is in the log once, and was delivered", expected.len()),
        format!("{} rolled back: never seen by anybody", sent - expected.len()),
        format!("{checks} checks answered, one of them for a producer that was killed"),
        format!("{deliveries} deliveries over {kills}"),
    ] {
        cast.timeline.note(&format!("  {line}"));
    }
    Ok(())
}

fn exactly(visible: &Visible, expected: &[String]) -> anyhow::Result<()> {
    let found = visible.bodies();
    ensure!(found == expected, "visible are {found:?}, committed {expected:?}");
    Ok(())
}
