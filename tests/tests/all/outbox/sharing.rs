//! Several relays: they share the work, and one that is gone is replaced.

use std::time::Duration;

use escrowmq_client::{Message, OutboxState};
use escrowmq_tests::until;

use super::{Scene, TOPIC, names, with_databases};
use crate::barrier::shop::Shop;

with_databases!(relays_share_the_work_and_replace_each_other);

async fn relays_share_the_work_and_replace_each_other<DB: Shop>(scene: Scene<DB>) {
    let message = |name: &str| Message::new(TOPIC, name.to_owned()).sharding_key(name.to_owned());
    // On a machine that is busy with other things a turn of a relay may take seconds.
    let lease = Duration::from_secs(10);
    let first = scene.relay_with("first", lease).await;
    until("all slots are the first one's", async || (first.stats().slots == 128).then_some(())).await;
    let second = scene.relay_with("second", lease).await;
    if DB::NAME == "SQLite" {
        scene.order(&names("alone", 50), message).await;
        scene.until_count(OutboxState::Waiting, 0).await;
        assert_eq!((first.stats().slots, second.stats().slots), (128, 0), "one does all the work");
    } else {
        let shares = || (first.stats().slots, second.stats().slots);
        until("each has a half", async || (shares() == (64, 64)).then_some(())).await;
        // Each has connections of its own: one more would wait for those of the others for ever.
        let more = [scene.relay_with("third", lease).await, scene.relay_with("fourth", lease).await];
        let all = || more.iter().chain([&first, &second]).all(|relay| relay.stats().slots == 32);
        until("each has a quarter", async || all().then_some(())).await;
        for relay in more {
            relay.shutdown().await;
        }
        until("each has a half again", async || (shares() == (64, 64)).then_some(())).await;
        scene.order(&names("shared", 400), message).await;
        scene.until_count(OutboxState::Waiting, 0).await;
        assert!(first.stats().sent > 0 && second.stats().sent > 0);
    }
    scene.agreed().await;
    let (_, repeats) = scene.read().await;
    let unanswered = first.stats().away + second.stats().away;
    assert!(repeats == 0 || unanswered > 0, "{repeats} messages were sent twice, and each try was answered");
    // In good order: at once. The test's patience is much longer than a lease, so the time says nothing.
    first.shutdown().await;
    scene.order(&names("later", 50), message).await;
    scene.agreed().await;
    until("the second one has all", async || (second.stats().slots == 128).then_some(())).await;
    second.shutdown().await;
    assert_eq!(second.stats().oldest.unwrap_or_default(), Duration::ZERO);
}
