//! The whole broker over real connections, in this process. These tests look into parts of it, which nobody else may. How it
//! starts and ends as a process is in `broker/tests`.

mod delivery;
mod floors;
mod group;
mod lines;
mod producing;
mod pulse;
pub(crate) mod support;
mod three;
mod tools;
