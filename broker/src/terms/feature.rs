//! Feature levels: what the log of a group may use.
//!
//! A group runs at one level, which its log names. A build speaks all levels up to its own. The level rises when all voters speak a
//! higher one, and never falls. Level 1 is that of logs that name none.

/// The level of this version.
pub(crate) const FEATURE_LEVEL: u32 = 2;
/// The level from which the log has settings of the group.
pub(crate) const SETTINGS_LEVEL: u32 = 2;
/// The level of a log that names none.
pub(crate) const FIRST_LEVEL: u32 = 1;
