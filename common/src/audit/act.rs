//! One act, from the request to its answer.

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Trail;
use super::line::Line;
use crate::code::response;
use crate::frame::Frame;

/// Longest text of a peer in a line, in bytes.
const TEXT_MAX: usize = 1024;

/// The outcome of an act that was done.
pub(super) const DONE: &str = "done";

/// One act of an administrator that is not answered yet. Dropped without an answer, it leaves a line that says so.
#[derive(Debug)]
pub struct Act {
    name: &'static str,
    peer: SocketAddr,
    operator: Option<String>,
    /// The fields of the request.
    asked: String,
    is_told: AtomicBool,
    is_answered: AtomicBool,
    trail: Arc<Trail>,
}

impl Act {
    /// The act that a request of `peer` asks for. `name` is stable: two or three words, the verb first.
    pub fn new(name: &'static str, request: &Frame, peer: SocketAddr, trail: &Arc<Trail>) -> Self {
        let mut asked = String::new();
        for (key, value) in &request.fields {
            let _ = write!(asked, "{}{key}={}", if asked.is_empty() { "" } else { ", " }, cut(value));
            if asked.len() > TEXT_MAX {
                break;
            }
        }
        if !request.body.is_empty() {
            let _ = write!(asked, "{}a body of {} bytes", if asked.is_empty() { "" } else { ", " }, request.body.len());
        }
        Self {
            name,
            peer,
            operator: request.fields.get("operator").map(|operator| cut(operator).to_owned()),
            asked: cut(&asked).to_owned(),
            is_told: AtomicBool::new(false),
            is_answered: AtomicBool::new(false),
            trail: Arc::clone(trail),
        }
    }

    /// Writes the line of what was done to one object. Then [`answered`](Self::answered) writes none for a success.
    pub fn tell(&self, object: &str, old: impl Display, new: impl Display) {
        self.is_told.store(true, Ordering::Relaxed);
        let (old, new) = (old.to_string(), new.to_string());
        let told = |line: Line<'_>| self.trail.put(line);
        self.line(DONE, |line| {
            told(Line { object: Some(cut(object)), old: Some(cut(&old)), new: Some(cut(&new)), ..line });
        });
    }

    /// The request is answered with this code and remark. Writes a line, unless a success was told already.
    pub fn answered(&self, code: i32, remark: Option<&str>) {
        self.is_answered.store(true, Ordering::Relaxed);
        if code == response::SUCCESS {
            if !self.is_told.load(Ordering::Relaxed) {
                self.line(DONE, |line| self.trail.put(Line { asked: Some(&self.asked), ..line }));
            }
            return;
        }
        let Some(others) = self.trail.refusal(self.peer.ip()) else { return };
        let (others, remark) = (Some(others).filter(|others| *others > 0), remark.map(cut));
        self.line("refused", |line| {
            self.trail.put(Line { asked: Some(&self.asked), code: Some(code), remark, others, ..line });
        });
    }

    fn line(&self, outcome: &str, put: impl FnOnce(Line<'_>)) {
        let peer = self.peer.to_string();
        put(Line { act: self.name, outcome, peer: &peer, operator: self.operator.as_deref(), ..Line::default() });
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        if !*self.is_answered.get_mut() {
            self.line("unanswered", |line| self.trail.put(Line { asked: Some(&self.asked), ..line }));
        }
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::code::request;

    /// The lines that `with` leaves of an act, without their times.
    fn lines(request: &Frame, peer: &str, with: impl FnOnce(Act)) -> Vec<serde_json::Value> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let trail = Arc::new(Trail::open(Some(&path)).unwrap());
        with(Act::new("delete topic", request, peer.parse().unwrap(), &trail));
        read(&path)
    }

    fn read(path: &Path) -> Vec<serde_json::Value> {
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn request() -> Frame {
        Frame::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "T").with_body("12345")
    }

    #[test]
    fn an_act_has_one_line_however_it_ends() {
        for (end, outcome) in
            [(Some(response::SUCCESS), "done"), (Some(response::NO_PERMISSION), "refused"), (None, "unanswered")]
        {
            let lines = lines(&request().with_field("operator", "ann"), "10.0.0.1:5", |act| {
                if let Some(code) = end {
                    act.answered(code, (code != 0).then_some("why"));
                }
            });
            assert_eq!(lines.len(), 1, "{outcome}");
            let line = &lines[0];
            assert_eq!((&line["act"], &line["outcome"]), (&"delete topic".into(), &outcome.into()));
            assert_eq!((&line["peer"], &line["operator"]), (&"10.0.0.1:5".into(), &"ann".into()));
            assert!(line["asked"].as_str().unwrap().contains("topic=T"), "{line}");
            assert_eq!(line["remark"] == "why", outcome == "refused");
        }
    }

    #[test]
    fn each_object_has_a_line_and_the_success_no_other() {
        let lines = lines(&request(), "127.0.0.1:5", |act| {
            act.tell("T", 4, "none");
            act.tell("%RETRY%T", "a\nb", "none");
            act.answered(response::SUCCESS, None);
        });
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["object"], &lines[0]["old"], &lines[0]["new"]),
            (&"T".into(), &"4".into(), &"none".into())
        );
    }

    #[test]
    fn a_line_holds_no_more_than_it_may() {
        let long = Frame::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "ä".repeat(70_000));
        let lines = lines(&long, "127.0.0.1:5", |act| act.tell(&"ö".repeat(3_000), "", ""));
        assert!(lines.iter().all(|line| line.to_string().len() < 3 * TEXT_MAX), "{lines:?}");
        assert_eq!(lines.len(), 2, "it was not answered either");
    }

    #[test]
    fn refusals_to_other_machines_are_bounded_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let trail = Arc::new(Trail::open(Some(&path)).unwrap());
        let refuse = |peer: &str| {
            Act::new("delete topic", &request(), peer.parse().unwrap(), &trail).answered(response::NO_PERMISSION, None);
        };
        for _ in 0..100 {
            refuse("127.0.0.1:5");
        }
        assert_eq!(read(&path).len(), 100);
        for _ in 0..10_000 {
            refuse("10.0.0.1:5");
        }
        // A line in 50 ms, however slow this machine is.
        let lines = read(&path);
        let told: u64 = lines[100..].iter().map(|line| 1 + line["others"].as_u64().unwrap_or_default()).sum();
        assert!(lines.len() < 5_000 && told <= 10_000, "{} lines, {told} told", lines.len());
    }
}
