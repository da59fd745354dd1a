//! Carries out a round: makes the checks, submits what is recorded, then writes the checks to their connections.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use escrowmq_common::frame::Frame;
use escrowmq_common::message::UnitError;
use escrowmq_common::remoting::CallError;
use escrowmq_common::some_lines;
use tokio::sync::oneshot;

use super::Runner;
use super::tables::{Contact, Tables};
use crate::index::HalfRow;
use crate::shard::{Admission, Checked, CheckedHalf, Command, Extend, Outcome, Park, ReadError, Resume, SubmitError};
use crate::terms::{HalfId, ParkReason, Stamp};
use crate::transaction::check::check_request;
use crate::transaction::round::{Ask, Resumption, Round, View as _};

type Awaited = oneshot::Receiver<Result<Outcome, SubmitError>>;

/// A round whose commands are on their way.
pub(super) struct Carried {
    /// When something is due next.
    pub(super) next: Option<Stamp>,
    /// More is due now.
    pub(super) more: bool,
    /// Something could not be read: the part that was read stands, the rest is tried again.
    pub(super) unread: bool,
    /// Something was refused.
    failed: bool,
    commands: Vec<Awaited>,
    /// Halves that are due as soon as their command is applied, with their groups.
    returned: Vec<(HalfId, Option<Arc<str>>, Awaited)>,
}

impl Carried {
    /// A round that came to nothing.
    pub(super) fn failed() -> Self {
        Self { next: None, more: false, unread: false, failed: true, commands: Vec::new(), returned: Vec::new() }
    }

    /// Waits until everything is applied; says whether it was.
    pub(super) async fn wait(self, runner: &Runner) -> bool {
        let mut done = !self.failed;
        for command in self.commands {
            done &= is_applied(command).await;
        }
        for (half, group, command) in self.returned {
            if is_applied(command).await {
                runner.transactions.look_again(half);
            } else {
                done = false;
                if let Some(group) = group {
                    runner.transactions.scheduler.lock().joined(group);
                }
            }
        }
        done
    }

    fn submit(&mut self, runner: &Runner, command: &Command<'_>) -> bool {
        let awaited = submit(runner, command);
        let taken = awaited.is_some();
        self.commands.extend(awaited);
        self.failed |= !taken;
        taken
    }
}

async fn is_applied(command: Awaited) -> bool {
    match command.await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "check-back: a command was not applied; looking again");
            false
        }
        Err(_) => false,
    }
}

/// Gives a command its place in the log, or says that it was not taken.
fn submit(runner: &Runner, command: &Command<'_>) -> Option<Awaited> {
    let (sender, receiver) = oneshot::channel();
    let completion = Box::new(move |outcome| {
        // The waiting side may have gone; the command happens all the same.
        let _ = sender.send(outcome);
    });
    match runner.shard.submit(command, Admission::Reserved, completion) {
        Ok(()) => Some(receiver),
        Err((error, _)) => {
            tracing::warn!(%error, "check-back: a command was not taken; trying again");
            None
        }
    }
}

/// A check that is ready to be written.
struct Ready {
    ask: Ask,
    instance: Contact,
    frame: Frame,
}

/// Why no check can be made of a half.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Encode(#[from] UnitError),
    #[error("the broker failed on it; the log has the panic and its place")]
    Panicked,
}

impl Unfit {
    /// Whether another try may go better: the disk may answer the next time, but wrong bytes stay wrong.
    fn may_pass(&self) -> bool {
        match self {
            Self::Read(error) => error.is_retryable(),
            Self::Encode(_) | Self::Panicked => false,
        }
    }
}

/// Carries out a round. `record` is whether it goes into the log how far first checks have come.
pub(super) fn out(
    runner: &Runner,
    tables: &Tables<'_>,
    mut round: Round,
    record: bool,
    now: Stamp,
    unread: bool,
) -> Carried {
    let mut carried = Carried { next: round.next, more: round.more, unread, failed: false, ..Carried::failed() };
    let ready = make_checks(runner, tables, &mut round);
    for (half, reason) in round.parked {
        park(runner, &mut carried, half, reason);
    }
    for Resumption { half, group } in round.resumptions {
        let command = Command::Resume(Resume { half, by: "", why: "", only_if: Some(ParkReason::NoChecker) });
        if let Some(awaited) = submit(runner, &command) {
            carried.returned.push((half, Some(group), awaited));
        } else {
            carried.failed = true;
            tables.with(|scheduler| scheduler.joined(group));
        }
    }
    if ready.is_empty() && !record {
        return carried;
    }
    // Last, because a start looks for first checks only after the half that this records. A half that is to be parked must be
    // parked by then, or it would be looked at again.
    let known = runner.shard.counters().first_checked();
    let first_checked_upto = Some(if carried.failed { known } else { round.first_checked.max(known) });
    let moved = round.moved.iter();
    let moved =
        moved.map(|(half, next_due)| CheckedHalf { half: *half, next_due: *next_due, counts: false, asked: "" });
    let asked = ready.iter().map(|ready| CheckedHalf {
        half: ready.ask.row.half,
        next_due: ready.ask.next_due,
        counts: true,
        asked: &ready.instance.client,
    });
    let halves = moved.chain(asked).collect();
    if carried.submit(runner, &Command::Checked(Checked { first_checked_upto, halves })) {
        for ready in ready {
            send(runner, tables, &mut carried, ready, now);
        }
    } else {
        tables.with(|scheduler| {
            for ready in &ready {
                scheduler.not_sent(ready.ask.connection, ready.ask.row.half);
            }
        });
    }
    carried
}

fn park(runner: &Runner, carried: &mut Carried, half: HalfId, reason: ParkReason) {
    if reason == ParkReason::TopicDeleted {
        // There may be as many as the topic had open, and the operator who deleted it was told.
        tracing::debug!(%half, "half message parked: its topic was deleted");
    } else {
        some_lines!(warn, event = "half_parked", %half, reason = reason.name(), "half message parked: it waits for an operator or its producers");
    }
    carried.submit(runner, &Command::Park(Park { half, reason, by: "", why: "" }));
}

/// Makes the checks. A half of which none can be made is moved or parked instead, and the others go on.
fn make_checks(runner: &Runner, tables: &Tables<'_>, round: &mut Round) -> Vec<Ready> {
    let mut all = Vec::with_capacity(round.asks.len());
    for ask in std::mem::take(&mut round.asks) {
        let half = ask.row.half;
        let made = catch_unwind(AssertUnwindSafe(|| make_check(runner, &ask)));
        match made.unwrap_or(Err(Unfit::Panicked)) {
            Ok(frame) => {
                let instance = tables.contact(ask.connection).expect("a round asks whom it has looked up");
                all.push(Ready { ask, instance, frame });
            }
            Err(unfit) => {
                tables.with(|scheduler| scheduler.not_sent(ask.connection, half));
                some_lines!(error, %half, error = %unfit, "check-back: no check can be made of the half message");
                if unfit.may_pass() {
                    round.moved.push((half, ask.next_due));
                } else {
                    round.parked.push((half, ParkReason::Unreadable));
                }
            }
        }
    }
    all
}

fn make_check(runner: &Runner, ask: &Ask) -> Result<Frame, Unfit> {
    let mut unit = BytesMut::with_capacity(ask.row.length as usize);
    runner.shard.half_unit(&ask.row, &mut unit)?;
    let name = &runner.config.load().broker_name;
    Ok(check_request(&ask.row, &unit, ask.number, runner.store_host, name)?)
}

/// Writes a check to its connection, which is recorded already; else to another instance; else takes the attempt back.
fn send(runner: &Runner, tables: &Tables<'_>, carried: &mut Carried, ready: Ready, now: Stamp) {
    let Ready { ask, mut instance, frame } = ready;
    let half = ask.row.half;
    if !runner.may_ask() {
        // The round took longer than the lease. The attempt is used up, if what was submitted comes to be applied.
        return tables.with(|scheduler| scheduler.not_sent(ask.connection, half));
    }
    loop {
        let failed = instance.connection.id();
        match instance.connection.send_oneway(frame.clone()) {
            Ok(()) => {
                runner.transactions.checks_sent.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(CallError::Frame(error)) => {
                some_lines!(error, %half, %error, "check-back: no check can be made of the half message");
                tables.with(|scheduler| scheduler.not_sent(failed, half));
                return park(runner, carried, half, ParkReason::Unreadable);
            }
            Err(error) => tracing::debug!(%half, %error, "check-back: not sent; asking another instance"),
        }
        let instances = tables.instances(&ask.row.group);
        let next = tables.with(|scheduler| scheduler.elsewhere(&ask.row, failed, &instances, now));
        let Some(next) = next.and_then(|connection| tables.contact(connection)) else {
            return take_back(runner, carried, &ask, now);
        };
        instance = next;
        // The instance that is asked now is recorded first, as for the first one.
        let asked = CheckedHalf { half, next_due: ask.next_due, counts: false, asked: &instance.client };
        if !carried.submit(runner, &Command::Checked(Checked { first_checked_upto: None, halves: vec![asked] })) {
            tables.with(|scheduler| scheduler.not_sent(instance.connection.id(), half));
            return;
        }
    }
}

/// Nobody was asked: the half is due at once, and the attempt that was recorded is not used up.
fn take_back(runner: &Runner, carried: &mut Carried, ask: &Ask, now: Stamp) {
    let HalfRow { half, counter, group, .. } = &ask.row;
    let command = Command::Extend(Extend { half: *half, counter: *counter, group, until: now, is_answer: true });
    match submit(runner, &command) {
        Some(awaited) => carried.returned.push((*half, None, awaited)),
        None => carried.failed = true,
    }
}
