//! The check request: a half message with its real topic and its ids.

use std::net::SocketAddr;

use bytes::BytesMut;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::CheckTransactionStateHeader;
use escrowmq_common::message::{MessageUnit, OffsetMessageId, UnitBuilder, UnitError, properties};
use escrowmq_common::name::HALF_TOPIC;

use crate::index::HalfRow;

/// The request that asks for the decision on a half. `unit` is the half's unit with its counter and position in place;
/// `number` says which check this is, from 1, and is added to this copy alone.
pub(crate) fn check_request(
    row: &HalfRow,
    unit: &[u8],
    number: u32,
    store_host: SocketAddr,
    broker_name: &str,
) -> Result<Frame, UnitError> {
    let unit = MessageUnit::decode(unit)?;
    let stored = unit.properties_text();
    let separator = if stored.is_empty() || stored.ends_with(properties::ITEM_END) { "" } else { "\u{2}" };
    let times = format!("{separator}{}\u{1}{number}\u{2}", properties::name::TRANSACTION_CHECK_TIMES);
    let pieces = [stored.as_ref(), times.as_str()];
    let mut body = BytesMut::new();
    UnitBuilder::rewrite(&unit, unit.topic(), &pieces).write(&mut body)?;
    let message_id = OffsetMessageId { host: store_host, position: row.half.get().cast_signed() }.to_string();
    let header = CheckTransactionStateHeader {
        // RocketMQ's clients expect this one.
        topic: Some(HALF_TOPIC),
        tran_state_table_offset: row.counter.cast_signed(),
        commit_log_offset: row.half.get().cast_signed(),
        msg_id: Some(&row.unique_id),
        transaction_id: Some(&row.unique_id),
        offset_msg_id: Some(&message_id),
        broker_name: Some(broker_name),
    };
    Ok(Frame::request(request::CHECK_TRANSACTION_STATE).with_header(&header).with_body(body.freeze()))
}
