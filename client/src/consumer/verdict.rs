//! What a handler may answer.

use std::any::Any;
use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use escrowmq_common::causes::Causes;

use crate::payload::PayloadError;

/// What is to become of a message after its handler.
///
/// A handler need not name it: `Ok(())` is [`Done`](Verdict::Done), and any error that can be displayed is
/// [`Again`](Verdict::Again) after the usual time.
///
/// ```
/// use std::time::Duration;
///
/// use escrowmq_client::{MessageExt, Verdict};
///
/// async fn pay(message: MessageExt) -> Result<Verdict, std::io::Error> {
///     match message.tag() {
///         Some("invoice") => Ok(Verdict::Done),
///         Some("reminder") => Ok(Verdict::again_after(Duration::from_secs(60), "the invoice is not there yet")),
///         _ => Ok(Verdict::never("neither an invoice nor a reminder")),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is done with.
    Done,
    /// It is to come again, until the attempts of the consumer are used up.
    Again {
        /// When. `None` is the usual time: 10 s after the first attempt, and longer with each, to 2 h; in ordered consumption 1 s.
        ///
        /// An ordered consumer waits exactly so long. Otherwise the broker does, by its delay levels: the time is rounded up to
        /// the next of 1 s, 5 s, 10 s, 30 s, 1 to 10 min in steps of one, 20 min, 30 min, 1 h and 2 h, and 2 h is the most. A
        /// broker whose levels are configured otherwise waits for the time that it has in that place.
        after: Option<Duration>,
        /// Why, for the log.
        reason: String,
    },
    /// It goes to the dead letters now (`%DLQ%<group>`), with the reason
    /// ([`dead_letter_reason`](crate::MessageExt::dead_letter_reason)).
    Never {
        /// Why.
        reason: String,
    },
    /// Its payload cannot be read: [`Never`](Verdict::Never), unless the consumer is set to try again
    /// ([`retry_unreadable`](crate::PushConsumerBuilder::retry_unreadable)).
    Unreadable {
        /// Why.
        reason: String,
    },
}

impl Verdict {
    /// Again, after the usual time.
    pub fn again(reason: impl Into<String>) -> Verdict {
        Verdict::Again { after: None, reason: reason.into() }
    }

    /// Again, after this time.
    pub fn again_after(time: Duration, reason: impl Into<String>) -> Verdict {
        Verdict::Again { after: Some(time), reason: reason.into() }
    }

    /// Why it is not done with.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Done => None,
            Verdict::Again { reason, .. } | Verdict::Never { reason } | Verdict::Unreadable { reason } => Some(reason),
        }
    }

    /// Never again, because.
    pub fn never(reason: impl Into<String>) -> Verdict {
        Verdict::Never { reason: reason.into() }
    }
}

impl From<()> for Verdict {
    fn from((): ()) -> Verdict {
        Verdict::Done
    }
}

impl From<PayloadError> for Verdict {
    fn from(error: PayloadError) -> Verdict {
        Verdict::Unreadable { reason: error.to_string() }
    }
}

/// What a handler may end with: a [`Verdict`], or a result whose success is one or `()`, and whose error can be displayed.
///
/// An error is told in the log with its causes: those of a boxed error are asked for, any other is written in the alternate form
/// (`{:#}`), in which `anyhow` names them. A [`PayloadError`], by itself or in a boxed error, is
/// [`Unreadable`](Verdict::Unreadable).
pub trait IntoVerdict {
    /// As a verdict.
    fn into_verdict(self) -> Verdict;
}

impl IntoVerdict for Verdict {
    fn into_verdict(self) -> Verdict {
        self
    }
}

impl<V: Into<Verdict>, E: Display + 'static> IntoVerdict for Result<V, E> {
    fn into_verdict(self) -> Verdict {
        match self {
            Ok(verdict) => verdict.into(),
            Err(error) => judged(&error),
        }
    }
}

/// Handlers may end with whatever can be displayed, so that only the value itself says whether it has sources.
pub(crate) fn judged<E: Display + 'static>(error: &E) -> Verdict {
    let any: &dyn Any = error;
    let boxed = any
        .downcast_ref::<Box<dyn Error + Send + Sync>>()
        .map(|error| &**error as &dyn Error)
        .or_else(|| any.downcast_ref::<Box<dyn Error>>().map(|error| &**error));
    let Some(error) = boxed else {
        return match any.downcast_ref::<PayloadError>() {
            Some(error) => error.clone().into(),
            None => Verdict::again(format!("{error:#}")),
        };
    };
    let reason = Causes(error).to_string();
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<PayloadError>() {
            return Verdict::Unreadable { reason };
        }
        cause = error.source();
    }
    Verdict::again(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the row is not written")]
    struct NotWritten(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("refused ({0}), order 17 waits")]
    struct Refused(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("order 17 is not booked")]
    struct NotBooked(#[source] PayloadError);

    fn boxed(error: impl Error + Send + Sync + 'static) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err(error.into())
    }

    #[test]
    fn an_error_shows_its_causes_once() {
        let disk = || std::io::Error::other("the disk is full");
        let anyhow: Result<(), _> = Err(anyhow::Error::new(NotWritten(disk())).context("order 17"));
        assert_eq!(anyhow.into_verdict(), Verdict::again("order 17: the row is not written: the disk is full"));
        let local: Result<(), Box<dyn Error>> = Err(NotWritten(disk()).into());
        assert_eq!(local.into_verdict(), Verdict::again("the row is not written: the disk is full"));
        let sent = boxed(NotWritten(disk())).into_verdict();
        assert_eq!(sent, Verdict::again("the row is not written: the disk is full"));
        let in_the_middle = boxed(Refused(disk())).into_verdict();
        assert_eq!(in_the_middle, Verdict::again("refused (the disk is full), order 17 waits"));
    }

    #[test]
    fn a_payload_that_cannot_be_read_is_told_apart_however_it_comes() {
        let error = || PayloadError::new("it is no number");
        let unreadable = |reason: &str| Verdict::Unreadable { reason: reason.into() };
        let told = error().to_string();
        assert_eq!(Err::<(), _>(error()).into_verdict(), unreadable(&told));
        assert_eq!(boxed(error()).into_verdict(), unreadable(&told));
        let deep = boxed(NotBooked(error())).into_verdict();
        assert_eq!(deep, unreadable(&format!("order 17 is not booked: {told}")));
    }

    #[test]
    fn a_success_may_be_a_verdict() {
        assert_eq!(Ok::<_, String>(()).into_verdict(), Verdict::Done);
        assert_eq!(Ok::<_, String>(Verdict::never("no")).into_verdict(), Verdict::never("no"));
        assert_eq!(Err::<Verdict, _>("busy").into_verdict(), Verdict::again("busy"));
    }
}
