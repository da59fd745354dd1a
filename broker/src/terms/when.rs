//! When messages become visible.

/// When a message becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At apply.
    Now,
    /// This many milliseconds after the batch's stamp.
    After(u64),
    /// At this wall-clock time, in milliseconds since 1970.
    At(u64),
}
