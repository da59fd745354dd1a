//! A single message: plain, delayed, a retry, a dead letter, or half.

use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{JoinTransactionHeader, SendMessageHeader};
use escrowmq_common::message::properties::PropertyEditor;
use escrowmq_common::message::properties::name;
use escrowmq_common::message::{SysFlag, TransactionType, UnitBuilder, unique_id};

use super::answer::{Answer, KeptText, Recall};
use super::check::{Kind, check, check_producer_group};
use super::known::Known;
use super::stamp::{Decimal, Pieces, cleaned};
use super::when::{DelayRules, Due, due};
use super::{NewUnit, Send, Stop};
use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::reply::Refused;
use crate::shard::{Admission, Command, Message, MessageList, Once, Prepare, Publish};
use crate::terms::{Content, HalfId, Stamp, When};

/// The checks for which no target is needed.
pub(super) fn precheck(
    broker: &Broker,
    config: &BrokerConfig,
    request: &Frame,
    header: &SendMessageHeader<'_>,
) -> Result<(), Stop> {
    let known = Known::of(header.properties.unwrap_or_default()).map_err(Refused::from)?;
    check(config, Kind::Single, &known, (header.sys_flag, header.reconsume_times), &request.body)?;
    let is_half = known.is_half(header.reconsume_times);
    due(&known, &DelayRules::new(config, broker.now()), is_half)?;
    if is_half {
        check_producer_group(known.producer_group.unwrap_or(header.producer_group))?;
        request.header::<JoinTransactionHeader>()?;
    }
    Ok(())
}

/// Stores the message of a request.
pub(super) fn store(send: &Send<'_>) -> Result<(), Stop> {
    let Send { broker, config, header, target, .. } = *send;
    let own = header.properties.unwrap_or_default();
    let known = Known::of(own).map_err(Refused::from)?;
    let is_half = known.is_half(header.reconsume_times);
    check(config, Kind::Single, &known, (header.sys_flag, header.reconsume_times), &send.request.body)?;
    let now = broker.now();
    // Dead letters stay where they are: their delay was that of one more attempt.
    let due = if target.is_dead_letter { Due::NOW } else { due(&known, &DelayRules::new(config, now), is_half)? };

    // The unique key is the sender's, or one of ours.
    let made = known.unique_key.is_none().then(unique_id);
    let unique_key = known.unique_key.or(made.as_deref()).unwrap_or_default();
    let mut own = cleaned(own, known.needs_edit);
    if target.is_dead_letter && known.delay_level != 0 {
        own = PropertyEditor::new(&own).remove(name::DELAY).finish().into();
    }
    let queue_number = Decimal::new(u64::from(target.queue.index));
    let (due_text, now_text) = (Decimal::new(due.timer.map_or(0, Stamp::get)), Decimal::new(now.get()));
    let mut pieces = Pieces::new(&own);
    pieces.add_origin(config);
    if made.is_some() {
        pieces.add("UNIQ_KEY\u{1}", unique_key);
    }
    if is_half || due.when != When::Now {
        pieces.add_real(&target.topic.settings.name, queue_number.as_str());
    }
    if is_half {
        pieces.add("__transactionId__\u{1}", unique_key);
    }
    if due.timer.is_some() {
        pieces.add("TIMER_OUT_MS\u{1}", due_text.as_str());
        pieces.add("TIMER_ENQUEUE_MS\u{1}", now_text.as_str());
    }

    let unit = NewUnit(UnitBuilder {
        flag: header.flag,
        sys_flag: SysFlag(header.sys_flag).with_transaction(TransactionType::None),
        born_timestamp: header.born_timestamp,
        born_host: send.reply.connection().peer(),
        reconsume_times: header.reconsume_times,
        ..UnitBuilder::to_store(
            &target.topic.settings.name,
            target.queue.index.cast_signed(),
            broker.store_host,
            &send.request.body,
            pieces.as_slice(),
        )
    });
    let stored_bytes = unit.0.size().map_err(Refused::from)?;
    let message = Message::new(known.tag_hash(), &unit);

    let recall = due
        .timer
        .filter(|_| !is_half)
        .map(|deliver_timestamp| Box::new(Recall { topic: target.topic.settings.name.clone(), deliver_timestamp }));
    let answer = Answer {
        broker: Arc::clone(broker),
        reply: send.reply.clone(),
        queue: target.queue.index,
        unique_key: KeptText::new(Some(unique_key)),
        stored_bytes,
        recall,
        is_dead_letter: target.is_dead_letter,
        is_first: send.is_first,
    };
    if is_half {
        let group = known.producer_group.unwrap_or(header.producer_group);
        check_producer_group(group)?;
        check_quota(send, group)?;
        let first_half = send.request.header::<JoinTransactionHeader>()?.transaction_first;
        let client = broker.clients.client_id_of(send.reply.connection().id(), group);
        let command = Command::Prepare(Prepare {
            queue: target.queue.id,
            when: due.when,
            immunity: known.immunity_ms,
            first_half: first_half.map(|first| HalfId(first.cast_unsigned())),
            content: Content::of(&send.request.body, header.properties.unwrap_or_default()),
            duplicate_window: config.transaction_duplicate_window.as_millis() as u64,
            group,
            client: client.as_deref().unwrap_or_default(),
            unique_id: unique_key,
            message,
        });
        submit(send, &command, answer)
    } else {
        let window = target.topic.settings.duplicate_window();
        let once = (window > 0 && known.unique_key.is_some()).then(|| {
            let content = Content::of(&send.request.body, header.properties.unwrap_or_default());
            Once { unique_id: unique_key, content, window }
        });
        let messages = MessageList::One(message);
        submit(send, &Command::Publish(Publish { queue: target.queue.id, when: due.when, messages, once }), answer)
    }
}

/// Refuses a half of a group that has as many undecided ones as it may have. Those on their way are not counted, so that a
/// few more may get in.
fn check_quota(send: &Send<'_>, group: &str) -> Result<(), Refused> {
    let quota = send.config.transaction_open_max;
    let open = send.broker.shard.producers().get(group).map_or(0, |group| group.open());
    if quota == 0 || open < quota {
        return Ok(());
    }
    let remark = format!(
        "producer group {group} has {open} undecided transactions, as many as transactionOpenMax allows; nothing was stored, try again when some are decided"
    );
    Err(Refused::new(response::SYSTEM_BUSY, remark))
}

/// Submits the command; its outcome is the answer.
pub(super) fn submit(send: &Send<'_>, command: &Command<'_>, answer: Answer) -> Result<(), Stop> {
    let completion = Box::new(move |outcome| answer.outcome(outcome));
    send.broker.shard.submit(command, Admission::Normal, completion).map_err(|(error, _)| Stop::NotDone(error))
}
