//! What an operator does at night: `escrowmq broker log-level` and `escrowmq doctor`, against a running broker and without one.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::{BINARY, Standalone};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_remove("ESCROWMQ_CONFIG").env_remove("NAMESRV_ADDR").output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn levels_change_by_module_while_the_broker_runs_and_the_audit_tells_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let audit = format!("auditLogFile={}", file.display());
    let cluster = Standalone::start_with(&["--set", &audit]);
    let level = |arguments: &[&str]| run(&[&["broker", "log-level", "--broker", &cluster.broker], arguments].concat());
    let shown = |output: Output| {
        assert!(output.status.success(), "{}", said(&output.stderr));
        said(&output.stdout)
    };
    assert_eq!(shown(level(&[])), format!("{} logs warn\n", cluster.broker));
    let changed = shown(level(&["escrowmq_broker::retention=debug", "error"]));
    assert_eq!(changed, format!("{} logs error,escrowmq_broker::retention=debug (before: warn)\n", cluster.broker));
    let json: Value = serde_json::from_str(&shown(level(&["--reset", "--json"]))).unwrap();
    assert_eq!(json["logLevel"], "info");
    for wrong in ["loud", "escrowmq_broker=loud", "escrowmq_broker::retenton=debug", "nobody=debug"] {
        let refused = level(&[wrong]);
        assert_eq!(refused.status.code(), Some(2), "{wrong}: {}", said(&refused.stderr));
    }
    let nameserver = run(&["broker", "log-level", "--nameserver", &cluster.namesrv, "escrowmq_nameserver=debug"]);
    assert!(shown(nameserver).contains("logs warn,escrowmq_nameserver=debug (before: warn)"));

    let lines: Vec<Value> =
        std::fs::read_to_string(&file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[0]["act"], &lines[0]["object"]), (&"change setting".into(), &"logLevel".into()));
    assert_eq!(lines[0]["old"], "warn");
    assert!(lines[0]["new"].as_str().unwrap().starts_with("error,escrowmq_broker::retention=debug"));
    cluster.stop();
}

/// The findings of a check.
fn findings<'a>(report: &'a Value, check: &str) -> Vec<&'a Value> {
    report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).collect()
}

fn doctor(arguments: &[&str]) -> (Value, Option<i32>) {
    let output = run(&[&["doctor", "--json"], arguments].concat());
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output.stderr)));
    (report, output.status.code())
}

/// The exit code is the worst verdict's, and each finding that hurts says how, and what helps.
fn check_form(report: &Value, code: Option<i32>) {
    let all = report["findings"].as_array().unwrap();
    let is_at_risk = all.iter().any(|finding| finding["verdict"] == "risk");
    assert_eq!(code, Some(i32::from(is_at_risk)), "{report:#}");
    for finding in all.iter().filter(|finding| finding["verdict"] == "risk" || finding["verdict"] == "warning") {
        assert!(finding["hurts"] != "" && finding["remedy"] != "", "{finding}");
    }
}

#[test]
fn the_doctor_finds_a_running_broker_its_ports_and_its_route() {
    let cluster = Standalone::start();
    let data = cluster.folder.path().to_str().unwrap();
    let port = cluster.broker.rsplit(':').next().unwrap();
    let settings = [format!("listenPort={port}"), "brokerName=standalone".to_owned(), "brokerIP1=127.0.0.1".to_owned()];
    let own: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let arguments = [&["--data", data, "--namesrv", &cluster.namesrv][..], &own].concat();
    let (report, code) = doctor(&arguments);
    check_form(&report, code);
    let pid = cluster.pid().to_string();
    assert!(findings(&report, "open-files")[0]["what"].as_str().unwrap().contains(&pid), "{report:#}");
    assert!(findings(&report, "user")[0]["what"].as_str().unwrap().contains("the broker runs"), "{report:#}");
    let listen = findings(&report, "port");
    assert!(
        listen.iter().any(|finding| finding["what"] == format!("{port} (listenPort) is the broker's")),
        "{report:#}"
    );
    let route = findings(&report, "route");
    assert_eq!((route.len(), &route[0]["verdict"]), (1, &"ok".into()), "{report:#}");
    let skew = findings(&report, "clock-skew");
    assert_eq!((skew.len(), &skew[0]["verdict"]), (1, &"ok".into()), "{report:#}");
    for check in
        ["file-system", "room", "disk-speed", "swap", "huge-pages", "clock", "clock-steps", "data-folder", "config"]
    {
        assert_eq!(findings(&report, check).len(), 1, "{check}: {report:#}");
    }
    // Under another name nobody is registered, and clients find nobody.
    let (report, code) = doctor(&[&arguments[..], &["--set", "brokerName=other"]].concat());
    check_form(&report, code);
    assert_eq!((&findings(&report, "route")[0]["verdict"], code), (&"risk".into(), Some(1)));
    assert!(
        Path::new(data)
            .join("broker")
            .read_dir()
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_string_lossy().starts_with("doctor") })
    );
    cluster.stop();
}

#[test]
fn the_doctor_names_what_keeps_a_broker_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let file = folder.path().join("broker.conf");
    std::fs::write(&file, format!("listenPort={port}\nnamesrvAddr=127.0.0.1:1\n")).unwrap();
    let data = folder.path().join("data");
    let arguments = ["--config", file.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let (report, code) = doctor(&arguments);
    check_form(&report, code);
    let listen = findings(&report, "port")[0];
    assert_eq!(listen["verdict"], "risk");
    assert!(listen["what"].as_str().unwrap().contains(&format!("process {}", std::process::id())), "{listen}");
    assert_eq!(findings(&report, "route")[0]["verdict"], "risk", "nobody answers there");
    assert!(findings(&report, "data-folder")[0]["what"].as_str().unwrap().contains("not there yet"));
    assert!(!data.exists(), "nothing was made");

    std::fs::write(&file, "listenPrt=1\n").unwrap();
    let (report, code) = doctor(&arguments);
    check_form(&report, code);
    let config = findings(&report, "config")[0];
    assert!(config["verdict"] == "risk" && config["what"].as_str().unwrap().contains("listenPort"), "{config}");
    let text = run(&[&["doctor"][..], &arguments].concat());
    assert!(said(&text.stdout).contains("hurts: ") && text.status.code() == Some(1), "{}", said(&text.stdout));
}
