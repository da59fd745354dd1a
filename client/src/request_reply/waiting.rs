//! The requests of a client that wait for their replies, and the replies that brokers push.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PushReplyMessageHeader;
use escrowmq_common::message::properties::{Properties, name};
use escrowmq_common::message::{Message as Unit, SysFlag};
use escrowmq_common::remoting::Connection;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::message::MessageExt;
use crate::queue::MessageQueue;

/// By correlation id. Each entry belongs to a call of `request`, whose producer bounds their number.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_id: Mutex<HashMap<String, oneshot::Sender<Unit>>>,
}

impl Waiting {
    /// Waits for the reply with this correlation id from here on, until the ticket is dropped.
    pub(super) fn wait(&self, correlation_id: String) -> Ticket<'_> {
        let (sender, receiver) = oneshot::channel();
        self.by_id.lock().insert(correlation_id.clone(), sender);
        Ticket { waiting: self, correlation_id, receiver }
    }

    /// Hands a reply over. Answers whether somebody waited for it.
    fn hand_over(&self, correlation_id: &str, reply: Unit) -> bool {
        let waiter = self.by_id.lock().remove(correlation_id);
        waiter.is_some_and(|waiter| waiter.send(reply).is_ok())
    }
}

/// One request's place in the table.
pub(super) struct Ticket<'a> {
    waiting: &'a Waiting,
    correlation_id: String,
    receiver: oneshot::Receiver<Unit>,
}

impl Ticket<'_> {
    /// The reply. Unfolds its body here, not in the connection's task.
    pub(super) async fn reply(&mut self) -> MessageExt {
        match (&mut self.receiver).await {
            Ok(unit) => {
                // A push does not name the broker, so its address stands for it.
                let queue = MessageQueue::new(unit.topic.as_str(), unit.store_host.to_string(), unit.queue_id);
                MessageExt::from_queue(unit, queue)
            }
            // The sender lies in the table until it is used, or the ticket is dropped.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.waiting.by_id.lock().remove(&self.correlation_id);
    }
}

/// A broker pushes a reply. One that nobody waits for is dropped and answered like any other, as other clients do: the
/// request timed out, or it was delivered twice and this is the second reply. An error would have the replier's handler
/// fail, and the request handled once more.
pub(crate) fn arrived(core: &Core, connection: &Arc<Connection>, request: &Frame) {
    let answer = match unit(request) {
        Ok((correlation_id, unit)) => {
            if !core.waiting.hand_over(&correlation_id, unit) {
                tracing::debug!(%correlation_id, "reply dropped: nobody waits for it any more");
            }
            Frame::response(request, response::SUCCESS)
        }
        Err(reason) => {
            tracing::warn!(peer = %connection.peer(), reason, "unreadable reply");
            Frame::response(request, response::SYSTEM_ERROR).with_remark(reason)
        }
    };
    if !request.is_oneway() {
        connection.reply(&answer);
    }
}

/// The correlation id and the reply as a message.
fn unit(request: &Frame) -> Result<(String, Unit), String> {
    let header: PushReplyMessageHeader<'_> = request.header().map_err(|error| error.to_string())?;
    let host = |name: &str, text: &str| {
        text.trim_start_matches('/').parse::<SocketAddr>().map_err(|_| format!("{name} is no address"))
    };
    let properties = header.properties.unwrap_or_default();
    let correlation_id = Properties::new(properties).get(name::CORRELATION_ID).ok_or("it has no correlation id")?;
    let unit = Unit {
        topic: header.topic.to_owned(),
        queue_id: header.queue_id,
        // Where the reply topic keeps it is not told.
        queue_offset: -1,
        position: -1,
        flag: header.flag,
        sys_flag: SysFlag(header.sys_flag),
        body_crc: 0,
        born_timestamp: header.born_timestamp,
        born_host: host("bornHost", header.born_host)?,
        store_timestamp: header.store_timestamp,
        store_host: host("storeHost", header.store_host)?,
        reconsume_times: header.reconsume_times,
        prepared_offset: 0,
        store_size: 0,
        body: request.body.clone(),
        property_text: properties.to_owned(),
    };
    Ok((correlation_id.to_owned(), unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    use escrowmq_common::code::request;

    fn pushed(properties: &str) -> Frame {
        let header = PushReplyMessageHeader {
            producer_group: "PG",
            topic: "C_REPLY_TOPIC",
            default_topic: Some("TBW102"),
            default_topic_queue_nums: 4,
            queue_id: 0,
            sys_flag: 0,
            born_timestamp: 1,
            flag: 7,
            properties: Some(properties),
            reconsume_times: 0,
            unit_mode: false,
            born_host: "127.0.0.1:5",
            store_host: "127.0.0.1:6",
            store_timestamp: 2,
        };
        Frame::request(request::PUSH_REPLY_MESSAGE_TO_CLIENT).with_header(&header).with_body("yes")
    }

    #[tokio::test]
    async fn a_reply_finds_the_request_that_waits_and_no_other() {
        let waiting = Waiting::default();
        let mut ticket = waiting.wait("c1".to_owned());
        let (id, reply) = unit(&pushed("CORRELATION_ID\u{1}c1\u{2}UNIQ_KEY\u{1}u\u{2}")).expect("a reply");
        assert!(!waiting.hand_over("c2", reply.clone()), "nobody waits for c2");
        assert!(waiting.hand_over(&id, reply.clone()));
        assert!(!waiting.hand_over(&id, reply), "the first reply counts");
        let reply = ticket.reply().await;
        assert_eq!((reply.body().as_ref(), reply.message_id().as_str(), reply.flag()), (&b"yes"[..], "u", 7));
        assert_eq!(reply.queue().broker(), "127.0.0.1:6");
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let waiting = Waiting::default();
        drop(waiting.wait("c1".to_owned()));
        assert!(waiting.by_id.lock().is_empty());
    }

    #[test]
    fn a_reply_that_cannot_be_read_is_told() {
        assert!(unit(&pushed("")).expect_err("refused").contains("correlation id"));
        let mut frame = pushed("CORRELATION_ID\u{1}c1\u{2}");
        frame.fields.insert("storeHost", "nowhere");
        assert!(unit(&frame).is_err());
    }
}
