//! The figures of a group on the page: this member's own, those of the others, and what is passed on between them.
//!
//! Labels are seats and ids of members, so there are few. What only a leader knows is on the leader's page alone.

use super::page::Page;
use super::{Monitor, Role};
use crate::group::{Figures, OtherMember};
use crate::terms::LogIndex;

pub(super) fn group(page: &mut Page, monitor: &Monitor) {
    page.head("group_role", "1 for the role that this member has in its group; a candidate knows no leader.", "gauge");
    let role = match monitor.role() {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Leaderless => "candidate",
    };
    page.line("group_role", &format!("{{role=\"{role}\"}}"), 1);
    page.gauge("group_term", "The newest term of the group that is known here.", monitor.leadership.borrow().term());
    page.gauge(
        "group_applied_index",
        "Index of the last entry of the group's log that is applied here.",
        monitor.shard.counters().applied_index().map_or(0, LogIndex::get),
    );
    // A broker alone has nobody to compare with.
    if !monitor.group.is_alone() {
        let figures = monitor.group.figures();
        own(page, &figures);
        others(page, &figures);
    }
}

fn own(page: &mut Page, figures: &Figures) {
    let reach = &figures.reach;
    for (name, help, value) in [
        ("group_voters", "Members that vote.", figures.voters),
        ("group_learners", "Members without a vote: they catch up.", figures.learners),
        (
            "group_uncommitted_entries",
            "Entries of this member's log that are not known to be committed: a minority may have them alone.",
            reach.last.get().saturating_sub(reach.committed.get()),
        ),
        ("group_uncommitted_bytes", "Bytes of these entries.", figures.uncommitted_bytes),
        (
            "group_apply_lag_entries",
            "Entries that are committed as far as this member knows, and that it has not applied.",
            reach.group_committed.get().saturating_sub(reach.applied.get()),
        ),
    ] {
        page.gauge(name, help, value);
    }
    page.head(
        "group_majority_silence_seconds",
        "Time since a majority heard from this leader, or since this member heard of a leader.",
        "gauge",
    );
    page.line("group_majority_silence_seconds", "", figures.majority_silence.as_secs_f64());
    page.counter(
        "group_leader_changes_total",
        "Terms in which this member has seen a leader, the first one included, since start.",
        figures.leaders_seen,
    );
    page.counter(
        "group_handshakes_refused_total",
        "Connections of other members that were refused: of another group, or with another secret, version or id.",
        figures.handshakes_refused,
    );
    if let Some(lost) = figures.voters_out_of_reach {
        page.gauge("group_voters_out_of_reach", "Voters that have not answered this leader for two seconds.", lost);
    }
}

fn others(page: &mut Page, figures: &Figures) {
    let clocks = figures.others.iter().filter_map(|other| Some((other, other.clock_ahead?)));
    page.head(
        "group_clock_offset_seconds",
        "By how much the wall clock of another member is ahead of this one's; behind, if negative.",
        "gauge",
    );
    for (other, ahead) in clocks {
        page.line("group_clock_offset_seconds", &braced(other), ahead as f64 / 1e3);
    }
    let followed: Vec<_> = figures.others.iter().filter_map(|other| Some((other, other.followed.as_ref()?))).collect();
    if followed.is_empty() {
        return;
    }
    page.head("group_member_lag_entries", "Entries of this leader's log that a member is not known to have.", "gauge");
    for (other, followed) in &followed {
        page.line("group_member_lag_entries", &braced(other), followed.lag_entries);
    }
    page.head("group_member_lag_bytes", "Bytes of these entries, of those that this leader still has.", "gauge");
    for (other, followed) in &followed {
        page.line("group_member_lag_bytes", &braced(other), followed.lag_bytes);
    }
    page.head(
        "group_append_seconds",
        "Time from an append to a member until its answer, which follows its flush.",
        "histogram",
    );
    for (other, followed) in &followed {
        if let Some(traffic) = &followed.traffic {
            page.histogram("group_append_seconds", &labels(other), &traffic.appends);
        }
    }
}

/// Both, since a seat has two ids while one takes the other's place.
fn labels(other: &OtherMember) -> String {
    format!("seat=\"{}\",node=\"{}\"", other.seat, other.node)
}

fn braced(other: &OtherMember) -> String {
    format!("{{{}}}", labels(other))
}

pub(super) fn forwarding(page: &mut Page, monitor: &Monitor) {
    if monitor.group.is_alone() {
        return;
    }
    let (passing, arriving) = (&monitor.passing, &monitor.arriving);
    page.gauge("forward_waiting", "Requests that wait for a leader or to be passed on to it.", passing.waiting.get());
    for (name, help, count) in [
        ("forward_requests_total", "Requests that were passed on to the leader.", &passing.passed),
        ("forward_arrived_total", "Requests that other members have passed on to this one.", &arriving.arrived),
        ("forward_refused_total", "Requests refused (14) for want of a leader.", &passing.refused),
        ("forward_tunnels_opened_total", "Connections to leaders that were opened for clients.", &passing.opened),
        (
            "forward_tunnels_broken_total",
            "Connections to leaders that ended before everything was answered.",
            &passing.broken,
        ),
        ("forward_outcomes_unknown_total", "Requests whose outcome is unknown because of that.", &passing.unknown),
    ] {
        page.counter(name, help, count.get());
    }
}
