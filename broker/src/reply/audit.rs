//! The requests that are acts of an operator, each with the name that the audit gives it.
//!
//! Promises: a handler cannot leave its line out. Each request code that changes something for an operator is in [`name_of`], and the reply
//! to it writes the line when it is answered (`escrowmq_common::audit`). A handler that knows old and new values tells them with
//! [`Reply::audit`](super::Reply::audit) instead.

use escrowmq_common::code::request;

/// The operator's act that a request is; `None` for one that only reads, or that clients make all the time.
pub(crate) fn name_of(code: i32) -> Option<&'static str> {
    Some(match code {
        request::UPDATE_AND_CREATE_TOPIC | request::UPDATE_AND_CREATE_TOPIC_LIST => "change topic",
        request::UPDATE_AND_CREATE_STATIC_TOPIC => "change static topic",
        request::DELETE_TOPIC_IN_BROKER => "delete topic",
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP | request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => {
            "change group"
        }
        request::DELETE_SUBSCRIPTIONGROUP => "delete group",
        request::UPDATE_AND_GET_GROUP_FORBIDDEN => "forbid group",
        request::SET_MESSAGE_REQUEST_MODE => "change consume mode",
        request::UPDATE_BROKER_CONFIG => "change setting",
        request::INVOKE_BROKER_TO_RESET_OFFSET => "reset offsets",
        request::CLONE_GROUP_OFFSET => "clone offsets",
        request::CLEAN_EXPIRED_CONSUMEQUEUE => "clean expired queues",
        request::CLEAN_UNUSED_TOPIC => "clean unused topics",
        request::TRIGGER_DELETE_FILES | request::DELETE_EXPIRED_COMMITLOG => "delete expired files",
        request::CONSUME_MESSAGE_DIRECTLY => "have a message consumed",
        request::RESUME_CHECK_HALF_MESSAGE => "resume transaction",
        request::DECIDE_TRANSACTION => "decide transaction",
        request::GIVE_UP_LOG => "give up messages of the log",
        request::RESET_MASTER_FLUSH_OFFSET => "reset replication",
        request::PREPARE_BACKUP => "prepare backup",
        request::RELEASE_BACKUP => "release backup",
        request::ADD_MEMBER => "add member",
        request::PROMOTE_MEMBER => "promote member",
        request::REMOVE_MEMBER => "remove member",
        request::TRANSFER_LEADER => "transfer leadership",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_sounds_like_a_change_is_an_act() {
        let words = [
            "UPDATE", "DELETE", "CLEAN", "RESET", "SET", "CLONE", "ADD", "WIPE", "PUT", "DECIDE", "RESUME", "TRIGGER",
            "INVOKE", "PREPARE", "GIVE", "PROMOTE", "REMOVE", "TRANSFER",
        ];
        // Sent by clients all the time, sent to them, only a question, or answered by nameservers.
        let others = [
            "UPDATE_CONSUMER_OFFSET",
            "RESET_CONSUMER_CLIENT_OFFSET",
            "INVOKE_BROKER_TO_GET_CONSUMER_STATUS",
            "PUT_KV_CONFIG",
            "DELETE_KV_CONFIG",
            "DELETE_TOPIC_IN_NAMESRV",
            "UPDATE_NAMESRV_CONFIG",
            "ADD_WRITE_PERM_OF_BROKER",
            "WIPE_WRITE_PERM_OF_BROKER",
        ];
        for (name, code) in request::ALL {
            let is_change = words.contains(&name.split('_').next().unwrap_or_default());
            if is_change && !others.contains(name) {
                assert!(name_of(*code).is_some(), "{name} is in no line of audit.rs");
            }
        }
    }
}
