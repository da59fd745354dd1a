//! Every command line that a document shows is one that our binaries take: the commands exist, and so do their options.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Our binaries. Command lines of other programs (`mqadmin`, `cargo`, `make`) are not checked.
const OURS: [&str; 3] = ["escrowmq", "escrowmq-broker", "escrowmq-nameserver"];

/// A command line of a document.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    binary: &'static str,
    arguments: Vec<String>,
}

/// The words of a line of a shell, up to a comment; `;`, `&&`, `|`, `&`, `>` and `<` are words of their own.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ';' | '|' | '&' | '<' | '>') => {
                words.extend(word.take());
                if characters.peek() == Some(&character) {
                    characters.next();
                }
                words.push(character.to_string());
            }
            (None, character) if character.is_whitespace() => words.extend(word.take()),
            (_, character) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// An argument as a reader gives it: what stands in brackets may be given, and a word in capitals stands for something.
/// A number is taken where a name is.
fn given(word: &str) -> String {
    let word = word.trim_start_matches('[').trim_end_matches(']');
    let is_placeholder = !word.is_empty() && word.chars().all(|character| character.is_ascii_uppercase());
    if is_placeholder { "1".to_owned() } else { word.to_owned() }
}

/// The command lines of ours in a line of a shell. `...` is left to the reader.
fn of_line(line: &str) -> Vec<Shown> {
    let words = words(line);
    let ends = |word: &String| [";", "|", "&", "<", ">"].contains(&word.as_str());
    words
        .split(ends)
        .filter_map(|words| {
            let program = words.iter().position(|word| word != "$" && !word.contains('='))?;
            let name = Path::new(&words[program]).file_name()?.to_str()?;
            let binary = OURS.into_iter().find(|ours| *ours == name)?;
            let arguments = words[program + 1..].iter().map(|word| given(word)).filter(|word| word != "...");
            Some(Shown { binary, arguments: arguments.collect() })
        })
        .collect()
}

/// A line without the sign of a quotation.
fn unquoted(line: &str) -> &str {
    let Some(quoted) = line.trim_start().strip_prefix('>') else { return line };
    quoted.strip_prefix(' ').unwrap_or(quoted)
}

/// The sign of a fence, if the line is the beginning or the end of one. It may stand after the sign of a list item.
fn fence(line: &str) -> Option<char> {
    let text = line.trim_start();
    let (sign, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is_item = ["-", "*", "+"].contains(&sign) || sign.trim_end_matches(['.', ')']).parse::<u32>().is_ok();
    let text = if is_item { rest.trim_start() } else { text };
    ['`', '~'].into_iter().find(|sign| text.starts_with(&sign.to_string().repeat(3)))
}

/// Whether a line outside of fences stands as deep as a block of code. So may a paragraph of a list item, which does no
/// harm as long as it does not begin with the name of one of our binaries.
fn is_deep(line: &str) -> bool {
    line.starts_with("    ") || line.trim_start_matches(' ').starts_with('\t')
}

/// The command lines in code between backticks.
fn of_prose(line: &str) -> Vec<Shown> {
    line.split('`').skip(1).step_by(2).flat_map(of_line).collect()
}

/// All of them in a document: in blocks of code, fenced or indented, each line, elsewhere each piece of inline code.
fn of_document(text: &str) -> Vec<Shown> {
    let mut shown = Vec::new();
    let mut fenced = None;
    let mut continued = String::new();
    for line in text.lines().map(unquoted) {
        let sign = fence(line);
        if sign.is_some() && (fenced.is_none() || fenced == sign) {
            fenced = if fenced.is_none() { sign } else { None };
            continue;
        }
        if fenced.is_none() {
            shown.extend(of_prose(line));
        }
        if fenced.is_some() || is_deep(line) {
            match line.strip_suffix('\\') {
                Some(begun) => continued.push_str(begun),
                None => shown.extend(of_line(&format!("{}{line}", std::mem::take(&mut continued)))),
            }
        }
    }
    shown
}

/// Why our binary does not take the command line; `None` if it does, or if it is not built.
fn refusal(shown: &Shown) -> Option<String> {
    let ours = Path::new(env!("CARGO_BIN_EXE_escrowmq"));
    let binary = ours.with_file_name(shown.binary);
    // The others are built with the workspace; a test of this package alone has none of them.
    if !binary.exists() {
        assert!(binary != ours, "built with this test");
        return None;
    }
    // Asked for its help at the end, it reads all that stands before and does nothing.
    let output = Command::new(binary).args(&shown.arguments).arg("--help").output().expect("it runs");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            documents(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_command_that_a_document_shows_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut all = Vec::new();
    documents(root, &mut all);
    let (mut count, mut wrong) = (0, Vec::new());
    for document in all {
        // The changelog tells of commands that are gone.
        if document.ends_with("CHANGELOG.md") {
            continue;
        }
        let text = std::fs::read_to_string(&document).expect("text");
        for shown in of_document(&text) {
            count += 1;
            if let Some(says) = refusal(&shown) {
                wrong.push(format!("{}: {} {:?}\n{says}", document.display(), shown.binary, shown.arguments));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 15, "{count} commands were found, and there are more");
}

#[test]
fn what_does_not_exist_is_found_out() {
    let says = |line: &str| refusal(&of_line(line)[0]);
    assert!(says("escrowmq topic create T").is_some());
    assert!(says("bin/escrowmq txn list --older-then 10m").is_some());
    assert!(says("escrowmq txn list --older-than soon").is_some());
    assert_eq!(says("$ ESCROWMQ_LOG=info bin/escrowmq txn list --older-than 10m   # all"), None);
    assert_eq!(says("escrowmq txn commit b:1 --reason \"it is paid; all of it\""), None);
}

#[test]
fn lines_are_taken_apart_as_a_shell_does() {
    let shown = of_document(
        "`escrowmq txn list` and `mqadmin topicList` and `escrowmq_open`.\n\
         ```sh\n\
         bin/escrowmq txn rollback ... ; escrowmq txn \\\n\
         count --json | jq .   # or escrowmq demo\n\
         make demo\n\
         ```\n\
         escrowmq is a broker.\n",
    );
    let of = |arguments: &[&str]| Shown {
        binary: "escrowmq",
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
    };
    assert_eq!(shown, [of(&["txn", "list"]), of(&["txn", "rollback"]), of(&["txn", "count", "--json"])]);
}

#[test]
fn code_is_found_wherever_it_stands() {
    let found = |text: &str| of_document(text).into_iter().map(|shown| shown.arguments.join(" ")).collect::<Vec<_>>();
    assert_eq!(
        found("So:\n\n    escrowmq txn list\n\tescrowmq txn \\\n    count\n\nescrowmq is prose.\n"),
        ["txn list", "txn count"]
    );
    assert_eq!(
        found("- an item\n\n  ```sh\n  escrowmq txn list\n  ```\n  `escrowmq txn count`\n"),
        ["txn list", "txn count"]
    );
    assert_eq!(found("1. ```\n   escrowmq txn list\n   ```\n2. escrowmq is prose\n"), ["txn list"]);
    assert_eq!(
        found("- an item\n\n      escrowmq txn list\n\n    - and `escrowmq txn count`\n"),
        ["txn list", "txn count"]
    );
    assert_eq!(found("> ```\n> escrowmq txn list\n> ```\n> escrowmq is prose\n"), ["txn list"]);
    assert_eq!(found("~~~\n```\nescrowmq txn list\n~~~\nescrowmq is prose\n"), ["txn list"]);
}

#[test]
fn what_a_reader_may_give_is_given() {
    let arguments = |line: &str| of_line(line).remove(0).arguments.join(" ");
    assert_eq!(
        arguments("escrowmq backup --out DIR [--broker 127.0.0.1:10911] [--keep N] [...]"),
        "backup --out 1 --broker 127.0.0.1:10911 --keep 1"
    );
    assert!(refusal(&of_line("escrowmq admin log give-up POSITION --reason why [--brokre h:1]")[0]).is_some());
}
