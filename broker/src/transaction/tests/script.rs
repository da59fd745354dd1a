//! Plays the scenarios in `scripts/*.txt`. What a line may say is in `scripts/README.md`.
//!
//! Time stands still within a line and moves on between lines, stopping wherever the runner would wake up. Every check that
//! is sent must be expected by a line at that very time: a scenario says all that happens.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::world::{Entry, Fault, Mishaps, Sent, World};
use crate::shard::{Outcome, Refusal};
use crate::terms::{Decision, HalfId, ParkReason, Stamp};
use crate::transaction::engine::CheckPolicy;

/// Scenarios begin at this time, after the first minute of a broker.
const BEGIN: Stamp = Stamp(1_000_000_000);

type Said<T> = Result<T, String>;

/// A line, split into words and `name=value` pairs.
struct Line<'a> {
    words: Vec<&'a str>,
    values: HashMap<&'a str, &'a str>,
    /// The text after `->`.
    result: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Self {
        let (event, result) = match text.split_once("->") {
            Some((event, result)) => (event, Some(result.trim())),
            None => (text, None),
        };
        let mut line = Self { words: Vec::new(), values: HashMap::new(), result };
        for word in event.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => drop(line.values.insert(name, value)),
                None => line.words.push(word),
            }
        }
        line
    }

    fn word(&self, nth: usize, what: &str) -> Said<&'a str> {
        self.words.get(nth).copied().ok_or_else(|| format!("{what} is missing"))
    }

    fn value(&self, name: &str) -> Said<&'a str> {
        self.values.get(name).copied().ok_or_else(|| format!("{name}=... is missing"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Said<Option<T>> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| format!("{name}={value}: not a number"))
    }

    fn time(&self, name: &str) -> Said<Option<u64>> {
        self.values.get(name).map(|value| millis(value)).transpose()
    }
}

/// `90s`, `1m30s`, `24h`, `500ms`.
fn millis(text: &str) -> Said<u64> {
    let wrong = || format!("{text}: not a time such as 90s, 1m30s, 24h or 500ms");
    let (mut total, mut rest) = (0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        total += number * factor;
        rest = &rest[unit..];
    }
    Ok(total)
}

fn shown(time: Stamp) -> String {
    let millis = time.since(BEGIN);
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

/// `h7`, or `h1..h9` for a range of names that end in numbers.
fn names(text: &str) -> Said<Vec<String>> {
    let Some((first, last)) = text.split_once("..") else { return Ok(vec![text.to_owned()]) };
    let digits = |name: &str| name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    let stem = &first[..digits(first)];
    let number = |name: &str| name[digits(name)..].parse::<u32>().map_err(|_| format!("{text}: not a range"));
    Ok((number(first)?..=number(last)?).map(|number| format!("{stem}{number}")).collect())
}

/// A scenario on its way.
struct Play {
    world: World,
    halves: HashMap<String, HalfId>,
    connections: HashMap<String, u64>,
    /// Checks that no line has expected yet.
    unexpected: Vec<Sent>,
}

impl Play {
    fn new() -> Self {
        let policy =
            CheckPolicy { first_after: 6_000, interval: 30_000, checks_max: 15, park_after: 86_400_000, leapt: None };
        let mut world = World::new(policy, BEGIN.saturating_sub(60_000));
        world.now = BEGIN;
        Self { world, halves: HashMap::new(), connections: HashMap::new(), unexpected: Vec::new() }
    }

    fn line(&mut self, text: &str) -> Said<()> {
        let line = Line::parse(text);
        match line.word(0, "a first word")? {
            "policy" => self.policy(&line),
            "at" => {
                let time = BEGIN + millis(line.word(1, "a time")?)?;
                self.advance(time)?;
                self.event(&line, &line.words[2..])
            }
            other => Err(format!("'{other}' begins no line; 'at' and 'policy' do")),
        }
    }

    fn policy(&mut self, line: &Line<'_>) -> Said<()> {
        let policy = &mut self.world.policy;
        policy.first_after = line.time("timeout")?.unwrap_or(policy.first_after);
        policy.interval = line.time("interval")?.unwrap_or(policy.interval);
        policy.checks_max = line.number("max")?.unwrap_or(policy.checks_max);
        policy.park_after = line.time("park-after")?.unwrap_or(policy.park_after);
        self.world.scheduler.borrow_mut().set_policy(self.world.policy);
        Ok(())
    }

    /// Lets time pass, with all that it brings.
    fn advance(&mut self, to: Stamp) -> Said<()> {
        if to < self.world.now {
            return Err(format!("the line before was at {}", shown(self.world.now)));
        }
        self.settle();
        while self.world.next_look() <= to {
            let next = self.world.next_look();
            self.pass_to(next)?;
            self.settle();
        }
        self.pass_to(to)
    }

    fn pass_to(&mut self, time: Stamp) -> Said<()> {
        if time > self.world.now {
            self.all_expected()?;
            self.world.now = time;
        }
        Ok(())
    }

    /// Rounds, until nothing is due now.
    fn settle(&mut self) {
        while self.world.next_look() <= self.world.now {
            let done = self.world.look(&Mishaps::default());
            self.unexpected.extend(done.sent);
            while self.world.apply_next().is_some() {}
        }
    }

    fn all_expected(&self) -> Said<()> {
        let Some(first) = self.unexpected.first() else { return Ok(()) };
        let at = shown(self.world.now);
        let more = self.unexpected.len() - 1;
        Err(format!("expected no (other) check at {at}, got {} and {more} more", self.sent(first)))
    }

    fn event(&mut self, line: &Line<'_>, words: &[&str]) -> Said<()> {
        match words {
            ["connect", name] => {
                let id = self.world.connect(line.value("group")?, line.value("client")?);
                self.connections.insert((*name).to_owned(), id);
            }
            ["disconnect", name] => {
                let id = self.connection(name)?;
                self.world.disconnect(id);
            }
            ["blocked" | "unblocked", name] => {
                let id = self.connection(name)?;
                let member = self.world.members.get_mut(&id).ok_or_else(|| format!("{name} is not connected"))?;
                member.is_writable = words[0] == "unblocked";
            }
            ["prepare", halves] => return self.prepare(line, halves),
            ["commit", half] => return self.decide(line, half, Decision::Commit),
            ["rollback", half] => return self.decide(line, half, Decision::Rollback),
            ["unknown", half] => return self.unknown(line, half),
            ["in-progress", half] => return self.in_progress(line, half),
            ["operator", act, half] => return self.operator(line, act, half),
            ["fault", half, what] => {
                let fault = match *what {
                    "bytes" | "encoding" => Fault::Bytes,
                    "disk" => Fault::Disk,
                    other => return Err(format!("'{other}' is no fault: bytes, encoding or disk")),
                };
                self.world.faults.insert(self.half(half)?, fault);
            }
            ["mend", half] => {
                let half = self.half(half)?;
                self.world.faults.remove(&half);
            }
            ["delete-topic"] => drop(self.apply(Entry::DeleteTopic)),
            ["delete-topic", "restart"] => {
                self.apply(Entry::DeleteTopic);
                self.restart();
            }
            ["restart"] => self.restart(),
            ["expect", expected @ ..] => {
                self.settle();
                return self.expect(line, expected);
            }
            _ => return Err(format!("'{}' is no event", words.join(" "))),
        }
        Ok(())
    }

    fn restart(&mut self) {
        let kept = self.world.log.len();
        self.world.restart(kept);
        self.connections.clear();
    }

    fn prepare(&mut self, line: &Line<'_>, halves: &str) -> Said<()> {
        let first_half = line.values.get("first").map(|name| self.half(name)).transpose()?;
        for name in names(halves)? {
            let entry = Entry::Prepare {
                group: line.value("group")?.to_owned(),
                client: line.value("from")?.to_owned(),
                unique_id: (*line.values.get("key").unwrap_or(&name.as_str())).to_owned(),
                body: line.values.get("body").map_or(0, |body| crc32fast::hash(body.as_bytes())),
                immunity: line.time("immunity")?,
                first_half,
            };
            let outcome = self.apply(entry);
            if let Outcome::Prepared(prepared) = &outcome {
                self.halves.insert(name, prepared.half);
            }
            self.compare(line, "kept", &outcome)?;
        }
        Ok(())
    }

    fn decide(&mut self, line: &Line<'_>, halves: &str, decision: Decision) -> Said<()> {
        for name in names(halves)? {
            let half = self.half(&name)?;
            self.answered(line, half)?;
            let by = Some(self.named(line, half));
            let outcome = self.apply(Entry::Settle { half, decision, by });
            let expected = if decision == Decision::Commit { "committed" } else { "rolled back" };
            self.compare(line, expected, &outcome)?;
        }
        Ok(())
    }

    /// An UNKNOW is no decision: it goes nowhere, and answers a check.
    fn unknown(&mut self, line: &Line<'_>, halves: &str) -> Said<()> {
        for name in names(halves)? {
            let half = self.half(&name)?;
            self.answered(line, half)?;
        }
        Ok(())
    }

    fn in_progress(&mut self, line: &Line<'_>, name: &str) -> Said<()> {
        let half = self.half(name)?;
        let is_answer = self.answered(line, half)?;
        let (group, counter) = self.named(line, half);
        let until = self.world.now + line.time("for")?.ok_or("for=... is missing")?;
        let outcome = self.apply(Entry::Extend { half, counter, group, until, is_answer });
        self.compare(line, "done", &outcome)
    }

    fn operator(&mut self, line: &Line<'_>, act: &str, name: &str) -> Said<()> {
        let half = self.half(name)?;
        let (entry, expected) = match act {
            "commit" => (Entry::Settle { half, decision: Decision::Commit, by: None }, "committed"),
            "rollback" => (Entry::Settle { half, decision: Decision::Rollback, by: None }, "rolled back"),
            "park" => (Entry::Park { half, reason: ParkReason::Operator, by: "operator" }, "done"),
            "resume" => (Entry::Resume { half, by: "operator", only_if: None }, "done"),
            other => return Err(format!("an operator does not {other}: commit, rollback, park, resume")),
        };
        let outcome = self.apply(entry);
        self.compare(line, expected, &outcome)
    }

    fn expect(&mut self, line: &Line<'_>, expected: &[&str]) -> Said<()> {
        match expected {
            ["check", halves, "on", connection] => self.expect_checks(line, halves, connection),
            ["delivered", names @ ..] => {
                let delivered: Vec<String> = self.world.tables.delivered.iter().map(|half| self.name(*half)).collect();
                same("delivered", &names.join(" "), &delivered.join(" "))
            }
            ["waiting"] => {
                for (group, number) in &line.values {
                    same(&format!("halves of {group} waiting"), number, &self.waiting_of(group).to_string())?;
                }
                Ok(())
            }
            ["alarm"] => {
                let now = self.world.now;
                let counted = self.world.scheduler.borrow().without_checker(now).to_string();
                same("halves without checker", line.value("halves")?, &counted)
            }
            [halves] => {
                for name in names(halves)? {
                    let half = self.half(&name)?;
                    if let Some(checks) = line.values.get("checks") {
                        let row = self.world.tables.halves.get(&half);
                        let counted = row.map_or("none, it is decided".to_owned(), |row| row.checks.to_string());
                        same(&format!("checks of {name}"), checks, &counted)?;
                    }
                }
                Ok(())
            }
            [halves, state @ ..] => {
                for name in names(halves)? {
                    let half = self.half(&name)?;
                    same(&format!("{name} is"), &state.join(" "), &self.state(half))?;
                }
                Ok(())
            }
            [] => Err("what is expected is missing".to_owned()),
        }
    }

    fn expect_checks(&mut self, line: &Line<'_>, halves: &str, connection: &str) -> Said<()> {
        let connection = self.connection(connection)?;
        let number: Option<u32> = line.number("number")?;
        for name in names(halves)? {
            let half = self.half(&name)?;
            let is_it = |sent: &Sent| {
                (sent.half, sent.connection) == (half, connection) && number.is_none_or(|number| number == sent.number)
            };
            let Some(at) = self.unexpected.iter().position(is_it) else {
                let mut got: Vec<String> = self.unexpected.iter().take(3).map(|sent| self.sent(sent)).collect();
                if got.is_empty() {
                    got.push(format!("none, and {name} is {}", self.state(half)));
                }
                let which = number.map_or_else(String::new, |number| format!(" with number {number}"));
                return Err(format!("expected a check of {name}{which} at this time, got {}", got.join(", ")));
            };
            self.unexpected.remove(at);
        }
        Ok(())
    }

    /// `from-check=a`: the answer comes on this connection. Says whether that one owed it.
    fn answered(&mut self, line: &Line<'_>, half: HalfId) -> Said<bool> {
        let Some(name) = line.values.get("from-check") else { return Ok(false) };
        let connection = self.connection(name)?;
        Ok(self.world.answered(connection, half))
    }

    fn apply(&mut self, entry: Entry) -> Outcome {
        self.world.submit(entry);
        self.world.apply_next().expect("an entry").outcome
    }

    /// A line that names no result expects success, with whatever messages.
    fn compare(&self, line: &Line<'_>, expected: &str, outcome: &Outcome) -> Said<()> {
        let got = self.outcome(outcome);
        match line.result {
            Some(result) => same("the outcome", result, &got),
            None => same("the outcome", expected, got.split(" with ").next().unwrap_or_default()),
        }
    }

    fn outcome(&self, outcome: &Outcome) -> String {
        let decided = |decision| if decision == Decision::Commit { "committed" } else { "rolled back" };
        match outcome {
            Outcome::Prepared(prepared) if prepared.repeated => format!("repeats {}", self.name(prepared.half)),
            Outcome::Prepared(_) => "kept".to_owned(),
            Outcome::Settled(settled) => {
                let again = if settled.first { "" } else { " already" };
                let mut text = format!("{}{again}", decided(settled.decision));
                for member in &settled.members {
                    let _ = write!(text, " with {}", self.name(member.half));
                }
                text
            }
            Outcome::Refused(refusal) => {
                let why = match refusal {
                    Refusal::AlreadyDecided(settled) => decided(settled.decision),
                    Refusal::NoSuchHalf(_) => "no such half",
                    Refusal::NoSuchQueue(_) => "no such topic",
                    Refusal::WrongGroup(_) => "wrong group",
                    Refusal::WrongCounter(_) => "wrong counter",
                    Refusal::UniqueIdTaken(_) => "another message has this key",
                    Refusal::NotParked(_) => "not parked",
                    Refusal::NotOpen(_) => "parked",
                    Refusal::NotFirstHalf(..) => "not a first half",
                    Refusal::TransactionFull(_) => "full",
                    other => return format!("refused: {other}"),
                };
                format!("refused: {why}")
            }
            Outcome::Done => "done".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn state(&self, half: HalfId) -> String {
        if let Some(decision) = self.world.tables.decisions.get(&half) {
            return if decision.decision == Decision::Commit { "committed" } else { "rolled back" }.to_owned();
        }
        let Some(row) = self.world.tables.halves.get(&half) else { return "lost".to_owned() };
        if let Some((reason, _)) = row.parked {
            return format!("parked: {}", reason.name());
        }
        let scheduler = self.world.scheduler.borrow();
        if scheduler.waiting.contains(&row.group, half) {
            "waiting".to_owned()
        } else if scheduler.held.contains(&row.group, half) {
            "held back".to_owned()
        } else {
            "open".to_owned()
        }
    }

    /// The producer group and the counter that a producer names.
    fn named(&self, line: &Line<'_>, half: HalfId) -> (String, u64) {
        let tables = &self.world.tables;
        let row = tables.halves.get(&half).map(|row| (row.group.clone(), row.counter));
        let known = row.or_else(|| tables.decisions.get(&half).map(|row| (row.group.clone(), row.counter)));
        let (group, counter) = known.unwrap_or_default();
        (line.values.get("group").map_or(group, |group| (*group).to_owned()), counter)
    }

    fn waiting_of(&self, group: &str) -> usize {
        self.world.scheduler.borrow().waiting_of(group)
    }

    fn half(&self, name: &str) -> Said<HalfId> {
        self.halves.get(name).copied().ok_or_else(|| format!("no half is called {name}"))
    }

    fn connection(&self, name: &str) -> Said<u64> {
        self.connections.get(name).copied().ok_or_else(|| format!("no connection is called {name}"))
    }

    fn name(&self, half: HalfId) -> String {
        let found = self.halves.iter().filter(|(_, id)| **id == half).map(|(name, _)| name);
        found.min().cloned().unwrap_or_else(|| half.to_string())
    }

    fn sent(&self, sent: &Sent) -> String {
        let connection = self.connections.iter().find(|(_, id)| **id == sent.connection).map(|(name, _)| name.as_str());
        let (half, number) = (self.name(sent.half), sent.number);
        format!("check {half} on {} number={number}", connection.unwrap_or("a connection that is gone"))
    }
}

fn same(what: &str, expected: &str, got: &str) -> Said<()> {
    if expected == got { Ok(()) } else { Err(format!("{what}: expected '{expected}', got '{got}'")) }
}

/// Plays a scenario; an error names its file and line.
fn play(file: &str, text: &str) -> Said<()> {
    let mut play = Play::new();
    for (nth, line) in text.lines().enumerate() {
        let at = |why| format!("{file}, line {}: {line}\n  {why}", nth + 1);
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            play.line(line).map_err(at)?;
        }
    }
    play.settle();
    play.all_expected().map_err(|why| format!("{file}, at its end: {why}"))
}

#[test]
fn scenarios() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/transaction/tests/scripts");
    let mut played = 0;
    let mut wrong = Vec::new();
    for file in std::fs::read_dir(folder).expect("the scenarios' folder") {
        let path = file.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = std::fs::read_to_string(&path).expect("readable");
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            wrong.extend(play(&name, &text).err());
            played += 1;
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert!(played >= 20, "only {played} scenarios were found in {folder}");
}

#[test]
fn a_scenario_that_goes_wrong_says_where_and_how() {
    let begin = "at 0s connect a group=orders client=p1\nat 0s prepare h1 group=orders from=p1\n";
    for (more, expected) in [
        (
            "at 7s expect h1 open",
            "line 3: at 7s expect h1 open\n  expected no (other) check at 6s, got check h1 on a number=1",
        ),
        (
            "at 6s expect check h1 on a number=2",
            "expected a check of h1 with number 2 at this time, got check h1 on a number=1",
        ),
        ("at 5s expect check h1 on a", "expected a check of h1 at this time, got none, and h1 is open"),
        ("at 5s rollback h1 -> committed", "the outcome: expected 'committed', got 'rolled back'"),
        ("at 5s expect h1 waiting", "h1 is: expected 'waiting', got 'open'"),
        ("at 5s expect delivered h1", "delivered: expected 'h1', got ''"),
        ("at 6s expect h1 checks=1", "at its end: expected no (other) check at 6s"),
        ("at 5x commit h1", "5x: not a time"),
        ("at 5s forget h1", "'forget h1' is no event"),
    ] {
        let got = play("it.txt", &format!("{begin}{more}")).expect_err(more);
        assert!(got.contains(expected), "{more}: {got}");
    }
}
