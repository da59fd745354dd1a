//! Events in, effects out.

use escrowmq_common::body::SubscriptionData;
use escrowmq_common::frame::Language;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn client(id: &str) -> Arc<Client> {
    Arc::new(Client { id: Arc::from(id), language: Language::JAVA, version: 479 })
}

fn consumer(group: &str, topics: &[(&str, i64)]) -> ConsumerData {
    let subscription = |(topic, version): &(&str, i64)| SubscriptionData {
        topic: (*topic).to_owned(),
        sub_string: format!("tag{version}"),
        sub_version: *version,
        ..SubscriptionData::default()
    };
    ConsumerData {
        group_name: group.to_owned(),
        subscription_data_set: topics.iter().map(subscription).collect(),
        ..ConsumerData::default()
    }
}

fn beat(data: &ConsumerData) -> Beat<'_> {
    Beat { consumers: vec![ConsumerBeat { data, notify: true }], ..Beat::default() }
}

fn producing(group: &str) -> Beat<'_> {
    Beat { producers: vec![group], ..Beat::default() }
}

/// One heartbeat of connection `id`, whose client id is `c<id>`.
fn send(table: &mut Table<u64>, now: Duration, id: u64, beat: &Beat<'_>) -> Effects<u64> {
    table.heartbeat(now, ConnectionId(id), &id, &client(&format!("c{id}")), beat)
}

fn told(effects: &Effects<u64>) -> Vec<u64> {
    effects.notices.iter().flat_map(|notice| notice.members.iter().copied()).collect()
}

#[test]
fn members_hear_of_joins_and_leaves() {
    let mut table = Table::default();
    let data = consumer("G", &[("T", 1)]);
    assert_eq!(told(&send(&mut table, SECOND, 1, &beat(&data))), [1]);
    assert!(told(&send(&mut table, SECOND * 2, 1, &beat(&data))).is_empty());
    assert_eq!(told(&send(&mut table, SECOND * 3, 2, &beat(&data))), [1, 2]);
    assert_eq!(told(&table.unregister(SECOND * 4, ConnectionId(1), None, Some("G"))), [2]);
    assert!(told(&table.closed(SECOND * 5, ConnectionId(2))).is_empty());
    assert!(table.consumer_group("G").is_none());
    assert!(table.connections.is_empty());
}

#[test]
fn a_crowd_that_joins_at_once_is_told_twice() {
    let mut table = Table::default();
    let data = consumer("G", &[("T", 1)]);
    let mut notices = 0;
    for id in 0..100 {
        notices += send(&mut table, SECOND, id, &beat(&data)).notices.len();
    }
    assert_eq!(notices, 1);
    assert_eq!(table.next_tick(), SECOND + NOTICE_GAP);
    assert!(table.tick(SECOND).notices.is_empty());
    assert_eq!(told(&table.tick(SECOND + NOTICE_GAP)).len(), 100);
    assert!(table.tick(SECOND + NOTICE_GAP * 2).notices.is_empty());
}

#[test]
fn a_waiting_notice_of_a_group_that_is_gone_is_dropped() {
    let mut table = Table::default();
    let data = consumer("G", &[("T", 1)]);
    send(&mut table, SECOND, 1, &beat(&data));
    send(&mut table, SECOND, 2, &beat(&data));
    table.closed(SECOND, ConnectionId(1));
    table.closed(SECOND, ConnectionId(2));
    assert!(table.tick(SECOND * 2).notices.is_empty());
    // The next one to join starts afresh.
    assert_eq!(told(&send(&mut table, SECOND, 3, &beat(&data))), [3]);
}

#[test]
fn broadcasting_quiet_and_ancient_members_are_not_told() {
    let mut table = Table::default();
    let mut data = consumer("B", &[("T", 1)]);
    data.message_model = MessageModel::Broadcasting;
    assert!(send(&mut table, SECOND, 1, &beat(&data)).notices.is_empty());
    let data = consumer("Q", &[("T", 1)]);
    let quiet = Beat { consumers: vec![ConsumerBeat { data: &data, notify: false }], ..Beat::default() };
    assert!(send(&mut table, SECOND, 1, &quiet).notices.is_empty());
    let old = Arc::new(Client { id: Arc::from("old"), language: Language::JAVA, version: 27 });
    let data = consumer("O", &[("T", 1)]);
    table.heartbeat(SECOND, ConnectionId(7), &7, &old, &beat(&data));
    assert_eq!(told(&send(&mut table, SECOND * 2, 1, &beat(&data))), [1]);
}

#[test]
fn each_full_heartbeat_replaces_the_groups_subscriptions() {
    let mut table = Table::default();
    let version = |table: &Table<u64>, topic: &str| {
        table.consumer_group("G")?.subscriptions.get(topic).map(|subscription| subscription.data.sub_version)
    };
    let both = consumer("G", &[("A", 5), ("B", 5)]);
    send(&mut table, SECOND, 1, &beat(&both));
    // A subscription that is named for the first time counts, even if the client's clock is wrong; nobody need hear of that.
    let other = consumer("G", &[("A", 4), ("B", 6)]);
    assert!(send(&mut table, SECOND * 2, 1, &beat(&other)).notices.is_empty());
    assert_eq!((version(&table, "A"), version(&table, "B")), (Some(4), Some(6)));
    let group = table.consumer_group("G").expect("has a member");
    assert!(group.has_heard("A", 5) && group.has_heard("B", 6) && !group.has_heard("A", 7));
    let one = consumer("G", &[("A", 5)]);
    assert_eq!(told(&send(&mut table, SECOND * 3, 1, &beat(&one))), [1]);
    assert_eq!(version(&table, "B"), None);
    // A heartbeat that leaves its subscriptions out keeps those that are known.
    let none = consumer("G", &[]);
    let short = Beat { without_subscriptions: true, ..beat(&none) };
    assert!(send(&mut table, SECOND * 4, 1, &short).notices.is_empty());
    assert_eq!(version(&table, "A"), Some(5));
}

#[test]
fn silent_connections_expire_and_only_they() {
    let mut table = Table::default();
    let data = consumer("G", &[("T", 1)]);
    send(&mut table, Duration::ZERO, 1, &beat(&data));
    send(&mut table, Duration::ZERO, 1, &producing("P"));
    send(&mut table, Duration::ZERO, 2, &beat(&data));
    send(&mut table, SECOND * 100, 2, &producing("P"));
    send(&mut table, SECOND * 100, 3, &beat(&data));
    let at = MEMBER_LIFE + SCAN_INTERVAL;
    let effects = table.tick(at);
    // Connection 2 dropped its consumer without a word, but its producer is alive.
    assert_eq!(effects.expired, [1]);
    assert_eq!(told(&effects), [3]);
    assert!(table.tick(at).expired.is_empty());
    let producers = table.producer_group("P").expect("2 is alive");
    assert_eq!(producers.members.keys().copied().collect::<Vec<_>>(), [ConnectionId(2)]);
}

#[test]
fn producers_join_once_and_are_found_by_client_id() {
    let mut table: Table<u64> = Table::default();
    let joined = send(&mut table, SECOND, 1, &producing("P")).joined;
    assert_eq!(joined, [Arc::from("P")]);
    assert!(send(&mut table, SECOND, 1, &producing("P")).joined.is_empty());
    // The same client on a new connection, before the old one closed.
    table.heartbeat(SECOND, ConnectionId(2), &2, &client("c1"), &producing("P"));
    assert_eq!(table.producing("c1").copied().collect::<Vec<_>>(), [2, 1]);
    table.closed(SECOND, ConnectionId(2));
    assert_eq!(table.producing("c1").copied().collect::<Vec<_>>(), [1]);
    // A connection that changes its client id is found under the new one only.
    table.heartbeat(SECOND, ConnectionId(1), &1, &client("other"), &producing("P"));
    assert_eq!(table.producing("c1").count(), 0);
    assert_eq!(table.producing("other").count(), 1);
    table.closed(SECOND, ConnectionId(1));
    assert!(table.producing.is_empty() && table.producers.is_empty() && table.connections.is_empty());
}
