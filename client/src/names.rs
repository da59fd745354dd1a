//! The name servers: which one is asked, and what happens when it does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::Remote;
use tokio::time::Instant;

use crate::error::{LOOK_UP, RequestError, StartError};
use crate::events::{Bell, ServerKind};
use crate::outage::Outages;
use crate::stats::ServerAway;

/// How a question to the name servers ended. It can only become [`RequestError::NotSent`]: whatever happened to the
/// question, the request that it was asked for has not been sent.
#[derive(Debug)]
pub(crate) struct LookUpError(RequestError);

impl LookUpError {
    /// The answer of the name server at `addr` cannot be read.
    pub(crate) fn malformed(addr: &str, reason: impl ToString) -> LookUpError {
        LookUpError(RequestError::malformed(addr, reason))
    }

    /// The name server refused, or answered what only a refusal can be.
    pub(crate) fn refused(error: RequestError) -> LookUpError {
        LookUpError(error)
    }
}

impl From<LookUpError> for RequestError {
    fn from(error: LookUpError) -> RequestError {
        error.0.before_sending(LOOK_UP)
    }
}

/// The name servers of a client. They share nothing, so any of them may be asked; one is kept until it fails, because
/// two may disagree for a while and a client should not see its routes flap.
#[derive(Debug)]
pub(crate) struct NameServers {
    addrs: Vec<Arc<str>>,
    current: AtomicUsize,
    outages: Outages,
}

impl NameServers {
    /// Reads `host:port`, several joined by `;` or `,`.
    pub(crate) fn parse(text: &str, bell: Bell) -> Result<NameServers, StartError> {
        let mut addrs = Vec::new();
        for addr in text.split([';', ',']).map(str::trim).filter(|addr| !addr.is_empty()) {
            let port =
                addr.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
            if port.is_none() {
                return Err(StartError::setting("namesrv", format!("{addr:?} is not host:port")));
            }
            addrs.push(Arc::from(addr));
        }
        if addrs.is_empty() {
            return Err(StartError::setting("namesrv", "no address given"));
        }
        Ok(NameServers { addrs, current: AtomicUsize::new(0), outages: Outages::new(ServerKind::NameServer, bell) })
    }

    /// Asks the current one, and on a failure of transport each of the others once. The answer may carry any code.
    pub(crate) async fn call(
        &self,
        remote: &Remote,
        request: &Frame,
        timeout: Duration,
    ) -> Result<(Arc<str>, Frame), LookUpError> {
        let start = self.current.load(Ordering::Relaxed);
        let mut failure = RequestError::ShutDown;
        for step in 0..self.addrs.len() {
            let index = (start + step) % self.addrs.len();
            let addr = &self.addrs[index];
            let asked = Instant::now();
            match remote.call(addr, request.clone(), timeout).await {
                Ok(answer) => {
                    self.outages.answered(addr, asked);
                    self.current.store(index, Ordering::Relaxed);
                    return Ok((Arc::clone(addr), answer));
                }
                Err(error) => {
                    failure = RequestError::from_call(addr, &error);
                    self.outages.failed(addr, &failure);
                }
            }
        }
        Err(LookUpError(failure))
    }

    /// Those that are away now.
    pub(crate) fn away(&self) -> Vec<ServerAway> {
        self.outages.away()
    }

    /// A connection to one of them, for the client's start: nothing works without.
    pub(crate) async fn local_ip(&self, remote: &Remote) -> Result<std::net::IpAddr, RequestError> {
        let mut failure = RequestError::ShutDown;
        for (index, addr) in self.addrs.iter().enumerate() {
            match remote.connection(addr).await {
                Ok(connection) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(connection.local().ip());
                }
                Err(error) => failure = RequestError::from_call(addr, &error),
            }
        }
        Err(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_nonsense_is_refused() {
        let names = NameServers::parse("a:9876; b:9877,[::1]:9878;", Bell::new()).expect("three");
        assert_eq!(names.addrs.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["a:9876", "b:9877", "[::1]:9878"]);
        for bad in ["", ";", "a", "a:", ":9876", "a:99999"] {
            assert!(NameServers::parse(bad, Bell::new()).is_err(), "{bad:?}");
        }
    }
}
