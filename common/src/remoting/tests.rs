//! Connections over loopback: many calls both ways, silence, garbage, slow peers, floods of connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

mod budgets;
mod proxies;

use super::*;
use crate::frame::{FrameDecoder, HeaderEncoding, Language, ResponseHead, write_response};
use crate::task::{Shutdown, Tasks};

const ECHO: i32 = 1;
const SILENCE: i32 = 2;
const COUNT: i32 = 3;
const LARGE: i32 = 4;
const PANIC: i32 = 5;
/// Its body is parsed, which waits until the test allows it.
const PARSE: i32 = 6;
/// Counted, whatever else is unanswered.
const VITAL: i32 = 7;

const SOON: Duration = Duration::from_secs(20);

/// Echoes, stays silent, counts, answers with much, panics.
#[derive(Default)]
struct Probe {
    opened: AtomicUsize,
    closed: AtomicUsize,
    counted: AtomicUsize,
    /// Parsing the next body takes until the other end of this is gone.
    parsing: Mutex<Option<mpsc::Receiver<()>>>,
    connections: Mutex<Vec<Arc<Connection>>>,
}

impl Service for Probe {
    fn on_request(&self, connection: &Arc<Connection>, request: Frame) {
        match request.code {
            ECHO => {
                let mut response = Frame::response(&request, 0).with_body(request.body);
                response.fields = request.fields;
                connection.reply(&response);
            }
            SILENCE => {}
            PARSE => {
                let awaited = self.parsing.lock().take();
                if let Some(awaited) = awaited {
                    let _ = awaited.recv();
                }
                connection.reply(&Frame::response(&request, 0));
            }
            COUNT | VITAL => {
                self.counted.fetch_add(1, Ordering::SeqCst);
                connection.reply(&Frame::response(&request, 0));
            }
            LARGE => connection.write_with(|out| {
                let head = ResponseHead { encoding: request.encoding, opaque: request.opaque, code: 0, remark: None };
                write_response(out, head, |_| {}, &[&vec![7; 64 * 1024]]);
            }),
            _ => panic!("on purpose"),
        }
    }

    fn parses_body(&self, code: i32) -> bool {
        code == PARSE
    }

    fn is_vital(&self, code: i32) -> bool {
        code == VITAL
    }

    fn on_open(&self, connection: &Arc<Connection>) {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.connections.lock().push(connection.clone());
    }

    fn on_close(&self, _: &Arc<Connection>) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

struct Server {
    address: String,
    budget: Arc<Budget>,
    probe: Arc<Probe>,
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

impl Server {
    async fn start(limits: ServeLimits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (probe, shutdown) = (Arc::new(Probe::default()), Shutdown::new());
        let budget = limits.budget.clone();
        let running = Tasks::new().spawn("server", serve(listener, probe.clone(), limits, shutdown.clone()));
        Server { address, budget, probe, shutdown, running }
    }

    async fn with(change: impl FnOnce(&mut ConnectionLimits)) -> Server {
        let mut limits = ServeLimits::default();
        change(&mut limits.connection);
        Server::start(limits).await
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// Stops, and asserts that nothing is left running.
    async fn stop(self) {
        self.shutdown.cancel();
        timeout(SOON, self.running).await.expect("all connections end").unwrap();
        assert_eq!(self.probe.opened.load(Ordering::SeqCst), self.probe.closed.load(Ordering::SeqCst));
        assert_eq!((self.budget.bytes_used(), self.budget.connections()), (0, 0), "everything is given back");
    }
}

fn remote() -> Remote {
    Remote::new(RemoteOptions::default(), Arc::new(NoRequests))
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Reads until the peer closes.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("the peer closes");
    bytes
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_one_connection_in_both_directions() {
    let server = Server::start(ServeLimits::default()).await;
    let client_side = Arc::new(Probe::default());
    let remote = Remote::new(RemoteOptions::default(), client_side.clone());
    let connection = remote.connection(&server.address).await.unwrap();
    until("the server sees it", || !server.probe.connections.lock().is_empty()).await;
    let back = server.probe.connections.lock()[0].clone();
    let tasks = Tasks::new();
    let answered = Arc::new(AtomicUsize::new(0));
    for n in 0..2_000_usize {
        let connection = if n % 2 == 0 { connection.clone() } else { back.clone() };
        let answered = answered.clone();
        tasks.spawn("caller", async move {
            let request = Frame::request(ECHO).with_field("n", n).with_body(vec![n as u8; n]);
            let response = connection.call(request, SOON).await.unwrap();
            assert_eq!(response.fields.get("n"), Some(n.to_string().as_str()));
            assert_eq!(response.body.len(), n);
            answered.fetch_add(1, Ordering::SeqCst);
        });
    }
    tasks.join().await;
    assert_eq!(answered.load(Ordering::SeqCst), 2_000);
    assert_eq!(server.probe.opened.load(Ordering::SeqCst), 1);
    assert_eq!((connection.calls_waiting(), back.calls_waiting()), (0, 0));
    remote.close().await;
    assert!(!connection.is_open());
    server.stop().await;
    assert_eq!(client_side.closed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_oneway_request_is_never_answered() {
    let server = Server::start(ServeLimits::default()).await;
    let remote = remote();
    remote.oneway(&server.address, Frame::request(COUNT)).await.unwrap();
    let mut stream = server.raw().await;
    let mut oneway = Frame::request(COUNT);
    oneway.set_oneway();
    let mut bytes = encoded(&oneway);
    let mut request = Frame::request(ECHO);
    request.opaque = 77;
    bytes.extend_from_slice(&encoded(&request));
    stream.write_all(&bytes).await.unwrap();
    let mut answer = BytesMut::new();
    let first = loop {
        stream.read_buf(&mut answer).await.unwrap();
        if let Some(frame) = FrameDecoder::default().next(&mut answer).unwrap() {
            break frame;
        }
    };
    assert_eq!(first.opaque, 77, "the first answer is the request's");
    until("both were seen", || server.probe.counted.load(Ordering::SeqCst) == 2).await;
    server.stop().await;
}

#[tokio::test]
async fn a_timed_out_call_leaves_no_entry_and_its_late_answer_is_ignored() {
    let server = Server::start(ServeLimits::default()).await;
    let remote = remote();
    let error = remote.call(&server.address, Frame::request(SILENCE), Duration::from_millis(30)).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }) && error.outcome_unknown() && error.is_retryable());
    let connection = remote.connection(&server.address).await.unwrap();
    assert_eq!(connection.calls_waiting(), 0);
    let mut late = Frame::response(&Frame::request(SILENCE), 0);
    late.opaque = 0;
    server.probe.connections.lock()[0].reply(&late);
    remote.call(&server.address, Frame::request(ECHO), SOON).await.unwrap();
    // Dropped calls leave no trace either.
    drop(timeout(Duration::from_millis(10), connection.call(Frame::request(SILENCE), SOON)).await);
    assert_eq!(connection.calls_waiting(), 0);
    server.stop().await;
}

#[tokio::test]
async fn calls_end_with_their_connection_and_the_next_one_reconnects() {
    let server = Server::start(ServeLimits::default()).await;
    let remote = remote();
    let first = remote.connection(&server.address).await.unwrap();
    let call = first.call(Frame::request(SILENCE), SOON);
    let cut = async {
        until("the server sees it", || !server.probe.connections.lock().is_empty()).await;
        server.probe.connections.lock()[0].close("cut by the test");
    };
    let (result, ()) = tokio::join!(call, cut);
    let error = result.unwrap_err();
    assert!(matches!(error, CallError::ConnectionLost { .. }) && error.outcome_unknown());
    assert!(matches!(first.send_oneway(Frame::request(COUNT)), Err(CallError::NotSent { .. })));
    remote.call(&server.address, Frame::request(ECHO), SOON).await.unwrap();
    assert_ne!(remote.connection(&server.address).await.unwrap().id(), first.id());
    server.stop().await;
}

#[tokio::test]
async fn concurrent_callers_share_one_attempt_to_connect() {
    let server = Server::start(ServeLimits::default()).await;
    let remote = remote();
    let calls = (0..50).map(|_| remote.call(&server.address, Frame::request(ECHO), SOON));
    for result in futures_join(calls).await {
        result.unwrap();
    }
    assert_eq!(server.probe.opened.load(Ordering::SeqCst), 1);
    let gone = server.address.clone();
    server.stop().await;
    let error = remote.call(&gone, Frame::request(ECHO), SOON).await.unwrap_err();
    assert!(!error.outcome_unknown() || matches!(error, CallError::ConnectionLost { .. }));
    until("the client sees the end", || !matches!(remote.pool_connection(&gone), Some(c) if c.is_open())).await;
    let error = remote.call(&gone, Frame::request(ECHO), SOON).await.unwrap_err();
    assert!(matches!(error, CallError::Connect { .. }) && !error.outcome_unknown());
    let error = remote.call("nonsense", Frame::request(ECHO), SOON).await.unwrap_err();
    assert!(matches!(error, CallError::BadAddress { .. }) && !error.is_retryable());
}

async fn futures_join<T>(calls: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures_util::future::join_all(calls).await
}

#[tokio::test]
async fn requests_say_what_the_options_say() {
    let server = Server::start(ServeLimits::default()).await;
    let options = RemoteOptions {
        encoding: HeaderEncoding::Binary,
        language: Language::GO,
        version: 317,
        ..RemoteOptions::default()
    };
    let remote = Remote::new(options, Arc::new(NoRequests));
    let answer = remote.call(&server.address, Frame::request(ECHO), SOON).await.unwrap();
    assert_eq!(answer.encoding, HeaderEncoding::Binary, "the answer mirrors the request");
    assert_eq!((answer.language, answer.version), (Language::JAVA, crate::frame::WIRE_VERSION));
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_request_is_answered_as_such() {
    let server = Server::start(ServeLimits::default()).await;
    let remote = remote();
    let _connection = remote.connection(&server.address).await.unwrap();
    until("the server sees it", || !server.probe.connections.lock().is_empty()).await;
    let back = server.probe.connections.lock()[0].clone();
    let answer = back.call(Frame::request(4711), SOON).await.unwrap();
    assert_eq!(answer.code, crate::code::response::REQUEST_CODE_NOT_SUPPORTED);
    assert_eq!(answer.remark.as_deref(), Some(" request type 4711 not supported"));
    server.stop().await;
}

#[tokio::test]
async fn garbage_closes_its_own_connection_alone() {
    let server = Server::start(ServeLimits::default()).await;
    let remote = remote();
    remote.call(&server.address, Frame::request(ECHO), SOON).await.unwrap();
    let rubbish: [&[u8]; 5] = [
        b"\x00\x00\x00\x14\x00\x00\x01\x90xxxxxxxxxxxxxxxx",
        b"\x00\x00\x00\x18\x07\x00\x00\x01xxxxxxxxxxxxxxxxxxxx",
        b"\x01\x03\x66\x40\x00\x00\x00\x14",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x06\x00\x00\x00\x02{]",
    ];
    for bytes in rubbish {
        let mut stream = server.raw().await;
        stream.write_all(bytes).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, b"", "nothing is answered");
        remote.call(&server.address, Frame::request(ECHO), SOON).await.unwrap();
    }
    // So does a request whose handling panics; what was answered before it still goes out or not, but nobody else suffers.
    let error = self::remote().call(&server.address, Frame::request(PANIC), SOON).await.unwrap_err();
    assert!(matches!(error, CallError::ConnectionLost { .. }));
    remote.call(&server.address, Frame::request(ECHO), SOON).await.unwrap();
    until("six have ended", || server.probe.closed.load(Ordering::SeqCst) == 6).await;
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_not_read_from() {
    let server = Server::with(|limits| {
        limits.out_soft = 256 * 1024;
        limits.out_hard = 1024 * 1024;
    })
    .await;
    let mut stream = server.raw().await;
    // 200 answers of 64 KiB, asked for at once: far more than the socket buffers and either bound hold.
    let mut request = Frame::request(LARGE);
    let mut sent = 0_usize;
    let mut requests = BytesMut::new();
    for opaque in 0..200 {
        request.opaque = opaque;
        request.encode(&mut requests);
        sent += 1;
    }
    stream.write_all(&requests).await.unwrap();
    until("the out buffer is full", || server.probe.connections.lock().first().is_some_and(|c| !c.is_writable())).await;
    let connection = server.probe.connections.lock()[0].clone();
    assert!(connection.is_open());
    assert!(matches!(connection.send_oneway(Frame::request(COUNT)), Err(CallError::NotSent { .. })));
    // Everything arrives once the peer reads.
    let (mut buffer, mut answered) = (BytesMut::new(), 0);
    while answered < sent {
        assert_ne!(timeout(SOON, stream.read_buf(&mut buffer)).await.unwrap().unwrap(), 0);
        while let Some(frame) = FrameDecoder::default().next(&mut buffer).unwrap() {
            assert_eq!(frame.opaque, answered as i32, "answers keep their order");
            answered += 1;
        }
    }
    until("it is writable again", || connection.is_writable()).await;
    server.stop().await;
}

#[tokio::test]
async fn far_above_the_bound_the_connection_is_closed() {
    let server = Server::with(|limits| {
        limits.out_soft = 64 * 1024;
        limits.out_hard = 1024 * 1024;
    })
    .await;
    let stream = server.raw().await;
    until("it is open", || !server.probe.connections.lock().is_empty()).await;
    let connection = server.probe.connections.lock()[0].clone();
    let response = Frame::response(&Frame::request(ECHO), 0).with_body(vec![0; 512 * 1024]);
    for _ in 0..100 {
        connection.reply(&response);
    }
    until("it is closed", || !connection.is_open()).await;
    until("its end was told", || server.probe.closed.load(Ordering::SeqCst) == 1).await;
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_call_waits_for_room_within_its_time() {
    let server = Server::with(|limits| limits.out_soft = 64 * 1024).await;
    let mut stream = server.raw().await;
    until("it is open", || !server.probe.connections.lock().is_empty()).await;
    let connection = server.probe.connections.lock()[0].clone();
    let response = Frame::response(&Frame::request(ECHO), 0).with_body(vec![0; 8 * 1024 * 1024]);
    connection.reply(&response);
    let error = connection.call(Frame::request(ECHO), Duration::from_millis(30)).await.unwrap_err();
    assert!(matches!(error, CallError::NotSent { .. }) && !error.outcome_unknown());
    let call = connection.call(Frame::request(ECHO), SOON);
    let peer = async {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(frame) = FrameDecoder::default().next(&mut buffer).unwrap() {
                if !frame.is_response() {
                    return stream.write_all(&encoded(&Frame::response(&frame, 9))).await;
                }
            }
            stream.read_buf(&mut buffer).await.unwrap();
        }
    };
    let (answer, written) = tokio::join!(call, peer);
    written.unwrap();
    assert_eq!(answer.unwrap().code, 9);
    server.stop().await;
}

#[tokio::test]
async fn silence_and_slow_frames_end_a_connection() {
    let server = Server::with(|limits| {
        limits.idle = Duration::from_millis(400);
        limits.frame_time = Duration::from_millis(100);
    })
    .await;
    let mut silent = server.raw().await;
    let mut slow = server.raw().await;
    slow.write_all(&[0, 0, 1, 0, 0]).await.unwrap();
    read_to_end(&mut slow).await;
    assert_eq!(server.probe.closed.load(Ordering::SeqCst), 1, "the slow one goes first");
    read_to_end(&mut silent).await;
    // A busy one stays.
    let remote = remote();
    let connection = remote.connection(&server.address).await.unwrap();
    for _ in 0..20 {
        connection.call(Frame::request(ECHO), SOON).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let limits = BudgetLimits { connections: 2, ..BudgetLimits::default() };
    let server = Server::start(ServeLimits { budget: Arc::new(Budget::new(limits)), ..ServeLimits::default() }).await;
    let (one, _two) = (server.raw().await, server.raw().await);
    until("two are open", || server.probe.opened.load(Ordering::SeqCst) == 2).await;
    let mut third = server.raw().await;
    assert_eq!(read_to_end(&mut third).await, b"");
    assert_eq!(server.probe.opened.load(Ordering::SeqCst), 2);
    drop(one);
    until("one has ended", || server.probe.closed.load(Ordering::SeqCst) == 1).await;
    remote().call(&server.address, Frame::request(ECHO), SOON).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_come_and_go_without_a_trace() {
    let server = Server::start(ServeLimits::default()).await;
    for _ in 0..10 {
        let mut streams = Vec::new();
        for _ in 0..100 {
            let mut stream = server.raw().await;
            stream.write_all(&encoded(&Frame::request(COUNT))).await.unwrap();
            streams.push(stream);
        }
    }
    until("all have ended", || server.probe.closed.load(Ordering::SeqCst) == 1_000).await;
    assert_eq!(server.probe.counted.load(Ordering::SeqCst), 1_000);
    server.stop().await;
}

#[tokio::test]
async fn large_frames_pass() {
    let server = Server::start(ServeLimits::default()).await;
    let remote = remote();
    for size in [0, 1, 8 * 1024, 300_000, 4 * 1024 * 1024, 15 * 1024 * 1024] {
        let body: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
        let answer = remote.call(&server.address, Frame::request(ECHO).with_body(body.clone()), SOON).await.unwrap();
        assert!(answer.body == body, "{size}");
    }
    let error = remote
        .call(&server.address, Frame::request(ECHO).with_body(vec![0; 17 * 1024 * 1024]), SOON)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Frame(_)) && !error.is_retryable());
    server.stop().await;
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_forgotten() {
    let server = Server::start(ServeLimits::default()).await;
    let remote = Remote::new(RemoteOptions::default(), Arc::new(NoRequests));
    let connection = remote.connection(&server.address).await.unwrap();
    for number in 0..5000 {
        assert!(remote.connection(&format!("no-port-{number}")).await.is_err());
    }
    assert!(remote.target_count() <= 1024, "{}", remote.target_count());
    assert_eq!(remote.connection(&server.address).await.unwrap().id(), connection.id(), "what is in use is kept");
    remote.close().await;
    server.stop().await;
}
