//! Every block of Rust in a document of this repository is a doctest here, so that it compiles. Outside of the package of the client,
//! which could not be packaged with files from above its folder.
//!
//! Blocks are whole programs; those that want a broker say `rust,no_run`.

/// Names the documents and makes each one the documentation of an item, under its name.
macro_rules! documents {
    ($($name:ident: $path:literal,)*) => {
        /// All of them, from the root of the repository.
        pub const ALL: &[&str] = &[$($path),*];

        $(
            #[cfg(doctest)]
            #[doc = include_str!(concat!("../../", $path))]
            pub mod $name {}
        )*
    };
}

documents! {
    architecture: "ARCHITECTURE.md",
    contributing: "CONTRIBUTING.md",
    readme: "README.md",
    scripts: "broker/src/transaction/tests/scripts/README.md",
    client: "client/README.md",
    common: "common/README.md",
    vectors: "common/tests/vectors/README.md",
    configuration: "docs/configuration.md",
    delivery: "docs/delivery.md",
    guide_away: "docs/guide/src/away.md",
    guide_broker: "docs/guide/src/broker.md",
    guide_consumer: "docs/guide/src/consumer.md",
    guide_database: "docs/guide/src/database.md",
    guide_first: "docs/guide/src/first.md",
    guide_from_kafka: "docs/guide/src/from-kafka.md",
    guide_from_pulsar: "docs/guide/src/from-pulsar.md",
    guide_from_rabbitmq: "docs/guide/src/from-rabbitmq.md",
    guide_from_rocketmq: "docs/guide/src/from-rocketmq.md",
    guide_testing: "docs/guide/src/testing.md",
    guide_summary: "docs/guide/src/SUMMARY.md",
    limits: "docs/limits.md",
    metrics: "docs/metrics.md",
    operations: "docs/operations.md",
    outbox: "docs/outbox.md",
    packages: "docs/packages.md",
    performance: "docs/performance.md",
    producing: "docs/producing.md",
    protocol: "docs/protocol.md",
    replication: "docs/replication.md",
    request_reply: "docs/request_reply.md",
    routing: "docs/routing.md",
    runbook: "docs/runbook.md",
    sizing: "docs/sizing.md",
    storage: "docs/storage.md",
    tracing: "docs/tracing.md",
    transactions: "docs/transactions.md",
    fuzz: "fuzz/README.md",
    tests: "tests/README.md",
}
