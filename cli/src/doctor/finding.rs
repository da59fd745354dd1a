//! One thing that was looked at, and what it means.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// It will hurt: slow, fewer clients, a surprise later.
    Warning,
    /// A promise is at risk: messages may be lost, refused, or not found by anybody.
    Risk,
}

impl Verdict {
    /// The stable word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Risk => "risk",
        }
    }
}

/// What was found by one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// The stable name of the check.
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    /// What is the case.
    pub(super) what: String,
    /// What it does to whom, and what helps. Empty where all is well.
    pub(super) hurts: String,
    pub(super) remedy: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, what: what.into(), hurts: String::new(), remedy: String::new() }
    }

    pub(super) fn new(
        verdict: Verdict,
        check: &'static str,
        what: impl Into<String>,
        hurts: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, verdict, what: what.into(), hurts: hurts.into(), remedy: remedy.into() }
    }

    pub(super) fn note(check: &'static str, what: impl Into<String>, hurts: &str, remedy: impl Into<String>) -> Self {
        Self::new(Verdict::Note, check, what, hurts, remedy)
    }

    pub(super) fn warning(
        check: &'static str,
        what: impl Into<String>,
        hurts: &str,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Verdict::Warning, check, what, hurts, remedy)
    }

    pub(super) fn risk(check: &'static str, what: impl Into<String>, hurts: &str, remedy: impl Into<String>) -> Self {
        Self::new(Verdict::Risk, check, what, hurts, remedy)
    }
}

/// The findings for people.
pub(super) fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut out = String::new();
    for Finding { check, verdict, what, hurts, remedy } in findings {
        let _ = writeln!(out, "{:<8} {check:<width$}  {what}", verdict.name());
        for (word, text) in [("hurts", hurts), ("do", remedy)] {
            if !text.is_empty() {
                let _ = writeln!(out, "{:<8} {:<width$}  {word}: {text}", "", "");
            }
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (risks, warnings) = (count(Verdict::Risk), count(Verdict::Warning));
    let _ = match (risks, warnings) {
        (0, 0) => writeln!(out, "nothing hurts"),
        _ => writeln!(out, "risks: {risks}, warnings: {warnings}"),
    };
    out
}

/// The findings for programs.
pub(super) fn json(findings: &[Finding]) -> Value {
    let all = findings.iter().map(|Finding { check, verdict, what, hurts, remedy }| {
        json!({ "check": check, "verdict": verdict.name(), "what": what, "hurts": hurts, "remedy": remedy })
    });
    json!({ "verdict": worst(findings).name(), "findings": all.collect::<Vec<_>>() })
}

/// The worst of them.
pub(super) fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_hurts_and_what_helps() {
        let findings =
            [Finding::ok("swap", "none"), Finding::risk("room", "95 % in use", "sends are refused", "add room")];
        let expected = "ok       swap  none\nrisk     room  95 % in use\n               hurts: sends are refused\n               do: add room\nrisks: 1, warnings: 0\n";
        assert_eq!(text(&findings), expected);
        assert_eq!(worst(&findings), Verdict::Risk);
        let json = json(&findings);
        assert_eq!((&json["verdict"], &json["findings"][1]["remedy"]), (&"risk".into(), &"add room".into()));
        assert!(text(&findings[..1]).ends_with("nothing hurts\n"));
    }
}
