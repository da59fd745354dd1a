//! Topics and groups that are being made: their number, and the requests that wait for them.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::error::CreationError;

/// Called with the result of a creation.
pub(super) type Then = Box<dyn FnOnce(&Result<(), CreationError>) + Send>;

/// Topics, or groups, whose command is on its way.
#[derive(Default)]
pub(super) struct BeingMade {
    pub(super) waiting: HashMap<String, Vec<Then>>,
    /// Those that operators make, for which nobody else waits.
    placed: usize,
    /// Queues of all of them.
    pub(super) queues: u64,
}

impl BeingMade {
    pub(super) fn count(&self) -> usize {
        self.waiting.len() + self.placed
    }

    /// Takes room in the table that `made` guards, which is this one.
    pub(super) fn take<'a>(&mut self, made: &'a Mutex<Self>, count: usize, queues: u64) -> Place<'a> {
        self.placed += count;
        self.queues += queues;
        Place { made, count, queues }
    }
}

/// Room for a topic or a group that an operator makes or changes. It is taken until this is dropped, so that requests beside each
/// other cannot all find the same room.
pub(crate) struct Place<'a> {
    made: &'a Mutex<BeingMade>,
    count: usize,
    queues: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut made = self.made.lock();
        made.placed -= self.count;
        made.queues -= self.queues;
    }
}
