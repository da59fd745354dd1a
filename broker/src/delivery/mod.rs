//! Delivery.

pub mod filter;
