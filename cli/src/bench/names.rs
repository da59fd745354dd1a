//! Response codes by name.

use escrowmq_common::code::response;

/// The code with its name, as in `2 SYSTEM_BUSY`.
pub(super) fn name(code: i32) -> String {
    let name = match code {
        response::SYSTEM_ERROR => "SYSTEM_ERROR",
        response::SYSTEM_BUSY => "SYSTEM_BUSY",
        response::REQUEST_CODE_NOT_SUPPORTED => "REQUEST_CODE_NOT_SUPPORTED",
        response::TRANSACTION_FAILED => "TRANSACTION_FAILED",
        response::FLUSH_DISK_TIMEOUT => "FLUSH_DISK_TIMEOUT",
        response::SLAVE_NOT_AVAILABLE => "SLAVE_NOT_AVAILABLE",
        response::FLUSH_SLAVE_TIMEOUT => "FLUSH_SLAVE_TIMEOUT",
        response::MESSAGE_ILLEGAL => "MESSAGE_ILLEGAL",
        response::SERVICE_NOT_AVAILABLE => "SERVICE_NOT_AVAILABLE",
        response::VERSION_NOT_SUPPORTED => "VERSION_NOT_SUPPORTED",
        response::NO_PERMISSION => "NO_PERMISSION",
        response::TOPIC_NOT_EXIST => "TOPIC_NOT_EXIST",
        response::SUBSCRIPTION_PARSE_FAILED => "SUBSCRIPTION_PARSE_FAILED",
        response::SUBSCRIPTION_NOT_EXIST => "SUBSCRIPTION_NOT_EXIST",
        response::SUBSCRIPTION_NOT_LATEST => "SUBSCRIPTION_NOT_LATEST",
        response::SUBSCRIPTION_GROUP_NOT_EXIST => "SUBSCRIPTION_GROUP_NOT_EXIST",
        response::INVALID_PARAMETER => "INVALID_PARAMETER",
        response::FLOW_CONTROL => "FLOW_CONTROL",
        response::ILLEGAL_OPERATION => "ILLEGAL_OPERATION",
        response::GO_AWAY => "GO_AWAY",
        _ => return code.to_string(),
    };
    format!("{code} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names_where_they_are_known() {
        assert_eq!((name(2).as_str(), name(4711).as_str()), ("2 SYSTEM_BUSY", "4711"));
    }
}
