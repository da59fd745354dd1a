//! Backups of a running broker, asked for by a tool on the same machine.
//!
//! The broker does not know who asks: everybody who reaches the port could fill the disk with backups that nobody
//! copies. So only connections from this machine may ask, and one backup is prepared at a time.

use std::sync::Arc;

use escrowmq_common::clock;
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PreparedBackupHeader;
use escrowmq_common::some_lines;

use super::{local, slow};
use crate::backup::prepare::{Backups, LEASE, PrepareError};
use crate::broker::Broker;
use crate::reply::Reply;
use crate::terms::Stamp;

/// The beginning of the sentence that refuses requests from elsewhere.
const LOCAL_ONLY: &str = "backups are made";

pub(super) fn prepare(broker: &Arc<Broker>, _request: Frame, reply: Reply) {
    if !local::is_local(reply.connection()) {
        return local::refuse(reply, LOCAL_ONLY);
    }
    let theirs = Arc::clone(broker);
    broker.tasks.spawn("prepare backup", async move {
        // So that the backup has what consumers confirmed until now.
        theirs.delivery.flush_offsets().await;
        slow::run(&theirs, "prepare backup", reply, prepare_now);
    });
}

pub(super) fn renew(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    with_prepared(broker, request, reply, Backups::renew);
}

pub(super) fn release(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    with_prepared(broker, request, reply, Backups::release);
}

/// Does something with the backup that a request names.
fn with_prepared(
    broker: &Arc<Broker>,
    request: Frame,
    reply: Reply,
    act: fn(&Backups, &str) -> Result<(), PrepareError>,
) {
    if !local::is_local(reply.connection()) {
        return local::refuse(reply, LOCAL_ONLY);
    }
    slow::run(broker, "prepared backup", reply, move |broker, reply| {
        let id = match request.header() {
            Ok(PreparedBackupHeader { backup_id }) => backup_id.unwrap_or_default(),
            Err(error) => return reply.refuse(error),
        };
        match act(&broker.backups, id) {
            Ok(()) => reply.ok(),
            Err(error) => refuse(reply, &error),
        }
    });
}

fn prepare_now(broker: &Arc<Broker>, reply: Reply) {
    let prepared = match broker.backups.prepare(&broker.shard, Stamp(clock::wall_ms().unsigned_abs())) {
        Ok(prepared) => prepared,
        Err(error) => return refuse(reply, &error),
    };
    tracing::info!(id = prepared.id, applied = %prepared.applied, end = %prepared.log_end, "a backup is prepared");
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
    some_lines!(warn, %error, "a backup was asked for in vain");
    reply.error(response::SYSTEM_ERROR, &error.to_string());
}
