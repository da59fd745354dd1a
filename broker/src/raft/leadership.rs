//! Leadership as an event.

/// Who leads the group, as this member knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// Another member leads, or none: proposals are refused here.
    Following {
        /// The newest term that this member knows.
        term: u64,
        /// The Raft id of the leader of that term; none while there is no leader, or before this member heard from it.
        leader: Option<u64>,
    },
    /// This member leads, and has applied everything that was committed before its term.
    Leading {
        /// Its term; a later one is another leadership.
        term: u64,
    },
}

impl Leadership {
    /// The term.
    pub(crate) fn term(self) -> u64 {
        match self {
            Self::Following { term, .. } | Self::Leading { term } => term,
        }
    }

    /// The term in which this member leads.
    pub(crate) fn led(self) -> Option<u64> {
        match self {
            Self::Leading { term } => Some(term),
            Self::Following { .. } => None,
        }
    }
}
