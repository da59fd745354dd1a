//! Bytes that connections may hold: alone, and all together.

use tokio::net::TcpSocket;

use super::super::budget::SMALL;
use super::*;

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

async fn server(bytes: usize, change: impl FnOnce(&mut ConnectionLimits)) -> Server {
    let budget = Budget::new(BudgetLimits { bytes, ..BudgetLimits::default() });
    let mut limits = ServeLimits { budget: Arc::new(budget), ..ServeLimits::default() };
    change(&mut limits.connection);
    Server::start(limits).await
}

/// A connection whose side of the network takes next to nothing in advance.
async fn narrow(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(server.address.parse().unwrap()).await.unwrap()
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Requests of a code, one after the other.
fn requests(code: i32, opaques: std::ops::Range<i32>) -> BytesMut {
    let mut bytes = BytesMut::new();
    for opaque in opaques {
        let mut request = Frame::request(code);
        request.opaque = opaque;
        request.encode(&mut bytes);
    }
    bytes
}

/// Reads `count` frames.
async fn frames(stream: &mut TcpStream, count: usize) -> Vec<Frame> {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    while frames.len() < count {
        match FrameDecoder::default().next(&mut buffer).unwrap() {
            Some(frame) => frames.push(frame),
            None => assert_ne!(timeout(SOON, stream.read_buf(&mut buffer)).await.expect("frames").unwrap(), 0),
        }
    }
    frames
}

/// Lets the next parsing of a body take until the answer is dropped.
fn delay_parsing(server: &Server) -> mpsc::Sender<()> {
    let (keep, awaited) = mpsc::channel();
    *server.probe.parsing.lock() = Some(awaited);
    keep
}

#[tokio::test]
async fn a_request_without_room_is_slowed_then_refused_and_the_next_one_served() {
    let server = server(512 * KIB, |_| {}).await;
    let mut stream = server.raw().await;
    let mut large = Frame::request(ECHO).with_body(vec![7; 4 * MIB]);
    large.opaque = 1;
    let mut bytes = encoded(&large);
    bytes.extend_from_slice(&requests(ECHO, 2..3));
    let (mut reader, mut writer) = stream.split();
    let writing = async { writer.write_all(&bytes).await.unwrap() };
    let reading = async {
        let (mut buffer, mut answers) = (BytesMut::new(), Vec::new());
        while answers.len() < 2 {
            assert_ne!(timeout(SOON, reader.read_buf(&mut buffer)).await.expect("answers").unwrap(), 0);
            while let Some(frame) = FrameDecoder::default().next(&mut buffer).unwrap() {
                answers.push((frame.opaque, frame.code, frame.remark.unwrap_or_default()));
            }
            assert!(server.budget.bytes_used() <= 512 * KIB + 128 * KIB, "{}", server.budget.bytes_used());
        }
        answers
    };
    let ((), answers) = tokio::join!(writing, reading);
    assert_eq!((answers[0].0, answers[0].1), (1, crate::code::response::SYSTEM_BUSY));
    assert!(answers[0].2.contains("unfinished requests"), "{}", answers[0].2);
    assert_eq!((answers[1].0, answers[1].1), (2, 0));
    let counts = server.budget.counts();
    assert_eq!(count(&counts.refused_requests), 1);
    assert!(count(&counts.slowed) >= 1);
    drop(stream);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_frames_stay_within_the_budget_and_harm_nobody() {
    let server = server(MIB, |_| {}).await;
    let remote = remote();
    remote.call(&server.address, Frame::request(ECHO), SOON).await.unwrap();
    let half = encoded(&Frame::request(ECHO).with_body(vec![7; 2 * MIB])).split_to(200 * KIB).freeze();
    let tasks = Tasks::new();
    for _ in 0..100 {
        let mut stream = server.raw().await;
        let half = half.clone();
        // As much as is taken; the rest stays in the network.
        tasks.spawn("attacker", async move {
            let _ = stream.write_all(&half).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
    }
    let mut most = 0;
    until("some were closed", || {
        most = most.max(server.budget.bytes_used());
        count(&server.budget.counts().evicted) + count(&server.budget.counts().refused_requests) > 10
    })
    .await;
    for _ in 0..100 {
        remote.call(&server.address, Frame::request(ECHO), SOON).await.expect("a small request passes");
        most = most.max(server.budget.bytes_used());
    }
    // The least that each of them may hold comes on top.
    assert!(most <= MIB + MIB / 4 + 101 * SMALL, "{most} bytes");
    remote.close().await;
    server.stop().await;
    tasks.join().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_stay_within_the_budget_and_harm_nobody() {
    let server = server(2 * MIB, |_| {}).await;
    let remote = remote();
    remote.call(&server.address, Frame::request(ECHO), SOON).await.unwrap();
    let mut deaf = Vec::new();
    let mut most = 0;
    for _ in 0..60 {
        let mut stream = narrow(&server).await;
        // More than the network takes in advance, which on a loopback is megabytes.
        let _ = timeout(SOON, stream.write_all(&requests(LARGE, 0..200))).await;
        deaf.push(stream);
        remote.call(&server.address, Frame::request(ECHO), SOON).await.expect("a small request passes");
        most = most.max(server.budget.bytes_used());
    }
    until("some were closed", || {
        most = most.max(server.budget.bytes_used());
        count(&server.budget.counts().evicted) > 5
    })
    .await;
    // One answer each comes on top at most; each was written before the connection was known not to read.
    assert!(most <= 2 * MIB + 60 * 2 * 64 * KIB, "{most} bytes");
    until("most of the budget is free", || server.budget.bytes_used() < 2 * MIB).await;
    remote.call(&server.address, Frame::request(LARGE), SOON).await.expect("so does a large answer");
    drop(deaf);
    remote.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_reads_a_byte_at_a_time_is_closed() {
    let server = server(1 << 30, |limits| {
        limits.drain_time = Duration::from_secs(1);
        limits.idle = Duration::from_secs(4);
    })
    .await;
    let mut stream = narrow(&server).await;
    stream.write_all(&requests(LARGE, 0..100)).await.unwrap();
    let mut byte = [0];
    let trickle = async {
        while stream.read_exact(&mut byte).await.is_ok() && server.probe.closed.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, trickle).await.expect("it is closed");
    assert_eq!(count(&server.budget.counts().slow_readers), 1);
    server.stop().await;
}

#[tokio::test]
async fn too_many_unanswered_requests_are_slowed_then_refused_but_for_vital_ones() {
    let server = server(1 << 30, |limits| limits.in_flight = 10).await;
    let mut stream = server.raw().await;
    let mut bytes = requests(SILENCE, 0..10);
    bytes.extend_from_slice(&requests(COUNT, 10..15));
    bytes.extend_from_slice(&requests(VITAL, 15..16));
    let start = tokio::time::Instant::now();
    stream.write_all(&bytes).await.unwrap();
    let answers = frames(&mut stream, 6).await;
    assert!(start.elapsed() >= Duration::from_secs(1), "they wait for a while first");
    for (answer, opaque) in answers[..5].iter().zip(10..) {
        assert_eq!((answer.opaque, answer.code), (opaque, crate::code::response::SYSTEM_BUSY));
    }
    assert_eq!((answers[5].opaque, answers[5].code), (15, 0));
    assert_eq!(server.probe.counted.load(Ordering::SeqCst), 1);
    // When they are answered, all is as before.
    let connection = server.probe.connections.lock()[0].clone();
    for opaque in 0..10 {
        let mut late = Frame::response(&Frame::request(SILENCE), 0);
        late.opaque = opaque;
        connection.reply(&late);
    }
    frames(&mut stream, 10).await;
    stream.write_all(&requests(COUNT, 20..21)).await.unwrap();
    assert_eq!(frames(&mut stream, 1).await[0].code, 0);
    assert_eq!(count(&server.budget.counts().refused_requests), 5);
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_large_body_is_parsed_elsewhere_and_the_connection_keeps_its_order() {
    let server = server(1 << 30, |_| {}).await;
    let (mut stream, other) = (server.raw().await, remote());
    let parsing = delay_parsing(&server);
    let mut large = Frame::request(PARSE).with_body(vec![b' '; 100 * KIB]);
    large.opaque = 1;
    let mut bytes = encoded(&large);
    bytes.extend_from_slice(&requests(COUNT, 2..3));
    stream.write_all(&bytes).await.unwrap();
    // This runtime has one thread: another connection is served only if nothing blocks it.
    for _ in 0..20 {
        other.call(&server.address, Frame::request(ECHO), SOON).await.unwrap();
    }
    until("the body has arrived", || server.budget.bytes_used() > 100 * KIB).await;
    assert_eq!(server.probe.counted.load(Ordering::SeqCst), 0, "the next request waits for it");
    drop(parsing);
    let answers = frames(&mut stream, 2).await;
    assert_eq!((answers[0].opaque, answers[1].opaque), (1, 2));
    // A connection that ends meanwhile is told of after its last request.
    let parsing = delay_parsing(&server);
    stream.write_all(&bytes).await.unwrap();
    until("it is being parsed", || server.budget.large_bodies.available_permits() < LARGE_BODY_PLACES).await;
    server.probe.connections.lock()[0].close("closed by the test");
    tokio::task::yield_now().await;
    assert_eq!(server.probe.closed.load(Ordering::SeqCst), 0);
    drop(parsing);
    until("its end is told", || server.probe.closed.load(Ordering::SeqCst) == 1).await;
    other.close().await;
    server.stop().await;
}
