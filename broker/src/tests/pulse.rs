//! What `RunningBroker::pulse` says of a broker that hangs, and of one whose store has failed.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use tokio::time::timeout;

use super::support::{PATIENCE, settings};
use crate::latch::Failure;
use crate::start::start;

/// Far more than a pulse takes, and far less than the patience of a service manager.
const NO_ANSWER: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_write_path_that_hangs_has_no_pulse() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(settings(folder.path())).await.unwrap();
    timeout(PATIENCE, running.pulse()).await.expect("it lives");
    let (release, held) = mpsc::channel::<()>();
    let hangs = running.broker().shard.executor().spawn(async move { held.recv().is_err() });
    assert!(timeout(NO_ANSWER, running.pulse()).await.is_err());
    drop(release);
    assert!(hangs.await.is_ok_and(|ended| ended));
    timeout(PATIENCE, running.pulse()).await.expect("it lives again");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_writes_has_a_pulse() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(settings(folder.path())).await.unwrap();
    running.broker().shard.intake().latch().close(Failure::storage("flush", io::Error::other("no")));
    timeout(PATIENCE, running.pulse()).await.expect("reads go on");
    assert!(running.stop().await.is_err());
}
