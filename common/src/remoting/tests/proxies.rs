//! PROXY headers in front of connections.

use std::net::SocketAddr;

use super::*;

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 40000 10911\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x7f\0\0\x01\x9c\x40\x2a\x9f";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn client() -> SocketAddr {
    "203.0.113.7:40000".parse().unwrap()
}

async fn server(trusted: &str, connections_per_address: usize) -> Server {
    let budget = Budget::new(BudgetLimits { connections_per_address, ..BudgetLimits::default() });
    let proxies = Arc::new(trusted.parse().unwrap());
    Server::start(ServeLimits { budget: Arc::new(budget), proxies, ..ServeLimits::default() }).await
}

/// Waits for the next frame.
async fn frame(stream: &mut TcpStream) -> Option<Frame> {
    let mut buffer = BytesMut::new();
    loop {
        if let Some(frame) = FrameDecoder::default().next(&mut buffer).unwrap() {
            return Some(frame);
        }
        if timeout(SOON, stream.read_buf(&mut buffer)).await.expect("an answer or the end").unwrap_or(0) == 0 {
            return None;
        }
    }
}

async fn ask(stream: &mut TcpStream) -> Option<Frame> {
    stream.write_all(&encoded(&Frame::request(ECHO).with_body(&b"hello"[..]))).await.ok()?;
    frame(stream).await
}

#[tokio::test]
async fn headers_are_passed_over_from_anybody_and_believed_from_trusted_senders() {
    for (trusted, believes) in [("", false), ("10.0.0.0/8", false), ("127.0.0.0/8", true)] {
        let server = server(trusted, 100).await;
        for (header, names) in [(V1, true), (V2, true), (V2_LOCAL, false)] {
            let mut stream = server.raw().await;
            stream.write_all(header).await.unwrap();
            assert_eq!(&ask(&mut stream).await.unwrap().body[..], b"hello");
            let connection = server.probe.connections.lock().pop().unwrap();
            let sender = stream.local_addr().unwrap();
            let peer = if believes && names { client() } else { sender };
            assert_eq!((connection.peer(), connection.sender()), (peer, sender), "{trusted}");
            // A header that is believed takes local rights away, and never gives them.
            assert_eq!(connection.is_local(), !(believes && names), "{trusted}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_header_may_come_in_pieces_or_with_the_first_frames() {
    let server = server("", 100).await;
    for header in [V1, V2, V2_LOCAL] {
        let mut bytes = BytesMut::from(header);
        Frame::request(ECHO).encode(&mut bytes);
        let mut stream = server.raw().await;
        stream.set_nodelay(true).unwrap();
        for byte in &bytes {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(frame(&mut stream).await.is_some());
        let mut stream = server.raw().await;
        stream.write_all(&bytes).await.unwrap();
        assert!(frame(&mut stream).await.is_some());
        // A header stands in front and nowhere else.
        stream.write_all(header).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, b"");
    }
    server.stop().await;
}

#[tokio::test]
async fn malformed_headers_close_their_connection() {
    let server = server("127.0.0.1", 100).await;
    let bad: [&[u8]; 5] = [
        b"PROXY TCP4 nonsense\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x99\x11\0\0",
        b"PROXY UNKNOWN and so on for more than a hundred and seven bytes without any end of the line, until it is too long",
        b"POST / HTTP/1.1\r\n\r\n",
    ];
    for header in bad {
        let mut stream = server.raw().await;
        stream.write_all(header).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, b"", "{}", String::from_utf8_lossy(header));
    }
    assert_eq!(server.budget.counts().bad_input.load(Ordering::Relaxed), 5);
    server.stop().await;
}

#[tokio::test]
async fn a_header_that_does_not_end_is_awaited_for_five_seconds() {
    let server = server("", 100).await;
    let start = tokio::time::Instant::now();
    let mut slow = server.raw().await;
    slow.write_all(&V1[..20]).await.unwrap();
    // A connection that says nothing at all may be silent for longer.
    let silent = server.raw().await;
    read_to_end(&mut slow).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(15), "{took:?}");
    assert_eq!(server.probe.closed.load(Ordering::SeqCst), 1);
    drop(silent);
    server.stop().await;
}

#[tokio::test]
async fn connections_count_for_the_client_that_a_trusted_sender_names() {
    let server = server("127.0.0.1", 2).await;
    let mut kept = Vec::new();
    // More than two from the load balancer's address, each for another client.
    for client in 1..=5 {
        let mut stream = server.raw().await;
        stream.write_all(format!("PROXY TCP4 203.0.113.{client} 127.0.0.1 1 2\r\n").as_bytes()).await.unwrap();
        assert!(ask(&mut stream).await.is_some());
        kept.push(stream);
    }
    // The second one of a client is served, the third is not.
    for served in [true, false] {
        let mut stream = server.raw().await;
        stream.write_all(b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\n").await.unwrap();
        assert_eq!(ask(&mut stream).await.is_some(), served);
        kept.push(stream);
    }
    assert_eq!(server.budget.counts().refused_addresses.load(Ordering::Relaxed), 1);
    drop(kept);
    server.stop().await;
}
