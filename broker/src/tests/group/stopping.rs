//! A member that follows ends at once, whatever it passes on.

use std::time::Duration;

use escrowmq_common::code::response;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::support::{Bench, remote};
use crate::tests::support::{PATIENCE, create_topic};

/// Clients of the follower, each with a tunnel to the leader.
const CLIENTS: usize = 8;
/// Far below the 120 s after which an idle connection is closed.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_tunnels_stops_at_once() {
    let mut bench = Bench::founded(|_, _| {}).await;
    let follower = (bench.leader().await + 1) % 3;
    let address = bench.at(follower).local_addr().to_string();
    let clients: Vec<_> = (0..CLIENTS).map(|_| remote()).collect();
    let answers = clients.iter().map(|client| client.call(&address, create_topic("T", 1), PATIENCE));
    for answer in join_all(answers).await {
        assert_eq!(answer.unwrap().code, response::SUCCESS);
    }
    timeout(STOPPED_WITHIN, bench.stop(follower)).await.expect("it stops");
    bench.stop_all().await;
}
