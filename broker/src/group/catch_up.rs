//! The task of a member that lacks entries which are gone from its leader's log: it fetches a copy of the state, and asks for
//! a new start of this broker, which opens it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::task::{Shutdown, Tasks};

use super::care::seat_of;
use super::links::io_error;
use crate::log::LogReader;
use crate::peer::{self, Lane, Peers, Target};
use crate::raft::{Lack, Link, Member};
use crate::shard::Applier;
use crate::snapshot::{Fetch, Progress, SnapshotError};

/// The time for one answer: a leader flushes its index before it offers a copy.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// After a copy that did not come.
const RETRY: Duration = Duration::from_secs(3);

/// See the module.
pub(super) struct CatchUp {
    pub(super) store: PathBuf,
    pub(super) log: LogReader,
    pub(super) peers: Peers,
    pub(super) member: Arc<Member<Applier>>,
    pub(super) tasks: Tasks,
    pub(super) progress: Arc<Progress>,
    /// Told when a whole copy waits for the next start.
    pub(super) fetched: Shutdown,
}

impl CatchUp {
    /// Until there is a copy, or shutdown.
    pub(super) async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.wait() => {}
        }
    }

    async fn wait(self) {
        let mut lacks = self.member.server().lacks();
        // A leader goes on asking as long as this member lacks something.
        while lacks.changed().await.is_ok() {
            let Some(lack) = lacks.borrow_and_update().clone() else { continue };
            match self.fetch(&lack).await {
                Ok(()) => {
                    tracing::info!("a copy of the group's state is here: this member starts again with it");
                    self.fetched.cancel();
                    return;
                }
                Err(SnapshotError::Newer) => {}
                Err(error) => tracing::warn!(%error, "this member lacks entries; it is tried again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn fetch(&self, lack: &Lack) -> Result<(), SnapshotError> {
        let nowhere = || SnapshotError::No(format!("'{}' is not the address of a seat", lack.address));
        let seat = seat_of(&lack.address);
        let link = self.peers.link(&Target::Node(lack.leader), &seat.ok_or_else(nowhere)?.address(), Lane::Fetch);
        let fetch = Fetch {
            link: FetchLink(link),
            store: self.store.clone(),
            log: self.log.clone(),
            tasks: self.tasks.clone(),
            progress: Arc::clone(&self.progress),
        };
        fetch.run().await.map(drop)
    }
}

/// The way to files of another member.
#[derive(Clone)]
struct FetchLink(peer::Link);

impl Link for FetchLink {
    fn call(&self, request: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send + 'static {
        let call = self.0.call(request, ANSWER_TIME);
        async move { call.await.map_err(io_error) }
    }
}
