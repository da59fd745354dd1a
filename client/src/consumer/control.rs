//! Orders of an operator to a consumer, which come through a broker.

use escrowmq_common::body::{BodyError, ResetOffsetBody, json};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{HeaderError, ResetOffsetHeader};
use escrowmq_common::limits::ENTRIES_MAX;
use thiserror::Error;

use crate::queue::MessageQueue;

/// New offsets for queues of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResetRequest {
    pub(crate) group: String,
    pub(crate) offsets: Vec<(MessageQueue, i64)>,
}

/// Why a reset cannot be read.
#[derive(Debug, Error)]
pub(crate) enum ResetError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("it sets {0} offsets, the limit is {ENTRIES_MAX}")]
    TooMany(usize),
}

impl ResetRequest {
    /// Reads the broker's request; both forms of its table.
    pub(crate) fn decode(request: &Frame) -> Result<ResetRequest, ResetError> {
        let header: ResetOffsetHeader<'_> = request.header()?;
        let body: ResetOffsetBody = json::from_slice(&request.body)?;
        if body.offset_table.len() > ENTRIES_MAX {
            return Err(ResetError::TooMany(body.offset_table.len()));
        }
        let offsets = body
            .offset_table
            .into_iter()
            .map(|(queue, offset)| (MessageQueue::new(queue.topic, queue.broker_name, queue.queue_id), offset));
        Ok(ResetRequest { group: header.group.to_owned(), offsets: offsets.collect() })
    }
}
