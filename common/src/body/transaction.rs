//! Transactions that are open, parked or decided, as a broker reports them to operators. EscrowMQ's own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bounds::answers;
use super::json;
use super::wire_enum::wire_enum;

wire_enum! {
    /// How far a transaction has come.
    TransactionState {
        /// Its producers are asked for the decision, in time.
        Open = "open",
        /// Stored, and nobody is asked any more until an operator resumes it.
        Parked = "parked",
        /// Its messages are visible, or will be when they are due.
        Committed = "committed",
        /// Its messages will never be visible.
        RolledBack = "rolledBack",
        /// A state of a later release.
        #[default]
        Unknown = "unknown",
    }
}

wire_enum! {
    /// An operator's act on a transaction.
    TransactionAction {
        /// Makes its messages visible.
        Commit = "commit",
        /// Hides its messages for ever.
        Rollback = "rollback",
        /// Puts a parked transaction back into the checks.
        Resume = "resume",
        /// Takes an open transaction out of the checks.
        Park = "park",
        /// An action of a later release.
        #[default]
        Unknown = "unknown",
    }
}

/// Answer to `LIST_TRANSACTIONS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TransactionPage {
    /// The beginning of the next page, as `after` of the next request; missing after the last page.
    pub next: Option<u64>,
    /// Oldest first.
    pub transactions: Vec<TransactionInfo>,
}

/// One half message, and what became of it. Times are milliseconds since 1970. Answer to `GET_TRANSACTION`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TransactionInfo {
    /// The acts of operators on it, the latest last.
    pub acts: Vec<Act>,
    /// The checks that were sent for it, the latest last.
    pub asked: Vec<Asked>,
    /// Checks sent that count towards the limit.
    #[serde(deserialize_with = "json::number")]
    pub checks: u32,
    /// The client that sent it.
    pub client_id: String,
    /// Its dense counter, which a decision of the producer names.
    #[serde(deserialize_with = "json::number")]
    pub counter: i64,
    /// How it was decided; missing while it is not.
    pub decision: Option<DecisionInfo>,
    /// How long after its commit it becomes visible, in milliseconds, if it waits for a delay.
    pub delay: Option<u64>,
    /// When it becomes visible if committed before, if it waits for a point in time.
    pub deliver_at: Option<i64>,
    /// The first half of its transaction, if that is another one.
    pub first_half: Option<u64>,
    /// Its position in the broker's log when it was stored: what operators name it by.
    #[serde(deserialize_with = "json::number")]
    pub half_id: u64,
    /// Keys of the message.
    pub keys: Option<String>,
    /// The halves that are decided together with it, if it is the first of several.
    #[serde(deserialize_with = "json::numbers")]
    pub members: Vec<u64>,
    /// When the next check is due, if one is.
    pub next_check_at: Option<i64>,
    /// Its offset message id.
    pub offset_msg_id: String,
    /// Why it is parked; missing while it is not.
    pub parked: Option<Parked>,
    /// When it was stored.
    #[serde(deserialize_with = "json::number")]
    pub prepared_at: i64,
    /// The group that is asked for the decision.
    pub producer_group: String,
    /// All properties of the message; only of a single one that was asked for.
    pub properties: Option<BTreeMap<String, String>>,
    /// Queue that it enters when committed.
    #[serde(deserialize_with = "json::number")]
    pub queue_id: i32,
    /// Size of the stored message in bytes.
    #[serde(deserialize_with = "json::number")]
    pub size_bytes: u32,
    /// How far it has come.
    pub state: TransactionState,
    /// Tags of the message.
    pub tags: Option<String>,
    /// Topic that it enters when committed.
    pub topic: String,
    /// The unique key that its producer gave it.
    pub transaction_id: String,
}

/// A check that was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Asked {
    /// When.
    #[serde(deserialize_with = "json::number")]
    pub at: i64,
    /// Its answer: `commit`, `rollback`, `unknown` or `inProgress`; missing if it gave none, or if that is not remembered.
    pub answer: Option<String>,
    /// To which client.
    pub client_id: String,
}

/// An act of an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Act {
    /// The act.
    pub action: TransactionAction,
    /// When.
    #[serde(deserialize_with = "json::number")]
    pub at: i64,
    /// The operator, by a name of his own choice.
    pub operator: String,
    /// Why, in his own words.
    pub reason: String,
}

/// Why nobody is asked any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parked {
    /// Since when.
    #[serde(deserialize_with = "json::number")]
    pub at: i64,
    /// The broker's words.
    pub reason: String,
}

/// How a transaction was decided; commit or rollback is its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DecisionInfo {
    /// When.
    #[serde(deserialize_with = "json::number")]
    pub at: i64,
    /// The operator who decided; empty if the producer did.
    pub operator: String,
    /// Queue offset of the message, if it is visible.
    pub queue_offset: Option<i64>,
    /// Why the operator did so. Of a producer `answer to a check` if it was that, else empty.
    pub reason: String,
}

/// Answer to `COUNT_TRANSACTIONS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransactionCounts {
    /// The groups that have open or parked transactions.
    pub groups: Vec<GroupTransactions>,
}

/// Transactions of one producer group. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupTransactions {
    /// The producer group.
    pub group: String,
    /// When the oldest open one began; missing without one.
    pub oldest_open_at: Option<i64>,
    /// When the oldest parked one began; missing without one.
    pub oldest_parked_at: Option<i64>,
    /// How many are open, each once, however many messages it has.
    #[serde(deserialize_with = "json::number")]
    pub open: u64,
    /// How many are parked, each once.
    #[serde(deserialize_with = "json::number")]
    pub parked: u64,
    /// How many of the open ones are due for a check while no instance of the group is connected.
    #[serde(deserialize_with = "json::number")]
    pub waiting_for_checker: u64,
}

answers!(TransactionPage, TransactionInfo, TransactionCounts);

#[cfg(test)]
mod tests {
    use super::super::Form;
    use super::*;

    #[test]
    fn what_is_not_there_is_left_out_and_what_is_unknown_ignored() {
        let info = TransactionInfo {
            half_id: 4096,
            state: TransactionState::Parked,
            parked: Some(Parked { at: 7, reason: "no checker".to_owned() }),
            ..TransactionInfo::default()
        };
        let page = TransactionPage { next: None, transactions: vec![info] };
        let text = json::to_bytes(&page, Form::Strict);
        let plain = String::from_utf8(text.to_vec()).unwrap();
        assert!(!plain.contains("next") && !plain.contains("decision"), "{plain}");
        assert!(plain.contains(r#""halfId":4096"#) && plain.contains(r#""state":"parked""#), "{plain}");
        assert_eq!(json::from_slice::<TransactionPage>(&text).unwrap(), page);
        let later = br#"{"transactions":[{"halfId":"12","state":"undone","shade":{"x":1}}],"next":12}"#;
        let later: TransactionPage = json::from_slice(later).unwrap();
        assert_eq!((later.next, later.transactions[0].half_id), (Some(12), 12));
        assert_eq!(later.transactions[0].state, TransactionState::Unknown);
    }
}
