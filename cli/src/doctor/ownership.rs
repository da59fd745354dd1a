//! Who may read and write the files, and as whom the broker runs.

use std::path::Path;

use super::finding::Finding;

/// Owner and mode of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) uid: u32,
    pub(super) mode: u32,
}

/// `uid` is that of the broker, or of whoever would start it.
pub(super) fn data_folder(path: &Path, folder: Option<Owned>, uid: u32) -> Finding {
    const CHECK: &str = "data-folder";
    let shown = path.display();
    let Some(Owned { uid: owner, mode }) = folder else {
        return Finding::ok(CHECK, format!("{shown} is not there yet: the broker makes it"));
    };
    if owner != uid && uid != 0 {
        return Finding::risk(
            CHECK,
            format!("{shown} belongs to user {owner}, and the broker is user {uid}"),
            "the broker does not start, or cannot write what others made there",
            format!("chown -R {uid} {shown}, or run this command as the broker's user"),
        );
    }
    if mode & 0o007 != 0 {
        return Finding::warning(
            CHECK,
            format!("{shown} has the mode {:o}", mode & 0o7777),
            "every user of this machine may read messages there",
            format!("chmod 750 {shown}"),
        );
    }
    Finding::ok(CHECK, format!("{shown} belongs to user {owner}, mode {:o}", mode & 0o7777))
}

pub(super) fn config_file(path: &Path, file: Owned) -> Finding {
    const CHECK: &str = "config-mode";
    let Owned { uid, mode } = file;
    let what = format!("{} belongs to user {uid}, mode {:o}", path.display(), mode & 0o7777);
    if mode & 0o002 != 0 {
        let hurts = "every user of this machine may change the broker's settings";
        return Finding::risk(CHECK, what, hurts, format!("chmod o-w {}", path.display()));
    }
    Finding::ok(CHECK, what)
}

/// `is_running` says whether it is the broker's, or that of this command.
pub(super) fn user(uid: u32, is_running: bool) -> Finding {
    const CHECK: &str = "user";
    let remedy = "a user of its own without a shell (`User=` in the unit)";
    match (uid, is_running) {
        (0, true) => Finding::warning(
            CHECK,
            "the broker runs as root",
            "a fault of it would be one of the whole machine",
            remedy,
        ),
        (0, false) => Finding::note(CHECK, "this command runs as root; a broker needs no more than a user", "", remedy),
        (uid, true) => Finding::ok(CHECK, format!("the broker runs as user {uid}")),
        (uid, false) => Finding::ok(CHECK, format!("no broker runs on the folder; this is user {uid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_folder_that_others_read_hurts_and_one_of_another_user_is_a_risk() {
        let of = |folder, uid| data_folder(Path::new("/d"), folder, uid).verdict;
        let owned = |uid, mode| Some(Owned { uid, mode });
        assert_eq!((of(None, 5), of(owned(5, 0o40_750), 5)), (Verdict::Ok, Verdict::Ok));
        assert_eq!((of(owned(5, 0o40_755), 5), of(owned(6, 0o40_750), 5)), (Verdict::Warning, Verdict::Risk));
        assert_eq!(of(owned(6, 0o40_750), 0), Verdict::Ok);
    }

    #[test]
    fn settings_that_everybody_changes_are_a_risk() {
        let of = |mode| config_file(Path::new("/c"), Owned { uid: 0, mode }).verdict;
        assert_eq!((of(0o100_644), of(0o100_666)), (Verdict::Ok, Verdict::Risk));
    }

    #[test]
    fn a_broker_needs_no_root() {
        assert_eq!((user(0, true).verdict, user(0, false).verdict), (Verdict::Warning, Verdict::Note));
        assert_eq!((user(7, true).verdict, user(7, false).verdict), (Verdict::Ok, Verdict::Ok));
    }
}
