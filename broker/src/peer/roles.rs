//! What other folders bring: who may be a member, and what requests mean.

use std::net::TcpStream;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::hello::{Hello, Lane};
use super::refusal::Refusal;

/// Who may talk to this member.
pub(crate) trait Gate: Send + Sync + 'static {
    /// Decides about a member that is of the same group, has proven it, and reads a format of ours: by its id, seat and
    /// incarnation. Asked by the side that listens and by the side that dials. Called on the thread of all connections:
    /// must not block.
    fn admit(&self, hello: &Hello) -> Result<(), Refusal>;
}

/// What is done with connections of other members that carry something else than requests and answers.
pub(crate) trait Streams: Send + Sync + 'static {
    /// Takes a connection on [`Lane::Forward`]. Called on the thread of all connections: must not block.
    fn take(&self, from: &Hello, stream: TcpStream);
}

/// What is done with requests of other members.
pub(crate) trait Serve: Send + Sync + 'static {
    /// Takes one request. Called in the order in which the other side called, on the thread of all connections: must
    /// not block, nor may the future; long work is handed to other threads.
    ///
    /// Futures of one connection run side by side, and the answers go out as they end. `None` closes the connection. A
    /// future is dropped, wherever it stands, when its connection ends.
    fn serve(&self, from: &Hello, lane: Lane, request: Bytes) -> BoxFuture<'static, Option<Bytes>>;
}
