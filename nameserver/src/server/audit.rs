//! The requests that are acts of an administrator, each with the name that the audit gives it.
//!
//! Promises: an act cannot be without its line. It is made where all requests are dispatched, goes along in the request's turn, and is told
//! when that answers (`escrowmq_common::audit`).

use std::sync::Arc;

use escrowmq_common::audit::{Act, Trail};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::Connection;

/// The act that a request is; `None` for one that only reads, or that brokers make for themselves.
fn name_of(code: i32) -> Option<&'static str> {
    Some(match code {
        request::UPDATE_NAMESRV_CONFIG => "change setting",
        request::PUT_KV_CONFIG => "put KV value",
        request::DELETE_KV_CONFIG => "delete KV value",
        request::WIPE_WRITE_PERM_OF_BROKER => "wipe write permission",
        request::ADD_WRITE_PERM_OF_BROKER => "add write permission",
        request::DELETE_TOPIC_IN_NAMESRV => "delete topic",
        request::REGISTER_TOPIC_IN_NAMESRV => "register topic",
        _ => return None,
    })
}

/// The act that this request asks for, if it asks for one.
pub(super) fn act(request: &Frame, connection: &Connection, trail: &Arc<Trail>) -> Option<Act> {
    name_of(request.code).map(|name| Act::new(name, request, connection.peer(), trail))
}

#[cfg(test)]
mod tests {
    use super::super::{order::Way, way};
    use super::*;

    #[test]
    fn whatever_changes_something_is_an_act_or_a_brokers_own() {
        let of_brokers = [
            request::REGISTER_BROKER,
            request::UNREGISTER_BROKER,
            request::BROKER_HEARTBEAT,
            // A question that goes the same way.
            request::QUERY_DATA_VERSION,
        ];
        for (name, code) in request::ALL {
            let changes = matches!(way(*code), Some(Way::Registrar | Way::Kv));
            let is_act = name_of(*code).is_some();
            assert!(!changes || is_act || of_brokers.contains(code), "{name} has no name in audit.rs");
            assert!(!is_act || changes || *code == request::UPDATE_NAMESRV_CONFIG, "{name}");
        }
    }
}
