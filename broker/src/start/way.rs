//! The way to other members for requests of clients.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::forward::Way;
use crate::group::Group;

struct ToMembers(Group);

impl Way for ToMembers {
    fn open(&self, member: u64) -> BoxFuture<'static, io::Result<TcpStream>> {
        let opened = self.0.stream(member);
        Box::pin(async move {
            let no_member = || io::Error::new(io::ErrorKind::NotFound, "the leader is no member that is known here");
            opened.ok_or_else(no_member)?.await.map_err(io::Error::other)
        })
    }
}

/// None for a broker that is alone.
pub(super) fn to_members(group: &Group) -> Option<Arc<dyn Way>> {
    (!group.is_alone()).then(|| Arc::new(ToMembers(group.clone())) as Arc<dyn Way>)
}
