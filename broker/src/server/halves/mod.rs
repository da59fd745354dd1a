//! Operators list transactions, look at one, count them, and decide. EscrowMQ's own requests, 30010 to 30013.
//!
//! Promises: an answer costs as much as it shows, however many halves there are; each act of an operator is kept with time, name
//! and reason. Leaves to others: the order of lists (`index::listing`), the effect of a decision (`shard::apply`).

mod decide;
mod info;

pub(super) use decide::decide;

use std::sync::Arc;

use escrowmq_common::body::json::{Form, to_bytes};
use escrowmq_common::body::{GroupTransactions, TransactionCounts, TransactionInfo, TransactionPage};
use escrowmq_common::code::{response, word};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{CountTransactionsHeader, GetTransactionHeader, ListTransactionsHeader};
use escrowmq_common::message::OffsetMessageId;

use super::slow;
use crate::broker::Broker;
use crate::index::IndexError;
use crate::reply::Reply;
use crate::shard::{HalfQuery, ProducerGroup, ReadError};
use crate::terms::{HalfId, Stamp};

/// Transactions of a page that asks for no number, and most of any.
const PAGE: i32 = 100;
const PAGE_MAX: i32 = 1000;
/// Bytes of messages and texts after which a page takes no further transaction. It bounds the cost of an answer, and, with
/// room for the characters that JSON escapes, it fits into a frame.
const PAGE_BYTES: usize = 2 << 20;

/// The filters of a list, with texts of their own: it is made on another thread.
struct List {
    group: Option<String>,
    topic: Option<String>,
    parked: Option<bool>,
    prepared_until: Option<Stamp>,
    after: Option<HalfId>,
    limit: usize,
    /// Each message by itself, also where several are one transaction.
    all_halves: bool,
}

impl List {
    /// Or else what is wrong with the request.
    fn new(header: &ListTransactionsHeader<'_>, now: Stamp) -> Result<Self, String> {
        let parked = match header.state {
            None => None,
            Some(word::OPEN) => Some(false),
            Some(word::PARKED) => Some(true),
            Some(other) => return Err(format!("state is neither open nor parked: '{}'", shown(other))),
        };
        let positive =
            |field: &str, value: i64| u64::try_from(value).map_err(|_| format!("{field} is negative: {value}"));
        let age = header.older_than_millis.map(|age| positive("olderThanMillis", age)).transpose()?;
        let limit = header.limit.unwrap_or(PAGE);
        if limit < 1 {
            return Err(format!("limit is not positive: {limit}"));
        }
        Ok(Self {
            group: header.producer_group.map(str::to_owned),
            topic: header.topic.map(str::to_owned),
            parked,
            prepared_until: age.map(|age| now.saturating_sub(age)),
            after: header.after.map(|after| positive("after", after)).transpose()?.map(HalfId),
            limit: limit.min(PAGE_MAX) as usize,
            all_halves: header.all_halves,
        })
    }

    fn page(&self, broker: &Broker) -> Result<TransactionPage, ReadError> {
        let query = HalfQuery {
            group: self.group.as_deref(),
            topic: self.topic.as_deref(),
            parked: self.parked,
            prepared_until: self.prepared_until,
            after: self.after,
        };
        // One more tells whether there is a next page.
        let limit = self.limit + 1;
        let mut rows = if self.all_halves {
            broker.shard.halves(&query, limit)?
        } else {
            broker.shard.transactions(&query, limit)?
        };
        let mut has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let mut page = TransactionPage::default();
        let mut bytes = 0;
        for row in &rows {
            bytes += info::cost(row);
            if bytes > PAGE_BYTES && !page.transactions.is_empty() {
                has_more = true;
                break;
            }
            page.transactions.push(info::undecided(broker, row, info::Detail::Listed));
        }
        page.next = page.transactions.last().map(|last| last.half_id).filter(|_| has_more);
        Ok(page)
    }
}

pub(super) fn list(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let list = request.header().map_err(|error| error.to_string()).and_then(|header| List::new(&header, broker.now()));
    let list = match list {
        Ok(list) => list,
        Err(wrong) => return reply.error(response::INVALID_PARAMETER, &wrong),
    };
    slow::run(broker, "list transactions", reply, move |broker, reply| match list.page(broker) {
        Ok(page) => reply.body(&to_bytes(&page, Form::Strict)),
        Err(error) => reply.refuse(error),
    });
}

pub(super) fn get(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let half = match request.header() {
        Ok(header) => named_half(&header),
        Err(error) => Err(error.to_string()),
    };
    let half = match half {
        Ok(half) => half,
        Err(wrong) => return reply.error(response::INVALID_PARAMETER, &wrong),
    };
    slow::run(broker, "get transaction", reply, move |broker, reply| match one(broker, half) {
        Ok(Some(info)) => reply.body(&to_bytes(&info, Form::Strict)),
        Ok(None) => unknown(reply, half),
        Err(error) => reply.refuse(error),
    });
}

fn named_half(header: &GetTransactionHeader<'_>) -> Result<HalfId, String> {
    let id = match (header.half_id, header.msg_id) {
        (Some(id), _) => id,
        (None, Some(text)) => {
            let id: Result<OffsetMessageId, _> = text.parse();
            id.map_err(|_| format!("msgId is no offset message id: '{}'", shown(text)))?.position
        }
        (None, None) => return Err("neither halfId nor msgId is there".to_owned()),
    };
    u64::try_from(id).map(HalfId).map_err(|_| format!("a half id is not negative: {id}"))
}

/// Everything known of a half, undecided or decided.
fn one(broker: &Broker, half: HalfId) -> Result<Option<TransactionInfo>, ReadError> {
    if let Some(row) = broker.shard.half(half)? {
        return Ok(Some(info::undecided(broker, &row, info::Detail::Whole)));
    }
    let decision = broker.shard.decision(half)?;
    Ok(decision.map(|row| info::decided(broker, half, &row)))
}

fn unknown(reply: Reply, half: HalfId) {
    reply.error(
        response::QUERY_NOT_FOUND,
        &format!("no half message has the id {half}, or its decision is older than transactionRecordHours"),
    );
}

pub(super) fn count(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let group = match request.header::<CountTransactionsHeader<'_>>() {
        Ok(header) => header.producer_group.map(str::to_owned),
        Err(error) => return reply.error(response::INVALID_PARAMETER, &error.to_string()),
    };
    slow::run(broker, "count transactions", reply, move |broker, reply| {
        let producers = broker.shard.producers();
        // Of a group that is asked for by name "none" is an answer, and another one than "no such group".
        let groups = match &group {
            Some(group) => producers.get(group).into_iter().collect(),
            None => producers.all().into_iter().filter(|group| group.open() + group.parked() > 0).collect::<Vec<_>>(),
        };
        let groups = groups.iter().map(|group| counts(broker, group));
        let mut groups: Result<Vec<GroupTransactions>, IndexError> = groups.collect();
        if let (Some(group), Ok(groups)) = (group, &mut groups)
            && groups.is_empty()
            && !broker.clients.producers(&group).is_empty()
        {
            groups.push(GroupTransactions { group, ..GroupTransactions::default() });
        }
        match groups {
            Ok(groups) => reply.body(&to_bytes(&TransactionCounts { groups }, Form::Strict)),
            Err(error) => reply.refuse(error),
        }
    });
}

fn counts(broker: &Broker, group: &ProducerGroup) -> Result<GroupTransactions, IndexError> {
    let oldest = |parked: bool| -> Result<Option<i64>, IndexError> {
        let query = HalfQuery { group: Some(&group.name), parked: Some(parked), ..HalfQuery::default() };
        let oldest = broker.shard.halves(&query, 1)?;
        Ok(oldest.first().map(|row| row.prepared_at.signed()))
    };
    Ok(GroupTransactions {
        group: group.name.to_string(),
        open: group.transactions(false),
        parked: group.transactions(true),
        oldest_open_at: oldest(false)?,
        oldest_parked_at: oldest(true)?,
        waiting_for_checker: broker.transactions.waiting_for_checker(&group.name),
    })
}

/// The beginning of a text that a client sent, for a remark.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
