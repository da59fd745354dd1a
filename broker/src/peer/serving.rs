//! A connection of another member: hands its requests on in their order, and writes the answers as they come.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use escrowmq_common::frame::Frame;
use escrowmq_common::task::Shutdown;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::handshake::{Known, code};
use super::hello::{Hello, Lane};
use super::roles::Serve;
use super::wire::{End, Wire};

/// Most requests of a connection that are served side by side.
const REQUESTS_MAX: usize = 1024;
/// Bytes of answers that wait to be written above which no more are taken.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Serves a connection until it ends or is stopped, and says why it did.
pub(super) async fn serve(known: Known, with: &dyn Serve, bytes_max: usize, stop: &Shutdown) -> End {
    let Known { wire, hello, lane } = known;
    let mut serving = Serving { wire, in_hand: FuturesUnordered::new(), bytes: 0, bytes_max };
    let mut stopped = pin!(stop.cancelled());
    poll_fn(|context| {
        if stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(End::Us("this member stops, or a newer connection took the place"));
        }
        match serving.turn(with, &hello, lane, context) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    })
    .await
}

struct Serving {
    wire: Wire,
    in_hand: FuturesUnordered<InHand>,
    /// Bytes of the requests in hand.
    bytes: usize,
    bytes_max: usize,
}

/// A request whose answer is being made.
struct InHand {
    opaque: i32,
    bytes: usize,
    work: BoxFuture<'static, Option<Bytes>>,
}

struct Done {
    opaque: i32,
    bytes: usize,
    answer: Option<Bytes>,
}

impl Future for InHand {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Done> {
        let (opaque, bytes) = (self.opaque, self.bytes);
        self.work.as_mut().poll(context).map(|answer| Done { opaque, bytes, answer })
    }
}

impl Serving {
    /// One turn: what is there to be answered, written and taken, up to what a turn may move.
    fn turn(&mut self, with: &dyn Serve, from: &Hello, lane: Lane, context: &mut Context<'_>) -> Result<(), End> {
        let mut is_busy = self.write_answers(context)?;
        if self.take_requests(with, from, lane, context)? {
            // Those that are answered already go out at once.
            self.write_answers(context)?;
            is_busy = true;
        }
        if is_busy {
            // What was done has made room for more, or let answers become ready. Others have their turn first.
            context.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Takes answers that are ready, as long as few enough wait to be written, and writes; says whether there was one.
    fn write_answers(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut any = false;
        while self.wire.out_bytes() < ANSWER_BYTES_MAX {
            let Poll::Ready(Some(done)) = self.in_hand.poll_next_unpin(context) else { break };
            self.bytes -= done.bytes;
            let Some(answer) = done.answer else { return Err(End::Us("the request was not to be answered")) };
            let request = Frame { opaque: done.opaque, ..Frame::request(code::REQUEST) };
            self.wire.push(Frame::response(&request, code::FINE).with_body(answer))?;
            any = true;
        }
        let waiting = self.wire.out_bytes();
        if let Poll::Ready(written) = self.wire.poll_flush(context) {
            written?;
        }
        // Below the bound again, which nobody would wake us for.
        Ok(any || waiting >= ANSWER_BYTES_MAX && self.wire.out_bytes() < ANSWER_BYTES_MAX)
    }

    /// Hands requests on, as long as few enough are in hand; says whether there was one.
    fn take_requests(
        &mut self,
        with: &dyn Serve,
        from: &Hello,
        lane: Lane,
        context: &mut Context<'_>,
    ) -> Result<bool, End> {
        let mut any = false;
        // A single request may be larger than all may be together: it is taken while fewer bytes are in hand.
        while self.in_hand.len() < REQUESTS_MAX
            && self.bytes < self.bytes_max
            && self.wire.out_bytes() < ANSWER_BYTES_MAX
        {
            let Poll::Ready(frame) = self.wire.poll_frame(context) else { break };
            let frame = frame?;
            if frame.is_response() || frame.code != code::REQUEST {
                return Err(End::Unexpected("a frame that is no request"));
            }
            let bytes = frame.body.len();
            self.bytes += bytes;
            self.in_hand.push(InHand { opaque: frame.opaque, bytes, work: with.serve(from, lane, frame.body) });
            any = true;
        }
        Ok(any)
    }
}
