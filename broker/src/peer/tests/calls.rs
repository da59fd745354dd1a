//! Calls over good connections and bad ones.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::support::{LONG, Member, ask, connected, soon, until};
use crate::peer::{CallError, Lane, LinkStatus, Phase};

#[tokio::test]
async fn requests_keep_their_order_and_answers_need_not() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let link = connected(one.link(&two, 2, Lane::Append)).await;
    // Small and large ones, which take different ways through memory.
    let request = |number: usize| {
        let mut request = format!("h{number}").into_bytes();
        request.resize([10, 5_000, 20_000, 200_000][number % 4], b'.');
        Bytes::from(request)
    };
    // Not polled before all of them are made: the order is that of the calls.
    let calls: Vec<_> = (0..100).map(|number| link.call(request(number), LONG)).collect();
    let mut held = two.probe.held(100).await;
    assert!(held.iter().enumerate().all(|(number, (arrived, _))| *arrived == request(number)));
    held.reverse();
    for (request, answer) in held {
        answer.send(Some(request)).unwrap();
    }
    let answers = soon(join_all(calls)).await;
    assert!(answers.into_iter().enumerate().all(|(number, answer)| answer.unwrap() == request(number)));
}

#[tokio::test]
async fn a_request_keeps_no_more_memory_than_its_own() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let link = connected(one.link(&two, 2, Lane::Append)).await;
    for bytes in [10, 60_000, 70_000, 1_000_000] {
        ask(&link, vec![b'q'; bytes]).await.unwrap();
    }
    let seen = std::mem::take(&mut *two.probe.seen.lock());
    for (_, _, request) in seen {
        let bytes = request.len();
        let memory = request.try_into_mut().map(|request| request.capacity());
        // Else others have a part of the same memory.
        assert!(memory.is_ok_and(|memory| memory <= bytes + 1024), "{bytes} bytes");
    }
}

#[tokio::test]
async fn a_break_tells_what_was_sent() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let link = connected(one.link(&two, 2, Lane::Append)).await;
    let sent: Vec<_> = (0..3).map(|_| link.call(Bytes::from("h"), LONG)).collect();
    two.probe.held(3).await;
    let ends = link.call(Bytes::from("n"), LONG);
    for call in sent {
        let error = soon(call).await.unwrap_err();
        assert!(matches!(error, CallError::Broken { .. }) && error.outcome_unknown(), "{error}");
    }
    assert!(matches!(soon(ends).await, Err(CallError::Broken { .. })));
    // Calls fail at once, or go through once it is dialed again, which happens by itself.
    match ask(&link, "echo").await {
        Ok(answer) => assert_eq!(answer, "echo"),
        Err(error) => assert!(matches!(error, CallError::Unreachable { .. }) && !error.outcome_unknown(), "{error}"),
    }
    soon(link.wait_until(|status| status.connects == 2 && status.phase == Phase::Connected)).await;
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
}

#[tokio::test]
async fn a_panic_costs_its_connection_alone() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let pulse = connected(one.link(&two, 2, Lane::Pulse)).await;
    let link = connected(one.link(&two, 2, Lane::Fetch)).await;
    assert!(matches!(ask(&link, "p").await, Err(CallError::Broken { .. })));
    assert_eq!(ask(&pulse, "echo").await.unwrap(), "echo");
    assert_eq!(pulse.status().connects, 1);
    soon(link.wait_until(|status| status.connects == 2)).await;
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
    assert_eq!(two.peers.counts().served, 2);
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_its_late_answer_is_dropped() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let link = connected(one.link(&two, 2, Lane::Fetch)).await;
    let error = soon(link.call(Bytes::from("h"), Duration::from_millis(20))).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }) && error.outcome_unknown(), "{error}");
    assert_eq!(link.status().call_bytes, 0);
    for (request, answer) in two.probe.held(1).await {
        answer.send(Some(request)).unwrap();
    }
    for number in 0..10_u8 {
        assert_eq!(ask(&link, vec![b'e', number]).await.unwrap()[..], [b'e', number]);
    }
    assert_eq!(link.status().connects, 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_harms_nobody() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let link = connected(one.link(&two, 2, Lane::Fetch)).await;
    drop(link.call(Bytes::from("e gone"), LONG));
    assert_eq!(ask(&link, "e here").await.unwrap(), "e here");
    until(|| link.status().calls == 0).await;
    assert_eq!(two.probe.count(), 2, "the request is not taken back");
}

#[tokio::test]
async fn a_call_without_a_connection_fails_at_once_and_dials() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let link = one.link(&two, 2, Lane::Pulse);
    assert_eq!(link.status().phase, Phase::Unused, "a link that nobody uses costs no connection");
    let error = ask(&link, "echo").await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    let is_connected = |status: &LinkStatus| status.phase == Phase::Connected;
    soon(link.wait_until(is_connected)).await;
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
}
