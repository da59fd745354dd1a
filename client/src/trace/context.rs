//! Trace contexts in the form of the W3C: out of the spans of this process into messages, and back.

use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{TRACE_PARENT, TRACE_STATE};
use crate::message::{Message, MessageExt};

/// Digits of the four parts of a `traceparent`, and three dashes.
const PARENT_BYTES: usize = 55;

/// What a message gets of `span`, or of the current one where that is not exported: property names and values. A span that
/// other subscribers see may be filtered out for the one that exports.
pub(super) fn of(span: &Span) -> impl Iterator<Item = (&'static str, String)> {
    let mut context = span.context();
    if !context.span().span_context().is_valid() {
        context = Span::current().context();
    }
    let span = context.span();
    let place = span.span_context();
    let parent = place.is_valid().then(|| (TRACE_PARENT, parent_text(place)));
    let state = parent.as_ref().map(|_| place.trace_state().header()).filter(|state| !state.is_empty());
    parent.into_iter().chain(state.map(|state| (TRACE_STATE, state)))
}

/// Gives a message the context of the current span, unless it has one: it will be sent by somebody else.
#[cfg(feature = "sql")]
pub(crate) fn keep_current(message: &mut Message) {
    add(message, &Span::current());
}

/// Gives a message the context of `span`, unless it has one.
pub(super) fn add(message: &mut Message, span: &Span) {
    if message.get(TRACE_PARENT).is_none() {
        for (name, value) in of(span) {
            message.set(name, value);
        }
    }
}

/// The context that a message carries.
pub(super) fn in_message(message: &MessageExt) -> Option<SpanContext> {
    parse(message.property(TRACE_PARENT)?, message.property(TRACE_STATE))
}

/// Makes the remote context the parent of `span`, which nobody has entered yet.
pub(super) fn set_parent(span: &Span, parent: SpanContext) {
    let context = opentelemetry::Context::new().with_remote_span_context(parent);
    // Without a layer that exports there is nothing to continue.
    let _ = span.set_parent(context);
}

/// Lets `span` point to another.
pub(super) fn link(span: &Span, other: SpanContext) {
    span.add_link(other);
}

fn parent_text(place: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", place.trace_id(), place.span_id(), place.trace_flags() & TraceFlags::SAMPLED)
}

/// The context in the text of the two properties. Versions to come may add parts at the end; a state that cannot be read is
/// left out.
pub(super) fn parse(parent: &str, state: Option<&str>) -> Option<SpanContext> {
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = parent.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if !hex(version, 2) || version == "ff" || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
        return None;
    }
    if version == "00" && parent.len() != PARENT_BYTES {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let place = SpanContext::new(trace, span, flags, true, state);
    place.is_valid().then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_survives_the_way_through_text() {
        let place = parse(PARENT, Some("vendor=1,other=2")).expect("a context");
        assert!(place.is_remote() && place.is_sampled());
        assert_eq!(place.trace_state().header(), "vendor=1,other=2");
        assert_eq!(parent_text(&place), PARENT);
        let unsampled = parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", None).expect("a context");
        assert!(!unsampled.is_sampled());
    }

    #[test]
    fn versions_to_come_are_read_and_nonsense_is_not() {
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(parse(later, None).is_some());
        assert!(parse(PARENT, Some("no state")).is_some_and(|place| place.trace_state().header().is_empty()));
        for wrong in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert!(parse(wrong, None).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_message_keeps_the_context_it_has_and_gets_none_where_there_is_none() {
        let mut message = Message::new("T", "b").property(TRACE_PARENT, PARENT);
        add(&mut message, &Span::none());
        assert_eq!(message.get(TRACE_PARENT), Some(PARENT));
        let mut message = Message::new("T", "b");
        add(&mut message, &Span::none());
        assert_eq!(message.properties().count(), 0, "no span, no context");
    }
}
