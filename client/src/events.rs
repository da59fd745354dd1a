//! What users can see of the connections: servers that go away and come back.

use std::time::Duration;

use tokio::sync::broadcast;

use crate::error::RequestError;

/// Events that wait for a listener that is slow; older ones are dropped.
const WAITING_MAX: usize = 256;

/// The kind of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerKind {
    /// A name server.
    NameServer,
    /// A broker.
    Broker,
}

impl ServerKind {
    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ServerKind::NameServer => "name server",
            ServerKind::Broker => "broker",
        }
    }
}

/// Something happened to a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// A broker answers on a new connection, and knows this client's groups.
    Connected {
        /// The broker's address.
        addr: String,
    },
    /// A server cannot be reached or does not answer. The client asks it again until it is back, or nobody needs it any more.
    Away {
        /// Its kind.
        kind: ServerKind,
        /// Its address.
        addr: String,
        /// How this was noticed.
        error: RequestError,
    },
    /// A server that was away answers again.
    Back {
        /// Its kind.
        kind: ServerKind,
        /// Its address.
        addr: String,
        /// How long it was away.
        after: Duration,
    },
    /// The listener was too slow for this many events, which it does not get.
    Missed {
        /// How many.
        count: u64,
    },
}

/// Where events are told.
#[derive(Clone, Debug)]
pub(crate) struct Bell {
    listeners: broadcast::Sender<ConnectionEvent>,
}

impl Bell {
    pub(crate) fn new() -> Bell {
        Bell { listeners: broadcast::Sender::new(WAITING_MAX) }
    }

    pub(crate) fn ring(&self, event: ConnectionEvent) {
        // Nobody may listen.
        let _ = self.listeners.send(event);
    }

    pub(crate) fn listen(&self) -> ConnectionEvents {
        ConnectionEvents { events: self.listeners.subscribe() }
    }
}

/// The events of a client from now on. Made by [`Client::events`](crate::Client::events).
#[derive(Debug)]
pub struct ConnectionEvents {
    events: broadcast::Receiver<ConnectionEvent>,
}

impl ConnectionEvents {
    /// Waits for the next one. `None` once the client is gone.
    pub async fn next(&mut self) -> Option<ConnectionEvent> {
        match self.events.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(ConnectionEvent::Missed { count }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_listener_hears_how_much_it_missed() {
        let bell = Bell::new();
        bell.ring(ConnectionEvent::Connected { addr: "before".into() });
        let mut events = bell.listen();
        for number in 0..WAITING_MAX + 3 {
            bell.ring(ConnectionEvent::Connected { addr: number.to_string() });
        }
        assert!(matches!(events.next().await, Some(ConnectionEvent::Missed { count: 3 })));
        assert!(matches!(events.next().await, Some(ConnectionEvent::Connected { addr }) if addr == "3"));
        drop(bell);
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        assert!(matches!(last, Some(ConnectionEvent::Connected { addr }) if addr == "258"));
    }
}
