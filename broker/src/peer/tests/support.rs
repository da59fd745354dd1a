//! Members to talk to, a stranger's socket, and waiting.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use escrowmq_common::frame::{Frame, FrameDecoder, HeaderEncoding};
use escrowmq_common::task::Tasks;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::peer::greeting::Greeting;
use crate::peer::handshake::code;
use crate::peer::{
    BYTES_MAX, CallError, Gate, HANDSHAKE_TIME, Hello, Lane, Link, Peers, Refusal, Secret, Serve, Settings, Target,
};

/// For what should take milliseconds.
const SOON: Duration = Duration::from_secs(30);
/// For calls whose answer is awaited.
pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) const SECRET: &str = "a secret of sixteen bytes or more";

/// The result, which must come soon.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("it takes milliseconds")
}

/// Waits until something holds.
pub(super) async fn until(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(super) fn hello(node: u64, seat: &str) -> Hello {
    Hello {
        group: "orders".to_owned(),
        node,
        seat: seat.to_owned(),
        incarnation: 1,
        build: "0.1.0".to_owned(),
        formats: 1..=2,
        feature_level: 7,
    }
}

/// Admits everybody, or nobody.
pub(super) struct Door(pub(super) Option<Refusal>);

impl Gate for Door {
    fn admit(&self, _hello: &Hello) -> Result<(), Refusal> {
        self.0.clone().map_or(Ok(()), Err)
    }
}

/// A request that waits for its answer.
pub(super) type Held = (Bytes, oneshot::Sender<Option<Bytes>>);

/// Serves: what begins with `e` comes back, `h` is held until the test answers it, `q` gets an empty answer, `n` closes
/// the connection, `p` panics.
#[derive(Default)]
pub(super) struct Probe {
    pub(super) seen: Mutex<Vec<(u64, Lane, Bytes)>>,
    held: Mutex<Vec<Held>>,
    changes: watch::Sender<()>,
}

impl Probe {
    /// Waits for this many held requests and takes them, in the order of their arrival.
    pub(super) async fn held(&self, count: usize) -> Vec<Held> {
        let mut changes = self.changes.subscribe();
        soon(async {
            while self.held.lock().len() < count {
                changes.changed().await.expect("the probe lives");
            }
        })
        .await;
        std::mem::take(&mut *self.held.lock())
    }

    /// How many requests arrived.
    pub(super) fn count(&self) -> usize {
        self.seen.lock().len()
    }
}

impl Serve for Probe {
    fn serve(&self, from: &Hello, lane: Lane, request: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        let answer = match request.first() {
            Some(b'h') => {
                let (answer, receiver) = oneshot::channel();
                self.held.lock().push((request.clone(), answer));
                async {
                    match receiver.await {
                        Ok(answer) => answer,
                        // The test has no answer for it.
                        Err(_) => std::future::pending().await,
                    }
                }
                .boxed()
            }
            Some(b'q') => async { Some(Bytes::new()) }.boxed(),
            Some(b'n') => async { None }.boxed(),
            Some(b'p') => panic!("on purpose"),
            _ => std::future::ready(Some(request.clone())).boxed(),
        };
        self.seen.lock().push((from.node, lane, request));
        self.changes.send_replace(());
        answer
    }
}

/// A member and what arrives at it.
pub(super) struct Member {
    pub(super) peers: Peers,
    pub(super) probe: Arc<Probe>,
}

impl Member {
    /// The usual member.
    pub(super) fn start(node: u64, seat: &str) -> Member {
        Member::with(hello(node, seat), |_| {})
    }

    /// A member that is changed before it starts.
    pub(super) fn with(hello: Hello, change: impl FnOnce(&mut Settings)) -> Member {
        let probe = Arc::new(Probe::default());
        let mut settings = Settings {
            listen: "127.0.0.1:0".to_owned(),
            hello,
            secret: Some(Secret::new(SECRET).unwrap()),
            bytes_max: BYTES_MAX,
            handshake_time: HANDSHAKE_TIME,
            gate: Arc::new(Door(None)),
            serve: probe.clone(),
        };
        change(&mut settings);
        let peers = Peers::start(settings, &Tasks::new()).unwrap();
        Member { peers, probe }
    }

    pub(super) fn address(&self) -> String {
        self.peers.address().to_string()
    }

    /// The link from here to a node that listens where `to` does.
    pub(super) fn link(&self, to: &Member, node: u64, lane: Lane) -> Link {
        self.peers.link(&Target::Node(node), &to.address(), lane)
    }
}

/// A link over which calls go through.
pub(super) async fn connected(link: Link) -> Link {
    soon(link.ready()).await.unwrap();
    link
}

/// A call whose answer is awaited.
pub(super) async fn ask(link: &Link, request: impl Into<Bytes>) -> Result<Bytes, CallError> {
    soon(link.call(request.into(), LONG)).await
}

/// A socket in the hands of somebody who is no member.
pub(super) struct Stranger {
    stream: TcpStream,
    input: BytesMut,
}

impl Stranger {
    pub(super) async fn connect(address: SocketAddr) -> Stranger {
        Stranger::on(TcpStream::connect(address).await.unwrap())
    }

    pub(super) fn on(stream: TcpStream) -> Stranger {
        Stranger { stream, input: BytesMut::new() }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(super) async fn send(&mut self, code: i32, body: impl Into<Bytes>) {
        self.send_frame(Frame::request(code).with_body(body)).await;
    }

    pub(super) async fn send_frame(&mut self, frame: Frame) {
        let mut out = BytesMut::new();
        Frame { encoding: HeaderEncoding::Binary, ..frame }.encode(&mut out);
        self.write(&out).await;
    }

    /// The next frame, or `None` at the end of the connection.
    pub(super) async fn receive(&mut self) -> Option<Frame> {
        soon(async {
            loop {
                if let Some(frame) = FrameDecoder::default().next(&mut self.input).unwrap() {
                    return Some(frame);
                }
                // A connection that is reset has ended, too.
                if self.stream.read_buf(&mut self.input).await.unwrap_or_default() == 0 {
                    return None;
                }
            }
        })
        .await
    }

    /// Sends a greeting; gives the bytes of the one that answers it.
    pub(super) async fn greet(&mut self, greeting: &Greeting) -> Bytes {
        self.send(code::HELLO, greeting.encode().unwrap()).await;
        let answer = self.receive().await.expect("a greeting answers a greeting");
        assert_eq!(answer.code, code::FINE, "{:?}", answer.remark);
        answer.body
    }
}

/// What a member sends first.
pub(super) fn greeting(node: u64, lane: Lane) -> Greeting {
    Greeting { lane, has_secret: true, nonce: [7; 32], hello: hello(node, "n9") }
}
