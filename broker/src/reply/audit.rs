//! One line in the log for each act of an operator: the act, the address it came from, the object, the old and the new value.
//!
//! Promises: a handler cannot leave the line out. Each request code that changes something for an operator is in
//! [`name_of`], and the reply to it writes the line when it is answered, from the fields of the request. A refused act is
//! told with the reason, but no more than 20 a second of other machines. A handler that knows old and new values tells
//! them with [`Reply::audit`](super::Reply::audit) instead. Texts of peers are quoted and cut, so that nobody forges a line.
//!
//! Lines have the target `audit` and the level `info`, so that a filter such as `warn,audit=info` keeps them.

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::LogGate;

/// The target of all lines.
const TARGET: &str = "audit";
/// Lines of acts that were refused to other machines: anybody who reaches the port may ask as often as they like.
static REFUSED: LogGate = LogGate::new(Duration::from_millis(50));
/// Longest text of a peer in a line, in bytes.
const TEXT_MAX: usize = 1024;

/// The operator's act that a request is; `None` for one that only reads, or that clients make all the time.
pub(super) fn name_of(code: i32) -> Option<&'static str> {
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

/// One act that is not answered yet.
#[derive(Debug)]
pub(super) struct Act {
    name: &'static str,
    peer: SocketAddr,
    /// The fields of the request.
    asked: String,
    is_told: AtomicBool,
}

impl Act {
    /// The act that this request asks for, if it asks for one.
    pub(super) fn of(request: &Frame, peer: SocketAddr) -> Option<Self> {
        let name = name_of(request.code)?;
        let mut asked = String::new();
        for (key, value) in &request.fields {
            let _ = write!(asked, "{}{key}={value}", if asked.is_empty() { "" } else { ", " });
            if asked.len() > TEXT_MAX {
                break;
            }
        }
        if !request.body.is_empty() {
            let _ = write!(asked, "{}a body of {} bytes", if asked.is_empty() { "" } else { ", " }, request.body.len());
        }
        Some(Self { name, peer, asked: cut(&asked).to_owned(), is_told: AtomicBool::new(false) })
    }

    /// Writes the line of an act on one object.
    pub(super) fn tell(&self, object: &str, old: &dyn Display, new: &dyn Display) {
        self.is_told.store(true, Ordering::Relaxed);
        let (peer, old, new) = (self.peer.to_string(), old.to_string(), new.to_string());
        tracing::info!(target: TARGET, peer, object = cut(object), old = cut(&old), new = cut(&new), "{}", self.name);
    }

    /// The request was answered. Writes a line unless there was one.
    pub(super) fn answered(&self, code: i32, remark: Option<&str>) {
        let peer = self.peer.to_string();
        let asked = self.asked.as_str();
        if code != response::SUCCESS {
            let is_told = self.peer.ip().to_canonical().is_loopback() || REFUSED.open().is_some();
            if !is_told {
                return;
            }
            let remark = cut(remark.unwrap_or_default());
            tracing::info!(target: TARGET, peer, asked, code, remark, "{}: refused", self.name);
        } else if !self.is_told.load(Ordering::Relaxed) {
            tracing::info!(target: TARGET, peer, asked, "{}", self.name);
        }
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_says_what_was_asked_for_and_no_more_than_a_line_holds() {
        let peer = "127.0.0.1:5".parse().unwrap();
        let request = Frame::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "T").with_body("12345");
        let act = Act::of(&request, peer).unwrap();
        assert_eq!((act.name, act.asked.as_str()), ("delete topic", "topic=T, a body of 5 bytes"));
        let long = Frame::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "ä".repeat(70_000));
        assert!(Act::of(&long, peer).unwrap().asked.len() <= TEXT_MAX);
        assert!(Act::of(&Frame::request(request::GET_BROKER_CONFIG), peer).is_none());
    }

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
