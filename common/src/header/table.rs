//! Headers as types, and the macro that turns a table of wire names into one.

use std::ops::RangeInclusive;

use thiserror::Error;

use crate::code::response;
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

/// A field that cannot be taken. The sender's fault and not worth a retry.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub struct HeaderError {
    /// Wire name of the field; of a one-letter name and its long form the long one.
    pub field: &'static str,
    /// Its fault.
    pub problem: HeaderProblem,
}

impl HeaderError {
    /// Sending the same again ends the same way.
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// The response code that says so: no client repeats what is too long or out of range, and missing or unreadable
    /// fields are answered as RocketMQ answers them.
    pub fn code(&self) -> i32 {
        match self.problem {
            HeaderProblem::Missing | HeaderProblem::NotA { .. } => response::SYSTEM_ERROR,
            HeaderProblem::TooLong { .. } => response::MESSAGE_ILLEGAL,
            HeaderProblem::OutOfRange { .. } => response::INVALID_PARAMETER,
        }
    }

    /// An error about a field whose text is shown, cut to a length that fits into a remark.
    pub fn not_a(what: &'static str, field: &'static str, text: &str) -> HeaderError {
        let text = text.chars().take(64).collect();
        HeaderError { field, problem: HeaderProblem::NotA { what, text } }
    }
}

/// The fault of a field.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HeaderProblem {
    /// Not there.
    #[error("missing")]
    Missing,
    /// There, but unreadable.
    #[error("not {what}: '{text}'")]
    NotA {
        /// The thing that was expected, with its article.
        what: &'static str,
        /// The beginning of what was there.
        text: String,
    },
    /// A text with more bytes than are taken.
    #[error("{length} bytes, at most {limit} are taken")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// Most bytes it may have.
        limit: usize,
    },
    /// A number that makes no sense.
    #[error("{value} is not between {least} and {most}")]
    OutOfRange {
        /// The number.
        value: i64,
        /// The smallest that is taken.
        least: i64,
        /// The largest that is taken.
        most: i64,
    },
}

/// A type that a field can have.
pub(super) trait FieldValue<'a>: Sized {
    /// Reads a value; `None` from the frame is an error unless the type allows it.
    fn read(field: &'static str, text: Option<&'a str>) -> Result<Self, HeaderError>;
    /// Appends the value; an absent one appends nothing.
    fn write(&self, field: &str, sink: &mut impl FieldSink);
}

/// Limits that a field of the type `T` can have: a text must have a length in bytes, a number may have a range.
#[diagnostic::on_unimplemented(
    message = "a header's field of type `{T}` cannot go with this limit",
    note = "each text needs its most bytes, as in `= \"topic\" max NAMED_TOPIC_BYTES_MAX`; a number may have a range, as in `= \"id\" within(0..=i64::MAX)`"
)]
pub(super) trait Limit<T> {
    /// Whether the value is within.
    fn check(self, field: &'static str, value: &T) -> Result<(), HeaderError>;
}

/// No limit, for what its type bounds well enough.
pub(super) struct Any;

/// Most bytes of a text.
pub(super) struct Max(pub(super) usize);

/// The range of a number.
pub(super) struct Within<N>(pub(super) RangeInclusive<N>);

impl<'a> Limit<&'a str> for Max {
    fn check(self, field: &'static str, value: &&'a str) -> Result<(), HeaderError> {
        let (length, limit) = (value.len(), self.0);
        if length <= limit {
            Ok(())
        } else {
            Err(HeaderError { field, problem: HeaderProblem::TooLong { length, limit } })
        }
    }
}

impl<T, L: Limit<T>> Limit<Option<T>> for L {
    fn check(self, field: &'static str, value: &Option<T>) -> Result<(), HeaderError> {
        value.as_ref().map_or(Ok(()), |value| L::check(self, field, value))
    }
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

        impl Limit<$number> for Any {
            fn check(self, _: &'static str, _: &$number) -> Result<(), HeaderError> {
                Ok(())
            }
        }

        impl Limit<$number> for Within<$number> {
            fn check(self, field: &'static str, value: &$number) -> Result<(), HeaderError> {
                if self.0.contains(value) {
                    return Ok(());
                }
                let (least, most) = (i64::from(*self.0.start()), i64::from(*self.0.end()));
                Err(HeaderError { field, problem: HeaderProblem::OutOfRange { value: i64::from(*value), least, most } })
            }
        }
    )*};
}

number_field!(i32, i64);

impl<'a> FieldValue<'a> for bool {
    /// `1` and `0` are how C++ clients write them, and an empty one reads as false in Java.
    fn read(field: &'static str, text: Option<&'a str>) -> Result<bool, HeaderError> {
        let text = text.ok_or_else(|| missing(field))?;
        match text.trim() {
            "1" => Ok(true),
            "0" | "" => Ok(false),
            word if word.eq_ignore_ascii_case("true") => Ok(true),
            word if word.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(HeaderError::not_a("true or false", field, text)),
        }
    }

    fn write(&self, field: &str, sink: &mut impl FieldSink) {
        sink.text(field, if *self { "true" } else { "false" });
    }
}

impl Limit<bool> for Any {
    fn check(self, _: &'static str, _: &bool) -> Result<(), HeaderError> {
        Ok(())
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

/// Reads a field and checks its limit; one that is missing counts as `default`, if there is one.
pub(super) fn read<'a, T: FieldValue<'a>, L: Limit<T>>(
    field: &'static str,
    text: Option<&'a str>,
    limit: L,
    default: Option<T>,
) -> Result<T, HeaderError> {
    let value = match (T::read(field, text), default) {
        (Err(HeaderError { problem: HeaderProblem::Missing, .. }), Some(default)) => return Ok(default),
        (value, _) => value?,
    };
    limit.check(field, &value)?;
    Ok(value)
}

/// The name of a field in errors: the first spelling, or the second where the first is one letter.
pub(super) const fn shown(names: &[&'static str]) -> &'static str {
    match names {
        [short, long, ..] if short.len() == 1 => long,
        [name, ..] => name,
        [] => "",
    }
}

/// Declares headers: `field: Type = "wireName"`, then
/// * further spellings that are read but not written, after bars;
/// * `max LIMIT` for a text, its most bytes by the name of a constant of [`limits`](crate::limits): no text goes without;
/// * `within(RANGE)` for a number that makes no sense outside;
/// * `or value` for what a missing field counts as.
macro_rules! headers {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident $(<$lt:lifetime>)? {
            $(
                $(#[$field_meta:meta])*
                $field:ident : $type:ty = $wire:literal $(| $also:literal)*
                    $(max $max:ident)? $(within($range:expr))? $(or $default:expr)?
            ),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name $(<$lt>)? {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        headers!(@impl $name [$($lt)?] {
            $({ $field $wire [$($also)*] [$(max $max)? $(within $range)?] [$($default)?] })*
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
        $({ $field:ident $wire:literal [$($also:literal)*] [$($limit:tt)*] [$($default:expr)?] })*
    }) => {
        fn decode(fields: &$lt $crate::frame::Fields) -> Result<Self, $crate::header::HeaderError> {
            $(let mut $field: Option<&$lt str> = None;)*
            for (key, value) in fields {
                match key {
                    $($wire $(| $also)* => $field = Some(value),)*
                    _ => {}
                }
            }
            Ok(Self {
                $($field: $crate::header::table::read(
                    const { $crate::header::table::shown(&[$wire $(, $also)*]) },
                    $field,
                    headers!(@limit $($limit)*),
                    headers!(@default $($default)?),
                )?,)*
            })
        }

        fn encode(&self, fields: &mut $crate::frame::Fields) {
            $($crate::header::table::FieldValue::write(&self.$field, $wire, fields);)*
        }

        fn write(&self, writer: &mut $crate::frame::FieldWriter<'_>) {
            $($crate::header::table::FieldValue::write(&self.$field, $wire, writer);)*
        }
    };

    (@limit) => { $crate::header::table::Any };
    (@limit max $max:ident) => { $crate::header::table::Max($crate::limits::$max) };
    (@limit within $range:expr) => { $crate::header::table::Within($range) };

    (@default) => { None };
    (@default $default:expr) => { Some($default) };
}
