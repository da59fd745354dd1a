//! Leadership as an event.

/// Whether this member leads its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// Another member leads, or none: proposals are refused.
    Following,
    /// This member leads, and has applied everything that was committed before its term.
    Leading {
        /// Its term; a later one is another leadership.
        term: u64,
    },
}
