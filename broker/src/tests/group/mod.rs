//! Three whole brokers that are one group: what clients and tools see of its settings, its feature level, and its members' ends.

mod levels;
mod settings;
mod stopping;
mod support;
