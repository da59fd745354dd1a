//! Room for requests that wait, of which one connection takes no more than its share.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// A connection may take this part of a room: one of eight.
const SHARES: usize = 8;

/// Room for a number of requests that wait for the same thing.
pub(super) struct Room {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// Of each connection, of those that take any.
    by_connection: HashMap<u64, usize>,
}

/// The place of one request. It is free again when this is dropped.
pub(crate) struct Waiting {
    room: Arc<Room>,
    connection: u64,
}

impl Room {
    pub(super) fn new(max: usize) -> Arc<Room> {
        Arc::new(Room { max, taken: Mutex::default() })
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.taken.lock().all
    }

    /// Takes a place for a request of a connection, unless all are taken or the connection has its share.
    pub(super) fn enter(self: &Arc<Room>, connection: u64) -> Option<Waiting> {
        let mut taken = self.taken.lock();
        let share = taken.by_connection.get(&connection).copied().unwrap_or_default();
        if taken.all >= self.max || share >= (self.max / SHARES).max(1) {
            return None;
        }
        taken.all += 1;
        taken.by_connection.insert(connection, share + 1);
        Some(Waiting { room: Arc::clone(self), connection })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.all -= 1;
        if let Some(share) = taken.by_connection.get_mut(&self.connection) {
            *share -= 1;
            if *share == 0 {
                taken.by_connection.remove(&self.connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_a_share_and_all_have_the_room() {
        let room = Room::new(16);
        let one = [room.enter(1).unwrap(), room.enter(1).unwrap()];
        assert!(room.enter(1).is_none(), "it has its share");
        let others: Vec<Waiting> = (2..9).flat_map(|other| [room.enter(other), room.enter(other)]).flatten().collect();
        assert_eq!((others.len(), room.waiting()), (14, 16));
        assert!(room.enter(99).is_none(), "the room is full");
        drop(one);
        assert!(room.enter(1).is_some());
        drop(others);
        assert_eq!(room.waiting(), 0);
        assert!(room.taken.lock().by_connection.is_empty(), "nothing is kept of a connection that does not wait");
    }

    #[test]
    fn the_smallest_room_has_one_place() {
        let room = Room::new(1);
        let one = room.enter(1);
        assert!(one.is_some() && room.enter(2).is_none());
        assert!(Room::new(0).enter(1).is_none());
    }
}
