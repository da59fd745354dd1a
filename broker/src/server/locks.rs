//! Requests of the family `locks`.

use std::sync::Arc;

use escrowmq_common::frame::Frame;


use super::Reply;
use crate::broker::Broker;

pub(super) fn handle(_broker: &Arc<Broker>, request: Frame, reply: Reply) {
    reply.unsupported(request.code);
}
