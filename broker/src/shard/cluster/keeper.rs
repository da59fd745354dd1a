//! The keeper of a simulated node: it cares for the members of the group as a broker's does (`group/keeper.rs`). What it decides and
//! does is the product's own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::net::{Seat, address};
use crate::config::Seats;
use crate::group::Carer;
use crate::storage::Storage;

/// Between looks, as in a broker.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// A request to a keeper.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    /// This member has lost its folder and asks for its seat again.
    Take(u64, Seat),
    /// An operator lets a seat go.
    Remove(Seat),
    /// An operator takes this member in.
    Add(u64, Seat),
}

/// See the module. It ends with the tasks of its shard.
pub(super) struct Keeper {
    wishes: mpsc::Sender<Wish>,
}

impl Keeper {
    /// Sets it up on a shard that has started, for one of the members at these addresses.
    pub(super) fn open(storage: &Storage, own: u64, seat: Seat, addresses: &[String]) -> Self {
        let seats: Seats = addresses.join(";").parse().expect("seats");
        let (executor, member) = (storage.shard.executor().clone(), Arc::clone(storage.member()));
        let (wishes, mut wished) = mpsc::channel(1);
        let (timer, mut members) = (executor.clone(), member.members());
        drop(executor.spawn(async move {
            let own_seat = at(seat);
            let carer = Carer { own, own_seat: &own_seat, seats: &seats, member: &member };
            loop {
                carer.care().await;
                tokio::select! {
                    biased;
                    Some(wish) = wished.recv() => grant(&carer, wish).await,
                    changed = members.changed() => if changed.is_err() { return },
                    () = timer.sleep(LOOKS_EVERY) => {}
                }
            }
        }));
        Self { wishes }
    }

    /// Asks for something. Whether it was done the membership says; if not, it is asked for again.
    pub(super) fn ask(&self, wish: Wish) {
        // The one before may wait still.
        let _ = self.wishes.try_send(wish);
    }
}

async fn grant(carer: &Carer<'_>, wish: Wish) {
    // Why not is the leader's to know: the wish comes again.
    match wish {
        Wish::Take(node, seat) => drop(carer.take(node, &at(seat), &address(seat), &[]).await),
        Wish::Remove(seat) => drop(carer.remove(&at(seat).name).await),
        Wish::Add(node, seat) => drop(carer.add(node, &at(seat)).await),
    }
}

/// A seat as the product has it.
fn at(seat: Seat) -> crate::config::Seat {
    address(seat).parse().expect("a seat")
}
