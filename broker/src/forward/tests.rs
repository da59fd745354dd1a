//! Members with tunnels, over loopback: one or two real ends, and a leader that the test plays.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, FrameDecoder};
use escrowmq_common::remoting::{
    CallError, Connection, NoRequests, Remote, RemoteOptions, ServeLimits, Service, TrustedProxies, serve,
};
use escrowmq_common::task::{Shutdown, Tasks};
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Forwarder, Handle, Office, Origin, Way};
use crate::raft::Leadership;

/// For what should take milliseconds, or the time that a request may wait.
const SOON: Duration = Duration::from_secs(20);

async fn until(holds: impl Fn() -> bool) {
    let look = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, look).await.expect("it takes milliseconds");
}

fn following(leader: Option<u64>, term: u64) -> Leadership {
    Leadership::Following { term, leader }
}

/// Opens a stream to the address of a member.
#[derive(Default)]
struct ByAddress {
    members: Mutex<Vec<(u64, SocketAddr)>>,
    opened: AtomicUsize,
}

impl Way for ByAddress {
    fn open(&self, member: u64) -> BoxFuture<'static, io::Result<StdStream>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let address = self.members.lock().iter().find(|(id, _)| *id == member).map(|(_, address)| *address);
        Box::pin(async move {
            match address {
                Some(address) => TcpStream::connect(address).await?.into_std(),
                // A member that stands still.
                None => std::future::pending().await,
            }
        })
    }
}

/// Hands everything to the forwarder, as a server does that does not lead.
struct Door {
    forwarder: Forwarder,
    handle: Handle,
    asked: Arc<AtomicUsize>,
}

impl Service for Door {
    fn on_request(&self, connection: &Arc<Connection>, frame: Frame) {
        if frame.code == request::HEART_BEAT {
            self.forwarder.tell(connection, frame.clone(), &self.handle);
            connection.reply(&Frame::response(&frame, response::SUCCESS));
        } else {
            self.forwarder.pass(connection, frame, &self.handle);
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    fn on_response(&self, connection: &Arc<Connection>, frame: Frame) {
        if let Some(frame) = connection.complete(frame) {
            self.forwarder.answer(connection, frame);
        }
    }

    fn on_close(&self, connection: &Arc<Connection>) {
        self.forwarder.closed(connection);
    }
}

/// A member: its clients connect to `address`.
struct Member {
    address: SocketAddr,
    way: Arc<ByAddress>,
    asked: Arc<AtomicUsize>,
    leadership: watch::Sender<Leadership>,
    office: Arc<Office>,
    /// Bodies of the heartbeats that this member has carried out.
    carried_out: Arc<Mutex<Vec<bytes::Bytes>>>,
    shutdown: Shutdown,
}

impl Member {
    async fn start(origin: Origin) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, shutdown) = (Arc::<ByAddress>::default(), Shutdown::new());
        let leadership = watch::Sender::new(following(None, 1));
        let office = Arc::new(Office::alone());
        office.lay_down();
        let limits = ServeLimits { proxies: Arc::new(TrustedProxies::everybody()), ..ServeLimits::default() };
        let forwarder = Forwarder::new(
            origin,
            leadership.subscribe(),
            Arc::clone(&office),
            Some(Arc::<ByAddress>::clone(&way)),
            limits.connection.clone(),
            Arc::clone(&limits.budget),
            shutdown.clone(),
        );
        let carried_out = Arc::<Mutex<Vec<bytes::Bytes>>>::default();
        let handle: Handle = {
            let (office, carried_out) = (Arc::clone(&office), Arc::clone(&carried_out));
            Arc::new(move |_, frame| {
                assert!(office.is_held(), "request {} is carried out by a follower", frame.code);
                assert!(frame.code == request::HEART_BEAT && frame.is_oneway(), "{frame:?}");
                carried_out.lock().push(frame.body);
            })
        };
        let asked = Arc::<AtomicUsize>::default();
        let door = Door { forwarder, handle, asked: Arc::clone(&asked) };
        Tasks::new().spawn("member", serve(listener, Arc::new(door), limits, shutdown.clone()));
        Member { address, way, asked, leadership, office, carried_out, shutdown }
    }

    fn follow(&self, leader: u64, term: u64) {
        self.leadership.send_replace(following(Some(leader), term));
    }

    /// It leads in the term in which it has its lease.
    fn lead(&self) {
        self.leadership.send_replace(Leadership::Leading { term: 1 });
        self.office.take_up(1);
    }

    fn knows(&self, member: u64, address: SocketAddr) {
        self.way.members.lock().push((member, address));
    }

    /// Requests that clients have made.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Streams that were opened to other members.
    fn opened(&self) -> usize {
        self.way.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The leader's side, which the test plays.
struct Leader(TcpListener);

impl Leader {
    async fn start() -> Leader {
        Leader(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next tunnel, behind the line that names its client.
    async fn tunnel(&self) -> Far {
        let (mut stream, _) = timeout(SOON, self.0.accept()).await.expect("a tunnel").unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(timeout(SOON, stream.read_u8()).await.expect("a line").unwrap());
        }
        assert!(line.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "), "{}", String::from_utf8_lossy(&line));
        Far { stream, buffer: BytesMut::new() }
    }
}

/// The far end of a tunnel.
struct Far {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Far {
    /// The next frame; `None` at the end of the tunnel.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = FrameDecoder::default().next(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            if timeout(SOON, self.stream.read_buf(&mut self.buffer)).await.expect("a frame").unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn code(&mut self) -> Option<i32> {
        self.next().await.map(|frame| frame.code)
    }

    async fn send(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Takes the next request and answers it with its own body.
    async fn echo(&mut self) {
        let request = self.next().await.expect("a request");
        self.send(&Frame::response(&request, response::SUCCESS).with_body(request.body.clone())).await;
    }
}

/// A client of one connection.
struct Client {
    remote: Remote,
    address: String,
}

impl Client {
    fn of(member: &Member) -> Client {
        Client::serving(member, Arc::new(NoRequests))
    }

    fn serving(member: &Member, service: Arc<dyn Service>) -> Client {
        Client { remote: Remote::new(RemoteOptions::default(), service), address: member.address.to_string() }
    }

    async fn call(&self, frame: Frame) -> Result<Frame, CallError> {
        self.remote.call(&self.address, frame, SOON).await
    }

    async fn code(&self, frame: Frame) -> i32 {
        self.call(frame).await.expect("an answer").code
    }
}

fn send(body: impl Into<bytes::Bytes>) -> Frame {
    Frame::request(request::SEND_MESSAGE_V2).with_body(body)
}

#[tokio::test]
async fn a_request_waits_for_a_leader_and_reaches_it_once() {
    let (member, leader) = (Member::start(Origin::Clients).await, Leader::start().await);
    member.knows(2, leader.address());
    let client = Client::of(&member);
    let answering = async {
        // The client has asked, and nobody leads.
        until(|| member.asked() == 1).await;
        assert_eq!(member.opened(), 0);
        member.follow(2, 2);
        let mut tunnel = leader.tunnel().await;
        tunnel.echo().await;
        tunnel.echo().await;
        tunnel
    };
    let asking = async {
        assert_eq!(client.call(send("one")).await.unwrap().body, "one");
        assert_eq!(client.call(send("two")).await.unwrap().body, "two");
    };
    let (mut tunnel, ()) = tokio::join!(answering, asking);
    client.remote.close().await;
    assert_eq!(tunnel.code().await, None, "the tunnel ends with its client, and nothing came twice");
    assert_eq!(member.opened(), 1);
}

#[tokio::test]
async fn a_request_that_finds_no_leader_in_its_time_is_refused() {
    let member = Member::start(Origin::Clients).await;
    let started = clock::monotonic();
    let refused = Client::of(&member).call(send("")).await.unwrap();
    let waited = clock::monotonic().saturating_sub(started);
    assert_eq!(refused.code, response::SERVICE_NOT_AVAILABLE);
    assert!(refused.remark.unwrap().contains("nothing was done"));
    assert!((2_400..4_000).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test]
async fn more_than_may_wait_is_refused_at_once() {
    let (member, leader) = (Member::start(Origin::Clients).await, Leader::start().await);
    member.knows(2, leader.address());
    // Count: one is in hand, 1,024 wait.
    let client = Client::of(&member);
    let calls = join_all((0..1_100).map(|_| client.code(send(""))));
    let rest = async {
        until(|| member.asked() == 1_100).await;
        member.follow(2, 2);
        let mut tunnel = leader.tunnel().await;
        for _ in 0..1_025 {
            tunnel.echo().await;
        }
    };
    let (codes, ()) = tokio::join!(calls, rest);
    let busy = codes.iter().filter(|code| **code == response::SYSTEM_BUSY).count();
    let good = codes.iter().filter(|code| **code == response::SUCCESS).count();
    assert_eq!((good, busy), (1_025, 75));
    // Bytes: 16 MiB wait, and what is in hand; no more is taken once that much waits.
    member.leadership.send_replace(following(None, 3));
    let client = Client::of(&member);
    let codes = join_all((0..20).map(|_| client.code(send(vec![0; 2 << 20])))).await;
    let busy = codes.iter().filter(|code| **code == response::SYSTEM_BUSY).count();
    let unavailable = codes.iter().filter(|code| **code == response::SERVICE_NOT_AVAILABLE).count();
    assert_eq!(unavailable + busy, 20);
    assert!((9..=10).contains(&unavailable), "{unavailable}");
    // The waiting requests are given back.
    assert_eq!(client.code(send(vec![0; 2 << 20])).await, response::SERVICE_NOT_AVAILABLE);
}

#[tokio::test]
async fn a_broken_tunnel_leaves_the_outcome_open_and_nothing_is_sent_again() {
    let (member, leader) = (Member::start(Origin::Clients).await, Leader::start().await);
    member.knows(2, leader.address());
    member.follow(2, 2);
    let client = Client::of(&member);
    let breaking = async {
        let mut tunnel = leader.tunnel().await;
        for _ in 0..3 {
            tunnel.next().await.expect("a request");
        }
        drop(tunnel);
        let mut again = leader.tunnel().await;
        assert_eq!(again.next().await.unwrap().body, "later", "what broke is not sent again");
        again
    };
    let asking = async {
        let oneway = client.remote.oneway(&client.address, send("one-way"));
        oneway.await.unwrap();
        let pull = client.call(Frame::request(request::PULL_MESSAGE).with_field("queueOffset", 5));
        let (sent, pulled) = tokio::join!(client.call(send("sent")), pull);
        let sent = sent.unwrap();
        assert_eq!(sent.code, response::SYSTEM_ERROR);
        assert!(sent.remark.unwrap().contains("outcome is unknown"));
        assert_eq!(pulled.unwrap().code, response::PULL_RETRY_IMMEDIATELY);
        client.remote.oneway(&client.address, send("later")).await.unwrap();
    };
    tokio::join!(breaking, asking);
    assert_eq!(member.opened(), 2);
}

#[tokio::test]
async fn what_arrives_is_not_passed_on() {
    // Each of two members takes the other one for the leader.
    let fronts = [Member::start(Origin::Clients).await, Member::start(Origin::Clients).await];
    let backs = [Member::start(Origin::Members).await, Member::start(Origin::Members).await];
    for member in fronts.iter().chain(&backs) {
        member.knows(0, backs[0].address);
        member.knows(1, backs[1].address);
    }
    for side in [&fronts, &backs] {
        side[0].follow(1, 2);
        side[1].follow(0, 2);
    }
    let refused = Client::of(&fronts[0]).call(send("")).await.unwrap();
    assert_eq!(refused.code, response::SERVICE_NOT_AVAILABLE);
    assert_eq!([&fronts, &backs].map(|side| [side[0].opened(), side[1].opened()]), [[1, 0], [0, 0]]);
}

#[tokio::test]
async fn a_former_leader_answers_what_it_has_and_the_next_one_gets_the_rest() {
    let member = Member::start(Origin::Clients).await;
    let (former, next) = (Leader::start().await, Leader::start().await);
    member.knows(2, former.address());
    member.knows(3, next.address());
    member.follow(2, 2);
    let client = Client::of(&member);
    let leading = async {
        let mut old = former.tunnel().await;
        let first = old.next().await.unwrap();
        member.follow(3, 3);
        let mut new = next.tunnel().await;
        new.echo().await;
        // It had taken the first one before it was deposed.
        old.send(&Frame::response(&first, response::SUCCESS)).await;
        assert_eq!(old.code().await, None, "its end is closed when all is answered");
    };
    let asking = async {
        let first = client.call(send("first"));
        let second = async {
            member.leadership.subscribe().wait_for(|seen| seen.term() == 3).await.unwrap();
            client.code(send("second")).await
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!((first.unwrap().code, second), (response::SUCCESS, response::SUCCESS));
    };
    tokio::join!(leading, asking);
}

#[tokio::test]
async fn a_leader_that_stands_still_keeps_no_request_from_the_next_one() {
    let (member, leader) = (Member::start(Origin::Clients).await, Leader::start().await);
    member.knows(3, leader.address());
    // Nobody knows the address of the member 2: the way to it never opens.
    member.follow(2, 2);
    let client = Client::of(&member);
    let leading = async {
        until(|| member.opened() == 1).await;
        member.follow(3, 3);
        leader.tunnel().await.echo().await;
    };
    let (code, ()) = tokio::join!(client.code(send("")), leading);
    assert_eq!(code, response::SUCCESS);
}

#[tokio::test]
async fn a_new_leader_knows_the_client_before_it_asks_for_anything() {
    let member = Member::start(Origin::Clients).await;
    let leaders = [Leader::start().await, Leader::start().await];
    member.knows(2, leaders[0].address());
    member.knows(3, leaders[1].address());
    member.follow(2, 2);
    let client = Client::of(&member);
    let beat = Frame::request(request::HEART_BEAT).with_body("the last one");
    assert_eq!(client.code(beat).await, response::SUCCESS, "it is answered where it came in");
    // The heartbeat opens it, and is its first frame.
    let mut first = leaders[0].tunnel().await;
    let told = first.next().await.unwrap();
    assert_eq!((told.code, &told.body[..], told.is_oneway()), (request::HEART_BEAT, &b"the last one"[..], true));
    member.follow(3, 3);
    let mut second = leaders[1].tunnel().await;
    assert_eq!(second.next().await.unwrap().body, "the last one");
    assert_eq!(first.code().await, Some(request::HEART_BEAT), "the one that opened it");
    assert_eq!(first.code().await, None);
}

#[tokio::test]
async fn a_member_that_begins_to_lead_knows_the_clients_that_it_answered_before() {
    // Those of other members come as soon as these know who leads, which is before the leader is ready.
    for origin in [Origin::Clients, Origin::Members] {
        let member = Member::start(origin).await;
        let client = Client::of(&member);
        let beat = |body: &'static str| Frame::request(request::HEART_BEAT).with_body(body);
        let last = || member.carried_out.lock().last().cloned();
        assert_eq!(client.code(beat("while nobody led")).await, response::SUCCESS);
        assert_eq!(last(), None, "only a leader does");
        member.lead();
        until(|| last().is_some_and(|body| body == "while nobody led")).await;
        // Its lease is over for a moment, and it leads on in the same term.
        member.office.lay_down();
        assert_eq!(client.code(beat("without a lease")).await, response::SUCCESS);
        member.office.take_up(1);
        until(|| last().is_some_and(|body| body == "without a lease")).await;
    }
}

#[tokio::test]
async fn a_client_that_sends_heartbeats_without_a_pause_makes_no_queue_and_large_ones_are_not_kept() {
    let member = Member::start(Origin::Clients).await;
    let client = Client::of(&member);
    let beat = |bytes: usize| Frame::request(request::HEART_BEAT).with_body(vec![b'x'; bytes]);
    let told = || member.carried_out.lock().iter().map(bytes::Bytes::len).collect::<Vec<_>>();
    for bytes in 1..=1_000 {
        assert_eq!(client.code(beat(bytes)).await, response::SUCCESS);
    }
    member.lead();
    until(|| told().contains(&1_000)).await;
    assert!(told().len() < 10, "{:?}", told());
    // Without a leader again. The next one is not told a large one, and its client is not kept waiting.
    member.office.lay_down();
    member.follow(9, 2);
    let before = told().len();
    assert_eq!(client.code(beat(1 << 20)).await, response::SUCCESS);
    member.office.take_up(1);
    member.leadership.send_replace(Leadership::Leading { term: 1 });
    until(|| told().len() > before).await;
    assert_eq!(told().last(), Some(&(1 << 20)), "it waited, and was carried out itself");
    member.office.lay_down();
    member.follow(9, 3);
    member.lead();
    assert_eq!(client.code(beat(5)).await, response::SUCCESS);
    until(|| told().last() == Some(&5)).await;
    let large = told().into_iter().filter(|bytes| *bytes == 1 << 20).count();
    assert_eq!(large, 1, "it is not told again");
}

/// Keeps what the leader asks, and answers it.
#[derive(Default)]
struct Asked {
    codes: Mutex<VecDeque<i32>>,
}

impl Service for Asked {
    fn on_request(&self, connection: &Arc<Connection>, frame: Frame) {
        self.codes.lock().push_back(frame.code);
        if !frame.is_oneway() {
            connection.reply(&Frame::response(&frame, response::SUCCESS).with_body("mine"));
        }
    }
}

#[tokio::test]
async fn the_leader_asks_the_client_and_gets_its_answer() {
    let (member, leader) = (Member::start(Origin::Clients).await, Leader::start().await);
    member.knows(2, leader.address());
    member.follow(2, 2);
    let asked = Arc::new(Asked::default());
    let client = Client::serving(&member, Arc::<Asked>::clone(&asked));
    client.code(Frame::request(request::HEART_BEAT)).await;
    let mut tunnel = leader.tunnel().await;
    assert_eq!(tunnel.code().await, Some(request::HEART_BEAT));
    let question = Frame { opaque: 77, ..Frame::request(request::GET_CONSUMER_RUNNING_INFO) };
    tunnel.send(&question).await;
    let answer = loop {
        // The heartbeat that opened the tunnel comes again.
        let frame = tunnel.next().await.unwrap();
        if frame.is_response() {
            break frame;
        }
    };
    assert_eq!((answer.opaque, &answer.body[..]), (77, &b"mine"[..]));
    assert_eq!(asked.codes.lock().pop_front(), Some(request::GET_CONSUMER_RUNNING_INFO));
}
