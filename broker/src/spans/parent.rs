//! The context of a sender's span, in the form of the W3C.

/// Name of the property that has it, and of the one with what vendors add.
const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";
/// Digits of the four parts, and three dashes.
const PARENT_BYTES: usize = 55;
/// Longest state that is passed on, in bytes: what the W3C asks everybody to take.
const STATE_MAX: usize = 512;

/// The span that a message's sender had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    /// Its trace.
    pub trace: [u8; 16],
    /// The span.
    pub span: [u8; 8],
    /// Whether it is recorded.
    pub is_sampled: bool,
    /// What vendors add, as it was sent.
    pub state: Option<String>,
}

impl Parent {
    /// The context in a message's properties; `property` finds one. Versions to come may add parts at the end.
    pub(crate) fn of<'a>(property: impl Fn(&'static str) -> Option<&'a str>) -> Option<Self> {
        let text = property(TRACE_PARENT)?;
        let mut parts = text.splitn(5, '-');
        let version = number(parts.next()?, 2)?;
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        if version == 0xff || version == 0 && text.len() != PARENT_BYTES {
            return None;
        }
        let (trace, span, flags) = (number(trace, 32)?, number(span, 16)?, number(flags, 2)?);
        let state = property(TRACE_STATE).filter(|state| state.len() <= STATE_MAX).map(str::to_owned);
        // Zero is the id of none.
        (trace != 0 && span != 0).then(|| Self {
            trace: trace.to_be_bytes(),
            span: (span as u64).to_be_bytes(),
            is_sampled: flags & 1 == 1,
            state,
        })
    }
}

fn number(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<Parent> {
        Parent::of(|name| (name == TRACE_PARENT).then_some(text))
    }

    #[test]
    fn a_context_is_read_with_its_state() {
        let found = Parent::of(|name| Some(if name == TRACE_PARENT { TEXT } else { "a=b" })).unwrap();
        assert_eq!(u128::from_be_bytes(found.trace), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(u64::from_be_bytes(found.span), 0x00f0_67aa_0ba9_02b7);
        assert_eq!((found.is_sampled, found.state.as_deref()), (true, Some("a=b")));
        assert!(!parse(&TEXT.replace("-01", "-00")).unwrap().is_sampled);
        assert!(parse(&TEXT.replacen("00", "01", 1).replace("-01", "-01-more")).unwrap().is_sampled);
    }

    #[test]
    fn what_is_no_context_is_none() {
        let zeros = "0".repeat(32);
        for text in [
            "",
            "00",
            &TEXT[..54],
            &format!("{TEXT}-more"),
            &TEXT.replacen("00", "ff", 1),
            &TEXT.replace('f', "F"),
            &TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros),
            &TEXT.replace("00f067aa0ba902b7", &zeros[..16]),
            &TEXT.replace("4bf9", "+bf9"),
            &TEXT.replace("4bf9", "ä9"),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
