//! The judges against a search that tries every order, against faults by name, and against large histories.

mod agreement;
mod faults;
mod large;
mod random;
mod reference;

use super::*;
use crate::history::Ending;

fn operation<W>(client: u32, called: u64, returned: u64, what: W) -> Operation<W> {
    Operation { client, called, returned, what }
}

fn send(value: u64, outcome: Sent) -> Append {
    Append::Send { queue: 0, value, outcome }
}

fn stored(value: u64, offset: u64) -> Append {
    send(value, Sent::Stored(offset))
}

fn saw(offset: u64, value: u64) -> Append {
    Append::Pull { queue: 0, offset, found: Found::Value(value) }
}

fn nothing(offset: u64, end: u64) -> Append {
    Append::Pull { queue: 0, offset, found: Found::Nothing { end } }
}

fn decide(ending: Ending, answer: Answer) -> Decision {
    Decision::Decide { half: 0, ending, answer }
}

fn see(is_visible: bool) -> Decision {
    Decision::See { half: 0, is_visible }
}

/// One operation after the other: the first from 0 to 5, the second from 10 to 15, and so on.
fn in_turn<W>(all: impl IntoIterator<Item = W>) -> Vec<Operation<W>> {
    (0..).zip(all).map(|(at, what)| operation(0, at * 10, at * 10 + 5, what)).collect()
}
