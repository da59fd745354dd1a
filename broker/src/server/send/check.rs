//! Checks of a message: one set for every way in which a message comes in.

use escrowmq_common::code::response;
use escrowmq_common::limits::NAMED_GROUP_BYTES_MAX;
use escrowmq_common::message::properties::PropertyValueError;
use escrowmq_common::message::{SysFlag, TransactionType};

use super::illegal;
use super::known::{Known, Unserved};
use crate::config::BrokerConfig;
use crate::reply::Refused;

/// How a message comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Alone.
    Single,
    /// As a member of a batch.
    Member,
    /// As a reply, which is passed on at once.
    Reply,
}

impl From<PropertyValueError> for Refused {
    fn from(error: PropertyValueError) -> Self {
        illegal(format!("{error}; the message was not stored"))
    }
}

/// Refuses a message that this broker cannot store, or cannot do with what it asks for.
pub(super) fn check(
    config: &BrokerConfig,
    kind: Kind,
    known: &Known<'_>,
    (sys_flag, reconsume_times): (i32, i32),
    body: &[u8],
) -> Result<(), Refused> {
    let is_half = known.is_half(reconsume_times);
    match kind {
        Kind::Single if is_half && config.reject_transaction_message => {
            let remark = format!("the broker[{}] sending transaction message is forbidden", config.broker_ip);
            return Err(Refused::new(response::NO_PERMISSION, remark));
        }
        Kind::Member if known.is_transactional => {
            return Err(illegal("transactional messages cannot be in a batch"));
        }
        Kind::Member if known.is_delayed() => {
            return Err(illegal("delayed messages cannot be in a batch"));
        }
        Kind::Reply if known.is_transactional || known.is_delayed() => {
            return Err(illegal("a reply is passed on at once: it can be neither transactional nor delayed"));
        }
        Kind::Single | Kind::Member | Kind::Reply => {}
    }
    let flag = SysFlag(sys_flag);
    if flag.transaction() == TransactionType::Prepared && !known.is_transactional {
        let remark =
            "sysFlag says that this is a half message, property TRAN_MSG does not: it would be delivered at once";
        return Err(illegal(remark));
    }
    let inner_batch = flag.contains(SysFlag::INNER_BATCH).then_some(Unserved::InnerBatch);
    if let Some(unserved) = known.unserved.or(inner_batch) {
        return Err(illegal(unserved.remark()));
    }
    check_body(config, body)
}

/// Whether a body has a size that is taken. Consumers get a body or no message: Java's would get null for an empty one.
pub(super) fn check_body(config: &BrokerConfig, body: &[u8]) -> Result<(), Refused> {
    if body.is_empty() {
        // The code that Apache's broker answers, for another reason: an inner error.
        return Err(Refused::new(response::SYSTEM_ERROR, "the message body is empty"));
    }
    let (bytes, limit) = (body.len(), config.max_message_size);
    if bytes > limit {
        return Err(illegal(format!("message body size {bytes} exceeds the maximum of {limit}")));
    }
    Ok(())
}

/// Whether a half can belong to this producer group: without one nobody could ever be asked for the decision.
pub(super) fn check_producer_group(group: &str) -> Result<(), Refused> {
    if group.trim().is_empty() {
        return Err(illegal(
            "a half message without a producer group: nobody could be asked for its decision; set PGROUP or producerGroup",
        ));
    }
    if group.len() > NAMED_GROUP_BYTES_MAX {
        let bytes = group.len();
        return Err(illegal(format!("producer group of {bytes} bytes, at most {NAMED_GROUP_BYTES_MAX}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(kind: Kind, properties: &str, sys_flag: i32, times: i32, body: &[u8]) -> Option<i32> {
        let config = BrokerConfig { reject_transaction_message: true, max_message_size: 4, ..BrokerConfig::default() };
        let known = Known::of(properties).unwrap();
        check(&config, kind, &known, (sys_flag, times), body).err().map(|refused| refused.code)
    }

    #[test]
    fn bodies_are_neither_empty_nor_too_long_however_they_come() {
        for kind in [Kind::Single, Kind::Member, Kind::Reply] {
            assert_eq!(code(kind, "", 0, 0, b""), Some(1), "{kind:?}");
            assert_eq!(code(kind, "", 0, 0, b"12345"), Some(13), "{kind:?}");
            assert_eq!(code(kind, "", 1, 0, b"1234"), None, "{kind:?}");
        }
    }

    #[test]
    fn halves_and_delays_are_for_single_messages() {
        assert_eq!(code(Kind::Single, "TRAN_MSG\u{1}true", 4, 0, b"x"), Some(16), "they are switched off");
        assert_eq!(code(Kind::Single, "TRAN_MSG\u{1}true\u{2}DELAY\u{1}1", 4, 1, b"x"), None, "a retry");
        assert_eq!(code(Kind::Single, "DELAY\u{1}1", 0, 0, b"x"), None);
        for kind in [Kind::Member, Kind::Reply] {
            for bad in ["TRAN_MSG\u{1}true", "DELAY\u{1}3", "TIMER_DELAY_MS\u{1}5"] {
                assert_eq!(code(kind, bad, 0, 0, b"x"), Some(13), "{kind:?} {bad}");
            }
            assert_eq!(code(kind, "TRAN_MSG\u{1}false\u{2}DELAY\u{1}0", 0, 0, b"x"), None, "{kind:?}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for kind in [Kind::Single, Kind::Member, Kind::Reply] {
            assert_eq!(code(kind, "", 4, 0, b"x"), Some(13), "a half by its flag alone");
            assert_eq!(code(kind, "", SysFlag::INNER_BATCH, 0, b"x"), Some(13));
            for bad in ["INNER_NUM\u{1}3", "INNER_MULTI_DISPATCH\u{1}%LMQ%a", "TIMER_DEL_UNIQKEY\u{1}U"] {
                assert_eq!(code(kind, bad, 0, 0, b"x"), Some(13), "{bad}");
            }
        }
    }

    #[test]
    fn a_half_needs_a_group_that_can_be_asked() {
        for bad in ["", " ", "\t", &"g".repeat(256)] {
            assert_eq!(check_producer_group(bad).unwrap_err().code, 13, "{bad:?}");
        }
        check_producer_group(&"g".repeat(255)).unwrap();
    }
}
