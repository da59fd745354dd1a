//! When messages become visible.

use crate::terms::Stamp;

/// When a message becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At apply.
    Now,
    /// This many milliseconds after the batch's stamp.
    After(u64),
    /// At this time.
    At(Stamp),
}
