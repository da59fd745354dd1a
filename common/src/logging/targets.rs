//! The targets that lines can have. A filter that names another one would do nothing, and nobody would know why.

use crate::settings::nearest;

/// Our crates, each with its modules. Deeper ones are not looked at.
#[rustfmt::skip] // a table
const OURS: &[(&str, &[&str])] = &[
    ("escrowmq_broker", &[
        "backup", "broker", "check", "client_registry", "config", "creation", "delivery", "executor", "filter", "forward", "gate",
        "group", "index", "key_index", "latch", "limits", "log", "metrics", "monitoring", "peer", "planted", "raft", "registration",
        "reply", "retention", "schedule", "server", "shard", "snapshot", "spans", "start", "stats", "steady_clock", "storage", "terms",
        "transaction",
    ]),
    ("escrowmq_common", &[
        "audit", "body", "calendar", "causes", "clock", "code", "disk", "frame", "header", "limits", "logging", "manual", "message",
        "monitoring", "name", "net", "ports", "remoting", "service", "settings", "signals", "task",
    ]),
    ("escrowmq_nameserver", &["config", "kv", "monitoring", "routes", "server"]),
];

/// Everything else that logs in a process of ours: the audit, and libraries.
const OTHERS: &[&str] = &[
    "audit",
    "openraft",
    "openraft_rt",
    "tokio",
    "hyper",
    "hyper_util",
    "h2",
    "tonic",
    "tower",
    "opentelemetry",
    "opentelemetry_sdk",
    "opentelemetry_otlp",
];

/// Whether lines can have this target; the error is the end of a sentence, with those that are near.
pub(super) fn check(target: &str) -> Result<(), String> {
    let mut path = target.split("::");
    let name = path.next().unwrap_or_default();
    let Some((krate, modules)) = OURS.iter().find(|(ours, _)| *ours == name) else {
        if OTHERS.contains(&name) {
            return Ok(());
        }
        let likely = nearest(name, OURS.iter().map(|(ours, _)| *ours).chain(OTHERS.iter().copied()));
        return Err(format!("the nearest one is '{likely}'"));
    };
    match path.next() {
        None => Ok(()),
        Some(module) if modules.contains(&module) => Ok(()),
        Some(module) => Err(format!("the nearest one is '{krate}::{}'", nearest(module, modules.iter().copied()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_are_those_of_the_source() {
        for (krate, source) in [
            ("escrowmq_broker", include_str!("../../../broker/src/lib.rs")),
            ("escrowmq_common", include_str!("../lib.rs")),
            ("escrowmq_nameserver", include_str!("../../../nameserver/src/lib.rs")),
        ] {
            let modules = source.lines().filter_map(|line| {
                let line = line.strip_suffix(';')?;
                line.strip_prefix("mod ").or_else(|| line.strip_prefix("pub mod ")).filter(|name| *name != "tests")
            });
            let modules: Vec<&str> = modules.collect();
            let (_, ours) = OURS.iter().find(|(ours, _)| *ours == krate).unwrap();
            assert_eq!(&modules, ours, "{krate}: put the modules of its lib.rs into targets.rs");
        }
    }
}
