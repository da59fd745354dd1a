//! Several messages in one request.

use std::sync::Arc;

use bytes::BytesMut;
use escrowmq_common::message::SysFlag;
use escrowmq_common::message::batch::BatchMessage;
use escrowmq_common::name::is_retry_topic;
use tracing::Instrument as _;

use super::prepare::{is_delayed, seal};
use super::send::{Sender, SenderError};
use super::{Prepared, SendResult, SendSettings, StoreLevel, packed_bytes};
use crate::error::SendError;
use crate::message::Message;
use crate::queue::MessageQueue;
use crate::trace::Sending;

/// A batch that a broker has stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BatchResult {
    /// The unique ids of the messages, in their order.
    pub message_ids: Vec<String>,
    /// The broker's own ids, in the same order.
    pub offset_message_ids: Vec<String>,
    /// Where they were stored.
    pub queue: MessageQueue,
    /// The number of the first one in that queue; the others follow it without a gap.
    pub first_queue_offset: i64,
    /// The level that the broker reached before it answered.
    pub level: StoreLevel,
    /// Attempts made.
    pub attempts: u32,
    /// An earlier attempt ended without an answer and may have stored the messages as well, where a repeat is not recognised.
    pub possible_duplicate: bool,
}

impl BatchResult {
    /// The result of each message.
    pub(crate) fn into_members(self) -> Vec<SendResult> {
        let mut places = self.offset_message_ids.into_iter();
        let members = self.message_ids.into_iter().zip(self.first_queue_offset..);
        let member = |(message_id, queue_offset)| SendResult {
            message_id,
            offset_message_id: places.next().unwrap_or_default(),
            queue: self.queue.clone(),
            queue_offset,
            transaction_id: None,
            level: self.level,
            attempts: self.attempts,
            possible_duplicate: self.possible_duplicate,
            recall_handle: None,
            traced_in: None,
        };
        members.map(member).collect()
    }
}

impl Sender {
    /// Sends the messages of one topic in one request, to this queue if there is one.
    pub(super) async fn send_batch(
        &self,
        messages: Vec<Message>,
        pinned: Option<MessageQueue>,
    ) -> Result<BatchResult, SendError> {
        let _place = self.enter().await?;
        let mut observed = Sending::begin_batch(self.core(), &messages);
        let (prepared, message_ids) = packed(messages, self.settings(), &mut observed)?;
        let ended = self.send_prepared(&prepared, pinned, None).instrument(observed.span()).await;
        observed.end(self.core(), self.group(), ended.as_ref());
        let sent = ended.map_err(SenderError::ordinary)?;
        self.settings().profile.accepts(sent.level, &sent.message_id, &sent.queue)?;
        Ok(BatchResult {
            message_ids,
            offset_message_ids: sent.offset_message_id.split(',').map(str::to_owned).collect(),
            queue: sent.queue,
            first_queue_offset: sent.queue_offset,
            level: sent.level,
            attempts: sent.attempts,
            possible_duplicate: sent.possible_duplicate,
        })
    }
}

/// Checks the messages and puts them into one body. Answers their unique ids too.
fn packed(
    messages: Vec<Message>,
    settings: &SendSettings,
    observed: &mut Sending,
) -> Result<(Prepared, Vec<String>), SendError> {
    let topic = match messages.first() {
        Some(first) => first.topic_shared(),
        None => return Err(SendError::invalid("the batch is empty")),
    };
    if is_retry_topic(&topic) {
        return Err(SendError::invalid("a retry topic takes no batches"));
    }
    let mut body =
        BytesMut::with_capacity(messages.iter().map(packed_bytes).sum::<usize>().min(settings.body_bytes_max));
    let (mut ids, mut properties) = (Vec::with_capacity(messages.len()), String::new());
    for mut message in messages {
        message.validate(settings.body_bytes_max)?;
        settings.profile.admits(&message)?;
        if message.topic() != &*topic {
            return Err(SendError::invalid(format!("the batch mixes topics {topic} and {}", message.topic())));
        }
        if is_delayed(&message) {
            return Err(SendError::invalid("a message of a batch can be neither delayed nor timed"));
        }
        observed.add_context(&mut message);
        let id = seal(&mut message, settings.profile.waits());
        observed.note(&message, &id);
        ids.push(id);
        properties.clear();
        message.append_property_text(&mut properties);
        let inner = BatchMessage { flag: message.flag_value(), body: message.body(), properties: &properties };
        inner.write(&mut body).map_err(|error| SendError::invalid(error.to_string()))?;
        if body.len() > settings.body_bytes_max {
            let reason = format!("the batch has more than {} bytes", settings.body_bytes_max);
            return Err(SendError::Invalid { reason });
        }
    }
    // The batch has an id of its own besides those of its messages; its carrier lends it.
    let mut carrier = Message::new(Arc::clone(&topic), body.freeze());
    let message_id = seal(&mut carrier, settings.profile.waits());
    let prepared = Prepared {
        topic,
        body: carrier.body().clone(),
        plain_bytes: carrier.body().len(),
        flag: 0,
        sys_flag: SysFlag::default(),
        properties: carrier.property_text(),
        message_id,
        sharding_key: None,
        is_delayed: false,
        is_batch: true,
        reconsume: None,
    };
    Ok((prepared, ids))
}

#[cfg(test)]
mod tests {
    use escrowmq_common::message::batch;

    use super::*;

    fn pack(messages: Vec<Message>) -> Result<(Prepared, Vec<String>), SendError> {
        let settings = SendSettings { body_bytes_max: 1000, ..SendSettings::default() };
        packed(messages, &settings, &mut Sending::unobserved())
    }

    #[test]
    fn each_message_keeps_its_own_id_and_the_batch_has_another() {
        let (prepared, ids) = pack(vec![Message::new("T", "a").tag("x"), Message::new("T", "b")]).expect("a batch");
        let inner: Vec<_> = batch::messages(&prepared.body).collect::<Result<_, _>>().expect("readable");
        assert_eq!(inner.len(), 2);
        for (message, id) in inner.iter().zip(&ids) {
            assert!(message.properties.contains(&format!("UNIQ_KEY\u{1}{id}\u{2}")));
        }
        assert!(inner[0].properties.contains("TAGS\u{1}x\u{2}"));
        assert!(prepared.properties.contains(&prepared.message_id));
        assert!(!ids.contains(&prepared.message_id) && ids[0] != ids[1]);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let reason = |messages| pack(messages).expect_err("refused").to_string();
        assert!(reason(vec![]).contains("empty"));
        assert!(reason(vec![Message::new("T", "a"), Message::new("U", "a")]).contains("mixes"));
        assert!(reason(vec![Message::new("T", "a").delay_level(2)]).contains("delayed"));
        assert!(
            reason(vec![Message::new("T", vec![0; 600]), Message::new("T", vec![0; 600])]).contains("more than 1000")
        );
        assert!(reason(vec![Message::new("%RETRY%g", "a")]).contains("retry"));
    }
}
