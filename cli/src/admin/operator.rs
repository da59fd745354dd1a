//! The name and the reason that a broker keeps in its records for an act of an operator.

use escrowmq_common::limits::{OPERATOR_BYTES_MAX, REASON_BYTES_MAX};

/// A reason as an argument.
pub(super) fn reason(text: &str) -> Result<String, String> {
    bounded(text, REASON_BYTES_MAX)
}

/// The name of an operator as an argument.
pub(super) fn name(text: &str) -> Result<String, String> {
    bounded(text, OPERATOR_BYTES_MAX)
}

fn bounded(text: &str, max: usize) -> Result<String, String> {
    match text.trim() {
        "" => Err("it must not be empty".to_owned()),
        text if text.len() > max => Err(format!("it has {} bytes, and at most {max} are kept", text.len())),
        text => Ok(text.to_owned()),
    }
}

/// The user and host that run this program.
pub(super) fn current() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let system = rustix::system::uname();
    let mut name = format!("{user}@{}", system.nodename().to_string_lossy());
    while name.len() > OPERATOR_BYTES_MAX {
        name.pop();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded() {
        assert_eq!(reason("  paid by hand "), Ok("paid by hand".to_owned()));
        assert!(reason(" ").is_err() && reason(&"x".repeat(1025)).is_err());
        assert!(name(&"x".repeat(255)).is_ok() && name(&"x".repeat(256)).is_err());
    }
}
