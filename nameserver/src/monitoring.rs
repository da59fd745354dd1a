//! What those who watch the nameserver are shown: `/metrics`, `/ready` and `/live`, over HTTP.
//!
//! Each figure is read from the part that knows it when somebody asks. The names are here and nowhere else; docs/metrics.md explains
//! them, and a test compares. Left to others: the text and HTTP (`escrowmq_common::monitoring`).

use std::sync::Arc;

use escrowmq_common::monitoring::{self, Families, Site};
use escrowmq_common::remoting::Budget;
use escrowmq_common::task::Shutdown;

use crate::server::Server;
use crate::server::refusals::Refusal;

/// The parts whose figures the pages show.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) server: Arc<Server>,
    pub(crate) budget: Arc<Budget>,
    /// Cancelled when the nameserver stops.
    pub(crate) stopping: Shutdown,
}

impl Site for Pages {
    fn metrics(&self) -> String {
        let (pages, is_ready) = (self.clone(), self.readiness().is_ok());
        monitoring::text(move |families| {
            let hash = monitoring::configuration_hash(pages.server.config().entries());
            monitoring::process(families, "nameserver", env!("CARGO_PKG_VERSION"), hash);
            families.gauge("escrowmq_ready", "1 while requests are served or passed on.", u64::from(is_ready));
            monitoring::connections(families, &pages.budget);
            collect(families, &pages.server);
        })
    }

    fn readiness(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            return Err("stopping".to_owned());
        }
        if self.server.is_waiting() {
            return Err(
                "lookups wait until brokers have registered: needWaitForService, waitSecondsForService".to_owned()
            );
        }
        Ok(())
    }
}

fn collect(families: &mut Families<'_>, server: &Server) {
    {
        let brokers = server.routes().brokers();
        let members: usize = brokers.groups().map(|group| group.addresses.len()).sum();
        families.gauge("escrowmq_nameserver_brokers", "Brokers that are registered.", members as u64);
        families.gauge(
            "escrowmq_nameserver_broker_groups",
            "Names that these brokers have: those of a group share one.",
            brokers.groups().count() as u64,
        );
    }
    families.gauge("escrowmq_nameserver_topics", "Topics with a route.", server.routes().topic_count() as u64);
    let help = "Requests by the name of their code; (other) are those that are not served.";
    families.counters("escrowmq_nameserver_requests_total", help, |samples| {
        for (request, count) in server.requests().each() {
            samples.counter(&[("request", request)], count.get());
        }
    });
    let help = "Requests refused, by reason: taken, older, stranger and routes_full are registrations.";
    families.counters("escrowmq_nameserver_refusals_total", help, |samples| {
        for refusal in Refusal::ALL {
            samples.counter(&[("reason", refusal.name())], server.refused(refusal));
        }
    });
}
