//! One connection of an attacker: what it sent, what is still unanswered, what it learns.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::clock;
use escrowmq_common::frame::{Frame, FrameDecoder};
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

use super::known::{Known, Lesson};
use super::{Shot, Target, callbacks, wire};
use crate::dice::Dice;
use crate::wait::since;

/// How long the other side may take to read what was sent, and to answer it.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The state that all connections of an attack share.
#[derive(Debug, Default)]
pub(super) struct Common {
    pub(super) known: Mutex<Known>,
    pub(super) counts: Mutex<Counts>,
    pub(super) findings: Mutex<Vec<String>>,
    pub(super) tasks: Tasks,
    /// The other side was killed: connections end, which says nothing.
    pub(super) is_over: AtomicBool,
}

/// How requests were answered, by code.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests sent, by the generator's code.
    pub sent: BTreeMap<(Target, i32), usize>,
    /// Answers, by the generator's code and that of the answer.
    pub answers: BTreeMap<(Target, i32), BTreeMap<i32, usize>>,
    /// Answers to valid requests, likewise.
    pub valid: BTreeMap<(Target, i32), BTreeMap<i32, usize>>,
    /// Requests of brokers to attackers, by code.
    pub asked: BTreeMap<i32, usize>,
    /// Connections that the other side closed with requests unanswered.
    pub closed: usize,
    /// Connections opened.
    pub opened: usize,
}

impl Common {
    pub(super) fn found(&self, finding: String) {
        if !self.is_over.load(Ordering::Acquire) {
            self.findings.lock().push(finding);
        }
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Waiting {
    number: u64,
    code: i32,
    target: Target,
    since: Duration,
    may_wait: bool,
    is_valid: bool,
    lesson: Option<Lesson>,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: usize,
    address: String,
    writer: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    state: Arc<State>,
    next_opaque: AtomicI32,
}

#[derive(Debug, Default)]
struct State {
    waiting: Mutex<HashMap<i32, Waiting>>,
    is_closed: AtomicBool,
    changed: Notify,
}

impl Line {
    /// Connects, from this address if one is given. A refusal is a finding: the other side is there.
    pub(super) async fn open(
        common: &Arc<Common>,
        address: &str,
        from: Option<Ipv4Addr>,
        mut dice: Dice,
    ) -> Option<Line> {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let stream = match tokio::time::timeout(PATIENCE, connect(address, from)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                common.found(format!("{address} takes no connection: {error}"));
                return None;
            }
            Err(_) => {
                common.found(format!("{address} takes no connection within {PATIENCE:?}"));
                return None;
            }
        };
        common.counts.lock().opened += 1;
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        let writer = Arc::new(tokio::sync::Mutex::new(writer));
        let state = Arc::new(State::default());
        let line = Line {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            address: address.to_owned(),
            writer: Arc::clone(&writer),
            state: Arc::clone(&state),
            // Opaques of any size, the wrap included.
            next_opaque: AtomicI32::new(*dice.pick(&[0, 1, -5, i32::MAX - 3, i32::MIN])),
        };
        let (common, id) = (Arc::clone(common), line.id);
        common.tasks.clone().spawn("attacker reads", async move {
            let reader = Reader { common, state, input: reader, writer: Arc::downgrade(&writer), dice, id };
            // The reader must not keep the connection open by itself.
            drop(writer);
            reader.run().await;
        });
        Some(line)
    }

    /// Whether requests can still be sent.
    pub(super) fn is_open(&self) -> bool {
        !self.state.is_closed.load(Ordering::Acquire)
    }

    /// Sends a request in one piece or in several, seldom with lengths that lie; `cut` sends the beginning of it only.
    /// Says whether the connection can be used on.
    pub(super) async fn send(&self, common: &Common, number: u64, shot: &Shot, dice: &mut Dice, cut: bool) -> bool {
        let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        let mut bytes = wire::frame(&shot.draft, opaque);
        let is_lie = dice.one_in(80);
        if is_lie {
            wire::lie(&mut bytes, dice);
        }
        if cut {
            bytes.truncate(dice.below(bytes.len()));
        }
        *common.counts.lock().sent.entry((shot.target, shot.code)).or_default() += 1;
        // After a lie the bytes are read as something else, and nothing can be expected.
        if !shot.draft.is_unanswered() && !cut && !is_lie {
            let waiting = Waiting {
                number,
                code: shot.code,
                target: shot.target,
                since: clock::monotonic(),
                may_wait: shot.draft.may_wait,
                is_valid: shot.is_valid,
                lesson: Lesson::of(&shot.draft),
            };
            self.state.waiting.lock().insert(opaque, waiting);
        }
        let pieces = if dice.one_in(10) { bytes.len() / 3 + 1 } else { bytes.len().max(1) };
        let writing = async {
            let mut writer = self.writer.lock().await;
            for piece in bytes.chunks(pieces) {
                if writer.write_all(piece).await.is_err() {
                    // Closed by the other side, which the reader sees as well.
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, writing).await.is_err() {
            common.found(format!(
                "{} does not read on connection {} within {PATIENCE:?}, at request {number}",
                self.address, self.id
            ));
        }
        !cut && !is_lie
    }

    /// Waits until at most `most` requests are unanswered that must be answered, or the connection has ended. One that is
    /// older than it may be is a finding. With `strict` those count that may be held as well, for `longest`.
    pub(super) async fn answered(&self, common: &Common, most: usize, strict: Option<Duration>) {
        loop {
            let changed = self.state.changed.notified();
            let oldest = {
                let waiting = self.state.waiting.lock();
                let counts = |waiting: &&Waiting| strict.is_some() || !waiting.may_wait;
                let counted = waiting.values().filter(counts);
                if !self.is_open() || counted.clone().count() <= most {
                    return;
                }
                let oldest = counted.min_by_key(|waiting| waiting.since);
                oldest.map(|waiting| (waiting.since, waiting.number, waiting.code))
            };
            let Some((begun, number, code)) = oldest else { return };
            let patience = strict.unwrap_or(PATIENCE);
            let left = patience.saturating_sub(since(begun));
            if left.is_zero() {
                common.found(format!(
                    "{} neither answers request {number} (code {code}) nor closes connection {} within {patience:?}",
                    self.address, self.id
                ));
                self.state.waiting.lock().clear();
                return;
            }
            let _ = tokio::time::timeout(left.min(Duration::from_millis(500)), changed).await;
        }
    }
}

async fn connect(address: &str, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind((from, 0).into())?;
    }
    socket.connect(address.parse().map_err(io::Error::other)?).await
}

/// Reads what comes on a connection.
struct Reader {
    common: Arc<Common>,
    state: Arc<State>,
    input: OwnedReadHalf,
    writer: std::sync::Weak<tokio::sync::Mutex<OwnedWriteHalf>>,
    dice: Dice,
    id: usize,
}

impl Reader {
    async fn run(mut self) {
        let (decoder, mut input) = (FrameDecoder::default(), BytesMut::new());
        'reading: while matches!(self.input.read_buf(&mut input).await, Ok(1..)) {
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(frame)) if frame.is_response() => self.response(&frame),
                    Ok(Some(frame)) => self.request(&frame).await,
                    Ok(None) => break,
                    Err(error) => {
                        self.common.found(format!("what comes on connection {} is no frame: {error}", self.id));
                        break 'reading;
                    }
                }
            }
        }
        if !self.state.waiting.lock().is_empty() {
            self.common.counts.lock().closed += 1;
        }
        self.state.is_closed.store(true, Ordering::Release);
        self.state.changed.notify_waiters();
    }

    fn response(&self, answer: &Frame) {
        let Some(waiting) = self.state.waiting.lock().remove(&answer.opaque) else { return };
        self.state.changed.notify_waiters();
        let mut counts = self.common.counts.lock();
        let key = (waiting.target, waiting.code);
        *counts.answers.entry(key).or_default().entry(answer.code).or_default() += 1;
        if waiting.is_valid {
            *counts.valid.entry(key).or_default().entry(answer.code).or_default() += 1;
        }
        drop(counts);
        if let Some(lesson) = waiting.lesson {
            self.common.known.lock().learn(lesson, answer);
        }
    }

    /// Answers a question of the broker, with something.
    async fn request(&mut self, asked: &Frame) {
        *self.common.counts.lock().asked.entry(asked.code).or_default() += 1;
        let Some(draft) = callbacks::answer(asked, &mut self.dice) else { return };
        // While somebody writes nothing is answered: the writer may wait for us to read.
        let Some(writer) = self.writer.upgrade() else { return };
        let Ok(mut writer) = writer.try_lock() else { return };
        let opaque = if draft.flag & 1 == 1 { asked.opaque } else { self.dice.roll() as i32 };
        let _ = tokio::time::timeout(Duration::from_secs(1), writer.write_all(&wire::frame(&draft, opaque))).await;
    }
}
