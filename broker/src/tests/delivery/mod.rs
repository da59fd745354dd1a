//! Delivery over real connections: pulls, held pulls, offsets, locks and membership.

mod budgets;
mod figures;
mod hold;
mod locks;
mod lost;
mod membership;
mod offsets;
mod pull;
mod support;
