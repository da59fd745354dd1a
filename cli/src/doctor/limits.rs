//! Open files.

use escrowmq_broker::limits::OPEN_FILES_WANTED;

use super::finding::Finding;

/// With fewer the store itself may have none left: logs, index and copies need some hundred at a time.
const LEAST: u64 = 4_096;

/// The limit that the broker may raise its own to. `None` is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenFiles {
    pub(super) limit: Option<u64>,
    /// Whose limit it is.
    pub(super) of: String,
}

/// The hard limit in the text of `/proc/PID/limits`. `of` says whose it is.
pub(super) fn parse(limits: &str, of: String) -> Option<OpenFiles> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(OpenFiles { limit: None, of }),
        number => number.parse().ok().map(|limit| OpenFiles { limit: Some(limit), of }),
    }
}

pub(super) fn open_files(found: &OpenFiles) -> Finding {
    const CHECK: &str = "open-files";
    let OpenFiles { limit, of } = found;
    let remedy =
        || format!("LimitNOFILE={OPEN_FILES_WANTED} in the unit, or `ulimit -Hn` for the user that starts the broker");
    match *limit {
        None => Finding::ok(CHECK, format!("{of} may open any number")),
        Some(limit @ OPEN_FILES_WANTED..) => {
            Finding::ok(CHECK, format!("{of} may open {limit}, {OPEN_FILES_WANTED} are wanted"))
        }
        Some(limit @ LEAST..) => Finding::warning(
            CHECK,
            format!("{of} may open {limit}, {OPEN_FILES_WANTED} are wanted"),
            "each connection needs one: further clients are not let in",
            remedy(),
        ),
        Some(limit) => Finding::risk(
            CHECK,
            format!("{of} may open {limit}, {OPEN_FILES_WANTED} are wanted"),
            "connections leave none to the store, which then refuses all messages until a restart",
            remedy(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn few_open_files_hurt_and_very_few_are_a_risk() {
        let of = |limit| open_files(&OpenFiles { limit, of: "the broker".into() }).verdict;
        assert_eq!((of(None), of(Some(1 << 20))), (Verdict::Ok, Verdict::Ok));
        assert_eq!((of(Some(65_536)), of(Some(1_024))), (Verdict::Warning, Verdict::Risk));
    }

    #[test]
    fn the_hard_limit_is_the_second_number() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n";
        let limit = |text: &str| parse(text, String::new()).map(|found| found.limit);
        assert_eq!((limit(text), limit("nothing")), (Some(Some(524_288)), None));
        assert_eq!(limit(&text.replace("524288", "unlimited")), Some(None));
    }
}
