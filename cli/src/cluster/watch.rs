//! What the members say of themselves: their pages of metrics, read from time to time.

use std::time::Duration;

use anyhow::Context as _;
use escrowmq_common::clock;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::members::{Cluster, GROUPS, State};
use crate::processes::{DEADLINE, until};

/// A process that stands still takes connections and never answers.
const ANSWER: Duration = Duration::from_millis(500);

/// A member, as its page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// `leader`, `follower` or another role.
    pub(super) role: String,
    /// The newest term that it knows.
    pub(super) term: u64,
    /// Index of the last entry that it has applied.
    pub(super) applied: u64,
    /// Messages that it has stored as a leader, since its start.
    pub(super) messages: u64,
}

impl Page {
    fn read(text: &str) -> Option<Page> {
        let lines = || text.lines().filter_map(|line| line.strip_prefix("escrowmq_"));
        let value = |name: &str| lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        let role = lines().find_map(|line| line.strip_prefix("group_role{role=\"")?.strip_suffix("\"} 1"))?;
        Some(Page {
            role: role.to_owned(),
            term: value("group_term")?,
            applied: value("group_applied_index")?,
            messages: value("messages_in_total")?,
        })
    }

    async fn fetch(port: u16) -> Option<Page> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Page::read(&text)
    }
}

/// A process at one moment.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) state: State,
    /// None for nameservers, and for members that do not answer.
    pub(super) page: Option<Page>,
    /// Messages that it stored in a second since the look before.
    pub(super) rate: f64,
}

/// All processes at one moment, in the order of the cluster's.
pub(super) type View = Vec<Row>;

/// Looks, and remembers the last look.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last: View,
    at: Duration,
    leaders: [Option<String>; GROUPS.len()],
}

/// The place of a group's leader: the one of the newest term.
pub(super) fn leader(cluster: &Cluster, view: &[Row], group: usize) -> Option<usize> {
    let rows = || cluster.nodes().iter().zip(view).enumerate().filter(|(_, (node, _))| node.group == Some(group));
    let newest = rows().filter_map(|(_, (_, row))| row.page.as_ref()).map(|page| page.term).max()?;
    let leads = |page: &Page| page.role == "leader" && page.term == newest;
    rows().find(|(_, (_, row))| row.page.as_ref().is_some_and(leads)).map(|(at, _)| at)
}

impl Watch {
    /// Asks all members.
    pub(super) async fn look(&mut self, cluster: &mut Cluster) -> View {
        let states = cluster.states();
        let pages = join_all(cluster.nodes().iter().zip(&states).map(async |(node, state)| {
            let asks = node.group.is_some() && *state == State::Up;
            if asks { timeout(ANSWER, Page::fetch(node.metrics)).await.ok().flatten() } else { None }
        }));
        let pages = pages.await;
        let seconds = clock::monotonic().saturating_sub(self.at).as_secs_f64();
        let rate = |at: usize, page: Option<&Page>| {
            let before = self.last.get(at)?.page.as_ref()?.messages;
            // Its counts begin anew with each start.
            Some(page?.messages.checked_sub(before)? as f64 / seconds)
        };
        let rows = states.into_iter().zip(pages).enumerate();
        let view: View =
            rows.map(|(at, (state, page))| Row { state, rate: rate(at, page.as_ref()).unwrap_or(0.0), page }).collect();
        for (group, name) in self.leaders.iter_mut().enumerate() {
            *name = leader(cluster, &view, group).map(|at| cluster.nodes()[at].name.clone());
        }
        (self.last, self.at) = (view.clone(), clock::monotonic());
        view
    }

    /// Waits until each group has a leader.
    pub(super) async fn until_leaders(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        until(DEADLINE, "leader of each group", async || {
            self.look(cluster).await;
            Ok(self.leaders.iter().all(Option::is_some).then_some(()))
        })
        .await
        .context("the groups do not come up; the logs say why")
    }

    /// The process that a command means: the leader at the last look for the name of a group, else whoever has the name.
    pub(super) fn name_of(&self, name: &str) -> Option<String> {
        match GROUPS.iter().position(|group| *group == name) {
            Some(group) => self.leaders[group].clone(),
            None => Some(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_a_member_stands() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE escrowmq_group_role gauge\nescrowmq_group_role{role=\"follower\"} 1\n\
                    escrowmq_group_term 3\nescrowmq_group_applied_index 17\nescrowmq_messages_in_total 5\n";
        let page = Page { role: "follower".to_owned(), term: 3, applied: 17, messages: 5 };
        assert_eq!(Page::read(text), Some(page));
        assert_eq!(Page::read("HTTP/1.1 503 Service Unavailable\r\n\r\n"), None);
    }
}
