//! Alerts and dashboards: what they ask for exists, each alert has its section in the runbook and its test, Prometheus takes them,
//! and one of them wakes somebody: the lag alert fires when a consumer stops, and clears when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use escrowmq_client::{Client, ConsumeFrom, Message, PushConsumer};
use escrowmq_tests::processes::free_port;
use escrowmq_tests::prometheus::{Prometheus, program};
use escrowmq_tests::shown::sections_of;
use escrowmq_tests::{Cluster, Settings, until};
use serde_json::{Value, json};

/// Beginnings of names that are ours.
const OURS: [&str; 2] = ["escrowmq_", "process_"];
/// What a histogram has beside its name.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];
/// A table of the client's.
const TABLE: &str = "escrowmq_schema";
/// What the alert on lag says, and what is shorter here, so that the test does not wait for minutes.
const LAG: &str = "EscrowmqLagGrowing";
const SHORTER: [(&str, &str); 2] = [("> 120", "> 2"), ("[5m]", "[6s]")];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rules of the file, and all of it.
fn rules() -> (Vec<Value>, Value) {
    let file: serde_yaml_ng::Value = serde_yaml_ng::from_str(&read("deploy/prometheus/rules.yml")).unwrap();
    let file = serde_json::to_value(file).unwrap();
    let groups = file["groups"].as_array().expect("groups");
    (groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect(), file)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Words that could be names of metrics.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
}

/// The names of metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<String> {
    let ours = |word: &&str| OURS.iter().any(|begin| word.starts_with(begin));
    words(expression).filter(ours).map(str::to_owned).collect()
}

/// The names that docs/metrics.md has, which a test compares with what the programs export.
fn known() -> BTreeSet<String> {
    metrics(&read("docs/metrics.md"))
}

fn is_known(known: &BTreeSet<String>, name: &str) -> bool {
    known.contains(name) || PARTS.iter().any(|part| name.strip_suffix(part).is_some_and(|name| known.contains(name)))
}

/// All texts of a JSON value under these keys.
fn texts_under<'a>(value: &'a Value, keys: &[&str], found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                if let (true, Some(text)) = (keys.contains(&key.as_str()), member.as_str()) {
                    found.push(text);
                }
                texts_under(member, keys, found);
            }
        }
        Value::Array(members) => {
            for member in members {
                texts_under(member, keys, found);
            }
        }
        _ => {}
    }
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let files = fs::read_dir(root("deploy/grafana/dashboards")).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let dashboard = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, dashboard)
    };
    files.filter(|path| path.extension().is_some_and(|kind| kind == "json")).map(read).collect()
}

#[test]
fn alerts_and_dashboards_ask_for_metrics_that_exist() {
    let known = known();
    let mut asked = 0;
    let mut check = |place: &str, expression: &str| {
        for name in metrics(expression) {
            assert!(is_known(&known, &name), "{place} asks for {name}, which docs/metrics.md does not have");
            asked += 1;
        }
    };
    for rule in rules().0 {
        check(text(&rule["alert"]), text(&rule["expr"]));
    }
    for page in ["docs/runbook.md", "docs/sizing.md"] {
        let text = read(page);
        let named = words(&text).filter(|word| word.starts_with("escrowmq_") && !word.ends_with('_') && *word != TABLE);
        for word in named {
            // A pattern of the page may be the beginning of some.
            let begins = known.iter().any(|one| one.starts_with(word));
            assert!(begins || is_known(&known, word), "{page} names {word}, which docs/metrics.md does not have");
        }
    }
    for (path, dashboard) in dashboards() {
        let mut expressions = Vec::new();
        texts_under(&dashboard, &["expr", "query", "definition"], &mut expressions);
        for expression in expressions {
            check(&path.display().to_string(), expression);
        }
    }
    assert!(asked > 100, "{asked} names were found, and there are more");
}

#[test]
fn dashboards_are_ones_that_grafana_keeps_apart() {
    let dashboards = dashboards();
    let uids: BTreeSet<&str> = dashboards.iter().map(|(_, dashboard)| text(&dashboard["uid"])).collect();
    assert_eq!(uids.len(), dashboards.len());
    for (path, dashboard) in &dashboards {
        assert_eq!(
            path.file_stem().unwrap().to_str(),
            dashboard["uid"].as_str(),
            "a file has the name of its dashboard"
        );
        let declared: BTreeSet<&str> = dashboard["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variable| text(&variable["name"]))
            .collect();
        let mut places = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let place = &panel["gridPos"];
            assert!(
                places.insert((place["x"].as_u64(), place["y"].as_u64())),
                "{}: {}",
                path.display(),
                panel["title"]
            );
            for target in panel["targets"].as_array().into_iter().flatten() {
                assert_eq!(target["datasource"]["uid"], "prometheus", "as the provisioning names it");
                for part in text(&target["expr"]).split('$').skip(1) {
                    let name = words(part).next().unwrap_or_default();
                    assert!(name.starts_with("__") || declared.contains(name), "{}: ${name}", path.display());
                }
            }
        }
    }
}

#[test]
fn each_alert_has_its_section_and_its_test() {
    let sections = sections_of("docs/runbook.md");
    let anchors: BTreeMap<String, &Vec<String>> =
        sections.iter().map(|section| (section.anchor(), &section.names)).collect();
    let tests =
        read("deploy/prometheus/tests/rules_test.yml") + &read("deploy/prometheus/tests/rules_of_days_test.yml");
    let mut leading: BTreeSet<String> = BTreeSet::new();
    for rule in rules().0 {
        let name = text(&rule["alert"]);
        assert!(["critical", "warning", "info"].contains(&text(&rule["labels"]["severity"])), "{name}");
        for part in ["summary", "description"] {
            assert!(text(&rule["annotations"][part]).ends_with('.'), "{name}: {part}");
        }
        let url = text(&rule["annotations"]["runbook_url"]);
        let anchor = url.strip_prefix("docs/runbook.md#").unwrap_or_else(|| panic!("{name} links to {url}"));
        let names =
            anchors.get(anchor).unwrap_or_else(|| panic!("{name} links to a section that is not there: {anchor}"));
        assert!(names.iter().any(|one| one == name), "the section {anchor} does not name {name}");
        assert!(
            tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("alertname: {name}\n")),
            "{name} has no test"
        );
        assert!(leading.insert(name.to_owned()), "{name} twice");
    }
    for (anchor, names) in anchors {
        for name in names {
            assert!(leading.contains(name), "the section {anchor} names {name}, which is no alert");
        }
    }
}

#[test]
fn prometheus_takes_the_rules_and_they_do_what_their_tests_say() {
    let Some(promtool) = program("promtool", "prometheus_takes_the_rules_and_they_do_what_their_tests_say") else {
        return;
    };
    let files = ["tests/rules_test.yml", "tests/rules_of_days_test.yml"];
    for arguments in [&["check", "rules", "rules.yml"][..], &["test", "rules", files[0], files[1]]] {
        let mut tool = Command::new(&promtool);
        let output = tool.args(arguments).current_dir(root("deploy/prometheus")).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?}: {told}");
    }
}

/// Expressions of dashboards as rules, with something in the place of their variables.
fn as_rules() -> String {
    let mut rules = Vec::new();
    for (_, dashboard) in dashboards() {
        let mut expressions = Vec::new();
        texts_under(&dashboard, &["expr"], &mut expressions);
        for expression in expressions {
            let mut parts = expression.split('$');
            let mut filled = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let name = words(part).next().unwrap_or_default();
                filled += if name.starts_with("__") { "5m" } else { "x" };
                filled += &part[name.len()..];
            }
            rules.push(json!({ "record": format!("rule{}", rules.len()), "expr": filled }));
        }
    }
    json!({ "groups": [{ "name": "dashboards", "rules": rules }] }).to_string()
}

#[test]
fn prometheus_understands_what_dashboards_ask() {
    let Some(promtool) = program("promtool", "prometheus_understands_what_dashboards_ask") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    fs::write(&file, as_rules()).unwrap();
    let output = Command::new(promtool).args(["check", "rules"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The rules, with an alert on lag that takes seconds.
fn quick_rules() -> String {
    let (_, mut file) = rules();
    let rules =
        file["groups"].as_array_mut().unwrap().iter_mut().flat_map(|group| group["rules"].as_array_mut().unwrap());
    let lag = rules.into_iter().find(|rule| rule["alert"] == LAG).expect("the alert on lag");
    let mut expression = text(&lag["expr"]).to_owned();
    for (long, short) in SHORTER {
        assert_eq!(expression.matches(long).count(), 1, "{long} in {expression}");
        expression = expression.replace(long, short);
    }
    lag["expr"] = expression.into();
    lag["for"] = "2s".into();
    // JSON is YAML.
    file.to_string()
}

/// Services that run already, as the packages installed them: a nameserver, the port of its metrics, that of the broker's.
fn installed() -> Option<(String, u16, u16)> {
    let told = std::env::var("ESCROWMQ_SERVICES").ok()?;
    let mut parts = told.split(',');
    let mut next = || parts.next().unwrap_or_else(|| panic!("ESCROWMQ_SERVICES={told} is not NAMESERVER,PORT,PORT"));
    let port = |text: &str| text.parse().unwrap_or_else(|error| panic!("ESCROWMQ_SERVICES={told}: {error}"));
    Some((next().to_owned(), port(next()), port(next())))
}

const TOPIC: &str = "NightCall";
const GROUP: &str = "night-call";
const MESSAGES: usize = 20;

/// A consumer, and how many messages it has taken.
async fn consumer(client: &Client) -> (PushConsumer, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let taking = Arc::clone(&taken);
    let consumer = client.push_consumer(GROUP).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |_| {
        taking.fetch_add(1, Ordering::Relaxed);
        async { Ok::<(), Infallible>(()) }
    });
    (consumer.await.expect("a consumer starts"), taken)
}

async fn send(client: &Client, count: usize) {
    let producer = client.producer("night-call-producer").start().await.expect("a producer starts");
    for _ in 0..count {
        producer.send(Message::new(TOPIC, "a message")).await.expect("sent");
    }
    producer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_on_lag_fires_when_a_consumer_stops_and_clears_when_it_is_back() {
    let Some(prometheus) = program("prometheus", "the_alert_on_lag_fires_when_a_consumer_stops") else { return };
    let metrics = free_port();
    let mut own = None;
    let (names, nameserver_metrics, broker_metrics) = if let Some(services) = installed() {
        services
    } else {
        let cluster = own.insert(Cluster::start(Settings::default().with("metricsPort", metrics)).await);
        (cluster.nameserver.address(), 0, metrics)
    };
    let client = Client::builder(names).connect().await.expect("a client connects");
    client.admin().create_topic(TOPIC, 2).await.expect("the topic is created");
    let target = |port: u16| vec![format!("127.0.0.1:{port}")];
    let mut jobs = vec![("escrowmq-broker", target(broker_metrics))];
    if nameserver_metrics != 0 {
        jobs.push(("escrowmq-nameserver", target(nameserver_metrics)));
    }
    let prometheus = Prometheus::start(&prometheus, &jobs, &quick_rules()).await;
    until("the targets", async || (prometheus.targets_up().await == jobs.len()).then_some(())).await;

    let (consuming, taken) = consumer(&client).await;
    send(&client, MESSAGES).await;
    until("messages that are consumed", async || (taken.load(Ordering::Relaxed) >= MESSAGES).then_some(())).await;
    // Nobody is woken: neither by this alert nor by any other one.
    assert_eq!(prometheus.firing().await, Vec::<Value>::new());

    consuming.shutdown().await;
    send(&client, MESSAGES).await;
    let alert =
        until("the alert", async || prometheus.firing().await.into_iter().find(|labels| labels["alertname"] == LAG))
            .await;
    let labels = ["group", "topic", "severity"].map(|label| text(&alert[label]));
    assert_eq!(labels, [GROUP, TOPIC, "warning"]);
    eprintln!("{LAG} fired after the consumer had stopped");

    let (_consuming, taken) = consumer(&client).await;
    until("the end of the alert", async || prometheus.firing().await.is_empty().then_some(())).await;
    assert!(taken.load(Ordering::Relaxed) >= MESSAGES);
    eprintln!("{LAG} cleared when it was back");
    drop(own);
}
