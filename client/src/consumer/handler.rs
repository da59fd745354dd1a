//! The user's handler as the dispatcher sees it: one shape for single messages and for batches.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::group::HeldQueue;
use super::verdict::{IntoVerdict, Verdict};
use crate::message::MessageExt;

type VerdictFuture = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// What a handler is given: messages of one queue, and the queue if this member holds it.
type Run = dyn Fn(Vec<MessageExt>, Option<&Arc<HeldQueue>>) -> VerdictFuture + Send + Sync;

/// The user's handler. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handler {
    run: Arc<Run>,
}

impl Handler {
    /// One call per message; the dispatcher must hand over exactly one.
    pub(crate) fn single<F, R>(handle: F) -> Handler
    where
        F: Fn(MessageExt) -> R + Send + Sync + 'static,
        R: Future + Send + 'static,
        R::Output: IntoVerdict,
    {
        Handler::batch(move |messages| handle(only(messages)))
    }

    /// One call for several messages of one queue.
    pub(crate) fn batch<F, R>(handle: F) -> Handler
    where
        F: Fn(Vec<MessageExt>) -> R + Send + Sync + 'static,
        R: Future + Send + 'static,
        R::Output: IntoVerdict,
    {
        Handler::new(move |messages, _| {
            let ended = handle(messages);
            Box::pin(async move { ended.await.into_verdict() })
        })
    }

    /// A service of the user's.
    #[cfg(feature = "tower")]
    pub(crate) fn service<S>(service: S) -> Handler
    where
        S: tower_service::Service<MessageExt> + Send + 'static,
        S::Future: Send,
        Result<S::Response, S::Error>: IntoVerdict,
    {
        let service = Arc::new(tokio::sync::Mutex::new(service));
        Handler::new(move |messages, _| {
            let service = Arc::clone(&service);
            Box::pin(async move {
                let called = {
                    let mut service = service.lock().await;
                    match std::future::poll_fn(|context| service.poll_ready(context)).await {
                        Ok(()) => service.call(only(messages)),
                        Err(error) => return Err(error).into_verdict(),
                    }
                };
                called.await.into_verdict()
            })
        })
    }

    /// One call for several messages and their queue.
    pub(crate) fn new(
        run: impl Fn(Vec<MessageExt>, Option<&Arc<HeldQueue>>) -> VerdictFuture + Send + Sync + 'static,
    ) -> Handler {
        Handler { run: Arc::new(run) }
    }

    /// Runs the handler to its end, its panic or its timeout, whichever is first. A handler out of time is dropped at
    /// its next await point.
    pub(crate) async fn handle(
        &self,
        messages: Vec<MessageExt>,
        held: Option<&Arc<HeldQueue>>,
        timeout: Duration,
    ) -> Verdict {
        if let Some(error) = messages.iter().find_map(MessageExt::body_error) {
            return Verdict::again(format!("the body cannot be unfolded: {error}"));
        }
        // The call itself runs user code too (everything before the returned future), so it sits inside the net.
        let guarded = AssertUnwindSafe(async { (self.run)(messages, held).await }).catch_unwind();
        match tokio::time::timeout(timeout, guarded).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(panic)) => Verdict::again(format!("the handler panicked: {}", panic_text(panic.as_ref()))),
            Err(_) => Verdict::again(format!("the handler took longer than {timeout:?}")),
        }
    }
}

/// The message of a call for one.
pub(crate) fn only(mut messages: Vec<MessageExt>) -> MessageExt {
    messages.pop().expect("the dispatcher hands over one message")
}

/// The text of a panic, if it is one.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::testing::delivered;

    async fn ended(handler: Handler) -> Verdict {
        handler.handle(vec![delivered("T", 0, b"x")], None, Duration::from_secs(5)).await
    }

    #[tokio::test(start_paused = true)]
    async fn every_way_to_end_is_told() {
        assert_eq!(ended(Handler::single(|_| async { Ok::<(), String>(()) })).await, Verdict::Done);
        assert_eq!(ended(Handler::single(|_| async { Err::<(), _>("no") })).await, Verdict::again("no"));
        assert_eq!(ended(Handler::single(|_| async { Verdict::never("no") })).await, Verdict::never("no"));
        let panics = Handler::single(|_| async { if true { panic!("ouch") } else { Ok::<(), String>(()) } });
        assert_eq!(ended(panics).await, Verdict::again("the handler panicked: ouch"));
        let panics_early = Handler::batch(|messages| {
            assert!(messages.is_empty(), "early");
            async { Verdict::Done }
        });
        assert_eq!(ended(panics_early).await, Verdict::again("the handler panicked: early"));
        let hangs = Handler::single(|_| std::future::pending::<Verdict>());
        assert!(matches!(ended(hangs).await, Verdict::Again { reason, .. } if reason.contains("longer than 5s")));
    }

    #[cfg(feature = "tower")]
    #[tokio::test(start_paused = true)]
    async fn layers_stand_around_a_service() {
        let slow = tower::service_fn(|message: MessageExt| async move {
            let time = Duration::from_secs(if message.queue_offset() == 0 { 1 } else { 3 });
            tokio::time::sleep(time).await;
            Ok::<_, tower::BoxError>(Verdict::never("it came to its end"))
        });
        let service = tower::ServiceBuilder::new()
            .rate_limit(2, Duration::from_secs(60))
            .timeout(Duration::from_secs(2))
            .service(slow);
        let handler = Handler::service(service);
        let handle = |offset| handler.handle(vec![delivered("T", offset, b"x")], None, Duration::from_secs(600));
        let began = tokio::time::Instant::now();
        let (quick, late) = tokio::join!(handle(0), handle(1));
        assert_eq!(quick, Verdict::never("it came to its end"));
        assert!(matches!(late, Verdict::Again { .. }), "{late:?}");
        assert_eq!(began.elapsed(), Duration::from_secs(2), "they run beside each other");
        handle(0).await;
        assert!(began.elapsed() >= Duration::from_secs(60), "the third one waits for its turn");
    }
}
