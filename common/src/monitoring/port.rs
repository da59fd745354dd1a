//! Where the pages are served.

use std::io;

use tokio::net::TcpListener;

/// By how much the port of the pages is above that of clients if it is not set: neither RocketMQ nor a second broker on the same
/// machine, ten further by custom, has a port there.
const ABOVE: u16 = 6;

/// The port of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    number: u16,
    /// Nobody named it, so a process starts without it where it is taken.
    is_default: bool,
}

impl Port {
    /// What `set` names; 0 is none. If nothing is set it is six above `clients`, the port of clients; none if that is 0, any
    /// free one, from which nobody could derive it.
    pub fn of(set: Option<u16>, clients: u16) -> Option<Port> {
        match set {
            Some(0) => None,
            Some(number) => Some(Port { number, is_default: false }),
            None if clients == 0 => None,
            None => Some(Port { number: clients.checked_add(ABOVE)?, is_default: true }),
        }
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.number
    }
}

/// Listens for those who ask for the pages. `None` where a port that nobody named is taken: a line in the log says so.
///
/// # Errors
///
/// If the port was set and cannot be had.
pub async fn listen(address: &str, port: Port) -> io::Result<Option<TcpListener>> {
    match TcpListener::bind((address.trim_matches(['[', ']']), port.number)).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if port.is_default => {
            let port = port.number;
            tracing::warn!(%error, port, "metrics are not served: the default port cannot be had; metricsPort names another");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_goes_with_the_port_of_clients() {
        let of = |set, clients| Port::of(set, clients).map(Port::number);
        assert_eq!((of(None, 10_911), of(None, 9876)), (Some(10_917), Some(9882)));
        assert_eq!((of(Some(1), 10_911), of(Some(0), 10_911)), (Some(1), None));
        assert_eq!((of(None, 0), of(None, u16::MAX), of(Some(2), 0)), (None, None, Some(2)));
    }

    #[tokio::test]
    async fn only_a_port_that_was_named_must_be_had() {
        let holder = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let taken = holder.local_addr().unwrap().port();
        let default = Port { number: taken, is_default: true };
        assert!(listen("127.0.0.1", default).await.unwrap().is_none());
        let named = Port { number: taken, is_default: false };
        assert_eq!(listen("127.0.0.1", named).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(holder);
        let listener = listen("127.0.0.1", named).await.unwrap().unwrap();
        assert_eq!(listener.local_addr().unwrap().port(), taken);
    }
}
