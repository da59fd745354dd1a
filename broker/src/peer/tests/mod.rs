//! Members over loopback: handshakes good and bad, calls, breaks, bounds.

mod calls;
mod handshakes;
mod limits;
mod links;
mod support;
