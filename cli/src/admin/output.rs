//! The output of a command: a table for people, or JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Rows under columns, or a sentence.
#[derive(Debug)]
pub(crate) struct Output {
    columns: Vec<&'static str>,
    /// How wide the columns were in the pieces before; empty before the first.
    widths: Vec<usize>,
    rows: Vec<Vec<Value>>,
    /// Printed below the table.
    note: Option<String>,
}

impl Output {
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), widths: Vec::new(), rows: Vec::new(), note: None }
    }

    /// Only a sentence: what was done.
    pub(crate) fn done(what: impl Into<String>) -> Self {
        Self { columns: Vec::new(), widths: Vec::new(), rows: Vec::new(), note: Some(what.into()) }
    }

    pub(crate) fn row(&mut self, cells: impl Into<Vec<Value>>) {
        let cells = cells.into();
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.note = Some(note.into());
    }

    /// The rows since the piece before, for tables that are printed while they grow: columns stay at least as wide as
    /// they were, and their names stand above the first piece alone.
    pub(crate) fn piece(&mut self) -> String {
        let text = self.table();
        self.widths = self.widths();
        self.rows.clear();
        text
    }

    fn widths(&self) -> Vec<usize> {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| text(&row[at]).chars().count());
            cells.chain([self.columns[at].len()]).chain(self.widths.get(at).copied()).max().unwrap_or_default()
        };
        (0..self.columns.len()).map(width).collect()
    }

    /// Columns as wide as their widest cell; numbers to the right.
    pub(crate) fn table(&self) -> String {
        let texts: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(text).collect()).collect();
        let widths = self.widths();
        let is_number: Vec<bool> = (0..self.columns.len())
            .map(|at| !self.rows.is_empty() && self.rows.iter().all(|row| row[at].is_number()))
            .collect();
        let mut out = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (at, cell) in cells.enumerate() {
                let gap = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
                let (left, right) = if is_number[at] { (gap.as_str(), "") } else { ("", gap.as_str()) };
                let _ = write!(text, "{left}{cell}{right}  ");
            }
            let _ = writeln!(out, "{}", text.trim_end());
        };
        if !self.columns.is_empty() && self.widths.is_empty() {
            line(&mut self.columns.iter().copied());
        }
        for row in &texts {
            line(&mut row.iter().map(String::as_str));
        }
        if let Some(note) = &self.note {
            let _ = writeln!(out, "{note}");
        }
        out
    }

    /// A list of objects, or an object with the sentence.
    pub(crate) fn json(&self) -> String {
        let object = |row: &Vec<Value>| {
            let names = self.columns.iter().map(|column| column.to_lowercase().replace(' ', "_"));
            Value::Object(names.zip(row.iter().cloned()).collect())
        };
        let value = match &self.note {
            Some(note) if self.columns.is_empty() => json!({ "done": note }),
            _ => Value::Array(self.rows.iter().map(object).collect()),
        };
        format!("{value:#}\n")
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        // A terminal obeys control characters; what clients wrote may hold some.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Output {
        let mut output = Output::new(&["TOPIC", "MAX OFFSET"]);
        output.row([json!("a"), json!(5)]);
        output.row([json!("längeres\u{1b}[31m"), json!(12345)]);
        output
    }

    #[test]
    fn columns_line_up() {
        let table = sample().table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "TOPIC          MAX OFFSET");
        assert_eq!(lines[1], "a                       5");
        assert_eq!(lines[2], "längeres\u{fffd}[31m       12345");
    }

    #[test]
    fn pieces_line_up_and_have_one_head() {
        let mut output = sample();
        assert!(output.piece().starts_with("TOPIC"));
        output.row([json!("b"), json!(7)]);
        assert_eq!(output.piece(), "b                       7\n");
        assert_eq!(output.piece(), "");
    }

    #[test]
    fn json_is_for_programs() {
        let value: Value = serde_json::from_str(&sample().json()).unwrap();
        assert_eq!(value[0]["max_offset"], 5);
        let done: Value = serde_json::from_str(&Output::done("created").json()).unwrap();
        assert_eq!(done["done"], "created");
    }
}
