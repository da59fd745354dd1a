//! How values are written in a properties file: one module per notation, each with `read` and `show`. The error of `read` says
//! what kind of value is expected.

/// As the type itself reads and shows.
pub mod plain {
    use std::any::Any;
    use std::fmt::Display;
    use std::num::{IntErrorKind, ParseIntError};
    use std::str::FromStr;

    /// Text to value.
    pub fn read<T: FromStr<Err: Display + 'static>>(text: &str) -> Result<T, String> {
        text.parse().map_err(|error: T::Err| match (&error as &dyn Any).downcast_ref::<ParseIntError>() {
            Some(error) => no_number(text, error, size_of::<T>()),
            None => error.to_string(),
        })
    }

    /// The mistake in the text of a number of this many bytes.
    fn no_number(text: &str, error: &ParseIntError, bytes: usize) -> String {
        match (error.kind(), bytes) {
            (IntErrorKind::PosOverflow, 2) => format!("must be at most {}", u16::MAX),
            (IntErrorKind::PosOverflow, 4) => format!("must be at most {}", u32::MAX),
            (IntErrorKind::PosOverflow | IntErrorKind::NegOverflow, _) => "is too large a number".to_owned(),
            _ if text.parse::<i64>().is_ok() => "must not be negative".to_owned(),
            _ => super::with_hint("must be a whole number, in digits alone", text),
        }
    }

    /// Value to text.
    pub fn show(value: &impl Display) -> String {
        value.to_string()
    }
}

/// Stricter than Java, for which everything but "true" is false: a typing error would turn a switch off.
pub mod boolean {
    /// Text to value.
    pub fn read(text: &str) -> Result<bool, String> {
        if text.eq_ignore_ascii_case("true") {
            Ok(true)
        } else if text.eq_ignore_ascii_case("false") {
            Ok(false)
        } else {
            Err(super::with_hint("must be true or false", text))
        }
    }

    /// Value to text.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the table passes fields by reference")]
    pub fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// A value that somebody set or did not; nothing is the latter.
pub mod optional {
    use std::fmt::Display;
    use std::str::FromStr;

    /// Text to value.
    pub fn read<T: FromStr<Err: Display + 'static>>(text: &str) -> Result<Option<T>, String> {
        if text.is_empty() { Ok(None) } else { super::plain::read(text).map(Some) }
    }

    /// Value to text.
    #[allow(clippy::ref_option, reason = "the table passes fields by reference")]
    pub fn show(value: &Option<impl Display>) -> String {
        value.as_ref().map_or_else(String::new, ToString::to_string)
    }
}

/// The mistake, with a hint where a comment follows the value.
pub fn with_hint(why: &str, text: &str) -> String {
    let first = text.split(char::is_whitespace).next().unwrap_or_default();
    let is_followed = first.len() < text.len() || text.contains('#') || text.contains("//");
    if is_followed { format!("{why}; a comment needs a line of its own") } else { why.to_owned() }
}

/// A duration in milliseconds.
pub mod millis {
    use std::time::Duration;

    /// Text to value.
    pub fn read(text: &str) -> Result<Duration, String> {
        super::plain::read(text).map(Duration::from_millis)
    }

    /// Value to text.
    pub fn show(value: &Duration) -> String {
        value.as_millis().to_string()
    }
}

/// A duration in seconds.
pub mod seconds {
    use std::time::Duration;

    /// Text to value.
    pub fn read(text: &str) -> Result<Duration, String> {
        super::plain::read(text).map(Duration::from_secs)
    }

    /// Value to text.
    pub fn show(value: &Duration) -> String {
        value.as_secs().to_string()
    }
}

/// Texts with ';' between them.
pub mod list {
    /// Text to value.
    #[allow(clippy::unnecessary_wraps, reason = "one form for all notations")]
    pub fn read(text: &str) -> Result<Vec<String>, String> {
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        Ok(parts.map(str::to_owned).collect())
    }

    /// Value to text.
    pub fn show(value: &[String]) -> String {
        value.join(";")
    }
}

/// A path; nothing is the default.
pub mod path {
    use std::path::PathBuf;

    /// Text to value.
    #[allow(clippy::unnecessary_wraps, reason = "one form for all notations")]
    pub fn read(text: &str) -> Result<Option<PathBuf>, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    /// Value to text.
    #[allow(clippy::ref_option, reason = "the table passes fields by reference")]
    pub fn show(value: &Option<PathBuf>) -> String {
        value.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_true_or_false() {
        assert_eq!(boolean::read("TRUE"), Ok(true));
        assert_eq!(boolean::read("yes"), Err("must be true or false".to_owned()));
        assert!(boolean::read("true # on").unwrap_err().ends_with("a comment needs a line of its own"));
    }

    #[test]
    fn numbers_say_what_is_wrong_with_them() {
        let wrong = |text: &str| plain::read::<u16>(text).unwrap_err();
        assert_eq!(wrong("abc"), "must be a whole number, in digits alone");
        assert_eq!(wrong("1024*1024"), wrong("abc"));
        assert_eq!(wrong("48 # hours"), "must be a whole number, in digits alone; a comment needs a line of its own");
        assert_eq!((wrong("70000"), wrong("-1")), ("must be at most 65535".into(), "must not be negative".into()));
        assert_eq!((plain::read::<u16>("0042"), plain::read::<u16>("+7")), (Ok(42), Ok(7)));
        assert_eq!(plain::read::<u64>("99999999999999999999"), Err("is too large a number".to_owned()));
    }
}
