//! Three whole brokers of one group: what their pages and their answers to tools say, and what becomes of held pulls.

mod alarms;
mod holding;
mod support;
mod watching;
