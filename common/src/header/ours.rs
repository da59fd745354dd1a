//! The fields and requests that only EscrowMQ adds to the protocol's, most of them about transactions.
//!
//! Each of these goes beside the header of the request that it belongs to, so that a request without them is the
//! protocol's own, byte for byte. Other brokers ignore the fields; ours says in the answer to a heartbeat that it knows
//! them (`ESCROWMQ_TXN`).

headers! {
    /// `RENEW_BACKUP` 30002 and `RELEASE_BACKUP` 30003.
    pub struct PreparedBackupHeader<'a> {
        /// The name under which it was prepared.
        backup_id: Option<&'a str> = "backupId" max WORD_BYTES_MAX,
    }

    /// Beside the header of a half message's send: the half joins a transaction.
    pub struct JoinTransactionHeader {
        /// Half id of the first half of the transaction.
        transaction_first: Option<i64> = "transactionFirst" within(0..=i64::MAX),
    }

    /// Beside the header of `END_TRANSACTION` 37 with neither commit nor rollback: the transaction is in progress.
    pub struct ExtendTransactionHeader {
        /// The next check comes no earlier than this many ms from now.
        retry_after_millis: Option<i64> = "retryAfterMillis" within(0..=i64::MAX),
    }

    /// `GIVE_UP_LOG` 30020.
    pub struct GiveUpLogHeader<'a> {
        /// Log position of a message that cannot be read.
        position: i64 = "position",
        /// The operator who gives up; at most 255 bytes.
        operator: &'a str = "operator" max OPERATOR_BYTES_MAX,
        /// Why; at most 1024 bytes.
        reason: &'a str = "reason" max REASON_BYTES_MAX,
    }

    /// Answer to `GIVE_UP_LOG` 30020.
    pub struct GiveUpLogResponse {
        /// Log position of the first byte that was given up.
        from: i64 = "from",
        /// Log position after the last one.
        upto: i64 = "upto",
        /// Messages of queues that are lost with them.
        messages: i64 = "messages",
    }

    /// `ADD_MEMBER` 30031, `PROMOTE_MEMBER` 30032 and `REMOVE_MEMBER` 30033.
    pub struct MemberHeader<'a> {
        /// A seat, such as `n2`; to add a member, its seat and address, such as `n2-host:40911`.
        seat: &'a str = "seat" max ADDRESS_BYTES_MAX,
    }

    /// `TRANSFER_LEADER` 30034.
    pub struct TransferLeaderHeader<'a> {
        /// The seat that is to lead; the one with most of the log if it is missing.
        seat: Option<&'a str> = "seat" max WORD_BYTES_MAX,
    }

    /// Answer to an awaited `END_TRANSACTION` 37, and to a refused join.
    pub struct EndTransactionResponse<'a> {
        /// `committed` or `rolledBack`: what became of the transaction by this decision.
        outcome: Option<&'a str> = "outcome" max WORD_BYTES_MAX,
        /// The same decision had been made before.
        repeated: bool = "repeated" or false,
        /// `commit` or `rollback`: the decision that stands, where the one asked for does not.
        decision: Option<&'a str> = "decision" max WORD_BYTES_MAX,
        /// When the decision that stands was made, by the broker's clock in ms.
        decided_at: Option<i64> = "decidedAt",
        /// `appended`, `flushed` or `replicated`: what the decision survives.
        store_level: Option<&'a str> = "storeLevel" max WORD_BYTES_MAX,
        /// Topic of the first message.
        topic: Option<&'a str> = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Its queue.
        queue_id: Option<i32> = "queueId",
        /// Its offset there; absent while it waits for a delay.
        queue_offset: Option<i64> = "queueOffset",
        /// The other messages: `halfId:topic:queueId:queueOffset` joined by `;`, the offset empty while one waits.
        members: Option<&'a str> = "members" max ANSWER_BYTES_MAX,
    }
}
