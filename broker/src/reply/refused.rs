//! A request that is refused.

use std::borrow::Cow;

/// Why a request is refused: code and remark of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The response code, which says whether clients try again.
    pub code: i32,
    /// The reason, for people.
    pub remark: Cow<'static, str>,
}

impl Refused {
    /// A refusal with this code and this remark.
    pub(crate) fn new(code: i32, remark: impl Into<Cow<'static, str>>) -> Self {
        Self { code, remark: remark.into() }
    }
}
