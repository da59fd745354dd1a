//! Sends and decisions as they are observed.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use escrowmq_common::clock;
use escrowmq_common::header::SendMessageResponse;
use escrowmq_common::message::properties::name;
use escrowmq_common::message::{Message as Unit, OffsetMessageId};
use tracing::Span;

#[cfg(feature = "opentelemetry")]
use super::context::add as add_to_message;
use super::record::{Kind, Labels, Record};
use super::{Writer, spans};
use crate::core::Core;
use crate::error::SendError;
use crate::message::Message;
use crate::producer::{Half, Prepared, SendResult, SenderError, StoreLevel};
use crate::transaction::Decision;

/// Where brokers that do not say so are.
const DEFAULT_REGION: &str = "DefaultRegion";

/// One message of a request, as its record names it.
struct Part {
    message_id: String,
    labels: Labels,
    body_bytes: usize,
}

/// What the records of a send need.
struct Sent {
    began_ms: i64,
    kind: Kind,
    parts: Vec<Part>,
}

/// A send under way.
pub(crate) struct Sending {
    span: Span,
    /// If there will be records.
    records: Option<Sent>,
}

impl Sending {
    /// Begins to observe what is about to be sent, and gives it the context of its span.
    pub(crate) fn begin(core: &Core, prepared: &mut Prepared, is_half: bool) -> Sending {
        let kind = match (is_half, prepared.is_delayed) {
            (true, _) => Kind::Half,
            (false, true) => Kind::Delayed,
            (false, false) => Kind::Normal,
        };
        let records = writer_for(core, &prepared.topic).map(|_| {
            let (message_id, body_bytes) = (prepared.message_id.clone(), prepared.body.len());
            let part = Part { message_id, labels: Labels::of(&prepared.properties), body_bytes };
            Sent { began_ms: clock::wall_ms(), kind, parts: vec![part] }
        });
        let span = spans::send(&core.id, prepared, kind);
        add_context(&span, prepared);
        Sending { span, records }
    }

    /// Begins to observe a batch of these messages.
    pub(crate) fn begin_batch(core: &Core, messages: &[Message]) -> Sending {
        let topic = messages.first().map_or("", Message::topic);
        let body_bytes = || messages.iter().map(|message| message.body().len()).sum();
        let records = writer_for(core, topic).map(|_| {
            let parts = Vec::with_capacity(messages.len());
            Sent { began_ms: clock::wall_ms(), kind: Kind::Normal, parts }
        });
        Sending { span: spans::send_batch(&core.id, topic, messages.len(), body_bytes), records }
    }

    /// Nobody looks.
    #[cfg(test)]
    pub(crate) fn unobserved() -> Sending {
        Sending { span: Span::none(), records: None }
    }

    /// Gives a message of the batch the context of its span, unless the message was given an id: then it may be one that is sent
    /// again, in a batch that a broker recognises by its bytes.
    pub(crate) fn add_context(&self, message: &mut Message) {
        if message.get(name::UNIQUE_KEY).is_none() {
            add_to_message(message, &self.span);
        }
    }

    /// Notes a message of the batch as it is sent. There will be a record for each, where the Java client writes one for all
    /// together, which no search by id finds.
    pub(crate) fn note(&mut self, message: &Message, message_id: &str) {
        if let Some(sent) = &mut self.records {
            let get = |name| message.get(name).map(Arc::from);
            let labels = Labels { tags: get(name::TAGS), keys: get(name::KEYS) };
            sent.parts.push(Part { message_id: message_id.to_owned(), labels, body_bytes: message.body().len() });
        }
    }

    /// The span to send in.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Tells how it ended. A send that no broker took leaves no record, as with other clients.
    pub(crate) fn end(self, core: &Core, group: &str, ended: Result<&SendResult, &SenderError>) {
        match ended {
            Ok(sent) => {
                if !self.span.is_disabled() {
                    spans::stored(&self.span, sent.queue.id(), host_of(sent.offset_message_id.split(',').next()));
                }
                self.write(core, group, sent);
            }
            Err(error) => {
                let kind = match error {
                    SenderError::Send(SendError::Invalid { .. }) => "invalid",
                    SenderError::Send(SendError::NotStored { .. }) => "not_stored",
                    SenderError::Send(SendError::OutcomeUnknown { .. }) => "outcome_unknown",
                    SenderError::Send(SendError::ShutDown) => "shut_down",
                    _ => "refused",
                };
                let reason = match error {
                    SenderError::Send(error) => error as &dyn Display,
                    _ => &"the broker cannot take this half message",
                };
                self.failed(kind, reason);
            }
        }
    }

    /// Tells that it failed.
    pub(crate) fn failed(self, kind: &str, reason: &dyn Display) {
        if !self.span.is_disabled() {
            spans::failed(&self.span, kind, &reason.to_string());
        }
    }

    fn write(self, core: &Core, group: &str, sent: &SendResult) {
        // Without a region the broker wants no traces of this message.
        let (Some(writer), Some(records), Some(region)) = (&core.trace, self.records, &sent.traced_in) else {
            return;
        };
        let (group, topic): (Arc<str>, Arc<str>) = (group.into(), sent.queue.topic().into());
        let cost_ms = (clock::wall_ms() - records.began_ms).max(0);
        let mut offset_ids = sent.offset_message_id.split(',');
        for part in records.parts {
            let offset_message_id = offset_ids.next().unwrap_or_default().to_owned();
            writer.push(Record::Sent {
                at_ms: records.began_ms,
                region: Arc::clone(region),
                group: Arc::clone(&group),
                topic: Arc::clone(&topic),
                message_id: part.message_id,
                labels: part.labels,
                store_host: host_of(Some(&offset_message_id)).map_or_else(String::new, |host| host.to_string()),
                body_bytes: part.body_bytes,
                cost_ms,
                kind: records.kind,
                offset_message_id,
                success: sent.level == StoreLevel::Full,
            });
        }
    }
}

/// A decision about these halves was sent.
pub(crate) fn decided(core: &Core, group: &str, halves: &[Half], decision: Decision) {
    let Some(writer) = &core.trace else {
        return;
    };
    for half in halves {
        writer.push(Record::Decided {
            at_ms: clock::wall_ms(),
            // Not told before the message is delivered.
            region: DEFAULT_REGION.into(),
            group: group.into(),
            topic: half.queue.topic().into(),
            message_id: half.message_id.clone(),
            transaction_id: half.transaction_id.clone(),
            labels: half.labels.clone(),
            store_host: core.routes.way(half.queue.broker()).map_or_else(String::new, |addr| addr.to_string()),
            decision,
            from_check: false,
        });
    }
}

/// A broker's check of this half was answered.
pub(crate) fn check_answered(
    core: &Core,
    group: &str,
    half: &Unit,
    transaction_id: &str,
    broker: SocketAddr,
    decision: Decision,
) {
    let Some(writer) = &core.trace else {
        return;
    };
    writer.push(Record::Decided {
        at_ms: clock::wall_ms(),
        region: half.property(name::MSG_REGION).unwrap_or(DEFAULT_REGION).into(),
        group: group.into(),
        topic: half.property(name::REAL_TOPIC).unwrap_or(&half.topic).into(),
        message_id: half.message_id(),
        transaction_id: transaction_id.to_owned(),
        labels: Labels::of(&half.property_text),
        store_host: broker.to_string(),
        decision,
        from_check: true,
    });
}

/// The region that an answer to a send names, if the message is to be traced and there is somebody to do so.
pub(crate) fn region(core: &Core, told: &SendMessageResponse<'_>) -> Option<Arc<str>> {
    core.trace.as_ref()?;
    let region = told.region.filter(|region| !region.is_empty()).unwrap_or(DEFAULT_REGION);
    (told.trace_on != Some(false)).then(|| region.into())
}

/// The writer, if messages of this topic leave records.
fn writer_for<'a>(core: &'a Core, topic: &str) -> Option<&'a Writer> {
    core.trace.as_ref().filter(|writer| !writer.is_own(topic))
}

/// Adds the context of the span to what is sent, or links the span to the context that is there.
#[cfg(feature = "opentelemetry")]
fn add_context(span: &Span, prepared: &mut Prepared) {
    use escrowmq_common::message::Properties;
    use escrowmq_common::message::properties::{PROPERTIES_BYTES_MAX, append};

    use super::{TRACE_PARENT, TRACE_STATE, context};
    let properties = Properties::new(&prepared.properties);
    if let Some(parent) = properties.get(TRACE_PARENT) {
        if let Some(made) = context::parse(parent, properties.get(TRACE_STATE)) {
            context::link(span, made);
        }
        return;
    }
    for (name, value) in context::of(span) {
        // A trace is worth less than the message.
        if prepared.properties.len() + name.len() + value.len() + 2 <= PROPERTIES_BYTES_MAX {
            append(&mut prepared.properties, name, value);
        }
    }
}

#[cfg(not(feature = "opentelemetry"))]
fn add_context(_: &Span, _: &mut Prepared) {}

#[cfg(not(feature = "opentelemetry"))]
fn add_to_message(_: &mut Message, _: &Span) {}

fn host_of(offset_message_id: Option<&str>) -> Option<SocketAddr> {
    Some(offset_message_id?.parse::<OffsetMessageId>().ok()?.host)
}
