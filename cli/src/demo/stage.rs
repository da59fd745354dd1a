//! The events so far, as the story waits for them.

use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::processes::DEADLINE;

/// An event that a listener or a handler saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The producer group was asked.
    Checked {
        /// About this transaction.
        transaction_id: String,
    },
    /// A consumer got a message.
    Delivered {
        /// The message's body.
        body: String,
    },
    /// Something that must not happen.
    Broken(String),
}

/// Everything that happened. Clones are one stage.
#[derive(Clone, Debug, Default)]
pub(super) struct Stage {
    events: Arc<Mutex<Vec<Event>>>,
    changed: Arc<Notify>,
}

impl Stage {
    /// Something happened.
    pub(super) fn push(&self, event: Event) {
        self.events.lock().push(event);
        self.changed.notify_waiters();
    }

    /// Waits until `found` finds what it looks for, up to [`DEADLINE`]; fails at once if something is broken.
    pub(super) async fn wait<T>(&self, what: &str, found: impl Fn(&Stage) -> Option<T>) -> anyhow::Result<T> {
        let looking = async {
            loop {
                // Before the look, so that nothing falls in between.
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                self.intact()?;
                if let Some(found) = found(self) {
                    return Ok(found);
                }
                changed.await;
            }
        };
        tokio::time::timeout(DEADLINE, looking).await.with_context(|| format!("no {what} within {DEADLINE:?}"))?
    }

    /// Fails if something happened that must not.
    pub(super) fn intact(&self) -> anyhow::Result<()> {
        let events = self.events.lock();
        let broken = events.iter().find_map(|event| match event {
            Event::Broken(reason) => Some(reason.clone()),
            Event::Checked { .. } | Event::Delivered { .. } => None,
        });
        broken.map_or(Ok(()), |reason| Err(anyhow::anyhow!(reason)))
    }

    /// The bodies that consumers got, in order.
    pub(super) fn delivered(&self) -> Vec<String> {
        let events = self.events.lock();
        let bodies = events.iter().filter_map(|event| match event {
            Event::Delivered { body } => Some(body.clone()),
            Event::Checked { .. } | Event::Broken(_) => None,
        });
        bodies.collect()
    }

    /// How many checks there were.
    pub(super) fn checks(&self) -> usize {
        self.events.lock().iter().filter(|event| matches!(event, Event::Checked { .. })).count()
    }

    /// How many checks of one transaction there were.
    pub(super) fn checks_of(&self, id: &str) -> usize {
        let is_of = |event: &&Event| matches!(event, Event::Checked { transaction_id, .. } if transaction_id == id);
        self.events.lock().iter().filter(is_of).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_the_event_or_with_what_is_broken() {
        let stage = Stage::default();
        let waiting = stage.wait("delivery", |stage| (stage.delivered().len() == 2).then_some(()));
        let acting = async {
            stage.push(Event::Delivered { body: "a".into() });
            tokio::task::yield_now().await;
            stage.push(Event::Delivered { body: "b".into() });
        };
        let (waited, ()) = tokio::join!(waiting, acting);
        waited.unwrap();
        stage.push(Event::Broken("seen too early".into()));
        let error = stage.wait("more", |_| Some(())).await.unwrap_err();
        assert!(error.to_string().contains("seen too early"));
    }
}
