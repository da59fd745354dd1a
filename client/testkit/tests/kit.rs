//! Each feature of the kit, used as a test of somebody else's program would use it.

use std::error::Error;
use std::future::ready;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use escrowmq_client::{Checker, Client, Decision, Message, MessageExt, Outcome, TransactionProducer};
use escrowmq_testkit::{Call, Kit, StartError};
use tokio::sync::mpsc;

type Failure = Box<dyn Error>;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

async fn shop() -> Result<(Kit, Client), Failure> {
    // Far more than a busy machine takes for a test: what is not due before an advance is not due by the test's own slowness either.
    let kit = Kit::builder().topic("Orders", 2).setting("transactionTimeOut", 600_000).start().await?;
    let client = kit.client().await?;
    Ok((kit, client))
}

fn order(key: &str) -> Message {
    Message::new("Orders", format!("order {key}")).key(key)
}

/// A producer that answers each check like this, and the ids of the messages that it was asked about. Its
/// [`send`](TransactionProducer::send) leaves the decision to the check.
async fn transactions(
    client: &Client,
    answer: Decision,
) -> Result<(TransactionProducer, mpsc::UnboundedReceiver<String>), Failure> {
    let (checked, checks) = mpsc::unbounded_channel();
    let checker = Checker::new(move |message: MessageExt| {
        checked.send(message.message_id()).expect("the test waits for checks");
        ready(answer)
    });
    let producer = client.transaction_producer("orders", checker).decision_timeout(Duration::from_millis(200));
    Ok((producer.start().await?, checks))
}

#[tokio::test]
async fn a_check_is_due_when_its_time_has_been_advanced() -> Result<(), Failure> {
    let (kit, client) = shop().await?;
    let (producer, mut checks) = transactions(&client, Decision::Commit).await?;
    let half = producer.send(order("17")).await?.half;
    kit.advance(5 * MINUTE).await;
    let open = kit.open_transactions().await;
    assert_eq!((open.len(), open[0].checks, open[0].transaction_id.as_str()), (1, 0, half.message_id.as_str()));
    kit.assert_never_visible("Orders", "17").await;
    kit.advance(5 * MINUTE).await;
    assert_eq!(checks.recv().await, Some(half.message_id.clone()));
    kit.assert_delivered_once("Orders", "17").await;
    kit.assert_all_settled().await;
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_nobody_knows_of_is_parked_in_the_end() -> Result<(), Failure> {
    let (kit, client) = shop().await?;
    let (producer, mut checks) = transactions(&client, Decision::Unknown).await?;
    let id = producer.send(order("17")).await?.half.message_id;
    for _ in 0..15 {
        kit.advance(HOUR).await;
        assert_eq!(checks.recv().await.as_ref(), Some(&id));
    }
    kit.advance(HOUR).await;
    kit.assert_all_settled().await;
    assert_eq!(kit.parked_transactions().await[0].transaction_id, id);
    kit.assert_never_visible("Orders", &id).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_is_lost_is_made_up_for_by_the_check() -> Result<(), Failure> {
    let (kit, client) = shop().await?;
    let (producer, mut checks) = transactions(&client, Decision::Commit).await?;
    let lost = kit.drop_next_end_transaction();
    let run = producer.run(order("17"), |_| ready(Ok::<_, std::io::Error>(())));
    let meanwhile = async {
        lost.hit().await;
        kit.assert_never_visible("Orders", "17").await;
        assert_eq!(kit.open_transactions().await.len(), 1);
        kit.advance(10 * MINUTE).await;
        checks.recv().await
    };
    let (committed, checked) = tokio::join!(run, meanwhile);
    let message = kit.assert_delivered_once("Orders", "17").await;
    assert_eq!(checked, Some(message.message_id()));
    // The producer went on repeating its decision, and was heard after the check.
    assert!(matches!(committed?.outcome, Outcome::Committed { repeated: true, .. }));
    kit.stop().await;
    Ok(())
}

#[tokio::test]
async fn delays_and_timers_end_when_their_time_has_been_advanced_and_not_before() -> Result<(), Failure> {
    let (kit, client) = shop().await?;
    let producer = client.producer("orders").start().await?;
    // Five minutes.
    producer.send(order("level").delay_level(9)).await?;
    producer.send(order("after").deliver_after(HOUR)).await?;
    kit.assert_waiting(2).await;
    kit.advance(4 * MINUTE).await;
    kit.assert_never_visible("Orders", "level").await;
    kit.advance(MINUTE).await;
    kit.assert_delivered_once("Orders", "level").await;
    // By the broker's time, which is ahead of the machine's by now.
    producer.send(order("at").deliver_at(kit.now() + 2 * HOUR)).await?;
    kit.advance(HOUR).await;
    kit.assert_delivered_once("Orders", "after").await;
    kit.assert_never_visible("Orders", "at").await;
    kit.advance(HOUR).await;
    kit.assert_delivered_once("Orders", "at").await;
    kit.assert_waiting(0).await;
    Ok(())
}

#[tokio::test]
async fn a_retry_comes_when_its_time_has_been_advanced() -> Result<(), Failure> {
    let (kit, client) = shop().await?;
    let (handled, mut handles) = mpsc::unbounded_channel();
    let failures = AtomicU32::new(0);
    let handler = move |message: MessageExt| {
        handled.send(message.reconsume_times()).expect("the test waits for messages");
        ready(if failures.fetch_add(1, Ordering::Relaxed) == 0 { Err("the database is away") } else { Ok(()) })
    };
    let consumer = client.push_consumer("payments").subscribe("Orders", "*");
    let consumer = consumer.consume_from(escrowmq_client::ConsumeFrom::First).start(handler).await?;
    client.producer("orders").start().await?.send(order("17")).await?;
    assert_eq!(handles.recv().await, Some(0));
    kit.assert_waiting(1).await;
    kit.advance(10 * MINUTE).await;
    assert_eq!(handles.recv().await, Some(1));
    consumer.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_send_whose_answer_is_lost_is_one_message_where_there_is_a_duplicate_window() -> Result<(), Failure> {
    let kit = Kit::builder().topic_with_duplicate_window("Orders", 2, HOUR).start().await?;
    let client = kit.client().await?;
    // Greeted at the start, the broker has said by the first send that it recognises repeats.
    let producer = client.producer("orders").topics(["Orders"]).start().await?;
    let lost = kit.lose_next_answer(Call::Send);
    let sent = producer.send(order("17")).await?;
    lost.hit().await;
    assert!(sent.attempts == 2 && !sent.possible_duplicate, "{sent:?}");
    kit.assert_delivered_once("Orders", &sent.message_id).await;
    // The window ends, too.
    let again = order("17").unique_id(&sent.message_id);
    producer.send(again.clone()).await?;
    assert_eq!(kit.messages("Orders").await.len(), 1);
    kit.advance(HOUR + MINUTE).await;
    producer.send(again).await?;
    assert_eq!(kit.messages("Orders").await.len(), 2);
    Ok(())
}

#[tokio::test]
#[should_panic(expected = "Orders has 2 messages '17'")]
async fn without_a_window_it_may_be_two_and_the_receipt_says_so() {
    let (kit, client) = shop().await.unwrap();
    let producer = client.producer("orders").start().await.unwrap();
    kit.lose_next_answer(Call::Send);
    let sent = producer.send(order("17")).await.unwrap();
    if sent.possible_duplicate {
        kit.assert_delivered_once("Orders", "17").await;
    }
}

#[tokio::test]
async fn a_kill_keeps_what_was_committed_and_hides_what_was_not() -> Result<(), Failure> {
    let (kit, client) = shop().await?;
    let (producer, mut checks) = transactions(&client, Decision::Commit).await?;
    producer.run(order("committed"), |_| ready(Ok::<_, std::io::Error>(()))).await?;
    let half = producer.send(order("half")).await?.half;
    kit.kill_broker().await;
    let plain = client.producer("plain").deadline(Duration::from_millis(300)).start().await?;
    let refused = plain.send(order("refused")).await.expect_err("nobody is there");
    assert!(refused.is_retryable() && !refused.outcome_unknown(), "{refused}");
    // It passes while the broker is down, too.
    kit.advance(HOUR).await;
    kit.restart().await?;
    let committed = kit.assert_delivered_once("Orders", "committed").await;
    assert!(committed.stored_at() + HOUR <= kit.now());
    kit.assert_never_visible("Orders", "half").await;
    kit.assert_never_visible("Orders", "refused").await;
    // The producer comes back by itself, and is asked.
    assert_eq!(checks.recv().await, Some(half.message_id));
    kit.assert_delivered_once("Orders", "half").await;
    // And once in good order.
    kit.restart().await?;
    kit.assert_delivered_once("Orders", "half").await;
    assert_eq!(kit.messages("Orders").await.len(), 2);
    Ok(())
}

#[tokio::test]
async fn clients_go_on_after_their_connections_broke() -> Result<(), Failure> {
    let (kit, client) = shop().await?;
    let producer = client.producer("orders").start().await?;
    for round in 0..3 {
        producer.send(order(&format!("order-{round}"))).await?;
        kit.break_connections();
    }
    for round in 0..3 {
        kit.assert_delivered_once("Orders", &format!("order-{round}")).await;
    }
    Ok(())
}

#[tokio::test]
async fn two_kits_have_nothing_in_common() -> Result<(), Failure> {
    let ((one, client), (other, _)) = tokio::try_join!(shop(), shop())?;
    let other_client = other.client().await?;
    for client in [&client, &other_client] {
        client.producer("orders").start().await?.send(order("17").delay_level(9)).await?;
    }
    one.advance(HOUR).await;
    one.assert_delivered_once("Orders", "17").await;
    other.assert_never_visible("Orders", "17").await;
    assert!(one.now() > other.now() + 59 * MINUTE);
    one.kill_broker().await;
    other_client.producer("more").start().await?.send(order("18")).await?;
    other.assert_delivered_once("Orders", "18").await;
    Ok(())
}

#[tokio::test]
async fn settings_are_the_brokers_and_wrong_ones_are_named() -> Result<(), Failure> {
    let kit = Kit::builder().topic("Orders", 1).auto_create_topics(false).start().await?;
    let client = kit.client().await?;
    let producer = client.producer("orders").deadline(Duration::from_millis(300)).start().await?;
    assert!(producer.send(Message::new("Unplanned", "x")).await.is_err());
    producer.send(order("17")).await?;
    assert!(kit.messages("Unplanned").await.is_empty());

    let unknown = Kit::builder().setting("transactionTimeout", 1).start().await;
    assert!(matches!(&unknown, Err(StartError::Setting(error)) if error.to_string().contains("transactionTimeOut")));
    let topic = Kit::builder().topic("no blanks", 1).start().await;
    assert!(matches!(topic, Err(StartError::Topic { topic, .. }) if topic == "no blanks"));
    Ok(())
}

#[tokio::test]
async fn the_folder_goes_with_the_kit() -> Result<(), Failure> {
    let kit = Kit::start().await?;
    let (folder, address) = (kit.folder().to_owned(), kit.nameserver().to_owned());
    assert!(folder.join("broker").is_dir());
    drop(kit);
    assert!(!folder.exists());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    Ok(())
}

#[test]
fn no_program_depends_on_the_kit() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for package in ["common", "nameserver", "broker", "client", "cli", "tests"] {
        let manifest = std::fs::read_to_string(workspace.join(package).join("Cargo.toml")).unwrap();
        let of_programs = manifest.split("[dev-dependencies]").next().unwrap();
        assert!(of_programs.contains("escrowmq-common") || package == "common", "the manifest of {package} is read");
        assert!(!of_programs.contains("escrowmq-testkit"), "{package} has it outside [dev-dependencies]");
    }
}
