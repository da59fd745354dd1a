//! Transactions of EscrowMQ brokers: what is open or parked, and what became of one.
//!
//! Each request goes to one broker, which knows its own transactions alone. Other brokers of the protocol refuse these
//! requests with code 3.

use std::time::Duration;

use escrowmq_common::body::{GroupTransactions, TransactionCounts, TransactionInfo, TransactionPage, json};
use escrowmq_common::code::{request, response, word};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{CountTransactionsHeader, GetTransactionHeader, ListTransactionsHeader};
use escrowmq_common::limits::{NAMED_GROUP_BYTES_MAX, NAMED_TOPIC_BYTES_MAX};

use super::decide::half_id_on_the_wire;
use super::{Admin, bounded};
use crate::core::{expect_success, refused};
use crate::error::RequestError;

/// Which of a broker's undecided transactions to list, and how many at a time. The default is the first hundred of all.
#[derive(Clone, Debug, Default)]
pub struct TransactionQuery {
    /// Only those of this producer group.
    pub group: Option<String>,
    /// Only those with a message for this topic.
    pub topic: Option<String>,
    /// Only parked ones, or only open ones.
    pub parked: Option<bool>,
    /// Only those stored at least so long ago.
    pub older_than: Option<Duration>,
    /// Most of one page: 100 by default, 1000 at most.
    pub limit: Option<u32>,
    /// Only halves after this half id: the `next` of the page before.
    pub after: Option<u64>,
    /// Each half message by itself. By default a transaction of several messages is one entry: its first half, or with
    /// [`topic`](TransactionQuery::topic) its first one for that topic.
    pub all_halves: bool,
}

impl Admin {
    /// One page of the open and parked transactions of the broker at `addr`, oldest first. A page may be shorter than its
    /// limit while there is a next one.
    pub async fn list_transactions(
        &self,
        addr: &str,
        query: &TransactionQuery,
    ) -> Result<TransactionPage, RequestError> {
        bounded("group", query.group.as_deref().unwrap_or_default(), NAMED_GROUP_BYTES_MAX)?;
        bounded("topic", query.topic.as_deref().unwrap_or_default(), NAMED_TOPIC_BYTES_MAX)?;
        let header = ListTransactionsHeader {
            producer_group: query.group.as_deref(),
            topic: query.topic.as_deref(),
            state: query.parked.map(|parked| if parked { word::PARKED } else { word::OPEN }),
            older_than_millis: query.older_than.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            limit: query.limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)),
            after: query.after.map(half_id_on_the_wire).transpose()?,
            all_halves: query.all_halves,
        };
        let ask = Frame::request(request::LIST_TRANSACTIONS).with_header(&header);
        let answer = expect_success(addr, self.answer(addr, ask).await?)?;
        json::from_slice(&answer.body).map_err(|error| RequestError::malformed(addr, error))
    }

    /// All that the broker at `addr` knows of the half message with this id; `None` if it knows none, because there never
    /// was one or its decision is older than the broker remembers.
    pub async fn transaction(&self, addr: &str, half_id: u64) -> Result<Option<TransactionInfo>, RequestError> {
        let header = GetTransactionHeader { half_id: Some(half_id_on_the_wire(half_id)?), msg_id: None };
        let ask = Frame::request(request::GET_TRANSACTION).with_header(&header);
        let answer = self.answer(addr, ask).await?;
        match answer.code {
            response::SUCCESS => {
                json::from_slice(&answer.body).map(Some).map_err(|error| RequestError::malformed(addr, error))
            }
            response::QUERY_NOT_FOUND => Ok(None),
            _ => Err(refused(addr, answer)),
        }
    }

    /// How many transactions of each producer group are open or parked at the broker at `addr`. Of one group that is named the
    /// answer has an entry also if it has none now, unless the broker does not know the group (any more).
    pub async fn transaction_counts(
        &self,
        addr: &str,
        group: Option<&str>,
    ) -> Result<Vec<GroupTransactions>, RequestError> {
        bounded("group", group.unwrap_or_default(), NAMED_GROUP_BYTES_MAX)?;
        let header = CountTransactionsHeader { producer_group: group };
        let ask = Frame::request(request::COUNT_TRANSACTIONS).with_header(&header);
        let answer = expect_success(addr, self.answer(addr, ask).await?)?;
        let counts: Result<TransactionCounts, _> = json::from_slice(&answer.body);
        Ok(counts.map_err(|error| RequestError::malformed(addr, error))?.groups)
    }

    async fn answer(&self, addr: &str, ask: Frame) -> Result<Frame, RequestError> {
        let core = self.client.core();
        core.call(addr, ask, core.settings.request_timeout).await
    }
}
