//! The task of a link: dials, lets calls through, dials again.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use escrowmq_common::frame::Frame;
use escrowmq_common::net::{connect_any, split_address};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::back_off::BackOff;
use super::calls::Calls;
use super::error::CallError;
use super::handshake::{Fault, Known, ask, code};
use super::hello::{Lane, Target};
use super::link::{Core, Interrupt};
use super::refusal::{Reason, Refusal};
use super::shared::Shared;
use super::socket::is_dead_path;
use super::wire::{End, TURN_BYTES, Wire};

/// Longest time for opening a connection, look-up of the name included.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// A connection that lived so long shows that the member is well, and the next pause is short.
const WELL_TIME: Duration = Duration::from_secs(1);

/// Closes the link when its task ends in whatever way.
pub(super) struct Closing(pub(super) Arc<Core>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Runs a link until it is closed or the member stops.
pub(super) async fn run(link: Closing, shared: Arc<Shared>) {
    let core = &*link.0;
    let stop = shared.stop.clone();
    let mut stopped = pin!(stop.cancelled());
    tokio::select! {
        biased;
        () = &mut stopped => {}
        () = turns(core, &shared) => {}
    }
}

async fn turns(core: &Core, shared: &Shared) {
    let mut back_off = BackOff::new();
    core.used().await;
    while let Some(address) = core.begin() {
        let attempt = tokio::select! {
            biased;
            () = core.interrupted() => continue,
            attempt = connect(shared, &core.target, core.lane, &address) => attempt,
        };
        match attempt {
            Ok(known) => {
                let opened = Instant::now();
                let end = talk(core, known, &address).await;
                if let End::Io(error) = &end
                    && is_dead_path(error)
                {
                    shared.path_lost(&core.target);
                }
                if opened.elapsed() >= WELL_TIME {
                    back_off.reset();
                }
            }
            Err(failure) => note(core, &address, failure),
        }
        tokio::select! {
            biased;
            () = core.hurried() => {}
            () = sleep(back_off.pause()) => {}
        }
        if core.interrupt_reason() == Some(Interrupt::Moved) {
            back_off.reset();
        }
    }
}

/// Opens a connection for something else than requests and answers.
pub(super) async fn stream(shared: &Shared, target: &Target, address: &str) -> Result<std::net::TcpStream, CallError> {
    match connect(shared, target, Lane::Forward, address).await {
        Ok(known) => known.wire.into_stream().map_err(|error| unreachable(target, error.to_string())),
        Err(Failure::Unreachable(why)) => Err(unreachable(target, why)),
        Err(Failure::Refused(refusal)) => Err(CallError::Refused(refusal.text)),
    }
}

fn unreachable(target: &Target, why: String) -> CallError {
    CallError::Unreachable { member: target.to_string(), why }
}

async fn connect(shared: &Shared, target: &Target, lane: Lane, address: &str) -> Result<Known, Failure> {
    let Some((host, port)) = split_address(address) else {
        return Err(Failure::Unreachable("the address is not of the form host:port".to_owned()));
    };
    let stream = match timeout(CONNECT_TIME, connect_any(host, port)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::Unreachable(error.to_string())),
        Err(_) => return Err(Failure::Unreachable(format!("no answer within {} ms", CONNECT_TIME.as_millis()))),
    };
    let identity = shared.identity();
    match timeout(shared.handshake_time, ask(stream, &identity, target, lane)).await {
        Ok(Ok(known)) => Ok(known),
        Ok(Err(Fault::Refused(refusal))) => Err(Failure::Refused(refusal)),
        Ok(Err(Fault::Ended(end))) => Err(Failure::Unreachable(format!("the handshake failed: {end}"))),
        Err(_) => Err(Failure::Unreachable(format!("no handshake within {} ms", shared.handshake_time.as_millis()))),
    }
}

/// Why there is no connection.
enum Failure {
    Unreachable(String),
    Refused(Refusal),
}

fn note(core: &Core, address: &str, failure: Failure) {
    let (target, lane) = (&core.target, core.lane);
    match failure {
        Failure::Unreachable(error) => {
            if core.fail(error.clone(), None) {
                tracing::warn!(event = "member_unreachable", %target, %lane, address, error, "member cannot be reached, trying again");
            }
        }
        Failure::Refused(refusal) => {
            if !core.fail(refusal.text.clone(), Some(refusal.clone())) {
                return;
            }
            if refusal.reason == Reason::OtherMember {
                tracing::warn!(%target, %lane, address, "no connection to a member: {refusal}");
            } else {
                tracing::error!(%target, %lane, address, reason = ?refusal.reason, "no connection to a member: {refusal}");
            }
        }
    }
}

/// Lets calls through until the connection ends, and says why it did.
async fn talk(core: &Core, known: Known, address: &str) -> End {
    let Known { mut wire, hello, lane } = known;
    tracing::info!(event = "member_connected", target = %core.target, %lane, address, seat = hello.seat, build = hello.build, "connected to a member");
    core.open(hello);
    let mut timer = Timer::new();
    let end = poll_fn(|context| poll_talk(core, &mut wire, &mut timer, context)).await;
    core.end(&end.to_string());
    if matches!(end, End::Us(_)) {
        tracing::info!(event = "member_lost", target = %core.target, %lane, address, reason = %end, "connection to a member ended");
    } else {
        tracing::warn!(event = "member_lost", target = %core.target, %lane, address, reason = %end, "connection to a member ended");
    }
    end
}

fn poll_talk(core: &Core, wire: &mut Wire, timer: &mut Timer, context: &mut Context<'_>) -> Poll<End> {
    // Before the first look: whoever calls or interrupts after it wakes us again.
    core.waker.register(context.waker());
    if let Some(interrupt) = core.interrupt_reason() {
        return Poll::Ready(End::Us(interrupt.why()));
    }
    if let Err(end) = send(core, wire, context) {
        return Poll::Ready(end);
    }
    while let Poll::Ready(frame) = wire.poll_frame(context) {
        match frame {
            Ok(frame) if frame.is_response() && frame.code == code::FINE => {
                core.with_calls(|calls| calls.answer(frame.opaque, frame.body));
            }
            Ok(_) => return Poll::Ready(End::Unexpected("a frame that is no answer")),
            Err(end) => return Poll::Ready(end),
        }
    }
    core.with_calls(|calls| timer.watch(calls, context));
    Poll::Pending
}

/// Hands requests to the socket as it takes them, for one turn. Those that it does not take yet stay unsent.
fn send(core: &Core, wire: &mut Wire, context: &mut Context<'_>) -> Result<(), End> {
    let mut moved = 0;
    loop {
        while wire.out_bytes() < TURN_BYTES {
            let Some((opaque, request)) = core.with_calls(Calls::next_to_send) else { break };
            wire.push(Frame { opaque, ..Frame::request(code::REQUEST).with_body(request) })?;
        }
        let waiting = wire.out_bytes();
        if waiting == 0 {
            return Ok(());
        }
        if moved >= TURN_BYTES {
            context.waker().wake_by_ref();
            return Ok(());
        }
        match wire.poll_flush(context) {
            Poll::Ready(written) => written?,
            Poll::Pending => return Ok(()),
        }
        moved += waiting;
    }
}

/// Wakes the task at the deadline of a call.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    is_set: bool,
}

impl Timer {
    fn new() -> Timer {
        Timer { sleep: Box::pin(sleep_until(Instant::now())), is_set: false }
    }

    /// Ends the calls whose time is over and waits for the next deadline.
    fn watch(&mut self, calls: &mut Calls, context: &mut Context<'_>) {
        while let Some(deadline) = calls.next_deadline() {
            // Most calls are answered in time: it costs less to wake once too early than to set the timer for each.
            if !self.is_set || deadline < self.sleep.deadline() {
                self.sleep.as_mut().reset(deadline);
                self.is_set = true;
            }
            if self.sleep.as_mut().poll(context).is_pending() {
                return;
            }
            self.is_set = false;
            calls.expire(Instant::now());
        }
    }
}
