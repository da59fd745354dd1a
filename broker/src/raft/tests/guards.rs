//! What openraft leaves to those who use it: see the table in `raft/mod.rs`.
