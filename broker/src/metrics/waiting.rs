//! What a start waits for.

use parking_lot::Mutex;

/// What a broker that does not serve yet waits for, in words. It may wait long for the other members of its group.
#[derive(Debug)]
pub(crate) struct Waiting(Mutex<String>);

impl Default for Waiting {
    fn default() -> Self {
        Self(Mutex::new("the data folder is being opened".to_owned()))
    }
}

impl Waiting {
    /// It waits for this now.
    pub(crate) fn tell(&self, what: String) {
        *self.0.lock() = what;
    }

    /// What it waits for.
    pub(crate) fn what(&self) -> String {
        self.0.lock().clone()
    }
}
