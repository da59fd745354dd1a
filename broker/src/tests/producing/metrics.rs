//! The two pages.

use escrowmq_common::ports::free_port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{Stage, send};

async fn get(stage: &Stage, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(stage.running.metrics_addr().unwrap()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    // A refused request may be answered by a reset.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn figures_and_readiness_are_served() {
    let port = free_port().unwrap();
    let stage = Stage::with(|config| config.metrics_port = Some(port)).await;
    stage.done(send("T", &[])).await;
    stage.done(send("T", &[("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", "TX")])).await;
    stage.call(send("Top ic", &[])).await;
    let page = get(&stage, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    for line in [
        "escrowmq_ready 1",
        "escrowmq_halves_open 1",
        "escrowmq_halves_parked 0",
        "escrowmq_send_requests_total{code=\"0\"} 2",
        "escrowmq_send_requests_total{code=\"29\"} 1",
        "escrowmq_messages_in_total 2",
        "escrowmq_connections 1",
        "escrowmq_store_failed 0",
        "escrowmq_request_seconds_count{request=\"SEND_MESSAGE_V2\"} 3",
    ] {
        assert!(page.lines().any(|each| each == line), "{line} in {page}");
    }
    assert!(get(&stage, b"GET /ready HTTP/1.0\r\n\r\n").await.ends_with("\r\n\r\nready\n"));
    assert!(get(&stage, b"GET /other HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    assert!(get(&stage, b"\x16\x03\x01\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    stage.running.stop().await.unwrap();
}
