//! What a header is, and the macro that turns a table of wire names into one.

use thiserror::Error;

use crate::frame::{FieldWriter, Fields};

/// A typed view of a frame's fields.
pub trait Header<'a>: Sized {
    /// Reads the header; texts borrow from `fields`.
    fn decode(fields: &'a Fields) -> Result<Self, HeaderError>;
    /// Appends all present fields to those of a frame.
    fn encode(&self, fields: &mut Fields);
    /// Writes all present fields straight into an out buffer; for [`write_response`](crate::frame::write_response).
    fn write(&self, writer: &mut FieldWriter<'_>);
}

/// Where the fields of a header go.
pub(super) trait FieldSink {
    fn text(&mut self, field: &str, value: &str);
    fn number(&mut self, field: &str, value: i64);
}

impl FieldSink for Fields {
    fn text(&mut self, field: &str, value: &str) {
        self.insert_text(field, value);
    }

    fn number(&mut self, field: &str, value: i64) {
        self.insert(field, value);
    }
}

impl FieldSink for FieldWriter<'_> {
    fn text(&mut self, field: &str, value: &str) {
        FieldWriter::text(self, field, value);
    }

    fn number(&mut self, field: &str, value: i64) {
        FieldWriter::number(self, field, value);
    }
}

/// A field that cannot be read. The sender's fault and not worth a retry; servers answer it with code 1.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub struct HeaderError {
    /// Wire name of the field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: HeaderProblem,
}

impl HeaderError {
    /// Sending the same again ends the same way.
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// An error about a field whose text is shown, cut to a length that fits into a remark.
    pub fn not_a(what: &'static str, field: &'static str, text: &str) -> HeaderError {
        let text = text.chars().take(64).collect();
        HeaderError { field, problem: HeaderProblem::NotA { what, text } }
    }
}

/// What is wrong with a field.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HeaderProblem {
    /// Not there.
    #[error("missing")]
    Missing,
    /// There, but unreadable.
    #[error("not {what}: '{text}'")]
    NotA {
        /// What was expected, with its article.
        what: &'static str,
        /// The beginning of what was there.
        text: String,
    },
}

/// A type that a field can have.
pub(super) trait FieldValue<'a>: Sized {
    /// Reads a value; `None` from the frame is an error unless the type allows it.
    fn read(field: &'static str, text: Option<&'a str>) -> Result<Self, HeaderError>;
    /// Appends the value; an absent one appends nothing.
    fn write(&self, field: &str, sink: &mut impl FieldSink);
}

fn missing(field: &'static str) -> HeaderError {
    HeaderError { field, problem: HeaderProblem::Missing }
}

impl<'a> FieldValue<'a> for &'a str {
    fn read(field: &'static str, text: Option<&'a str>) -> Result<&'a str, HeaderError> {
        text.ok_or_else(|| missing(field))
    }

    fn write(&self, field: &str, sink: &mut impl FieldSink) {
        sink.text(field, self);
    }
}

macro_rules! number_field {
    ($($number:ty),*) => {$(
        impl<'a> FieldValue<'a> for $number {
            fn read(field: &'static str, text: Option<&'a str>) -> Result<$number, HeaderError> {
                // Java reads an empty value of a binary header as null.
                let text = text.filter(|text| !text.is_empty()).ok_or_else(|| missing(field))?;
                text.trim().parse().map_err(|_| HeaderError::not_a("a number", field, text))
            }

            fn write(&self, field: &str, sink: &mut impl FieldSink) {
                sink.number(field, i64::from(*self));
            }
        }
    )*};
}

number_field!(i32, i64);

impl<'a> FieldValue<'a> for bool {
    fn read(field: &'static str, text: Option<&'a str>) -> Result<bool, HeaderError> {
        // Whatever is not "true" is false, as in Java.
        text.map(|text| text.eq_ignore_ascii_case("true")).ok_or_else(|| missing(field))
    }

    fn write(&self, field: &str, sink: &mut impl FieldSink) {
        sink.text(field, if *self { "true" } else { "false" });
    }
}

impl<'a, T: FieldValue<'a>> FieldValue<'a> for Option<T> {
    fn read(field: &'static str, text: Option<&'a str>) -> Result<Option<T>, HeaderError> {
        match T::read(field, text) {
            Ok(value) => Ok(Some(value)),
            Err(HeaderError { problem: HeaderProblem::Missing, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, field: &str, sink: &mut impl FieldSink) {
        if let Some(value) = self {
            value.write(field, sink);
        }
    }
}

/// Reads a field that counts as `default` if it is missing.
pub(super) fn read_or<'a, T: FieldValue<'a>>(
    field: &'static str,
    text: Option<&'a str>,
    default: T,
) -> Result<T, HeaderError> {
    Option::read(field, text).map(|value| value.unwrap_or(default))
}

/// Declares headers: `field: Type = "wireName"`, further spellings that are read but not written behind a bar, and
/// `or value` for what a missing field counts as.
macro_rules! headers {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident $(<$lt:lifetime>)? {
            $(
                $(#[$field_meta:meta])*
                $field:ident : $type:ty = $wire:literal $(| $also:literal)* $(or $default:expr)?
            ),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name $(<$lt>)? {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        headers!(@impl $name [$($lt)?] {
            $({ $field $wire [$($also)*] [$($default)?] })*
        });
    )*};

    (@impl $name:ident [] { $($rest:tt)* }) => {
        impl<'f> $crate::header::Header<'f> for $name {
            headers!(@methods 'f { $($rest)* });
        }
    };
    (@impl $name:ident [$lt:lifetime] { $($rest:tt)* }) => {
        impl<$lt> $crate::header::Header<$lt> for $name<$lt> {
            headers!(@methods $lt { $($rest)* });
        }
    };

    (@methods $lt:lifetime {
        $({ $field:ident $wire:literal [$($also:literal)*] [$($default:expr)?] })*
    }) => {
        fn decode(fields: &$lt $crate::frame::Fields) -> Result<Self, $crate::header::HeaderError> {
            $(let mut $field: Option<&$lt str> = None;)*
            for (key, value) in fields {
                match key {
                    $($wire $(| $also)* => $field = Some(value),)*
                    _ => {}
                }
            }
            Ok(Self { $($field: headers!(@read $wire, $field $(, $default)?),)* })
        }

        fn encode(&self, fields: &mut $crate::frame::Fields) {
            $($crate::header::table::FieldValue::write(&self.$field, $wire, fields);)*
        }

        fn write(&self, writer: &mut $crate::frame::FieldWriter<'_>) {
            $($crate::header::table::FieldValue::write(&self.$field, $wire, writer);)*
        }
    };

    (@read $wire:literal, $text:ident) => { $crate::header::table::FieldValue::read($wire, $text)? };
    (@read $wire:literal, $text:ident, $default:expr) => { $crate::header::table::read_or($wire, $text, $default)? };
}
