//! The way to one member on one lane, as its callers and its task see it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::clock;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::calls::{Answer, Calls};
use super::error::CallError;
use super::hello::{Hello, Lane, Target};
use super::refusal::Refusal;
use super::status::{LinkStatus, Phase};
use super::wire::REQUEST_BYTES_MAX;

/// Calls to one member on one lane. Clones are the same link.
#[derive(Clone)]
pub(crate) struct Link {
    pub(super) core: Arc<Core>,
}

impl Link {
    /// Sends a request, in the order of these calls, and waits for its answer until `deadline` is over.
    ///
    /// The request is queued, or refused, when this is called; the future only waits, in whatever runtime. Without a
    /// connection the call fails at once and lets the member be dialed; who would rather wait for that asks
    /// [`ready`](Self::ready) first. Dropping the future does not take the request back.
    pub(crate) fn call(
        &self,
        request: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + use<> {
        let answer = self.core.submit(request, deadline);
        let core = Arc::clone(&self.core);
        async move { answer?.await.unwrap_or_else(|_| Err(CallError::Broken { member: core.member() })) }
    }

    /// Lets the member be dialed, so that the first call finds a connection.
    pub(crate) fn dial(&self) {
        self.core.want(&mut self.core.state.lock());
    }

    /// Waits until calls go through; dials if nobody did. Ends with the error that calls get once it is clear that they
    /// get none but that: the member refuses us or we refuse it, or the link is closed. Has no deadline of its own.
    pub(crate) fn ready(&self) -> impl Future<Output = Result<(), CallError>> + Send + use<> {
        let core = Arc::clone(&self.core);
        async move {
            let mut changes = core.changes.subscribe();
            loop {
                match core.readiness() {
                    Some(readiness) => return readiness,
                    // The sender lives as long as `core`.
                    None => drop(changes.changed().await),
                }
            }
        }
    }

    /// Waits until the status is such. Has no deadline of its own.
    pub(crate) async fn wait_until(&self, is_such: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
        let mut changes = self.core.changes.subscribe();
        loop {
            let status = self.status();
            if is_such(&status) {
                return status;
            }
            // The sender lives as long as this link.
            let _ = changes.changed().await;
        }
    }

    /// How it does now.
    pub(crate) fn status(&self) -> LinkStatus {
        self.core.status()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({}, {})", self.core.target, self.core.lane)
    }
}

/// Why a connection is ended that has nothing wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// The member has moved to another address.
    Moved,
    /// Another connection to the member found that the network leads there no more.
    PathLost,
    /// This member introduces itself otherwise now.
    Introduced,
    /// The link is closed for good.
    Closed,
}

impl Interrupt {
    pub(super) fn why(self) -> &'static str {
        match self {
            Interrupt::Moved => "the address of the member has changed",
            Interrupt::PathLost => "another connection to the member found no way there",
            Interrupt::Introduced => "this member has another identity now",
            Interrupt::Closed => "the link is closed",
        }
    }
}

/// What the link and its task share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) target: Target,
    pub(super) lane: Lane,
    bytes_max: usize,
    state: Mutex<State>,
    /// Wakes the task while it has a connection.
    pub(super) waker: AtomicWaker,
    /// Wakes the task between connections.
    nudge: Notify,
    /// Told after each change of the phase.
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    address: String,
    phase: Phase,
    /// By the process's monotonic clock.
    phase_begun: Duration,
    /// Somebody has used it.
    wanted: bool,
    /// The next attempt is not to wait.
    hurry: bool,
    interrupt: Option<Interrupt>,
    /// While there is a connection.
    calls: Option<Calls>,
    member: Option<Arc<Hello>>,
    last_error: Option<String>,
    refusal: Option<Refusal>,
    /// What the log was told since the last connection.
    told_unreachable: bool,
    told_refusal: Option<Refusal>,
    connects: u64,
    failures: u64,
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_begun = clock::monotonic();
    }
}

impl Core {
    pub(super) fn new(target: Target, lane: Lane, address: String, bytes_max: usize) -> Core {
        let state = State {
            address,
            phase: Phase::Unused,
            phase_begun: clock::monotonic(),
            wanted: false,
            hurry: false,
            interrupt: None,
            calls: None,
            member: None,
            last_error: None,
            refusal: None,
            told_unreachable: false,
            told_refusal: None,
            connects: 0,
            failures: 0,
        };
        Core {
            target,
            lane,
            bytes_max,
            state: Mutex::new(state),
            waker: AtomicWaker::new(),
            nudge: Notify::new(),
            changes: watch::Sender::new(()),
        }
    }

    /// The member and its address, for errors.
    fn member(&self) -> String {
        self.name(&self.state.lock().address)
    }

    fn name(&self, address: &str) -> String {
        format!("{} at {address}", self.target)
    }

    fn submit(&self, request: Bytes, after: Duration) -> Result<Answer, CallError> {
        if request.len() > REQUEST_BYTES_MAX {
            return Err(CallError::TooLarge { bytes: request.len(), limit: REQUEST_BYTES_MAX });
        }
        let mut state = self.state.lock();
        if let Some(calls) = &mut state.calls {
            let answer = calls.add(request, Instant::now(), after)?;
            drop(state);
            self.waker.wake();
            return Ok(answer);
        }
        self.want(&mut state);
        Err(self.no_connection(&state))
    }

    fn want(&self, state: &mut State) {
        if !state.wanted {
            state.wanted = true;
            self.nudge.notify_one();
        }
    }

    fn no_connection(&self, state: &State) -> CallError {
        if let Some(refusal) = &state.refusal {
            return CallError::Refused(refusal.text.clone());
        }
        let why = match (&state.last_error, state.phase) {
            (_, Phase::Closed) => Interrupt::Closed.why().to_owned(),
            (Some(error), _) => error.clone(),
            (None, _) => "it is being dialed for the first time".to_owned(),
        };
        CallError::Unreachable { member: self.name(&state.address), why }
    }

    /// Whether calls go through, if that is clear.
    fn readiness(&self) -> Option<Result<(), CallError>> {
        let mut state = self.state.lock();
        if state.phase != Phase::Closed {
            self.want(&mut state);
        }
        match state.phase {
            Phase::Connected => Some(Ok(())),
            Phase::Closed => Some(Err(self.no_connection(&state))),
            _ if state.refusal.is_some() => Some(Err(self.no_connection(&state))),
            Phase::Unused | Phase::Connecting | Phase::Waiting => None,
        }
    }

    pub(super) fn status(&self) -> LinkStatus {
        let state = self.state.lock();
        let (calls, call_bytes) = state.calls.as_ref().map(Calls::in_flight).unwrap_or_default();
        LinkStatus {
            target: self.target.clone(),
            lane: self.lane,
            address: state.address.clone(),
            phase: state.phase,
            phase_age: clock::monotonic().saturating_sub(state.phase_begun),
            member: state.member.clone(),
            last_error: state.last_error.clone(),
            refusal: state.refusal.clone(),
            connects: state.connects,
            failures: state.failures,
            calls,
            call_bytes,
        }
    }

    /// Ends the connection; another one follows, unless it was closed.
    pub(super) fn interrupt(&self, why: Interrupt) {
        let mut state = self.state.lock();
        if state.interrupt != Some(Interrupt::Closed) {
            state.interrupt = Some(why);
        }
        drop(state);
        self.waker.wake();
        self.nudge.notify_one();
    }

    /// From now on the member is dialed at this address.
    pub(super) fn relocate(&self, address: &str) {
        let mut state = self.state.lock();
        if state.address == address {
            return;
        }
        address.clone_into(&mut state.address);
        drop(state);
        self.interrupt(Interrupt::Moved);
    }

    /// If the member is to be dialed after a pause, ends the pause.
    pub(super) fn retry_now(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Waiting {
            state.hurry = true;
            drop(state);
            self.nudge.notify_one();
        }
    }

    // What follows is called by the link's task alone.

    /// Waits until somebody uses the link, or it is closed.
    pub(super) async fn used(&self) {
        self.until(|state| state.wanted || state.interrupt == Some(Interrupt::Closed)).await;
    }

    /// Waits until there is a reason to dial before the pause is over.
    pub(super) async fn hurried(&self) {
        self.until(|state| state.hurry || state.interrupt.is_some()).await;
    }

    /// Waits until an attempt need not be finished.
    pub(super) async fn interrupted(&self) {
        self.until(|state| state.interrupt.is_some()).await;
    }

    async fn until(&self, is_such: impl Fn(&State) -> bool) {
        while !is_such(&self.state.lock()) {
            self.nudge.notified().await;
        }
    }

    /// Why the connection is to end, if it is.
    pub(super) fn interrupt_reason(&self) -> Option<Interrupt> {
        self.state.lock().interrupt
    }

    /// An attempt begins. Gives the address, or `None` if the link was closed.
    pub(super) fn begin(&self) -> Option<String> {
        let mut state = self.state.lock();
        if state.interrupt == Some(Interrupt::Closed) {
            return None;
        }
        state.interrupt = None;
        state.hurry = false;
        state.enter(Phase::Connecting);
        Some(state.address.clone())
    }

    /// The attempt went well: calls go through from now on.
    pub(super) fn open(&self, member: Arc<Hello>) {
        let mut state = self.state.lock();
        state.calls = Some(Calls::new(self.name(&state.address), self.bytes_max));
        state.member = Some(member);
        state.last_error = None;
        state.refusal = None;
        state.told_unreachable = false;
        state.told_refusal = None;
        state.connects += 1;
        state.enter(Phase::Connected);
        drop(state);
        self.changes.send_replace(());
    }

    /// Works on the calls of the connection.
    pub(super) fn with_calls<T>(&self, work: impl FnOnce(&mut Calls) -> T) -> T {
        work(self.state.lock().calls.as_mut().expect("the task that has the connection asks"))
    }

    /// The connection has ended: so have its calls.
    pub(super) fn end(&self, why: &str) {
        let mut state = self.state.lock();
        let calls = state.calls.take();
        let text = format!("the connection ended: {why}");
        state.last_error = Some(text.clone());
        state.enter(Phase::Waiting);
        drop(state);
        if let Some(calls) = calls {
            calls.end(&text);
        }
        self.changes.send_replace(());
    }

    /// The attempt failed. Says whether the log is to be told: once for each state, not for each attempt.
    pub(super) fn fail(&self, error: String, refusal: Option<Refusal>) -> bool {
        let mut state = self.state.lock();
        let is_news = if refusal.is_some() {
            let is_news = state.told_refusal != refusal;
            state.told_refusal.clone_from(&refusal);
            is_news
        } else {
            !std::mem::replace(&mut state.told_unreachable, true)
        };
        state.last_error = Some(error);
        state.refusal = refusal;
        state.failures += 1;
        state.enter(Phase::Waiting);
        drop(state);
        self.changes.send_replace(());
        is_news
    }

    /// The task is gone: no call goes through any more.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        let calls = state.calls.take();
        state.interrupt = Some(Interrupt::Closed);
        state.enter(Phase::Closed);
        drop(state);
        if let Some(calls) = calls {
            calls.end(Interrupt::Closed.why());
        }
        self.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::peer::Reason;

    fn core() -> Core {
        Core::new(Target::Node(2), Lane::Pulse, "nowhere:1".to_owned(), 1000)
    }

    #[test]
    fn a_pause_ends_when_its_member_shows_itself() {
        let core = core();
        core.retry_now();
        assert!(core.used().now_or_never().is_none(), "nobody wants it");
        assert!(core.submit(Bytes::new(), Duration::from_secs(1)).is_err());
        assert!(core.used().now_or_never().is_some());
        assert_eq!(core.begin().as_deref(), Some("nowhere:1"));
        core.retry_now();
        core.fail("refused".to_owned(), None);
        assert!(
            core.hurried().now_or_never().is_none(),
            "a member that was there before the failure is none that came after it"
        );
        core.retry_now();
        assert!(core.hurried().now_or_never().is_some());
        core.begin();
        core.fail("refused".to_owned(), None);
        assert!(core.hurried().now_or_never().is_none(), "once for each time");
    }

    #[test]
    fn the_log_is_told_of_states_and_not_of_attempts() {
        let core = core();
        let fail = |refused: Option<&str>| {
            core.begin();
            core.fail("no".to_owned(), refused.map(|text| Refusal::new(Reason::Group, text)))
        };
        assert!(fail(None));
        assert!(!fail(None));
        assert!(fail(Some("a")) && !fail(Some("a")));
        assert!(!fail(None), "restarts of a member that is refused");
        assert!(!fail(Some("a")) && fail(Some("b")));
        let member = Hello {
            group: String::new(),
            node: 2,
            seat: String::new(),
            incarnation: 1,
            build: String::new(),
            formats: 1..=1,
            feature_level: 1,
        };
        core.open(Arc::new(member));
        core.end("closed");
        assert!(fail(None) && fail(Some("b")));
    }

    #[test]
    fn what_is_closed_stays_closed() {
        let core = core();
        core.interrupt(Interrupt::Closed);
        core.relocate("elsewhere:2");
        assert_eq!((core.interrupt_reason(), core.begin()), (Some(Interrupt::Closed), None));
    }
}
