//! What strangers cost, and what is bounded between members.

use std::time::Duration;

use bytes::Bytes;

use super::support::{LONG, Member, Stranger, ask, connected, greeting, hello, soon, until};
use crate::log::format::RECORD_BYTES_MAX;
use crate::peer::accept::HALF_OPEN_MAX;
use crate::peer::{CallError, Lane, REQUEST_BYTES_MAX};

#[test]
fn the_longest_record_fits_into_a_request() {
    let (record, request) = (usize::try_from(RECORD_BYTES_MAX).unwrap(), REQUEST_BYTES_MAX);
    assert!(record + (64 << 10) <= request);
}

#[tokio::test]
async fn a_handshake_of_more_than_a_few_kib_is_not_read() {
    let member = Member::start(2, "n1");
    let mut stranger = Stranger::connect(member.peers.address()).await;
    // Announced, and never sent.
    stranger.write(&5000_u32.to_be_bytes()).await;
    assert!(stranger.receive().await.is_none());
    until(|| member.peers.counts().strange == 1).await;
}

#[tokio::test]
async fn a_silent_stranger_is_cut_off() {
    let brief = |settings: &mut crate::peer::Settings| settings.handshake_time = Duration::from_millis(20);
    let member = Member::with(hello(2, "n1"), brief);
    let mut silent = Stranger::connect(member.peers.address()).await;
    let mut slow = Stranger::connect(member.peers.address()).await;
    slow.greet(&greeting(9, Lane::Pulse)).await;
    for stranger in [&mut silent, &mut slow] {
        assert!(stranger.receive().await.is_none());
    }
    until(|| member.peers.counts().silent == 2 && member.peers.counts().half_open == 0).await;
}

#[tokio::test]
async fn strangers_take_no_place_from_members() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let mut strangers = Vec::new();
    for _ in 0..HALF_OPEN_MAX + 3 {
        strangers.push(Stranger::connect(two.peers.address()).await);
    }
    // The oldest three go.
    for stranger in &mut strangers[..3] {
        assert!(stranger.receive().await.is_none());
    }
    until(|| two.peers.counts().displaced == 3).await;
    assert_eq!(two.peers.counts().half_open, HALF_OPEN_MAX as u64);
    let link = connected(one.link(&two, 2, Lane::Pulse)).await;
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
    assert_eq!(two.peers.counts().displaced, 4);
}

#[tokio::test]
async fn bytes_in_flight_are_bounded() {
    let small = |settings: &mut crate::peer::Settings| settings.bytes_max = 1000;
    let (one, two) = (Member::with(hello(1, "n0"), small), Member::start(2, "n1"));
    let link = connected(one.link(&two, 2, Lane::Append)).await;
    let held = |bytes: usize| Bytes::from(vec![b'h'; bytes]);
    let first = link.call(held(600), LONG);
    let busy = ask(&link, held(401)).await.unwrap_err();
    assert!(matches!(busy, CallError::Busy { .. }) && !busy.outcome_unknown(), "{busy}");
    let second = link.call(held(400), LONG);
    let status = link.status();
    assert_eq!((status.calls, status.call_bytes), (2, 1000));
    for (request, answer) in two.probe.held(2).await {
        answer.send(Some(request)).unwrap();
    }
    assert_eq!((soon(first).await.unwrap().len(), soon(second).await.unwrap().len()), (600, 400));
    // One that is larger than the bound passes alone.
    let large = vec![b'e'; 300_000];
    assert!(ask(&link, large.clone()).await.unwrap() == large);
    assert_eq!((link.status().calls, link.status().call_bytes), (0, 0));
}

#[tokio::test]
async fn a_request_above_the_limit_is_not_sent() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let link = connected(one.link(&two, 2, Lane::Append)).await;
    // Never written to, so that it costs no memory.
    let error = ask(&link, vec![0; REQUEST_BYTES_MAX + 1]).await.unwrap_err();
    assert_eq!(error, CallError::TooLarge { bytes: REQUEST_BYTES_MAX + 1, limit: REQUEST_BYTES_MAX });
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
}

#[tokio::test]
async fn a_member_that_serves_slowly_is_not_sent_more_and_its_pulse_goes_on() {
    const LARGE: usize = 8 << 20;
    let bounded = |settings: &mut crate::peer::Settings| settings.bytes_max = LARGE;
    let (one, two) = (Member::start(1, "n0"), Member::with(hello(2, "n1"), bounded));
    let append = connected(one.link(&two, 2, Lane::Append)).await;
    let pulse = connected(one.link(&two, 2, Lane::Pulse)).await;
    let large = Bytes::from(vec![b'h'; LARGE]);
    let calls: Vec<_> = (0..4).map(|_| append.call(large.clone(), LONG)).collect();
    let mut held = two.probe.held(1).await;
    // Its bound is reached: the others stand before the socket and in it, and heartbeats pass them.
    for beat in 0..100_u8 {
        assert_eq!(ask(&pulse, vec![b'e', beat]).await.unwrap()[..], [b'e', beat]);
    }
    assert_eq!(two.probe.seen.lock().iter().filter(|(_, lane, _)| *lane == Lane::Append).count(), 1);
    assert_eq!(append.status().calls, 4);
    for call in calls {
        let (request, answer) = held.remove(0);
        answer.send(Some(request)).unwrap();
        assert!(soon(call).await.unwrap() == large);
        if append.status().calls > 0 {
            held = two.probe.held(1).await;
        }
    }
}
