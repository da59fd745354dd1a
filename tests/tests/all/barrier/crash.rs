//! The process dies at every await point of `run_in_db`, by SIGKILL.
//!
//! A child runs one transaction and kills itself when its future has returned to the executor for the n-th time; children with
//! all n run until none dies any more, a few at the same time. How often a future returns is not the same in each run, so n
//! counts from the beginning as well as from the end of the closure, and all of it is done more than once. Others of their
//! group answer the checks of those that are dead, and at the end the test itself does. Then broker and database must agree
//! about each of them.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escrowmq_client::{Client, Message, RunInDbError};
use escrowmq_tests::processes::Process;
use rustix::process::{Signal, getpid, kill_process};
use sqlx::Pool;

use super::shop::Shop;
use super::{GROUP, Scene, TOPIC, barrier, with_databases};

const CHECKS_EVERY_MS: u32 = 500;

/// Children at the same time.
const LANES: u32 = 8;

/// How often all of it is done.
const ROUNDS: u32 = 2;

/// More await points than a transaction has, also on a busy machine.
const POINTS_MAX: u32 = 400;

/// How long a child may take.
const CHILD: Duration = Duration::from_secs(30);

/// Where a child counts from.
const BEGINNING: &str = "beginning";
const CLOSURE_END: &str = "closure";

/// A child's orders: nameserver, URL of the database, name of the order, point of death.
const ORDER: &str = "ESCROWMQ_BARRIER_CHILD";

with_databases!(dying_at_every_await_point);

async fn dying_at_every_await_point<DB: Shop>(scene: Scene<DB>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut died, mut finished) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        for (ending, from) in [("yes", BEGINNING), ("yes", CLOSURE_END), ("no", BEGINNING), ("no", CLOSURE_END)] {
            let mut point = 1;
            loop {
                assert!(point < POINTS_MAX, "a child that is to die later never ends");
                let name = |point| format!("{ending}-{from}-{point}-{round}");
                let names: Vec<String> = (point..point + LANES).map(name).collect();
                let mut children: Vec<Process> =
                    names.iter().map(|name| start_child(&scene, name, folder.path())).collect();
                let mut deaths = 0;
                for (name, child) in names.iter().zip(&mut children) {
                    let status = child.wait(CHILD).await;
                    if status.signal() == Some(Signal::KILL.as_raw()) {
                        deaths += 1;
                        died.insert(name.clone());
                    } else {
                        assert!(status.success(), "{name} failed: {status}\n{}", child.log());
                        finished.insert(name.clone());
                    }
                }
                if deaths == 0 {
                    break;
                }
                point += LANES;
            }
        }
    }
    let the_barrier = barrier(&scene.pool).sweep_after(Duration::ZERO).build().expect("good settings");
    let producer = scene.client.transaction_producer(GROUP, the_barrier.checker()).topics([TOPIC]);
    let producer = producer.start().await.expect("a producer starts");
    scene.settle().await;
    let agreed = scene.agreed().await;
    let of = |names: &BTreeSet<String>, ending: &str| {
        names.iter().filter(|name| name.starts_with(ending)).cloned().collect::<BTreeSet<String>>()
    };
    eprintln!(
        "{}: {} deaths, {} of them after the commit; {} children ended",
        DB::NAME,
        died.len(),
        agreed.intersection(&died).count(),
        finished.len()
    );
    assert!(of(&agreed, "no").is_empty(), "rolled back by their closures: {agreed:?}");
    assert!(of(&finished, "yes").is_subset(&agreed), "committed for certain: {finished:?}");
    assert!(of(&died, "yes").intersection(&agreed).next().is_some(), "no death between commit and decision");
    assert!(of(&died, "yes").difference(&agreed).next().is_some(), "no death before the commit");

    // The sweep finds the rows that the children left, and only planted ones are left then.
    let swept = the_barrier.sweep(&producer).await.expect("the database answers");
    assert!(swept.settled > 0 && swept.left == 0 && swept.contradicted == 0, "{swept:?}");
    assert!(DB::rows(&scene.pool).await.iter().all(|(_, state)| *state == 2), "{:?}", DB::rows(&scene.pool).await);
    let forgetful = barrier(&scene.pool).begin_within(Duration::ZERO).keep_rolled_back(Duration::ZERO);
    forgetful.build().expect("good settings").sweep(&producer).await.expect("the database answers");
    assert_eq!(DB::rows(&scene.pool).await, []);
    scene.client.shutdown().await;
}

fn start_child<DB: Shop>(scene: &Scene<DB>, name: &str, folder: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("the running test is a file"));
    command.args(["--exact", "barrier::crash::child", "--ignored", "--nocapture"]);
    command.env(ORDER, [scene.cluster.nameserver.address().as_str(), &scene.url, name].join(" "));
    Process::start(name, command, &folder.join(name))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that the tests above kill"]
async fn child() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let words: Vec<&str> = order.split(' ').collect();
    let [nameserver, url, name] = words[..] else { panic!("{ORDER}={order}") };
    match url.split(':').next() {
        Some("sqlite") => buy::<sqlx::Sqlite>(nameserver, url, name).await,
        Some("postgres") => buy::<sqlx::Postgres>(nameserver, url, name).await,
        _ => buy::<sqlx::MySql>(nameserver, url, name).await,
    }
}

async fn buy<DB: Shop>(nameserver: &str, url: &str, name: &str) {
    let parts: Vec<&str> = name.split('-').collect();
    let [ending, from, point, _] = parts[..] else { panic!("{name}") };
    let counts = AtomicBool::new(from == BEGINNING);
    let pool = Pool::<DB>::connect(url).await.expect("the database takes connections");
    let barrier = barrier(&pool).build().expect("good settings");
    let client = Client::builder(nameserver).connect().await.expect("a client connects");
    let producer = client.transaction_producer(GROUP, barrier.checker()).topics([TOPIC]);
    let producer = producer.start().await.expect("a producer starts");
    let message = Message::new(TOPIC, name.to_owned());
    let buying = producer.run_in_db(&barrier, message, async |mut tx| {
        DB::order(&mut tx, name).await?;
        counts.store(true, Ordering::Relaxed);
        if ending == "yes" { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
    });
    let bought = dying_at(point.parse().expect("a number"), &counts, buying).await;
    match (ending, bought) {
        ("yes", Ok(committed)) => assert!(committed.told.is_ok(), "{:?}", committed.told),
        ("no", Err(RunInDbError::Aborted { rollback, .. })) => assert!(rollback.is_ok(), "{rollback:?}"),
        (_, Ok(_)) => panic!("committed against the closure's will"),
        (_, Err(error)) => panic!("{error}"),
    }
    // The process ends here without a word, as most do.
}

/// Runs `future`, and ends the process by SIGKILL when it has returned to the executor for the `point`-th time that counts.
async fn dying_at<T>(point: u32, counts: &AtomicBool, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut returns = 0;
    poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        if polled.is_pending() && counts.load(Ordering::Relaxed) {
            returns += 1;
            if returns == point {
                kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
            }
        }
        polled
    })
    .await
}
