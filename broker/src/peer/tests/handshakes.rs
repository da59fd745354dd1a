//! Who is let in, who is not, and what each side gets to know.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::frame::Frame;
use tokio::net::TcpListener;

use super::support::{Door, Member, SECRET, Stranger, ask, connected, greeting, hello, soon, until};
use crate::peer::greeting::Greeting;
use crate::peer::handshake::code;
use crate::peer::proof::{Greetings, Role, prove};
use crate::peer::{CallError, Hello, Lane, LinkStatus, Peers, Phase, Reason, Refusal, Secret, StartError, Target};

/// The refusal with which a link to a member ends.
async fn refusal(from: &Member, to: &Member) -> Refusal {
    let link = from.link(to, 2, Lane::Pulse);
    let error = soon(link.ready()).await.unwrap_err();
    let refusal = link.status().refusal.expect("it was refused");
    assert_eq!(error, CallError::Refused(refusal.text.clone()));
    assert_eq!(ask(&link, "e").await, Err(error), "calls say so at once");
    refusal
}

fn our_secret() -> Secret {
    Secret::new(SECRET).unwrap()
}

#[tokio::test]
async fn members_introduce_themselves_and_talk() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    for lane in Lane::ALL.into_iter().filter(|lane| *lane != Lane::Forward) {
        let link = connected(one.link(&two, 2, lane)).await;
        assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
        assert_eq!(link.status().member.as_deref(), Some(&hello(2, "n1")));
        assert_eq!(two.probe.seen.lock().last(), Some(&(1, lane, Bytes::from("echo"))));
    }
    let counts = two.peers.counts();
    assert_eq!((counts.served, counts.welcomed, counts.half_open, counts.refused), (4, 4, 0, 0));
    // The other direction has connections of its own.
    let back = connected(two.link(&one, 1, Lane::Pulse)).await;
    assert_eq!(ask(&back, "echo").await.unwrap(), "echo");
}

#[tokio::test]
async fn a_group_on_one_machine_needs_no_secret() {
    let without = |node, seat| Member::with(hello(node, seat), |settings| settings.secret = None);
    let (one, two) = (without(1, "n0"), without(2, "n1"));
    let link = connected(one.link(&two, 2, Lane::Append)).await;
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
}

#[tokio::test]
async fn a_member_without_a_secret_does_not_listen_to_others() {
    let member = Member::start(1, "n0");
    let mut settings = crate::peer::Settings {
        listen: "0.0.0.0:0".to_owned(),
        hello: hello(2, "n1"),
        secret: None,
        bytes_max: 1,
        handshake_time: Duration::from_secs(1),
        gate: Arc::new(Door(None)),
        serve: member.probe.clone(),
    };
    let tasks = escrowmq_common::task::Tasks::new();
    let error = Peers::start(settings, &tasks).unwrap_err();
    assert!(matches!(&error, StartError::Unguarded(_)), "{error}");
    settings = crate::peer::Settings {
        listen: member.address(),
        hello: hello(2, "n1"),
        secret: Some(our_secret()),
        bytes_max: 1,
        handshake_time: Duration::from_secs(1),
        gate: Arc::new(Door(None)),
        serve: member.probe.clone(),
    };
    let error = Peers::start(settings, &tasks).unwrap_err().to_string();
    assert!(error.contains(&member.address()) && error.contains("end what uses that port"), "{error}");
}

#[tokio::test]
async fn another_secret_or_none_is_refused_on_both_sides() {
    let two = Member::start(2, "n1");
    let other = || Some(Secret::new("another secret of some length").unwrap());
    let wrong = Member::with(hello(1, "n0"), |settings| settings.secret = other());
    let refused = refusal(&wrong, &two).await;
    assert!(refused.reason == Reason::Secret && refused.text.contains("different group secrets"), "{refused}");
    let without = Member::with(hello(1, "n0"), |settings| settings.secret = None);
    let refused = refusal(&without, &two).await;
    assert!(refused.reason == Reason::Secret && refused.text.contains("'n0' has none"), "{refused}");
    let listening_without = Member::with(hello(2, "n1"), |settings| settings.secret = None);
    let refused = refusal(&Member::start(1, "n0"), &listening_without).await;
    assert!(refused.reason == Reason::Secret && refused.text.contains("'n1' has none"), "{refused}");
    // Each is counted after it was told.
    until(|| two.peers.counts().refused >= 2).await;
    assert_eq!((two.peers.counts().served, two.probe.count()), (0, 0));
}

/// Sends a proof as the side that dials; gives the answer.
async fn offer(stranger: &mut Stranger, proof: impl Into<Bytes>) -> Frame {
    stranger.send(code::PROOF, proof).await;
    stranger.receive().await.expect("a proof is answered")
}

#[tokio::test]
async fn a_proof_is_good_once_for_one_role_and_one_lane() {
    let member = Member::start(2, "n1");
    let secret = our_secret();
    let is_refused = |answer: &Frame| answer.code == Reason::Secret as i32 && answer.body.is_empty();
    let ours = greeting(9, Lane::Pulse);
    let our_bytes = ours.encode().unwrap();

    // The right one: this is what the others differ from.
    let mut stranger = Stranger::connect(member.peers.address()).await;
    let theirs = stranger.greet(&ours).await;
    let right = prove(&secret, Role::Dialer, Greetings { dialer: &our_bytes, listener: &theirs });
    let answer = offer(&mut stranger, right.to_vec()).await;
    let expected = prove(&secret, Role::Listener, Greetings { dialer: &our_bytes, listener: &theirs });
    assert_eq!((answer.code, &answer.body[..]), (code::FINE, &expected[..]));

    // Sent again on another connection.
    let mut stranger = Stranger::connect(member.peers.address()).await;
    let theirs = stranger.greet(&ours).await;
    assert!(is_refused(&offer(&mut stranger, right.to_vec()).await));
    assert!(stranger.receive().await.is_none(), "the connection ends");
    let _ = theirs;

    // The proof of the other side.
    let mut stranger = Stranger::connect(member.peers.address()).await;
    let theirs = stranger.greet(&ours).await;
    let reflected = prove(&secret, Role::Listener, Greetings { dialer: &our_bytes, listener: &theirs });
    assert!(is_refused(&offer(&mut stranger, reflected.to_vec()).await));

    // For another lane.
    let mut stranger = Stranger::connect(member.peers.address()).await;
    let theirs = stranger.greet(&ours).await;
    let append = Greeting { lane: Lane::Append, ..ours.clone() }.encode().unwrap();
    let other = prove(&secret, Role::Dialer, Greetings { dialer: &append, listener: &theirs });
    assert!(is_refused(&offer(&mut stranger, other.to_vec()).await));

    // None, and half a one.
    for proof in [&b""[..], &right[..16]] {
        let mut stranger = Stranger::connect(member.peers.address()).await;
        stranger.greet(&ours).await;
        assert!(is_refused(&offer(&mut stranger, proof.to_vec()).await));
    }
    until(|| member.peers.counts().refused == 5).await;
    assert_eq!(member.peers.counts().welcomed, 1);
}

#[tokio::test]
async fn a_listener_that_does_not_know_the_secret_is_refused() {
    let member = Member::start(1, "n0");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let link = member.peers.link(&Target::Node(9), &address, Lane::Pulse);
    let ready = link.ready();
    // The proof of the side that dials is handed back to it.
    let reflect = async {
        let mut stranger = Stranger::on(listener.accept().await.unwrap().0);
        let request = stranger.receive().await.unwrap();
        let body = greeting(9, Lane::Pulse).encode().unwrap();
        stranger.send_frame(Frame::response(&request, code::FINE).with_body(body)).await;
        let request = stranger.receive().await.unwrap();
        assert_eq!((request.code, request.body.len()), (code::PROOF, 32));
        let body = request.body.clone();
        stranger.send_frame(Frame::response(&request, code::FINE).with_body(body)).await;
        assert!(stranger.receive().await.is_none(), "no request follows");
    };
    let (refused, ()) = soon(async { tokio::join!(ready, reflect) }).await;
    assert!(refused.is_err());
    assert_eq!(link.status().refusal.map(|refusal| refusal.reason), Some(Reason::Secret));
}

#[tokio::test]
async fn another_group_is_refused_and_both_names_told() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    let stranger = Member::with(Hello { group: "bills".to_owned(), ..hello(2, "n1") }, |_| {});
    let refused = refusal(&one, &stranger).await;
    assert_eq!(refused.reason, Reason::Group);
    assert!(refused.text.contains("'orders'") && refused.text.contains("'bills'"), "{refused}");
    // Others are not affected.
    let link = connected(one.peers.link(&Target::Seat("n1".to_owned()), &two.address(), Lane::Pulse)).await;
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
}

#[tokio::test]
async fn the_gate_decides_on_either_side() {
    let text = "'n0' is of incarnation 1, the group of 2: wipe its folder and let it join again";
    let old = || Some(Refusal::new(Reason::Incarnation, text));
    let two = Member::with(hello(2, "n1"), |settings| settings.gate = Arc::new(Door(old())));
    assert_eq!(Some(refusal(&Member::start(1, "n0"), &two).await), old());
    let one = Member::with(hello(1, "n0"), |settings| settings.gate = Arc::new(Door(old())));
    assert_eq!(Some(refusal(&one, &Member::start(2, "n1")).await), old());
}

#[tokio::test]
async fn members_must_read_a_common_format() {
    let one = Member::start(1, "n0");
    let newer = Member::with(Hello { formats: 3..=4, build: "9.9".to_owned(), ..hello(2, "n1") }, |_| {});
    let refused = refusal(&one, &newer).await;
    assert_eq!(refused.reason, Reason::Formats);
    for part in ["formats 3 to 4", "formats 1 to 2", "9.9", "upgrade"] {
        assert!(refused.text.contains(part), "{refused}");
    }
    let overlapping = Member::with(Hello { formats: 2..=4, ..hello(2, "n1") }, |_| {});
    connected(one.peers.link(&Target::Seat("n1".to_owned()), &overlapping.address(), Lane::Pulse)).await;
}

#[tokio::test]
async fn a_member_that_dials_itself_or_another_one_is_told() {
    let (one, two) = (Member::start(1, "n0"), Member::start(2, "n1"));
    assert_eq!(refusal(&one, &one).await.reason, Reason::Itself);
    let link = one.link(&two, 3, Lane::Pulse);
    soon(link.ready()).await.unwrap_err();
    let refused = link.status().refusal.unwrap();
    assert!(refused.reason == Reason::OtherMember && refused.text.contains("node 3 was meant"), "{refused}");
    // Before a group is founded, members are known by their seats.
    let seat = connected(one.peers.link(&Target::Seat("n1".to_owned()), &two.address(), Lane::Pulse)).await;
    assert_eq!(seat.status().member.map(|hello| hello.node), Some(2));
    let link = one.peers.link(&Target::Seat("n2".to_owned()), &two.address(), Lane::Pulse);
    soon(link.ready()).await.unwrap_err();
    assert_eq!(link.status().refusal.unwrap().reason, Reason::OtherMember);
}

#[tokio::test]
async fn a_refusal_ends_when_its_cause_does() {
    let wrong = Member::with(Hello { group: "bills".to_owned(), ..hello(2, "n1") }, |_| {});
    let one = Member::start(1, "n0");
    let link = one.link(&wrong, 2, Lane::Pulse);
    soon(link.ready()).await.unwrap_err();
    wrong.peers.introduce(hello(2, "n1")).unwrap();
    let is_well = |status: &LinkStatus| status.phase == Phase::Connected && status.refusal.is_none();
    soon(link.wait_until(is_well)).await;
    assert_eq!(ask(&link, "echo").await.unwrap(), "echo");
}

#[tokio::test]
async fn another_version_of_the_protocol_is_told() {
    let member = Member::start(2, "n1");
    let mut stranger = Stranger::connect(member.peers.address()).await;
    stranger.send(code::HELLO, vec![0, 2, 99]).await;
    let answer = stranger.receive().await.unwrap();
    assert_eq!(answer.code, Reason::Version as i32);
    assert!(answer.remark.unwrap().contains("version 2"));
    assert!(stranger.receive().await.is_none());
}

#[tokio::test]
async fn what_is_no_handshake_ends_without_an_answer() {
    let member = Member::start(2, "n1");
    let whole = greeting(9, Lane::Pulse).encode().unwrap();
    let frames = [
        Frame::request(code::REQUEST).with_body("e"),
        Frame::request(code::HELLO).with_body(whole.slice(..20)),
        Frame::response(&Frame::request(code::HELLO), code::FINE).with_body(whole),
        Frame::request(code::PROOF).with_body(vec![0; 32]),
    ];
    for frame in frames {
        let mut stranger = Stranger::connect(member.peers.address()).await;
        stranger.send_frame(frame).await;
        assert!(stranger.receive().await.is_none());
    }
    let mut stranger = Stranger::connect(member.peers.address()).await;
    stranger.write(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(stranger.receive().await.is_none());
    until(|| member.peers.counts().strange == 5).await;
    assert_eq!(member.probe.count(), 0);
}
