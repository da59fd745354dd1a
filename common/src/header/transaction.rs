//! The decision on a half message, the check that asks for it, and what operators ask and decide.

headers! {
    /// `END_TRANSACTION` 37.
    pub struct EndTransactionHeader<'a> {
        /// Group of the producer; must be the one that sent the half.
        producer_group: &'a str = "producerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Counter of the half, from the send response's queue offset.
        tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Half id, from the send response's message id.
        commit_log_offset: i64 = "commitLogOffset",
        /// [`COMMIT`](EndTransactionHeader::COMMIT), [`ROLLBACK`](EndTransactionHeader::ROLLBACK) or
        /// [`UNKNOWN`](EndTransactionHeader::UNKNOWN).
        commit_or_rollback: i32 = "commitOrRollback",
        /// Whether this answers a check.
        from_transaction_check: bool = "fromTransactionCheck" or false,
        /// Unique id of the message.
        msg_id: Option<&'a str> = "msgId" max MESSAGE_ID_BYTES_MAX,
        /// Unique id of the message, too.
        transaction_id: Option<&'a str> = "transactionId" max MESSAGE_ID_BYTES_MAX,
        /// Topic of the message, or of the check that is answered; absent in 4.x.
        topic: Option<&'a str> = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Broker that the request is meant for.
        broker_name: Option<&'a str> = "bname" max BROKER_NAME_BYTES_MAX,
    }

    /// `CHECK_TRANSACTION_STATE` 39, broker to producer; the body is the half message.
    pub struct CheckTransactionStateHeader<'a> {
        /// The half topic.
        topic: Option<&'a str> = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Counter of the half; comes back in the decision.
        tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Half id; comes back in the decision.
        commit_log_offset: i64 = "commitLogOffset",
        /// Unique id of the message.
        msg_id: Option<&'a str> = "msgId" max MESSAGE_ID_BYTES_MAX,
        /// Unique id of the message, too.
        transaction_id: Option<&'a str> = "transactionId" max MESSAGE_ID_BYTES_MAX,
        /// Offset message id of the half.
        offset_msg_id: Option<&'a str> = "offsetMsgId" max MESSAGE_ID_BYTES_MAX,
        /// Name of the asking broker.
        broker_name: Option<&'a str> = "bname" max BROKER_NAME_BYTES_MAX,
    }

    /// `RESUME_CHECK_HALF_MESSAGE` 323.
    pub struct ResumeCheckHalfMessageHeader<'a> {
        /// Topic of the half.
        topic: Option<&'a str> = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Offset message id of the half.
        msg_id: &'a str = "msgId" max MESSAGE_ID_BYTES_MAX,
    }

    /// `LIST_TRANSACTIONS` 30010.
    pub struct ListTransactionsHeader<'a> {
        /// Only of this producer group.
        producer_group: Option<&'a str> = "producerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Only with messages for this topic.
        topic: Option<&'a str> = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Only `open` or only `parked` ones.
        state: Option<&'a str> = "state" max WORD_BYTES_MAX,
        /// Only those stored at least this many milliseconds ago.
        older_than_millis: Option<i64> = "olderThanMillis",
        /// Most transactions of this page.
        limit: Option<i32> = "limit",
        /// The page begins after this half id.
        after: Option<i64> = "after",
        /// Each half message by itself; else a transaction of several is one entry.
        all_halves: bool = "allHalves" or false,
    }

    /// `GET_TRANSACTION` 30011: one of the two.
    pub struct GetTransactionHeader<'a> {
        /// Half id.
        half_id: Option<i64> = "halfId",
        /// Offset message id of the half.
        msg_id: Option<&'a str> = "msgId" max MESSAGE_ID_BYTES_MAX,
    }

    /// `COUNT_TRANSACTIONS` 30012.
    pub struct CountTransactionsHeader<'a> {
        /// Only of this producer group.
        producer_group: Option<&'a str> = "producerGroup" max NAMED_GROUP_BYTES_MAX,
    }

    /// `DECIDE_TRANSACTION` 30013.
    pub struct DecideTransactionHeader<'a> {
        /// Half id; of a transaction of several halves, any of them.
        half_id: i64 = "halfId",
        /// `commit`, `rollback`, `resume` or `park`.
        action: &'a str = "action" max WORD_BYTES_MAX,
        /// The operator who decides; at most 255 bytes.
        operator: &'a str = "operator" max OPERATOR_BYTES_MAX,
        /// Why; at most 1024 bytes.
        reason: &'a str = "reason" max REASON_BYTES_MAX,
    }
}

impl EndTransactionHeader<'_> {
    /// In `commit_or_rollback`: consumers are to get the message.
    pub const COMMIT: i32 = 8;
    /// In `commit_or_rollback`: nobody is to get it.
    pub const ROLLBACK: i32 = 12;
    /// In `commit_or_rollback`: the producer does not know.
    pub const UNKNOWN: i32 = 0;
}
