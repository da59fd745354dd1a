//! The way to the leader, as `forward` needs it.

use std::io;
use std::net::TcpStream;

use futures_util::future::BoxFuture;

/// Opens streams to other members.
pub(crate) trait Way: Send + Sync + 'static {
    /// Opens a stream to the member with this Raft id. Its other end is handed to [`Arrivals`](super::Arrivals) there.
    fn open(&self, member: u64) -> BoxFuture<'static, io::Result<TcpStream>>;
}
