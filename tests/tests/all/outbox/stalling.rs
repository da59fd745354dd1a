//! A relay that hears nothing from its database any more, while another one does: it leaves the work to that one in time, and
//! takes nothing for known when it is back.

use std::path::PathBuf;
use std::time::Duration;

use escrowmq_client::{Client, Message, Outbox, OutboxState, Relay};
use escrowmq_tests::until;
use escrowmq_tests::valve::Valve;
use sqlx::Pool;

use super::{Scene, TOPIC, names, with_servers};
use crate::barrier::shop::Shop;

/// Longer than any test: what ends earlier was ended.
const NEVER: Duration = Duration::from_secs(3600);

/// The shortest lease that there is.
const LEASE: Duration = Duration::from_secs(1);

with_servers!(a_send_ends_with_the_lease);
with_servers!(what_another_relay_has_failed_holds_its_key_here_too);

/// The outbox as a process sees it whose way to the database can be shut.
async fn behind_a_valve<DB: Shop>(scene: &Scene<DB>) -> (Valve, Outbox<DB>) {
    let word = |name: &str| {
        let (_, rest) = scene.url.split_once(name)?;
        rest.split('&').next().map(PathBuf::from)
    };
    let socket =
        word("socket=").or_else(|| Some(word("host=")?.join(".s.PGSQL.5432"))).expect("the server has a socket");
    let valve = Valve::before(&socket);
    let folder = socket.parent().expect("a socket is in a folder").display().to_string();
    let url = scene.url.replace(&folder, &valve.folder().display().to_string());
    (valve, Outbox::new(Pool::connect(&url).await.expect("a database behind a valve")))
}

async fn until_all_slots(relay: &Relay) {
    until("all slots", async || (relay.stats().slots == 128).then_some(())).await;
}

/// Sends of the producer group `group` that are under way.
fn in_flight(client: &Client, group: &str) -> u64 {
    client.stats().producers.iter().filter(|stats| stats.group == group).map(|stats| stats.in_flight).sum()
}

async fn a_send_ends_with_the_lease<DB: Shop>(mut scene: Scene<DB>) {
    let (valve, outbox) = behind_a_valve(&scene).await;
    // Neither a heartbeat nor its own time ends a send.
    let client = scene.cluster.client_builder().heartbeat_interval(NEVER).connect().await.expect("a client");
    let producer = client.producer("first").attempt_timeout(NEVER).deadline(NEVER).start().await.expect("a producer");
    let first = outbox.relay(&producer).lease(LEASE).start().expect("a relay");
    until_all_slots(&first).await;
    let keyed = |name: &str| Message::new(TOPIC, name.to_owned()).sharding_key("k");
    scene.order(&["before".to_owned()], keyed).await;
    scene.until_count(OutboxState::Waiting, 0).await;

    scene.cluster.broker.process().pause();
    scene.order(&names("order", 3), keyed).await;
    until("a send", async || (in_flight(&client, "first") > 0).then_some(())).await;
    valve.shut();
    until("its end", async || (in_flight(&client, "first") == 0).then_some(())).await;
    scene.cluster.broker.process().resume();
    let second = scene.relay_with("second", LEASE).await;
    scene.agreed().await;
    assert_eq!(first.stats().sent, 1, "what it began to send is the other one's");
    valve.open();
    first.shutdown().await;
    second.shutdown().await;
    client.shutdown().await;
}

async fn what_another_relay_has_failed_holds_its_key_here_too<DB: Shop>(scene: Scene<DB>) {
    let (valve, outbox) = behind_a_valve(&scene).await;
    let first = outbox.relay(&scene.producer("first").await).lease(LEASE).start().expect("a relay");
    until_all_slots(&first).await;
    let message = |name: &str| {
        let body = if name == "large" { "x".repeat(2 * super::BODY_BYTES_MAX) } else { name.to_owned() };
        Message::new(TOPIC, body).sharding_key("k")
    };
    scene.order(&["before".to_owned()], message).await;
    scene.until_count(OutboxState::Waiting, 0).await;

    valve.shut();
    let second = scene.relay_with("second", LEASE).await;
    until_all_slots(&second).await;
    scene.order(&["large".to_owned()], message).await;
    scene.until_count(OutboxState::Failed, 1).await;
    second.shutdown().await;
    // The first one may have asked for rows when its way was shut, and gets the answer now.
    scene.order(&["behind".to_owned()], message).await;
    valve.open();
    scene.until_count(OutboxState::Held, 1).await;
    assert_eq!(scene.visible().await.concat(), ["before"]);
    first.shutdown().await;
}
