//! The tables of an outbox.

use super::store::Statements;
use crate::sql::Dialect;
use crate::sql::tables::{Column, Family, Table};

const MESSAGES: &[(&str, Column)] = &[
    ("id", Column::Id),
    ("slot", Column::Int),
    ("state", Column::Ascii(8)),
    ("tenant", Column::Text(255)),
    ("topic", Column::Text(255)),
    ("order_key", Column::Text(4096)),
    ("unique_id", Column::Text(512)),
    ("flag", Column::Int),
    ("properties", Column::LongText),
    ("body", Column::Bytes),
    ("bytes", Column::Int),
    ("attempts", Column::Count),
    ("last_error", Column::Note(2048)),
    ("created_at", Column::Time),
    ("changed_at", Column::Time),
];
const SLOTS: &[(&str, Column)] = &[("slot", Column::Int), ("owner", Column::Text(255)), ("owned_until", Column::Time)];
const RELAYS: &[(&str, Column)] = &[("relay", Column::Text(255)), ("alive_until", Column::Time)];

/// All of them, with the rows of the slots.
pub(super) fn tables<DB: Dialect>(table: &str) -> Family {
    let one = |end: &str, columns, key, index| Table { name: format!("{table}{end}"), columns, key, index };
    let tables = [
        one("", MESSAGES, "", Some(("by_slot", "state, slot, id"))),
        one("_slots", SLOTS, "slot", None),
        one("_relays", RELAYS, "relay", None),
    ];
    Family::new::<DB>(table, 1, &tables, vec![Statements::new(table, DB::SPELLING).slots()])
}
