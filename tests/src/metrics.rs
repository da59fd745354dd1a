//! The counts of a broker.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The value of a metric of the broker whose `metricsPort` this is, if it answers and has it. The name goes without its
/// prefix.
pub async fn metric(port: u16, name: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await.ok()?;
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("escrowmq_{name} ")));
    line.and_then(|value| value.trim().parse().ok())
}
