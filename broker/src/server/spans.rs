//! What a request's span says, and whose child it is.
//!
//! A send has the properties of its message with it. A decision and a message that is sent back name a message that is stored: its
//! context counts, if it is still in memory. Nothing is read from a file for a span.

use std::sync::Arc;

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::EndTransactionHeader;
use escrowmq_common::message::{MessageUnit, Properties};
use escrowmq_common::remoting::Connection;

use super::dispatch;
use crate::broker::Broker;
use crate::spans::{About, Begun, Parent, shortened};
use crate::terms::Position;

/// The span of a request that came just now; none if it is not recorded, or spans are not exported at all.
pub(super) fn begin(broker: &Broker, connection: &Connection, request: &Frame) -> Option<Arc<Begun>> {
    let spans = broker.spans.as_ref()?;
    let is_send = dispatch::is_send(request.code);
    let stored = stored_at(request).and_then(|position| broker.shard.hint_at(position));
    let stored = stored.as_deref().and_then(|unit| MessageUnit::decode(unit).ok());
    let parent = match &stored {
        Some(unit) => Parent::of(|name| unit.property(name)),
        None if is_send => {
            let properties = Properties::new(field(request, &["i", "properties"]).unwrap_or_default());
            Parent::of(|name| properties.get(name))
        }
        None => None,
    };
    spans.begin(request.code, parent, || {
        let text = |keys: &[&str]| field(request, keys).map(|text| shortened(text).to_owned());
        let (operation, kind) = operation(request).unzip();
        let topic = match &stored {
            Some(unit) => Some(shortened(unit.topic()).to_owned()),
            None if is_send => text(&["b", "topic"]),
            None => text(&["topic"]),
        };
        About {
            operation,
            kind,
            topic,
            consumer_group: text(&["consumerGroup", "group"]),
            producer_group: text(if is_send { &["a", "producerGroup"] } else { &["producerGroup"] }),
            client: connection.peer().ip().to_canonical().to_string(),
        }
    })
}

/// The value of the first of these fields that is there and says something.
fn field<'a>(request: &'a Frame, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| request.fields.get(key)).filter(|text| !text.is_empty())
}

/// Where the message is stored that a request is about.
fn stored_at(request: &Frame) -> Option<Position> {
    let key = match request.code {
        request::END_TRANSACTION => "commitLogOffset",
        request::CONSUMER_SEND_MSG_BACK => "offset",
        _ => return None,
    };
    field(request, &[key])?.parse().ok().map(Position)
}

/// The name and the type of an operation, as OpenTelemetry's conventions have them; `None` for requests that are about no message.
fn operation(request: &Frame) -> Option<(&'static str, &'static str)> {
    Some(match request.code {
        code if dispatch::is_send(code) => ("send", "send"),
        request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => ("receive", "receive"),
        request::UPDATE_CONSUMER_OFFSET => ("ack", "settle"),
        request::CONSUMER_SEND_MSG_BACK => ("nack", "settle"),
        request::END_TRANSACTION => {
            let decision = field(request, &["commitOrRollback"]).and_then(|text| text.parse().ok());
            match decision {
                Some(EndTransactionHeader::COMMIT) => ("commit", "settle"),
                Some(EndTransactionHeader::ROLLBACK) => ("rollback", "settle"),
                _ => ("undecided", "settle"),
            }
        }
        _ => return None,
    })
}
