//! One request to a collector, over a connection of its own: batches are seconds apart.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time for connecting, sending and the answer.
const TIME: Duration = Duration::from_secs(3);
/// Longest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// Why a collector did not take a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// The connection.
    #[error(transparent)]
    Connection(#[from] std::io::Error),
    /// HTTP on it.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The request cannot be written.
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    /// The answer.
    #[error("its answer cannot be read: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("it did not answer within {} s", TIME.as_secs())]
    Time,
    /// It refused.
    #[error("it answered with status {0}")]
    Status(StatusCode),
}

/// Posts JSON to `path` at `authority`, and brings the answer.
pub(super) async fn post(authority: &str, path: &str, body: Vec<u8>) -> Result<Bytes, PostError> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))?;
    timeout(TIME, exchange(authority, request)).await.unwrap_or(Err(PostError::Time))
}

async fn exchange(authority: &str, request: Request<Full<Bytes>>) -> Result<Bytes, PostError> {
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(PostError::Status(status));
        }
        Ok(Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(PostError::Answer)?.to_bytes())
    };
    // The connection moves the bytes of both, and ends when its sender is gone. What breaks it, the answer tells.
    tokio::join!(answer, connection).0
}
