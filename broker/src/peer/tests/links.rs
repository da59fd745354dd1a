//! Links over time: members that go and come back, move, leave; and the end.

use bytes::Bytes;

use super::support::{LONG, Member, ask, connected, hello, soon, until};
use crate::peer::{CallError, Hello, Lane, LinkStatus, Phase, Target};

fn is_connected_again(status: &LinkStatus) -> bool {
    status.phase == Phase::Connected && status.connects == 2
}

#[tokio::test]
async fn a_member_that_comes_back_is_found() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let address = two.address();
    let link = connected(one.link(&two, 2, Lane::Pulse)).await;
    soon(two.peers.close()).await;
    let lost = |status: &LinkStatus| status.failures > 1 && status.phase == Phase::Waiting;
    let status = soon(link.wait_until(lost)).await;
    assert!(status.last_error.is_some() && status.refusal.is_none());
    assert!(status.phase_age < LONG);
    let error = ask(&link, "echo").await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    let again = Member::with(hello(2, "n1"), |settings| settings.listen.clone_from(&address));
    soon(link.wait_until(is_connected_again)).await;
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
    assert_eq!(again.probe.count(), 1);
}

#[tokio::test]
async fn a_member_that_moves_is_dialed_at_its_new_address() {
    let one = Member::start(1, "n0");
    let (before, after) = (Member::start(2, "n1"), Member::start(2, "n1"));
    let link = connected(one.link(&before, 2, Lane::Append)).await;
    let call = link.call(Bytes::from("h"), LONG);
    before.probe.held(1).await;
    let same = one.link(&after, 2, Lane::Append);
    assert!(matches!(soon(call).await, Err(CallError::Broken { .. })));
    soon(link.wait_until(is_connected_again)).await;
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
    assert_eq!((before.probe.count(), after.probe.count()), (1, 1));
    assert_eq!((same.status().connects, link.status().address), (2, after.address()));
    // The same address again changes nothing.
    one.link(&after, 2, Lane::Append);
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
    assert_eq!(link.status().connects, 2);
}

#[tokio::test]
async fn names_are_looked_up() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let address = format!("localhost:{}", two.peers.address().port());
    let link = connected(one.peers.link(&Target::Node(2), &address, Lane::Pulse)).await;
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
    let bad = one.peers.link(&Target::Node(3), "nowhere", Lane::Pulse);
    assert!(ask(&bad, "echo").await.is_err());
    let status = soon(bad.wait_until(|status| status.failures > 0)).await;
    assert!(status.last_error.unwrap().contains("host:port"));
}

#[tokio::test]
async fn a_link_to_a_member_that_left_is_closed() {
    let (one, two, three) = (Member::start(1, "n0"), Member::start(2, "n1"), Member::start(3, "n2"));
    let leaving = connected(one.link(&two, 2, Lane::Append)).await;
    let staying = connected(one.link(&three, 3, Lane::Append)).await;
    let call = leaving.call(Bytes::from("h"), LONG);
    two.probe.held(1).await;
    one.peers.retain(|target| *target == Target::Node(3));
    assert!(matches!(soon(call).await, Err(CallError::Broken { .. })));
    soon(leaving.wait_until(|status| status.phase == Phase::Closed)).await;
    assert!(matches!(ask(&leaving, "echo").await, Err(CallError::Unreachable { .. })));
    assert!(soon(leaving.ready()).await.is_err());
    assert_eq!(ask(&staying, "echo").await.unwrap(), "echo");
    let targets: Vec<_> = one.peers.links().into_iter().map(|status| status.target).collect();
    assert_eq!(targets, [Target::Node(3)]);
    // It may come back.
    connected(one.link(&two, 2, Lane::Append)).await;
}

#[tokio::test]
async fn a_new_identity_is_told_to_everybody() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let there = connected(one.link(&two, 2, Lane::Pulse)).await;
    let back = connected(two.link(&one, 1, Lane::Pulse)).await;
    let second = Hello { incarnation: 2, ..hello(2, "n1") };
    two.peers.introduce(second.clone()).unwrap();
    soon(there.wait_until(is_connected_again)).await;
    soon(back.wait_until(is_connected_again)).await;
    assert_eq!(there.status().member.as_deref(), Some(&second));
    two.peers.introduce(second).unwrap();
    assert_eq!(ask(&there, "echo").await.unwrap(), "echo");
    assert_eq!((there.status().connects, back.status().connects), (2, 2), "nothing new, nothing ends");
    assert!(two.peers.introduce(Hello { seat: "n".repeat(300), ..hello(2, "n1") }).is_err());
}

#[tokio::test]
async fn a_newer_connection_takes_the_place_of_an_older_one() {
    let two = Member::start(2, "n1");
    // Two processes that run on copies of one folder, or one whose connection died unnoticed.
    let (old, new) = (Member::start(1, "n0"), Member::start(1, "n0"));
    let link = connected(old.link(&two, 2, Lane::Append)).await;
    let call = link.call(Bytes::from("h"), LONG);
    two.probe.held(1).await;
    connected(new.link(&two, 2, Lane::Append)).await;
    assert!(matches!(soon(call).await, Err(CallError::Broken { .. })));
    until(|| two.peers.counts().served == 1).await;
}

#[tokio::test]
async fn the_end_ends_everything() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let link = connected(one.link(&two, 2, Lane::Append)).await;
    let back = connected(two.link(&one, 1, Lane::Append)).await;
    let (call, answer) = (link.call(Bytes::from("h"), LONG), back.call(Bytes::from("h"), LONG));
    two.probe.held(1).await;
    one.probe.held(1).await;
    soon(one.peers.close()).await;
    assert!(matches!(soon(call).await, Err(CallError::Broken { .. })));
    assert!(matches!(soon(answer).await, Err(CallError::Broken { .. })));
    assert_eq!(link.status().phase, Phase::Closed);
    assert!(matches!(ask(&link, "echo").await, Err(CallError::Unreachable { .. })));
    let late = one.link(&two, 2, Lane::Pulse);
    assert!(soon(late.ready()).await.is_err());
    // Closing twice, or by dropping, is fine.
    soon(one.peers.close()).await;
    drop(two);
    soon(back.wait_until(|status| status.phase == Phase::Closed)).await;
}
