//! Three pages over HTTP/1.1: as little of it as a scraper and a probe need.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::{Shutdown, Tasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Pages;
use super::page::{page, page_of_start};

/// Requests that are answered at a time; further ones wait in the listener's queue.
const CONNECTIONS: usize = 16;
/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 8 * 1024;
/// Time for one request and its answer.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Pause after accepting failed, which is for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

impl Pages {
    /// Answers until `shutdown`.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: Shutdown) {
        let tasks = Tasks::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let permit = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                permit = Arc::clone(&room).acquire_owned() => permit.expect("never closed"),
            };
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let pages = Arc::clone(&self);
            tasks.spawn("metrics request", async move {
                // A scraper that is too slow, or goes away, loses the answer.
                let _ = timeout(REQUEST_TIME, answer(stream, &pages)).await;
                drop(permit);
            });
        }
        drop(listener);
        tasks.join().await;
    }
}

async fn answer(mut stream: TcpStream, pages: &Pages) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let (status, body) = match path_of(&head) {
        Err(status) => (status, String::new()),
        Ok("/metrics") => match pages.monitor.get() {
            None => ("200 OK", page_of_start()),
            Some(monitor) => {
                let reader = Arc::clone(monitor);
                // Looks into the index.
                let page = monitor.tasks.spawn_blocking("metrics page", move || page(&reader)).await;
                match page.ok().flatten() {
                    Some(page) => ("200 OK", page),
                    None => ("500 Internal Server Error", String::new()),
                }
            }
        },
        Ok("/live") => ("200 OK", "live\n".to_owned()),
        Ok("/ready") => match pages.readiness() {
            Ok(()) => ("200 OK", "ready\n".to_owned()),
            Err(why) => ("503 Service Unavailable", format!("{why}\n")),
        },
        Ok(_) => ("404 Not Found", "there are /metrics, /ready and /live\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads up to the empty line, or up to the bound.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    let mut chunk = [0; 512];
    while !ends_head(&head) && head.len() < HEAD_BYTES {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            break;
        }
        head.extend_from_slice(&chunk[..read]);
    }
    Ok(head)
}

fn ends_head(head: &[u8]) -> bool {
    head.windows(4).any(|window| window == b"\r\n\r\n")
}

/// The path of a request, without its query; else the status to answer.
fn path_of(head: &[u8]) -> Result<&str, &'static str> {
    const BAD: &str = "400 Bad Request";
    if !ends_head(head) {
        return Err(if head.len() >= HEAD_BYTES { "431 Request Header Fields Too Large" } else { BAD });
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = str::from_utf8(line).map_err(|_| BAD)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD);
    };
    if !version.starts_with("HTTP/1.") {
        return Err(BAD);
    }
    if method != "GET" {
        return Err("405 Method Not Allowed");
    }
    Ok(target.split('?').next().unwrap_or(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_plain_requests_have_a_path() {
        assert_eq!(path_of(b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"), Ok("/metrics"));
        assert_eq!(path_of(b"GET / HTTP/1.0\r\n\r\n"), Ok("/"));
        for bad in [
            &b""[..],
            b"GET /metrics HTTP/1.1\r\n",
            b"GET /metrics\r\n\r\n",
            b"GET  /metrics HTTP/1.1\r\n\r\n",
            b"GET /metrics FTP/1.1\r\n\r\n",
            b"\xff\xff / HTTP/1.1\r\n\r\n",
            b"\r\n\r\n",
        ] {
            assert_eq!(path_of(bad), Err("400 Bad Request"), "{bad:?}");
        }
        assert_eq!(path_of(b"POST / HTTP/1.1\r\n\r\n"), Err("405 Method Not Allowed"));
        assert_eq!(path_of(&vec![b'a'; HEAD_BYTES]), Err("431 Request Header Fields Too Large"));
    }
}
