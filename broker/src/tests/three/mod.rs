//! Three whole brokers of one group: what their pages and their answers to tools say.

mod alarms;
mod support;
mod watching;
