//! Backups of a running broker, asked for by a tool on the same machine.
//!
//! The broker does not know who asks: everybody who reaches the port could fill the disk with backups that nobody
//! copies. So only connections from this machine may ask, and one backup is prepared at a time.

use std::sync::Arc;

use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PreparedBackupHeader;
use escrowmq_common::remoting::Connection;

use super::{local, slow};
use crate::backup::prepare::{LEASE, PrepareError};
use crate::broker::Broker;
use crate::reply::Reply;
use crate::terms::Stamp;

pub(super) fn handle(broker: &Arc<Broker>, connection: &Arc<Connection>, request: Frame, reply: Reply) {
    if !local::is_local(connection) {
        return local::refuse(reply, "backups are made");
    }
    match request.code {
        request::PREPARE_BACKUP => {
            let theirs = Arc::clone(broker);
            broker.tasks.spawn("prepare backup", async move {
                // So that the backup has what consumers confirmed until now.
                theirs.delivery.flush_offsets().await;
                slow::run(&theirs, "prepare backup", reply, prepare);
            });
        }
        _ => slow::run(broker, "prepared backup", reply, move |broker, reply| {
            let id = match request.header() {
                Ok(PreparedBackupHeader { backup_id }) => backup_id.unwrap_or_default(),
                Err(error) => return reply.refuse(error),
            };
            let done = match request.code {
                request::RENEW_BACKUP => broker.backups.renew(id),
                _ => broker.backups.release(id),
            };
            match done {
                Ok(()) => reply.ok(),
                Err(error) => refuse(reply, &error),
            }
        }),
    }
}

fn prepare(broker: &Arc<Broker>, reply: Reply) {
    let prepared = match broker.backups.prepare(&broker.shard, Stamp(clock::wall_ms().unsigned_abs())) {
        Ok(prepared) => prepared,
        Err(error) => return refuse(reply, &error),
    };
    tracing::info!(id = prepared.id, applied = %prepared.applied, end = prepared.log_end, "a backup is prepared");
    let theirs = Arc::clone(broker);
    broker.tasks.spawn("backup lease", async move {
        loop {
            tokio::select! {
                () = theirs.shutdown.cancelled() => return,
                () = tokio::time::sleep(LEASE / 4) => {}
            }
            let again = Arc::clone(&theirs);
            let looked = theirs.tasks.spawn_blocking("backup lease", move || again.backups.expire(clock::monotonic()));
            if !matches!(looked.await, Ok(Some(true))) {
                return;
            }
        }
    });
    match serde_json::to_vec(&prepared) {
        Ok(body) => reply.body(&body),
        Err(error) => reply.error(response::SYSTEM_ERROR, &error.to_string()),
    }
}

fn refuse(reply: Reply, error: &PrepareError) {
    tracing::warn!(%error, "a backup was asked for in vain");
    reply.error(response::SYSTEM_ERROR, &error.to_string());
}
