//! Requests of the family `pull`.

use std::sync::Arc;

use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::Connection;

use super::Reply;
use crate::broker::Broker;

pub(super) fn handle(_broker: &Arc<Broker>, _connection: &Arc<Connection>, request: Frame, reply: Reply) {
    reply.unsupported(request.code);
}
