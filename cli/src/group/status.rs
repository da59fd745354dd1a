//! The table of members.

use escrowmq_common::body::{GroupMembers, MemberInfo};
use serde_json::json;

use crate::admin::output::Output;
use crate::words::counted;

pub(super) fn table(group: &GroupMembers) -> String {
    let mut output = Output::new(&[
        "GROUP",
        "SEAT",
        "ADDRESS",
        "ROLE",
        "ANSWERS",
        "TERM",
        "LAST INDEX",
        "LAG",
        "CONTACT MS",
        "BUILD",
        "ID",
    ]);
    for member in &group.members {
        output.row([
            json!(group.group),
            json!(member.seat),
            json!(member.address),
            json!(member.role),
            json!(member.reachable),
            json!(member.last_term),
            json!(member.last_index),
            json!(member.lag),
            json!(member.contact_millis),
            json!(member.build),
            json!(member.id),
        ]);
    }
    output.note(note(group));
    output.table()
}

/// The state of the whole group, below the table.
fn note(group: &GroupMembers) -> String {
    let GroupMembers { answered_by, changing, incarnation, leader, members, term, .. } = group;
    let leads = match leader {
        Some(leader) => format!("{leader} leads in term {term}"),
        None => format!("NO LEADER is known in term {term}: writes and reads wait for a majority of the voters"),
    };
    let incarnation = incarnation.as_deref().unwrap_or("-");
    let mut lines = vec![format!("{leads}; incarnation {incarnation}; told by {answered_by}")];
    if *changing {
        lines.push("a change of the members is under way".to_owned());
    }
    let away: Vec<&MemberInfo> = members.iter().filter(|member| !member.reachable).collect();
    if !away.is_empty() {
        lines.push(format!("{} of {} did not answer {answered_by}:", away.len(), counted(members.len(), "member")));
    }
    lines.extend(
        away.iter()
            .map(|member| format!("  {}: {}", member.seat, member.problem.as_deref().unwrap_or("no reason is known"))),
    );
    for member in members {
        if let Some(keys) = member.settings_differ.as_deref().filter(|keys| !keys.is_empty()) {
            lines.push(format!(
                "the file of {} differs from the group's settings, which count: {}",
                member.seat,
                keys.join(", ")
            ));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use escrowmq_common::body::MemberRole;

    fn group() -> GroupMembers {
        let member =
            |seat: &str, role| MemberInfo { seat: seat.to_owned(), role, reachable: true, ..MemberInfo::default() };
        let away = MemberInfo {
            problem: Some("cannot be reached".to_owned()),
            reachable: false,
            ..member("n1", MemberRole::Voter)
        };
        GroupMembers {
            answered_by: "n0".to_owned(),
            group: "orders".to_owned(),
            leader: Some("n0".to_owned()),
            members: vec![member("n0", MemberRole::Leader), away],
            term: 7,
            ..GroupMembers::default()
        }
    }

    #[test]
    fn who_is_away_is_named_with_the_reason() {
        let said = table(&group());
        assert!(said.contains("n0 leads in term 7") && said.contains("1 of 2 members did not answer n0:"), "{said}");
        assert!(said.contains("  n1: cannot be reached"), "{said}");
    }

    #[test]
    fn members_whose_files_differ_are_named_with_the_keys() {
        let mut group = group();
        group.members[0].settings_differ = Some(vec![]);
        assert!(!table(&group).contains("differs"));
        group.members[0].settings_differ = Some(vec!["traceOn".to_owned(), "maxMessageSize".to_owned()]);
        let said = table(&group);
        assert!(said.contains("the file of n0 differs") && said.contains(": traceOn, maxMessageSize"), "{said}");
    }

    #[test]
    fn a_group_without_a_leader_says_so() {
        let said = table(&GroupMembers { leader: None, ..group() });
        assert!(said.contains("NO LEADER"), "{said}");
    }
}
