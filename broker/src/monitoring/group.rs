//! The figures of a group: this member's own, those of the others, and what is passed on between them.
//!
//! Labels are seats and ids of members, so there are few. What only a leader knows is on the leader's page alone, and a broker that
//! is alone has no samples of what is compared.

use escrowmq_common::monitoring::Families;

use super::{Monitor, Role};
use crate::group::{Figures, OtherMember};
use crate::terms::LogIndex;

pub(super) fn collect(families: &mut Families<'_>, monitor: &Monitor) {
    let help = "1 for the role that this member has in its group; a candidate knows no leader.";
    families.gauges("escrowmq_group_role", help, |samples| {
        let role = match monitor.role() {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Leaderless => "candidate",
        };
        samples.gauge(&[("role", role)], 1_u64);
    });
    let (config, counters) = (monitor.config.load(), monitor.shard.counters());
    let (fetched, whole) = monitor.group.fetched_bytes();
    for (name, help, value) in [
        ("escrowmq_group_term", "The newest term of the group that is known here.", monitor.leadership.borrow().term()),
        (
            "escrowmq_group_applied_index",
            "Index of the last entry of the group's log that is applied here.",
            counters.applied_index().map_or(0, LogIndex::get),
        ),
        (
            "escrowmq_copies_kept",
            "Members that have a message when its sender hears that it is stored.",
            config.copies_kept(),
        ),
        (
            "escrowmq_copies_wanted",
            "Copies that brokerRole asks for; more than are kept is warned of at start.",
            config.broker_role.copies_wanted(),
        ),
        (
            "escrowmq_group_copy_fetched_bytes",
            "Bytes of a copy of the group's state that have come; 0 while none is fetched.",
            fetched,
        ),
        ("escrowmq_group_copy_size_bytes", "Bytes of that whole copy; 0 while none is fetched.", whole),
    ] {
        families.gauge(name, help, value);
    }
    let figures = (!monitor.group.is_alone()).then(|| monitor.group.figures());
    own(families, figures.as_ref());
    others(families, figures.as_ref());
    forwarding(families, monitor);
}

fn own(families: &mut Families<'_>, figures: Option<&Figures>) {
    let of = |value: fn(&Figures) -> u64| figures.map(value);
    for (name, help, value) in [
        ("escrowmq_group_voters", "Members that vote.", of(|figures| figures.voters)),
        ("escrowmq_group_learners", "Members without a vote: they catch up.", of(|figures| figures.learners)),
        (
            "escrowmq_group_uncommitted_entries",
            "Entries of this member's log that are not known to be committed: a minority may have them alone.",
            of(|figures| figures.reach.last.get().saturating_sub(figures.reach.committed.get())),
        ),
        ("escrowmq_group_uncommitted_bytes", "Bytes of these entries.", of(|figures| figures.uncommitted_bytes)),
        (
            "escrowmq_group_apply_lag_entries",
            "Entries that are committed as far as this member knows, and that it has not applied.",
            of(|figures| figures.reach.group_committed.get().saturating_sub(figures.reach.applied.get())),
        ),
        (
            "escrowmq_group_voters_out_of_reach",
            "Voters that have not answered this leader for two seconds.",
            figures.and_then(|figures| figures.voters_out_of_reach),
        ),
    ] {
        families.gauges(name, help, |samples| {
            value.inspect(|value| samples.gauge(&[], *value));
        });
    }
    let help = "Time since a majority heard from this leader, or since this member heard of a leader.";
    families.gauges("escrowmq_group_majority_silence_seconds", help, |samples| {
        figures.inspect(|figures| samples.gauge(&[], figures.majority_silence.as_secs_f64()));
    });
    for (name, help, count) in [
        (
            "escrowmq_group_leader_changes_total",
            "Terms in which this member has seen a leader, the first one included.",
            of(|figures| figures.leaders_seen),
        ),
        (
            "escrowmq_group_handshakes_refused_total",
            "Connections of other members that were refused: of another group, or with another secret, version or id.",
            of(|figures| figures.handshakes_refused),
        ),
    ] {
        families.counters(name, help, |samples| {
            count.inspect(|count| samples.counter(&[], *count));
        });
    }
}

fn others(families: &mut Families<'_>, figures: Option<&Figures>) {
    let others = figures.map_or(&[][..], |figures| &figures.others);
    let help = "By how much the wall clock of another member is ahead of this one's; behind, if negative.";
    families.gauges("escrowmq_group_clock_offset_seconds", help, |samples| {
        for other in others {
            other.clock_ahead.inspect(|ahead| samples.gauge(&labels(other, &id(other)), *ahead as f64 / 1e3));
        }
    });
    let followed = || others.iter().filter_map(|other| Some((other, other.followed.as_ref()?)));
    let help = "Entries of this leader's log that a member is not known to have.";
    families.gauges("escrowmq_group_member_lag_entries", help, |samples| {
        followed().for_each(|(other, of)| samples.gauge(&labels(other, &id(other)), of.lag_entries));
    });
    let help = "Bytes of these entries, of those that this leader still has.";
    families.gauges("escrowmq_group_member_lag_bytes", help, |samples| {
        followed().for_each(|(other, of)| samples.gauge(&labels(other, &id(other)), of.lag_bytes));
    });
    let help = "Time from an append to a member until its answer, which follows its flush.";
    families.histograms("escrowmq_group_append_seconds", help, |samples| {
        for (other, of) in followed() {
            of.traffic.as_ref().inspect(|traffic| samples.histogram(&labels(other, &id(other)), &traffic.appends));
        }
    });
}

fn id(other: &OtherMember) -> String {
    other.node.to_string()
}

/// Both, since a seat has two ids while one takes the other's place.
fn labels<'a>(other: &'a OtherMember, node: &'a str) -> [(&'a str, &'a str); 2] {
    [("seat", &other.seat), ("node", node)]
}

fn forwarding(families: &mut Families<'_>, monitor: &Monitor) {
    let (passing, arriving) = (&monitor.passing, &monitor.arriving);
    families.gauge(
        "escrowmq_forward_waiting",
        "Requests that wait for a leader or to be passed on to it.",
        passing.waiting.get(),
    );
    for (name, help, count) in [
        ("escrowmq_forward_requests_total", "Requests that were passed on to the leader.", &passing.passed),
        (
            "escrowmq_forward_arrived_total",
            "Requests that other members have passed on to this one.",
            &arriving.arrived,
        ),
        ("escrowmq_forward_refused_total", "Requests refused (14) for want of a leader.", &passing.refused),
        (
            "escrowmq_forward_tunnels_opened_total",
            "Connections to leaders that were opened for clients.",
            &passing.opened,
        ),
        (
            "escrowmq_forward_tunnels_broken_total",
            "Connections to leaders that ended before everything was answered.",
            &passing.broken,
        ),
        (
            "escrowmq_forward_outcomes_unknown_total",
            "Requests whose outcome is unknown because of that.",
            &passing.unknown,
        ),
    ] {
        families.counter(name, help, count.get());
    }
}
