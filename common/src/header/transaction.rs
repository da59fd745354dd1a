//! The decision on a half message, the check that asks for it, and the operator's resume.

headers! {
    /// `END_TRANSACTION` 37.
    pub struct EndTransactionHeader<'a> {
        /// Group of the producer; must be the one that sent the half.
        producer_group: &'a str = "producerGroup",
        /// Counter of the half, from the send response's queue offset.
        tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Half id, from the send response's message id.
        commit_log_offset: i64 = "commitLogOffset",
        /// 8 commit, 12 rollback, 0 unknown.
        commit_or_rollback: i32 = "commitOrRollback",
        /// Whether this answers a check.
        from_transaction_check: bool = "fromTransactionCheck" or false,
        /// Unique id of the message.
        msg_id: Option<&'a str> = "msgId",
        /// Unique id of the message, too.
        transaction_id: Option<&'a str> = "transactionId",
        /// Topic of the message, or of the check that is answered; absent in 4.x.
        topic: Option<&'a str> = "topic",
        /// Broker that the request is meant for.
        broker_name: Option<&'a str> = "bname",
    }

    /// `CHECK_TRANSACTION_STATE` 39, broker to producer; the body is the half message.
    pub struct CheckTransactionStateHeader<'a> {
        /// The half topic.
        topic: Option<&'a str> = "topic",
        /// Counter of the half; comes back in the decision.
        tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Half id; comes back in the decision.
        commit_log_offset: i64 = "commitLogOffset",
        /// Unique id of the message.
        msg_id: Option<&'a str> = "msgId",
        /// Unique id of the message, too.
        transaction_id: Option<&'a str> = "transactionId",
        /// Offset message id of the half.
        offset_msg_id: Option<&'a str> = "offsetMsgId",
        /// Name of the asking broker.
        broker_name: Option<&'a str> = "bname",
    }

    /// `RESUME_CHECK_HALF_MESSAGE` 323.
    pub struct ResumeCheckHalfMessageHeader<'a> {
        /// Topic of the half.
        topic: Option<&'a str> = "topic",
        /// Offset message id of the half.
        msg_id: &'a str = "msgId",
    }
}
