//! Decisions over a network that loses, repeats, delays and reorders them, and the checks: each transaction ends as its producer
//! decided, its message comes once or never.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_common::body::TransactionCounts;
use escrowmq_common::body::json::from_slice;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::CheckTransactionStateHeader;
use escrowmq_common::remoting::{Connection, Service};
use escrowmq_tests::proxy::Proxy;
use escrowmq_tests::wire::end_request;
use escrowmq_tests::{Broker, End, Half, Settings, Wire, until_within};
use futures_util::future::join_all;

const TOPIC: &str = "Lossy";
const GROUP: &str = "lossy-producer";
/// Transactions of the normal run; 100,000 take a minute and a half; `ESCROWMQ_LOSSY_TRANSACTIONS` sets another number.
const TRANSACTIONS: usize = 2_000;
/// Instances of the producer group, each with a connection of its own, and transactions that each has open at once.
const INSTANCES: usize = 4;
const LANES: usize = 16;
/// An answer that has not come by then is lost.
const LOST: Duration = Duration::from_millis(100);
/// How often a decision is sent before it is left to the check.
const TRIES: usize = 2;
/// Until checks have settled everything.
const SETTLED: Duration = Duration::from_secs(120);

/// The application's decision, once and for all.
fn decision_on(number: usize) -> End {
    if number.is_multiple_of(3) { End::Rollback } else { End::Commit }
}

/// Answers checks one-way on their connection. Some answers are "I do not know": every fourth one.
#[derive(Default)]
struct Application {
    answered: AtomicUsize,
}

impl Service for Application {
    fn on_request(&self, connection: &Arc<Connection>, request: Frame) {
        if request.code != request::CHECK_TRANSACTION_STATE {
            return;
        }
        let header: CheckTransactionStateHeader<'_> = request.header().expect("a check is well-formed");
        let unique_id = header.transaction_id.expect("it names its transaction").to_owned();
        let number = unique_id.parse().expect("the transactions of this test are numbers");
        let is_unknown = self.answered.fetch_add(1, Ordering::Relaxed) % 4 == 3;
        let end = if is_unknown { End::Unknown } else { decision_on(number) };
        let half = Half {
            group: GROUP.to_owned(),
            topic: TOPIC.to_owned(),
            unique_id,
            position: header.commit_log_offset,
            counter: header.tran_state_table_offset,
        };
        let mut answer = end_request(&half, end, true);
        answer.set_oneway();
        // The connection may be at its end; the broker asks again.
        let _ = connection.send_oneway(answer);
    }
}

/// Prepares and decides in one of the ways in which producers do.
async fn transact(wire: &Wire, number: usize) {
    let half = wire.half(GROUP, TOPIC, &number.to_string(), &number.to_string()).await;
    let end = decision_on(number);
    match number % 4 {
        // Its producer says nothing more.
        0 => {}
        1 => wire.end_without_waiting(&half, end).await.expect("the proxy takes it"),
        _ => {
            for _ in 0..TRIES {
                if let Ok(answer) = tokio::time::timeout(LOST, wire.end(&half, end)).await {
                    let answer = answer.expect("the connection stays");
                    assert_eq!(answer.code, response::SUCCESS, "{number}: {:?}", answer.remark);
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_repeated_late_and_reordered_decisions_and_checks_end_as_decided() {
    let asked = std::env::var("ESCROWMQ_LOSSY_TRANSACTIONS");
    let transactions = asked.map_or(TRANSACTIONS, |number| number.parse().expect("a number"));
    let settings = Settings::default().with("transactionTimeOut", 500).with("transactionCheckInterval", 200);
    // No producer here gives up; how a transaction is parked is shown elsewhere.
    let broker = Broker::start(settings.with("transactionCheckMax", 1000)).await;
    let direct = broker.wire();
    direct.create_topic(TOPIC, 1).await;
    let codes = &[request::END_TRANSACTION, request::CHECK_TRANSACTION_STATE];
    let proxy = Proxy::before(broker.address(), codes, 1).await;
    let application: Arc<dyn Service> = Arc::new(Application::default());
    let instances: Vec<Wire> =
        (0..INSTANCES).map(|_| Wire::answering(proxy.address(), Arc::clone(&application))).collect();
    for (number, instance) in instances.iter().enumerate() {
        instance.greet(&format!("instance-{number}"), GROUP, &[]).await;
    }
    let lanes = (0..INSTANCES * LANES).map(async |lane| {
        for number in (lane..transactions).step_by(INSTANCES * LANES) {
            transact(&instances[lane % INSTANCES], number).await;
        }
    });
    join_all(lanes).await;

    until_within(SETTLED, "all of them are settled by checks", async || {
        let counts = direct.ask(Frame::request(request::COUNT_TRANSACTIONS)).await;
        let counts: TransactionCounts = from_slice(&counts.body).expect("well-formed");
        counts.groups.iter().all(|group| group.open == 0 && group.parked == 0).then_some(())
    })
    .await;
    let mut seen = BTreeMap::<usize, usize>::new();
    for message in direct.read_queue(TOPIC, 0).await {
        let number = String::from_utf8_lossy(&message.body).parse().expect("the body is the number");
        *seen.entry(number).or_default() += 1;
    }
    let committed = (0..transactions).filter(|number| decision_on(*number) == End::Commit);
    assert_eq!(seen, committed.map(|number| (number, 1)).collect(), "each once, and none that was rolled back");
    let tally = proxy.tally();
    let meddled = [&tally.dropped, &tally.copied, &tally.held].map(|count| count.load(Ordering::Relaxed));
    println!("{transactions} transactions; frames dropped, copied, held back: {meddled:?}");
    assert!(meddled.iter().all(|count| *count > transactions as u64 / 10), "{meddled:?}");
}
