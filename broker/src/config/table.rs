//! All settings, each with its key, its default and its purpose: one table makes the struct and the list of keys.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use escrowmq_common::logging::Filter;
use escrowmq_common::monitoring::Port;
use escrowmq_common::remoting::TrustedProxies;
use escrowmq_common::settings;

use super::collector::Collector;
use super::group::{ListenAt, Seats};
use super::host::Host;
use super::machine;
use super::scope::Scope;
use super::values::{self, BrokerRole, DelayLevels, FlushDisk};

/// One key of the properties file.
pub type Key = settings::Key<BrokerConfig>;

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $name:literal $when:ident $scope:ident $field:ident: $type:ty as $codec:ident = $default:expr;
    )+) => {
        /// Everything that can be set. The fields are named after their keys, see [`KEYS`].
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::struct_excessive_bools, reason = "independent switches that operators know by name")]
        #[allow(clippy::doc_markdown, reason = "the same texts are shown by --help")]
        pub struct BrokerConfig {
            $($(#[doc = $doc])+ pub $field: $type,)+
            /// The file that was given at start, which also keeps changes made in the running broker.
            pub config_file: Option<PathBuf>,
            /// The keys that were given a value at start.
            pub named: BTreeSet<&'static str>,
        }

        impl Default for BrokerConfig {
            fn default() -> Self {
                Self { $($field: $default,)+ config_file: None, named: BTreeSet::new() }
            }
        }

        /// All keys, in the order of `--help`.
        pub const KEYS: &[Key] = &[$(
            Key {
                name: $name,
                about: concat!($($doc),+),
                at_once: settings!(@$when),
                get: |config| values::$codec::show(&config.$field),
                set: |config, text| {
                    config.$field = values::$codec::read(text)?;
                    Ok(())
                },
            },
        )+];

        /// The owner of each key, in the same order.
        pub(super) const SCOPES: &[Scope] = &[$(settings!(@$scope)),+];
    };
    (@now) => { true };
    (@start) => { false };
    (@group) => { Scope::Group };
    (@local) => { Scope::Local };
}

settings! {
    /// Name of this broker in routes; brokers of one group share it. Default: the name of the machine.
    "brokerName" start group broker_name: String as plain = machine::name();
    /// Cluster that it belongs to. Default DefaultCluster.
    "brokerClusterName" start group broker_cluster_name: String as plain = "DefaultCluster".to_owned();
    /// Id within the group, 0 for the one that takes writes. Default 0, the only one for a broker alone; a member of a
    /// group has the id that its role there gives it, whatever is set.
    "brokerId" start local broker_id: i64 as plain = 0;
    /// Its part, in RocketMQ's words: ASYNC_MASTER, or SYNC_MASTER, which is warned of in a broker alone, because one
    /// copy is kept. Default ASYNC_MASTER; SLAVE is refused: the members of a group elect who leads.
    "brokerRole" start local broker_role: BrokerRole as plain = BrokerRole::AsyncMaster;
    /// Address that clients are told, or a name, which clients resolve. Default: that of the first interface that is not a
    /// loopback, else 127.0.0.1. Set it where clients reach the broker by another address, as behind a forwarded port.
    "brokerIP1" start local broker_ip: Host as plain = machine::address().into();
    /// TCP port; 0 takes any free one. Clients that ask for the fast port use the one two below, which is opened too.
    /// Default 10911.
    "listenPort" start local listen_port: u16 as plain = 10_911;
    /// Local address to listen at. Default 0.0.0.0.
    "bindAddress" start local bind_address: String as plain = "0.0.0.0".to_owned();
    /// Nameservers, `host:port` with ';' between them. Default: those of the environment variable NAMESRV_ADDR, else
    /// none: the broker is then in no route.
    "namesrvAddr" now local namesrv_addr: Vec<String> as list = Vec::new();
    /// Folder of the data: one broker each. Default: $HOME/.escrowmq/ and the broker's name.
    "storePathRootDir" start local store_path: Option<PathBuf> as path = None;

    /// When a send is answered: SYNC_FLUSH after its bytes are on the device, ASYNC_FLUSH after the operating system
    /// has them, which a power cut may lose. Default SYNC_FLUSH; RocketMQ's own is ASYNC_FLUSH.
    "flushDiskType" start local flush_disk_type: FlushDisk as plain = FlushDisk::Sync;
    /// Milliseconds between flushes under ASYNC_FLUSH: what a power cut may cost. Default 500.
    "flushIntervalCommitLog" start local flush_interval: Duration as millis = Duration::from_millis(500);
    /// Bytes of one log file; the log is deleted in whole files. At least 1 MiB. Default 134217728.
    "mappedFileSizeCommitLog" start local segment_bytes: u64 as plain = 128 << 20;
    /// Hours that messages are kept. Default 72.
    "fileReservedTime" now group file_reserved_hours: u32 as plain = 72;
    /// Bytes of log files that are kept; beyond, the oldest messages go before their time, whole files at a time. Default
    /// 0, no limit but the time and the disk.
    "maxStoreSize" now group max_store_bytes: u64 as plain = 0;
    /// Percent of the disk in use above which a warning is logged. Default 75. RocketMQ deletes what is past its time
    /// then; here that goes at once anyway.
    "diskMaxUsedSpaceRatio" now local disk_max_used_percent: u32 as percent = 75;
    /// Percent of the disk in use above which the oldest messages go before their time, a file at a time. Default 85.
    "diskSpaceCleanForciblyRatio" now local disk_clean_percent: u32 as percent = 85;
    /// Whether messages may go before their time when the disk fills up. Default true; with false new messages are refused
    /// instead.
    "cleanFileForciblyEnable" now group clean_forcibly: bool as boolean = true;
    /// Percent of the disk in use above which new messages are refused; decisions are still taken. Default 90.
    "diskSpaceWarningLevelRatio" now local disk_full_percent: u32 as percent = 90;

    /// Largest body of a message, in bytes. Default 4194304. Producers have a limit of their own.
    "maxMessageSize" now group max_message_size: usize as plain = escrowmq_common::message::BODY_BYTES_MAX;
    /// Whether sending to an unknown topic creates it. Default true; turn it off where topics are planned.
    "autoCreateTopicEnable" now group auto_create_topic_enable: bool as boolean = true;
    /// Whether an unknown consumer group is created when it connects. Default true.
    "autoCreateSubscriptionGroup" now group auto_create_subscription_group: bool as boolean = true;
    /// Most queues of a topic that is created by a send. Default 8.
    "defaultTopicQueueNums" now group default_topic_queue_nums: u32 as plain = 8;
    /// Topics that the broker may have, retry topics of groups included. Default 300000.
    "maxTopics" now group max_topics: usize as plain = 300_000;
    /// Queues that all its topics may have together, each a few hundred bytes of memory. Default 2000000.
    "maxQueues" now group max_queues: u64 as plain = 2_000_000;
    /// Consumer groups that it may have. Default 100000.
    "maxGroups" now group max_groups: usize as plain = 100_000;
    /// Topics and groups that one connection may make in a minute. Default 100000: more than one request can name.
    "creationsPerMinutePerConnection" now group creations_per_minute: u32 as plain = 100_000;
    /// Hours after which a consumer group goes by itself if a client's use made it, no operator changed it, and it has no
    /// member, no offset above a queue's first message and nothing in its retry and dead letter topics. Default 0: never.
    "groupExpireHours" now group group_expire_hours: u32 as plain = 0;
    /// Bits of what clients may do with this broker: 2 write, 4 read. Default 6. Take 2 away to drain it.
    "brokerPermission" now group broker_permission: u32 as plain = 6;
    /// Whether answers of request-reply are stored, besides being passed on. Default true.
    "storeReplyMessageEnable" now group store_reply_message_enable: bool as boolean = true;
    /// Whether the topic of message traces is created at start. Default false.
    "traceTopicEnable" start group trace_topic_enable: bool as boolean = false;
    /// Region that clients are told. Default DefaultRegion.
    "regionId" now group region_id: String as plain = "DefaultRegion".to_owned();
    /// Whether clients that trace shall trace messages of this broker. Default true.
    "traceOn" now group trace_on: bool as boolean = true;

    /// Whether half messages are refused. Default false.
    "rejectTransactionMessage" now group reject_transaction_message: bool as boolean = false;
    /// Milliseconds before the first check of a half message, unless it names its own time. Default 6000. Longer than
    /// local transactions usually take.
    "transactionTimeOut" now group transaction_time_out: Duration as millis = Duration::from_secs(6);
    /// Milliseconds between checks; from the sixth gap on they double up to ten times this. Default 30000.
    "transactionCheckInterval" now group transaction_check_interval: Duration as millis = Duration::from_secs(30);
    /// Checks without a decision after which a half message is parked for an operator. Default 15.
    "transactionCheckMax" now group transaction_check_max: u32 as plain = 15;
    /// Milliseconds without any connected producer of its group after which a half message is parked. Default 86400000.
    "transactionParkAfter" now group transaction_park_after: Duration as millis = Duration::from_secs(24 * 60 * 60);
    /// Hours that decisions are remembered, to answer repeats and refuse opposites. Default 72.
    "transactionRecordHours" now group transaction_record_hours: u32 as plain = 72;
    /// Undecided transactions that one producer group may have; further half messages are refused as busy. 0 for no limit.
    /// Default 5000000.
    "transactionOpenMax" now group transaction_open_max: u64 as plain = 5_000_000;
    /// Milliseconds after a commit in which a repeated half message is still recognised. Default 60000.
    "transactionDuplicateWindow" now group transaction_duplicate_window: Duration as millis = Duration::from_secs(60);

    /// The delay levels in order, as number and s, m, h or d. Default 18 levels from 1s to 2h, as clients expect.
    "messageDelayLevel" now group delay_levels: DelayLevels as plain = DelayLevels::default();
    /// Whether messages may name any time of delivery. Default true.
    "timerWheelEnable" now group timer_enable: bool as boolean = true;
    /// Seconds that a time of delivery may lie ahead. Default 259200, three days.
    "timerMaxDelaySec" now group timer_max_delay: Duration as seconds = Duration::from_secs(3 * 24 * 60 * 60);
    /// Whether messages that wait for their time may be called back. Default false.
    "recallMessageEnable" now group recall_message_enable: bool as boolean = false;

    /// Whether consumers may filter by SQL92. Default false.
    "enablePropertyFilter" now group enable_property_filter: bool as boolean = false;
    /// Whether SQL92 filters also hold for retried messages. Default false.
    "filterSupportRetry" now group filter_support_retry: bool as boolean = false;
    /// Whether a pull that finds nothing is held until there is something. Default true.
    "longPollingEnable" now group long_polling_enable: bool as boolean = true;
    /// Milliseconds that it is held otherwise. Default 1000.
    "shortPollingTimeMills" now group short_polling: Duration as millis = Duration::from_secs(1);
    /// Pulls that are held at a time; further ones are answered at once. Default 100000.
    "maxHeldPulls" now local max_held_pulls: usize as plain = 100_000;
    /// Of these, of one connection. Default 32768: a consumer holds a pull for each of its queues.
    "maxHeldPullsPerConnection" now local max_held_pulls_per_connection: usize as plain = 32_768;
    /// Searches, listings and look-ups in files at a time. At most 256. Default 32.
    "maxSearches" start local max_searches: usize as plain = 32;
    /// Of these, how many may wait; further ones are refused as busy. Default 20000.
    "maxSearchesWaiting" start local max_searches_waiting: usize as plain = 20_000;
    /// Whether lite pull consumers are served. Default true.
    "litePullMessageEnable" now group lite_pull_message_enable: bool as boolean = true;
    /// Most messages of one pull. Default 32.
    "maxTransferCountOnMessageInMemory" now group max_transfer_count: usize as plain = 32;
    /// Bytes after which one pull takes no further message. Default 262144.
    "maxTransferBytesOnMessageInMemory" now group max_transfer_bytes: usize as plain = 256 * 1024;
    /// Most messages of one pull that has to read files. Default 32; RocketMQ's own is 8.
    "maxTransferCountOnMessageInDisk" now group max_transfer_count_cold: usize as plain = 32;
    /// Bytes after which one pull that has to read files takes no further message. Default 262144; RocketMQ's own is 65536.
    "maxTransferBytesOnMessageInDisk" now group max_transfer_bytes_cold: usize as plain = 256 * 1024;
    /// Milliseconds that an ordered consumer's lock of a queue lives without renewal. Default 60000.
    "rebalanceLockMaxLiveTime" now group lock_life: Duration as millis = Duration::from_secs(60);
    /// Milliseconds without a heartbeat after which a member of a group is taken for gone. Default 120000.
    "channelExpiredTimeout" now group client_expiry: Duration as millis = Duration::from_secs(120);
    /// Whether members of a consumer group hear at once when others come or go. Default true.
    "notifyConsumerIdsChangedEnable" now group notify_consumer_ids_changed: bool as boolean = true;

    /// Milliseconds between registrations at the nameservers. Default 30000; nameservers forget a broker after 120000.
    "registerNameServerPeriod" now local register_period: Duration as millis = Duration::from_secs(30);
    /// Threads that read requests, carry them out and write answers. Default 0: half as many as the machine has cores, at
    /// least one; flushes, merges and reads of files have theirs. RocketMQ's own is 3.
    "serverSelectorThreads" start local connection_threads: usize as plain = 0;
    /// Most connections at a time, over both ports. Default 65535.
    "maxConnections" start local max_connections: usize as plain = 65_535;
    /// Most connections at a time from one address; a load balancer is one address unless proxyProtocolTrusted names it.
    /// Default 50000.
    "maxConnectionsPerAddress" start local max_connections_per_address: usize as plain = 50_000;
    /// Bytes of unfinished requests and unsent answers that all connections hold together. The nearer they come to
    /// it the stricter the broker: slow readers are read no further, then connections that hold bytes without progress are
    /// closed, then requests above 4 KiB are slowed and at last refused as busy. What the process needs besides is at most
    /// a quarter of it. At least four times maxMessageSize. Default: a quarter of the machine's memory, at most 1073741824.
    "connectionBytesMax" start local connection_bytes_max: usize as plain = machine::connection_bytes();
    /// Bytes of unsent answers above which a connection is closed; above an eighth of it, it is read no further. At least
    /// 16777216, which one answer may have. Default 67108864.
    "slowReaderBytesMax" start local slow_reader_bytes_max: usize as plain = 64 << 20;
    /// Bytes that the system keeps of what was sent to a client and not taken by it, beside connectionBytesMax. Default 0: as
    /// the system finds best, up to some megabytes for each connection.
    "serverSocketSndBufSize" start local socket_send_bytes: u32 as plain = 0;
    /// Seconds in which a client with answers waiting must take some of them. Default 60.
    "slowReaderTimeSeconds" start local slow_reader_time: Duration as seconds = Duration::from_secs(60);
    /// Bytes per second that it must take over that time, where that many wait. Default 4096.
    "slowReaderBytesPerSecond" start local slow_reader_rate: usize as plain = 4096;
    /// Unanswered requests above which a connection is read no further, and after a second refused as busy; decisions,
    /// acknowledgements and heartbeats are taken up to twice as many. Default 131072: a client sends 65535 at most.
    "requestsInFlightPerConnection" start local requests_in_flight: u64 as plain = 131_072;
    /// Load balancers whose PROXY header names the client, as addresses and networks with ';' between them. Headers of
    /// others are passed over. Default: none.
    "proxyProtocolTrusted" start local proxies: TrustedProxies as plain = TrustedProxies::default();
    /// Seconds without any traffic after which a connection is closed. Default 120.
    "serverChannelMaxIdleTimeSeconds" start local idle_time: Duration as seconds = Duration::from_secs(120);
    /// TCP port of metrics, readiness and liveness over HTTP; 0 for none. Default: six above listenPort, so 10917; without it
    /// where that is taken, and none where listenPort is 0.
    "metricsPort" start local metrics_port: Option<u16> as optional = None;
    /// Local address of that port. Default 127.0.0.1: whoever reaches it can read how busy the broker is.
    "metricsBindAddress" start local metrics_bind_address: String as plain = "127.0.0.1".to_owned();
    /// Topics, consumer groups, pairs of both, and producer groups with figures of their own in metrics, of each kind; the rest
    /// is summed. Default 1000.
    "metricsSeriesMax" start local metrics_series_max: usize as plain = 1000;

    /// Collector of OpenTelemetry that gets spans of requests, `http://host:port`, as OTLP over plain HTTP: one that is near.
    /// Default: none, and no spans are made.
    "traceExportAddress" start local trace_export_address: Collector as plain = Collector::default();
    /// Part of the requests that have a span, from 0 to 1, of those whose message brings no trace of its sender. One that does
    /// has a span if its sender's is recorded. Default 0.01.
    "traceExportRatio" start local trace_export_ratio: f64 as plain = 0.01;

    /// What is logged: off, error, warn, info, debug, trace, or a filter of levels by module such as
    /// info,escrowmq_broker::log=debug. Default info; `--log-level` and the variable ESCROWMQ_LOG set it too.
    "logLevel" now local log_level: Filter as plain = Filter::default();
    /// File that gets a line for each act of an administrator, as a JSON object, beside the log. Default: none.
    "auditLogFile" start local audit_log_file: Option<PathBuf> as path = None;

    /// Name of the replication group, which members that meet compare. Default: the broker's name.
    "dLegerGroup" start group replication_group: String as plain = String::new();
    /// The group's members when it is founded, `n0-host:port;n1-host:port;n2-host:port`: one, three or five, each a
    /// letter and a number, with the port at which members talk, which is none of listenPort's. Default: none, a broker
    /// alone.
    "dLegerPeers" start group replication_peers: Seats as plain = Seats::default();
    /// Which of them this broker is. Default n0.
    "dLegerSelfId" start local replication_self: String as plain = "n0".to_owned();
    /// Whether the broker is a member of a group, as dLegerPeers says already. Default: as dLegerPeers says; a value
    /// that contradicts it is refused.
    "enableDLegerCommitLog" start local replication_enabled: Option<bool> as switch = None;
    /// File with the secret that members prove to each other, at least 16 bytes, the same for all, readable by the
    /// broker's user alone. Default: none, which only members at loopback addresses may have. RocketMQ has no such key.
    "groupSecretFile" start local group_secret_file: Option<PathBuf> as path = None;
    /// Where members are listened for: an address, or address and port. Default: all interfaces, at the port that
    /// dLegerPeers names for this broker; without groupSecretFile that loopback address alone. RocketMQ has no such
    /// key.
    "groupListenAddress" start local group_listen: ListenAt as plain = ListenAt::default();

    /// Keys that no tool may change, with ';' between them. Default: none.
    "configBlackList" start local config_black_list: Vec<String> as list = Vec::new();
    /// Whether to start although settings promise what this version does not give, such as aclEnable=true. Default false:
    /// the start is refused.
    "ignoreUnsupported" start local ignore_unsupported: bool as boolean = false;
}

impl BrokerConfig {
    /// The folder of the data. Loading refuses settings without a path where there is no home folder either.
    pub fn data_folder(&self) -> PathBuf {
        let home = || machine::home().unwrap_or_else(|| PathBuf::from("."));
        self.store_path.clone().unwrap_or_else(|| home().join(".escrowmq").join(&self.broker_name))
    }

    /// The port of metrics, if there is to be one. A default makes way for the members of the broker's group.
    pub fn pages_port(&self) -> Option<Port> {
        let is_a_members = |port: &Port| {
            let ports = self.replication_peers.all().iter().map(|seat| seat.port).chain(self.group_listen.port);
            self.metrics_port.is_none() && ports.into_iter().any(|taken| taken == port.number())
        };
        Port::of(self.metrics_port, self.listen_port).filter(|port| !is_a_members(port))
    }

    /// Percent of the disk in use above which the oldest messages go before their time; `None` if they never do.
    pub fn clean_above(&self) -> Option<u32> {
        self.clean_forcibly.then_some(self.disk_clean_percent)
    }

    /// The file where changes of a running broker are kept, if the broker has one.
    pub fn config_file(&self) -> Option<&std::path::Path> {
        self.config_file.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_are_explained() {
        for (at, one) in KEYS.iter().enumerate() {
            assert!(one.about.trim().ends_with('.') && one.about.contains("efault"), "{}", one.name);
            for other in &KEYS[at + 1..] {
                assert_ne!(one.name, other.name);
                assert_ne!(one.environment(""), other.environment(""));
            }
        }
    }

    #[test]
    fn every_value_reads_back_what_it_shows() {
        let config = BrokerConfig { namesrv_addr: vec!["a:1".into(), "b:2".into()], ..BrokerConfig::default() };
        let mut read = BrokerConfig::default();
        for key in KEYS {
            (key.set)(&mut read, &(key.get)(&config)).unwrap_or_else(|why| panic!("{}: {why}", key.name));
        }
        assert_eq!(read, config);
    }

    #[test]
    fn the_data_folder_follows_the_name() {
        let mut config = BrokerConfig { broker_name: "b-7".into(), ..BrokerConfig::default() };
        assert!(config.data_folder().ends_with(".escrowmq/b-7"));
        config.store_path = Some("/data".into());
        assert_eq!(config.data_folder(), PathBuf::from("/data"));
    }
}
