//! The counts of a broker.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A process that stands still accepts connections and never answers.
const ANSWER: Duration = Duration::from_secs(2);

/// The value of a metric of the broker whose `metricsPort` this is, if it answers and has it. The name goes without its
/// prefix.
pub async fn metric(port: u16, name: &str) -> Option<u64> {
    Page::of(port).await?.value(name)
}

/// The page of metrics of a broker at one moment. Names go without their prefix `escrowmq_`.
#[derive(Clone, Debug)]
pub struct Page {
    text: String,
}

impl Page {
    /// The page of the broker whose `metricsPort` this is, if it answers within moments.
    pub async fn of(port: u16) -> Option<Page> {
        tokio::time::timeout(ANSWER, Page::fetch(port)).await.ok()?
    }

    async fn fetch(port: u16) -> Option<Page> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(Page { text })
    }

    /// Its lines.
    pub fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or(&self.text, |(_, body)| body)
    }

    /// A page that was read elsewhere.
    pub fn from_text(text: &str) -> Page {
        Page { text: text.to_owned() }
    }

    /// The value of a metric without labels.
    pub fn value(&self, name: &str) -> Option<u64> {
        self.lines(name).find_map(|rest| rest.strip_prefix(' ')?.trim().parse().ok())
    }

    /// The values of a metric that has this label and no other one, with what the label says.
    pub fn by_label<'a>(&'a self, name: &'a str, label: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        self.lines(name).filter_map(move |rest| {
            let rest = rest.strip_prefix('{')?.strip_prefix(label)?.strip_prefix("=\"")?;
            let (said, value) = rest.split_once("\"} ")?;
            // A quote more belongs to another label.
            if said.contains('"') { None } else { Some((said, value.trim().parse().ok()?)) }
        })
    }

    /// What follows the name, in each line that begins with it.
    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.lines().filter_map(move |line| line.strip_prefix("escrowmq_")?.strip_prefix(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_and_label() {
        let page = Page::from_text(
            "HTTP/1.1 200 OK\r\n\r\n# HELP escrowmq_sends Sends.\n# TYPE escrowmq_sends counter\n\
             escrowmq_sends_total{code=\"0\"} 5\nescrowmq_sends_total{code=\"17\"} 1\nescrowmq_sends 3\n\
             escrowmq_lag{group=\"a\",topic=\"b\"} 9\n",
        );
        assert_eq!(page.value("sends"), Some(3));
        assert_eq!(page.value("sends_total"), None);
        assert_eq!(page.value("send"), None);
        assert_eq!(page.by_label("sends_total", "code").collect::<Vec<_>>(), [("0", 5), ("17", 1)]);
        assert_eq!(page.by_label("lag", "group").count(), 0);
        assert_eq!(page.by_label("sends_total", "topic").count(), 0);
    }

    #[tokio::test]
    async fn a_port_where_nobody_answers_has_no_page() {
        assert!(Page::of(1).await.is_none());
    }
}
