//! Tests of the log and the state machine as openraft sees them, and of what openraft must be kept from.

mod guards;
mod stand;
mod suite;
