//! The engine tried: stories that a reader can follow, and random steps judged by a model.
//!
//! Both run on a [`world`] of maps, with the real rounds of the engine and the real life of a half (`shard::apply::life`).

mod model;
mod random;
mod script;
mod world;

pub(super) use world::half_row;
