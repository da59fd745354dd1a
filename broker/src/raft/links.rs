//! The way to other members, as `raft` needs it. `raft` says what is sent; who implements [`Links`] says how.

use std::io;

use bytes::Bytes;

/// Which of a member's connections to another one is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Entries.
    Append,
    /// Votes and heartbeats: small, and never behind entries.
    Pulse,
}

/// Ways to all members.
pub(crate) trait Links: Send + Sync + 'static {
    /// A way to one member.
    type Link: Link;

    /// The way to a member at an address, as its membership has it. Connects when it is used.
    fn link(&self, to: u64, address: &str, lane: Lane) -> Self::Link;
}

/// A way to one member. Clones are the same way.
pub(crate) trait Link: Clone + Send + Sync + 'static {
    /// Sends a request. It is on its way when this returns, behind those that were sent before. The answer comes later, or an
    /// error: [`io::ErrorKind::NotConnected`] if there is no way to the member now; any other says that it may have got the
    /// request.
    fn call(&self, request: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send + 'static;
}

/// The links of a group that has one member: there are none.
#[derive(Clone)]
pub(crate) struct NoLinks;

impl Links for NoLinks {
    type Link = Self;

    fn link(&self, _to: u64, _address: &str, _lane: Lane) -> Self {
        Self
    }
}

impl Link for NoLinks {
    fn call(&self, _request: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send + 'static {
        std::future::ready(Err(io::Error::new(io::ErrorKind::NotConnected, "the group has one member")))
    }
}
