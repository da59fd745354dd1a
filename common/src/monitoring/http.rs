//! Three pages over HTTP/1.1: as little of it as a scraper and a probe need.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::task::{Shutdown, Tasks};

/// Requests that are answered at a time; further ones wait in the listener's queue.
const CONNECTIONS: usize = 16;
/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 8 * 1024;
/// Time for one request and its answer.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Pause after accepting failed, which is for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the pages say.
pub trait Site: Send + Sync + 'static {
    /// The page of figures. May read files: it is called on a thread for blocking work, once at a time.
    fn metrics(&self) -> String;

    /// Whether the process does its work.
    ///
    /// # Errors
    ///
    /// Why it does not, in words.
    fn readiness(&self) -> Result<(), String>;
}

/// What all requests share.
struct Desk {
    site: Arc<dyn Site>,
    tasks: Tasks,
    /// One page of figures is made at a time. The others wait without a thread.
    turn: Arc<Semaphore>,
}

/// Answers until `shutdown`.
pub async fn serve(listener: TcpListener, site: Arc<dyn Site>, shutdown: Shutdown) {
    let desk = Arc::new(Desk { site, tasks: Tasks::new(), turn: Arc::new(Semaphore::new(1)) });
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
        let answering = Arc::clone(&desk);
        desk.tasks.spawn("metrics request", async move {
            // A scraper that is too slow, or goes away, loses the answer.
            let _ = timeout(REQUEST_TIME, answer(stream, &answering)).await;
            drop(permit);
        });
    }
    drop(listener);
    desk.tasks.join().await;
}

impl Desk {
    async fn metrics(&self) -> Option<String> {
        let turn = Arc::clone(&self.turn).acquire_owned().await.expect("never closed");
        let site = Arc::clone(&self.site);
        let page = self.tasks.spawn_blocking("metrics page", move || {
            let page = site.metrics();
            // Not before: whoever asked may be gone by now.
            drop(turn);
            page
        });
        page.await.ok().flatten()
    }
}

async fn answer(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let asked = Asked::read(&head);
    let (status, body) = match asked.map(|asked| asked.path) {
        Err(status) => (status, String::new()),
        Ok("/metrics") => match desk.metrics().await {
            Some(page) => ("200 OK", page),
            None => ("500 Internal Server Error", String::new()),
        },
        Ok("/live") => ("200 OK", "live\n".to_owned()),
        Ok("/ready") => match desk.site.readiness() {
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
    if !asked.is_ok_and(|asked| asked.head_alone) {
        stream.write_all(body.as_bytes()).await?;
    }
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

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked<'a> {
    /// The path, without its query.
    path: &'a str,
    /// It is a HEAD request: the answer has no body.
    head_alone: bool,
}

impl Asked<'_> {
    /// Reads the head of a request; else the status to answer.
    fn read(head: &[u8]) -> Result<Asked<'_>, &'static str> {
        const BAD: &str = "400 Bad Request";
        if !ends_head(head) {
            return Err(if head.len() >= HEAD_BYTES { "431 Request Header Fields Too Large" } else { BAD });
        }
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = str::from_utf8(line).map_err(|_| BAD)?;
        let mut parts = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BAD);
        };
        if !version.starts_with("HTTP/1.") {
            return Err(BAD);
        }
        let head_alone = match method {
            "GET" => false,
            "HEAD" => true,
            _ => return Err("405 Method Not Allowed"),
        };
        Ok(Asked { path: target.split('?').next().unwrap_or(target), head_alone })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn only_whole_plain_requests_have_a_path() {
        let path = |head| Asked::read(head).map(|asked| (asked.path, asked.head_alone));
        assert_eq!(path(b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(("/metrics", false)));
        assert_eq!(path(b"GET / HTTP/1.0\r\n\r\n"), Ok(("/", false)));
        assert_eq!(path(b"HEAD /live HTTP/1.1\r\n\r\n"), Ok(("/live", true)));
        for bad in [
            &b""[..],
            b"GET /metrics HTTP/1.1\r\n",
            b"GET /metrics\r\n\r\n",
            b"GET  /metrics HTTP/1.1\r\n\r\n",
            b"GET /metrics FTP/1.1\r\n\r\n",
            b"\xff\xff / HTTP/1.1\r\n\r\n",
            b"\r\n\r\n",
        ] {
            assert_eq!(path(bad), Err("400 Bad Request"), "{bad:?}");
        }
        assert_eq!(path(b"POST / HTTP/1.1\r\n\r\n"), Err("405 Method Not Allowed"));
        assert_eq!(path(&vec![b'a'; HEAD_BYTES]), Err("431 Request Header Fields Too Large"));
    }

    /// Says how many pages were being made at once.
    #[derive(Default)]
    struct Counting {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Site for Counting {
        fn metrics(&self) -> String {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            std::thread::yield_now();
            self.now.fetch_sub(1, Ordering::SeqCst);
            "figures\n".to_owned()
        }

        fn readiness(&self) -> Result<(), String> {
            Err("resting".to_owned())
        }
    }

    async fn ask(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn pages_are_served_with_and_without_a_body() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tasks, shutdown, site) = (Tasks::new(), Shutdown::new(), Arc::new(Counting::default()));
        tasks.spawn("pages", serve(listener, Arc::clone(&site) as _, shutdown.clone()));
        let whole = ask(port, "GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.ends_with("\r\n\r\nfigures\n"), "{whole}");
        let head = ask(port, "HEAD /metrics HTTP/1.1\r\n\r\n").await;
        assert_eq!(head, whole.strip_suffix("figures\n").unwrap());
        for (method, body) in [("GET", "resting\n"), ("HEAD", "")] {
            let answer = ask(port, &format!("{method} /ready HTTP/1.1\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Content-Length: 8\r\n"), "{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        }
        assert!(ask(port, "HEAD /live HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
        let many = (0..2 * CONNECTIONS).map(|_| ask(port, "GET /metrics HTTP/1.1\r\n\r\n"));
        let answers = futures_util::future::join_all(many).await;
        assert!(answers.iter().all(|answer| answer.ends_with("figures\n")));
        assert_eq!(site.most.load(Ordering::SeqCst), 1, "one page is made at a time");
        shutdown.cancel();
        tasks.join().await;
    }
}
