//! Which handler serves which request code: the one table.
//!
//! A code that is not here is answered as not supported. `QUERY_ASSIGNMENT` is among those: the queues of a topic can be shared
//! out only by somebody who knows those of all brokers, and clients that get this answer share them among themselves.

use std::sync::Arc;

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;

use super::{
    admin, backup, end_transaction, give_up, groups, halves, lag, locks, members, membership, messages, offsets, pull,
    recall, relay, replication, reset, runtime, send, send_back, settings, stats, topics,
};
use crate::broker::Broker;
use crate::reply::{Reply, RequestTimes};

/// Handles a request: answers it, now or later.
pub(super) type Handler = fn(&Arc<Broker>, Frame, Reply);

/// The handler of a request code; `None` for one that is not served.
pub(super) fn handler(code: i32) -> Option<Handler> {
    Some(match code {
        // Messages.
        request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => send::handle,
        request::SEND_REPLY_MESSAGE | request::SEND_REPLY_MESSAGE_V2 => send::handle_reply,
        request::CONSUMER_SEND_MSG_BACK => send_back::handle,
        request::RECALL_MESSAGE => recall::handle,
        request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => pull::handle,
        request::VIEW_MESSAGE_BY_ID => messages::view,
        request::QUERY_MESSAGE => messages::query,
        // Transactions.
        request::END_TRANSACTION => end_transaction::end,
        request::RESUME_CHECK_HALF_MESSAGE => end_transaction::resume,
        request::LIST_TRANSACTIONS => halves::list,
        request::GET_TRANSACTION => halves::get,
        request::COUNT_TRANSACTIONS => halves::count,
        request::DECIDE_TRANSACTION => halves::decide,
        // Clients and their offsets.
        request::HEART_BEAT => membership::heartbeat,
        request::UNREGISTER_CLIENT => membership::unregister,
        request::GET_CONSUMER_LIST_BY_GROUP => membership::consumer_ids,
        request::CHECK_CLIENT_CONFIG => membership::check,
        request::LOCK_BATCH_MQ => locks::lock,
        request::UNLOCK_BATCH_MQ => locks::unlock,
        request::QUERY_CONSUMER_OFFSET => offsets::query,
        request::UPDATE_CONSUMER_OFFSET => offsets::update,
        request::GET_MAX_OFFSET => offsets::max,
        request::GET_MIN_OFFSET => offsets::min,
        request::SEARCH_OFFSET_BY_TIMESTAMP => offsets::search,
        request::GET_EARLIEST_MSG_STORETIME => offsets::earliest,
        // Topics and groups.
        request::UPDATE_AND_CREATE_TOPIC => topics::create,
        request::UPDATE_AND_CREATE_TOPIC_LIST => topics::create_list,
        request::DELETE_TOPIC_IN_BROKER => topics::delete,
        request::GET_TOPIC_CONFIG => topics::show,
        request::GET_ALL_TOPIC_CONFIG => topics::show_all,
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => groups::create,
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => groups::create_list,
        request::DELETE_SUBSCRIPTIONGROUP => groups::delete,
        request::GET_SUBSCRIPTIONGROUP_CONFIG => groups::show,
        request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => groups::show_all,
        // The broker.
        request::UPDATE_BROKER_CONFIG => settings::update,
        request::GET_BROKER_CONFIG => settings::show,
        request::GET_BROKER_RUNTIME_INFO => runtime::handle,
        request::GIVE_UP_LOG => give_up::handle,
        request::PREPARE_BACKUP => backup::prepare,
        request::RENEW_BACKUP => backup::renew,
        request::RELEASE_BACKUP => backup::release,
        request::GET_MEMBERS => members::show,
        request::ADD_MEMBER => members::add,
        request::PROMOTE_MEMBER => members::promote,
        request::REMOVE_MEMBER => members::remove,
        request::TRANSFER_LEADER => members::transfer,
        request::GET_BROKER_HA_STATUS => replication::status,
        request::GET_BROKER_EPOCH_CACHE => replication::epochs,
        request::VIEW_BROKER_STATS_DATA => admin::figures,
        request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => admin::system_topics,
        request::CLEAN_EXPIRED_CONSUMEQUEUE
        | request::CLEAN_UNUSED_TOPIC
        | request::DELETE_EXPIRED_COMMITLOG
        | request::TRIGGER_DELETE_FILES => admin::clean,
        // Consumers, as tools see them.
        request::INVOKE_BROKER_TO_RESET_OFFSET => reset::handle,
        request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => relay::consumer_status,
        request::GET_CONSUMER_RUNNING_INFO => relay::running_info,
        request::CONSUME_MESSAGE_DIRECTLY => relay::consume_directly,
        request::GET_TOPIC_STATS_INFO => stats::topic_stats,
        request::GET_CONSUME_STATS => stats::consume_stats,
        request::GET_CONSUMER_CONNECTION_LIST => stats::consumer_connections,
        request::GET_PRODUCER_CONNECTION_LIST => stats::producer_connections,
        request::QUERY_TOPIC_CONSUME_BY_WHO => stats::groups_of_topic,
        request::QUERY_TOPICS_BY_CONSUMER => stats::topics_of_group,
        request::QUERY_SUBSCRIPTION_BY_CONSUMER => stats::subscription_of_group,
        request::GET_ALL_PRODUCER_INFO => stats::all_producers,
        request::QUERY_CONSUME_TIME_SPAN => lag::time_spans,
        request::GET_BROKER_CONSUME_STATS => lag::of_all,
        request::GET_ALL_CONSUMER_OFFSET => admin::all_offsets,
        request::GET_ALL_DELAY_OFFSET => admin::delay_offsets,
        request::CLONE_GROUP_OFFSET => admin::clone_offsets,
        request::QUERY_CORRECTION_OFFSET => admin::correction,
        request::QUERY_CONSUME_QUEUE => admin::queue_entries,
        request::UPDATE_AND_GET_GROUP_FORBIDDEN => admin::forbidden,
        _ => return None,
    })
}

/// Where the times of requests are counted: by code, for those that are served.
pub(crate) fn request_times() -> RequestTimes {
    RequestTimes::new(request::ALL.iter().copied().filter(|(_, code)| handler(*code).is_some()))
}

/// Whether any member carries this out by itself: it is about that member, or needs nothing of the group's state. Codes that
/// nobody serves are among these.
pub(super) fn is_of_any_member(code: i32) -> bool {
    handler(code).is_none()
        || matches!(
            code,
            request::CHECK_CLIENT_CONFIG
                | request::UPDATE_BROKER_CONFIG
                | request::GET_BROKER_CONFIG
                | request::GET_BROKER_RUNTIME_INFO
                | request::PREPARE_BACKUP
                | request::RENEW_BACKUP
                | request::RELEASE_BACKUP
                | request::GET_MEMBERS
                | request::GET_BROKER_HA_STATUS
                | request::GET_BROKER_EPOCH_CACHE
                | request::VIEW_BROKER_STATS_DATA
        )
}

/// Whether a request brings a message, or several, in its body.
pub(super) fn is_send(code: i32) -> bool {
    matches!(
        code,
        request::SEND_MESSAGE
            | request::SEND_MESSAGE_V2
            | request::SEND_BATCH_MESSAGE
            | request::SEND_REPLY_MESSAGE
            | request::SEND_REPLY_MESSAGE_V2
    )
}

/// Whether a handler parses the body, which is JSON or text. Sends have their own form, which is cheap to read; other requests
/// have no body.
pub(super) fn parses_body(code: i32) -> bool {
    matches!(
        code,
        request::HEART_BEAT
            | request::CHECK_CLIENT_CONFIG
            | request::LOCK_BATCH_MQ
            | request::UNLOCK_BATCH_MQ
            | request::UPDATE_AND_CREATE_TOPIC_LIST
            | request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP
            | request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST
            | request::UPDATE_BROKER_CONFIG
    )
}

/// Whether a request is a decision or an acknowledgement, which frees what others hold.
pub(super) fn is_vital(code: i32) -> bool {
    matches!(
        code,
        request::END_TRANSACTION
            | request::UPDATE_CONSUMER_OFFSET
            | request::CONSUMER_SEND_MSG_BACK
            | request::HEART_BEAT
            | request::UNREGISTER_CLIENT
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes for nameservers and clients, for pop, for replicas, and some that nobody sends any more.
    const UNSERVED: &[&str] = &[
        "QUERY_BROKER_OFFSET",
        "CHECK_TRANSACTION_STATE",
        "NOTIFY_CONSUMER_IDS_CHANGED",
        "GET_CLIENT_CONFIG",
        "GET_TIMER_CHECK_POINT",
        "PUT_KV_CONFIG",
        "GET_KV_CONFIG",
        "DELETE_KV_CONFIG",
        "REGISTER_BROKER",
        "UNREGISTER_BROKER",
        "GET_ROUTEINFO_BY_TOPIC",
        "GET_BROKER_CLUSTER_INFO",
        "WIPE_WRITE_PERM_OF_BROKER",
        "GET_ALL_TOPIC_LIST_FROM_NAMESERVER",
        "DELETE_TOPIC_IN_NAMESRV",
        "REGISTER_TOPIC_IN_NAMESRV",
        "GET_KVLIST_BY_NAMESPACE",
        "RESET_CONSUMER_CLIENT_OFFSET",
        "GET_CONSUMER_STATUS_FROM_CLIENT",
        "GET_TOPICS_BY_CLUSTER",
        "GET_SYSTEM_TOPIC_LIST_FROM_NS",
        "GET_UNIT_TOPIC_LIST",
        "GET_HAS_UNIT_SUB_TOPIC_LIST",
        "GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST",
        "UPDATE_NAMESRV_CONFIG",
        "GET_NAMESRV_CONFIG",
        "QUERY_DATA_VERSION",
        "PUSH_REPLY_MESSAGE_TO_CLIENT",
        "ADD_WRITE_PERM_OF_BROKER",
        "QUERY_ASSIGNMENT",
        "SET_MESSAGE_REQUEST_MODE",
        "GET_ALL_MESSAGE_REQUEST_MODE",
        "UPDATE_AND_CREATE_STATIC_TOPIC",
        "GET_BROKER_MEMBER_GROUP",
        "BROKER_HEARTBEAT",
        "NOTIFY_MIN_BROKER_ID_CHANGE",
        "EXCHANGE_BROKER_HA_INFO",
        "RESET_MASTER_FLUSH_OFFSET",
        "POP_MESSAGE",
        "ACK_MESSAGE",
        "PEEK_MESSAGE",
        "CHANGE_MESSAGE_INVISIBLETIME",
        "NOTIFICATION",
        "POLLING_INFO",
        "POP_ROLLBACK",
        "BATCH_ACK_MESSAGE",
    ];

    #[test]
    fn every_code_has_a_handler_or_is_known_to_have_none() {
        let unserved: Vec<&str> =
            request::ALL.iter().filter(|(_, code)| handler(*code).is_none()).map(|(name, _)| *name).collect();
        assert_eq!(unserved, UNSERVED);
    }

    #[test]
    fn only_served_codes_have_a_body_or_are_vital() {
        for code in -10..40_000 {
            let is_special = is_send(code) || parses_body(code) || is_vital(code);
            assert!(!is_special || handler(code).is_some(), "{code}");
        }
    }
}
