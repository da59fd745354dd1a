//! deploy/ is what the programs take: every file is YAML, each command line and each variable is one that its program accepts,
//! ports and paths fit together, and what a probe asks for is there.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use escrowmq_tests::Broker;
use escrowmq_tests::group::{Group, MEMBERS, Plan};
use escrowmq_tests::metrics::Page;
use escrowmq_tests::processes::{Nameserver, binary, free_port};
use escrowmq_tests::{Settings, until};
use serde::Deserialize as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The documents of a file, with the merge keys of Compose carried out.
fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|document| {
        let mut value =
            serde_yaml_ng::Value::deserialize(document).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // What is merged may merge something itself.
        for _ in 0..2 {
            value.apply_merge().unwrap();
        }
        serde_json::to_value(value).unwrap()
    });
    documents.collect()
}

fn kubernetes() -> Vec<Value> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(deploy().join("kubernetes")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| documents(path)).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().map(|all| all.iter().map(text).collect()).unwrap_or_default()
}

/// The objects of a kind, by name.
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> BTreeMap<&'a str, &'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .map(|object| (text(&object["metadata"]["name"]), object))
        .collect()
}

/// The folder of the secret in containers.
const RUN: &str = "/run/escrowmq";

/// Stands for [`RUN`]: the broker looks at the secret when it reads its settings.
fn secrets() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["group-a.secret", "group.secret"] {
        let path = folder.path().join(name);
        std::fs::write(&path, "a secret of sixteen bytes or more").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    folder
}

/// The settings that a program has with this command line and these variables; it must take them.
fn settings(
    program: &str,
    arguments: &[String],
    variables: &BTreeMap<String, String>,
    run: &TempDir,
) -> BTreeMap<String, String> {
    let run = run.path().to_str().unwrap();
    let mut command = Command::new(binary(program));
    command.args(arguments).env_clear();
    command.envs(variables.iter().map(|(key, value)| (key, value.replace(RUN, run))));
    if program == "escrowmq-broker" {
        // The name of a container is known to no other machine.
        command.env("ESCROWMQ_BROKER_IP1", "127.0.0.1").arg("--print-config");
    } else {
        // It prints none: with `--help` every argument before it is read, and unknown ones are refused.
        command.arg("--help");
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} {variables:?}: {told}");
    assert!(!told.contains("WARN"), "{program} {arguments:?} {variables:?}: {told}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.replace(run, RUN))).collect()
}

/// The seats of `dLegerPeers`: name, host and port.
fn seats(peers: &str) -> Vec<(String, String, String)> {
    let seat = |peer: &str| {
        let (name, address) = peer.split_once('-').unwrap();
        let (host, port) = address.rsplit_once(':').unwrap();
        (name.to_owned(), host.to_owned(), port.to_owned())
    };
    peers.split(';').map(seat).collect()
}

#[test]
fn compose_starts_a_cluster_that_fits_together() {
    let files = documents(&deploy().join("compose.yaml"));
    let [file] = &files[..] else { panic!("one document, not {}", files.len()) };
    let services = file["services"].as_object().unwrap();
    let volumes = file["volumes"].as_object().unwrap();
    let run = secrets();
    let mut members = 0;
    for (name, service) in services {
        for volume in texts(&service["volumes"]) {
            let (volume, _) = volume.split_once(':').unwrap();
            let is_there = match volume.strip_prefix("./") {
                Some(folder) => deploy().join(folder).is_dir(),
                None => volumes.contains_key(volume),
            };
            assert!(is_there, "{name} has {volume}");
        }
        for needed in service["depends_on"].as_object().into_iter().flatten() {
            assert!(services.contains_key(needed.0), "{name} waits for {}", needed.0);
        }
        // Programs of others: `the_compose_file_shows_what_prometheus_gathers` looks at them.
        if ["prometheus", "grafana"].contains(&name.as_str()) {
            continue;
        }
        assert_eq!(service["build"]["dockerfile"], "deploy/Dockerfile", "{name}");
        let command = texts(&service["command"]);
        let arguments: Vec<String> = command[1..].iter().map(|word| (*word).to_owned()).collect();
        let variables: BTreeMap<String, String> = service["environment"]
            .as_object()
            .map(|all| all.iter().map(|(key, value)| (key.clone(), text(value).to_owned())).collect())
            .unwrap_or_default();
        match command[0] {
            "sh" => {
                // It writes the file that the members read, in the volume that they mount.
                let (secret, folder) = ("/run/escrowmq/group-a.secret", "secret:/run/escrowmq");
                assert!(arguments[1].contains(secret) && texts(&service["volumes"]) == [folder], "{name}");
            }
            "escrowmq-nameserver" => drop(settings(command[0], &arguments, &variables, &run)),
            "escrowmq-broker" => {
                let settings = settings(command[0], &arguments, &variables, &run);
                for (key, value) in [
                    ("brokerName", "broker-a"),
                    ("namesrvAddr", "ns0:9876;ns1:9876"),
                    ("groupSecretFile", "/run/escrowmq/group-a.secret"),
                    ("storePathRootDir", "/var/lib/escrowmq/data"),
                    ("metricsPort", "9464"),
                ] {
                    assert_eq!(settings[key], value, "{name}: {key}");
                }
                assert_eq!(variables["ESCROWMQ_BROKER_IP1"], *name);
                // Each variable is a key that arrived.
                assert_eq!(variables.len(), 9, "{name}: a variable that this test does not know");
                let own = seats(&settings["dLegerPeers"]).into_iter().find(|seat| seat.0 == settings["dLegerSelfId"]);
                assert_eq!(own, Some((settings["dLegerSelfId"].clone(), name.clone(), "40911".to_owned())));
                let mounts = texts(&service["volumes"]);
                assert!(mounts.contains(&format!("{name}:/var/lib/escrowmq").as_str()), "{name} has its own data");
                assert!(mounts.contains(&"secret:/run/escrowmq:ro"), "{name}");
                assert_eq!(service["depends_on"]["secret"]["condition"], "service_completed_successfully");
                members += 1;
            }
            other => panic!("{name} runs {other}"),
        }
    }
    assert_eq!(members, 3);
    assert!(services.contains_key("ns0") && services.contains_key("ns1"));
}

/// The folder of the host that a service sees, and where it sees it.
fn mounted(service: &Value) -> (PathBuf, &str) {
    let mount =
        texts(&service["volumes"]).into_iter().find(|volume| volume.starts_with("./")).expect("a folder of deploy");
    let (folder, seen) = mount.split_once(':').unwrap();
    (deploy().join(folder), seen.strip_suffix(":ro").expect("it is only read"))
}

#[test]
fn the_compose_file_shows_what_prometheus_gathers() {
    let files = documents(&deploy().join("compose.yaml"));
    let services = &files[0]["services"];
    let prometheus = &services["prometheus"];
    let (folder, seen) = mounted(prometheus);
    let config = texts(&prometheus["command"]).into_iter().find_map(|word| word.strip_prefix("--config.file="));
    let config = config.and_then(|path| path.strip_prefix(seen)).expect("its settings are in the mounted folder");
    let config = &documents(&folder.join(config.trim_start_matches('/')))[0];
    let mut asked = 0;
    for job in config["scrape_configs"].as_array().unwrap() {
        for target in job["static_configs"].as_array().unwrap().iter().flat_map(|group| texts(&group["targets"])) {
            let (host, port) = target.split_once(':').unwrap();
            let environment = &services[host]["environment"];
            let program = if job["job_name"] == "escrowmq-broker" { "ESCROWMQ" } else { "ESCROWMQ_NAMESERVER" };
            assert_eq!(environment[&format!("{program}_METRICS_PORT")], port, "{target}");
            let bound = &environment[&format!("{program}_METRICS_BIND_ADDRESS")];
            assert_eq!(bound, "0.0.0.0", "{target} is reached from outside");
            asked += 1;
        }
    }
    assert_eq!(asked, 5, "each broker and each nameserver is asked");

    let grafana = &services["grafana"];
    let (folder, seen) = mounted(grafana);
    let provisioning = text(&grafana["environment"]["GF_PATHS_PROVISIONING"]).strip_prefix(seen).unwrap();
    let provisioning = folder.join(provisioning.trim_start_matches('/'));
    let source = &documents(&provisioning.join("datasources/prometheus.yaml"))[0]["datasources"][0];
    assert_eq!((&source["url"], &source["uid"]), (&"http://prometheus:9090".into(), &"prometheus".into()));
    let provider = &documents(&provisioning.join("dashboards/escrowmq.yaml"))[0]["providers"][0];
    assert!(text(&provider["options"]["path"]).starts_with(seen), "dashboards are in the mounted folder");
    for service in [prometheus, grafana] {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{port}: nobody is asked for a password there");
        }
    }
}

/// The image's own look at itself, against the programs that it may have.
#[tokio::test(flavor = "multi_thread")]
async fn the_image_knows_whether_its_program_serves() {
    let image = std::fs::read_to_string(deploy().join("Dockerfile")).unwrap();
    assert_eq!(image.lines().filter(|line| line.starts_with("FROM ")).count(), 2, "what builds is not shipped");
    assert!(image.contains("COPY deploy/healthy /usr/local/bin/escrowmq-healthy\n"));
    assert!(
        image.lines().any(|line| line.starts_with("HEALTHCHECK ") && line.ends_with(r#"CMD ["escrowmq-healthy"]"#))
    );

    let folder = binary("escrowmq").parent().unwrap().to_owned();
    let is_healthy = |metrics: u16, nameserver: &str| {
        let mut command = Command::new(deploy().join("healthy"));
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        command.env("PATH", path);
        for program in ["ESCROWMQ", "ESCROWMQ_NAMESERVER"] {
            command.env(format!("{program}_METRICS_PORT"), metrics.to_string());
        }
        command.env("ESCROWMQ_NAMESERVER_LISTEN_PORT", nameserver.rsplit_once(':').unwrap().1);
        tokio::task::block_in_place(|| command.status()).unwrap().success()
    };
    let (port, closed, nobody) = (free_port(), free_port(), format!("127.0.0.1:{}", free_port()));
    let nameserver = Nameserver::start().await;
    let mut broker = Broker::start(Settings::default().with("metricsPort", port)).await;
    until("readiness", async || is_healthy(port, &nobody).then_some(())).await;
    assert!(is_healthy(closed, &nameserver.address()), "a nameserver may have no such page");
    broker.kill();
    assert!(!is_healthy(port, &nobody));
}

#[test]
fn kubernetes_gets_a_group_that_fits_together() {
    let objects = kubernetes();
    let services = of_kind(&objects, "Service");
    let budgets = of_kind(&objects, "PodDisruptionBudget");
    let configs = of_kind(&objects, "ConfigMap");
    let sets = of_kind(&objects, "StatefulSet");
    assert_eq!(objects.len(), services.len() + budgets.len() + configs.len() + sets.len());
    for (name, set) in &sets {
        let (spec, labels) = (&set["spec"], &set["spec"]["template"]["metadata"]["labels"]);
        // A group is founded when all are there: none of them is ready before.
        assert_eq!(spec["podManagementPolicy"], "Parallel", "{name}");
        let service = services[text(&spec["serviceName"])];
        assert_eq!(
            (&service["spec"]["clusterIP"], &service["spec"]["publishNotReadyAddresses"]),
            (&"None".into(), &true.into())
        );
        let budget = &budgets[name]["spec"];
        assert_eq!(budget["maxUnavailable"], 1, "{name}");
        for selector in
            [&service["spec"]["selector"], &budget["selector"]["matchLabels"], &spec["selector"]["matchLabels"]]
        {
            assert_eq!(selector, labels, "{name}");
        }
        let pod = &spec["template"]["spec"];
        let apart = &pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(&apart["labelSelector"]["matchLabels"], labels, "{name}");
        let container = &pod["containers"][0];
        assert!(
            container["resources"]["requests"]["memory"].is_string()
                && container["resources"]["limits"]["memory"].is_string()
        );
        let ports: BTreeMap<&str, u64> = container["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| (text(&port["name"]), port["containerPort"].as_u64().unwrap()))
            .collect();
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert_eq!(ports.get(text(&port["name"])), port["port"].as_u64().as_ref(), "{name}");
        }
        for probe in ["readinessProbe", "livenessProbe"] {
            for kind in ["httpGet", "tcpSocket"] {
                let port = &container[probe][kind]["port"];
                assert!(port.is_null() || ports.contains_key(text(port)), "{name}: {probe}");
            }
        }
        let program = text(&container["command"][0]);
        if program == "escrowmq-nameserver" {
            let arguments: Vec<String> = texts(&container["args"]).into_iter().map(str::to_owned).collect();
            settings(program, &arguments, &BTreeMap::new(), &secrets());
            let at = arguments.iter().position(|argument| argument == "--port").expect("a port");
            assert_eq!(arguments[at + 1], ports["clients"].to_string(), "{name} listens where it is asked");
        } else {
            assert_eq!(program, "escrowmq-broker");
            assert_eq!(pod["securityContext"]["runAsUser"].as_u64(), Some(user_of_the_image()), "{name}");
            assert_members(name, set, configs[name], &ports, &addresses(sets["nameserver"]));
        }
    }
    assert_eq!(sets.keys().copied().collect::<Vec<_>>(), ["broker-a", "nameserver"]);
}

/// The addresses under which the pods of a set of nameservers are reached.
fn addresses(set: &Value) -> Vec<String> {
    let (name, spec) = (text(&set["metadata"]["name"]), &set["spec"]);
    let port = &spec["template"]["spec"]["containers"][0]["ports"][0]["containerPort"];
    (0..spec["replicas"].as_u64().unwrap())
        .map(|index| format!("{name}-{index}.{}:{port}", text(&spec["serviceName"])))
        .collect()
}

/// The number of the user that the image makes, and that it runs as.
fn user_of_the_image() -> u64 {
    let file = std::fs::read_to_string(deploy().join("Dockerfile")).unwrap();
    let line = file.lines().find(|line| line.contains("useradd")).expect("a user is made");
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "--uid").expect("it has a number");
    let name = words.iter().rfind(|word| **word != "\\").unwrap();
    assert!(file.lines().any(|line| line == format!("USER {name}")), "the image runs as {name}");
    words[at + 1].parse().unwrap()
}

/// The command that a member runs before it is stopped, without the words that forgive its failure.
fn hook(set: &Value) -> String {
    let pod = &set["spec"]["template"]["spec"];
    let command = texts(&pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]);
    let ["sh", "-c", script] = command[..] else { panic!("{command:?} is no script") };
    let script = script.strip_suffix(" || true").expect("a member that cannot hand over is stopped all the same");
    let seconds = script.strip_prefix("timeout ").and_then(|rest| rest.split_once(' ')).expect("it ends").0;
    // As long again for a hand-over at SIGTERM, connections that end and the last flush.
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a time to end in");
    assert!(grace >= 2 * seconds.parse::<u64>().unwrap(), "{grace} s are too few after {seconds} s");
    script.to_owned()
}

/// Each pod of a group is the seat that its number says, at the address that the others have for it.
fn assert_members(name: &str, set: &Value, config: &Value, ports: &BTreeMap<&str, u64>, nameservers: &[String]) {
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let (folder, run) = (tempfile::tempdir().unwrap(), secrets());
    let files = config["data"].as_object().unwrap();
    for (file, content) in files {
        let content = text(content).replace(RUN, run.path().to_str().unwrap());
        std::fs::write(folder.path().join(file), content).unwrap();
    }
    let mounts: BTreeMap<&str, &str> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| (text(&mount["name"]), text(&mount["mountPath"])))
        .collect();
    let volume = |name: &str| pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == name).unwrap();
    assert_eq!(volume("config")["configMap"]["name"], name);
    // Its group may read it, and nobody else.
    assert_eq!(
        (&volume("secret")["secret"]["secretName"], volume("secret")["secret"]["defaultMode"].as_u64()),
        (&name.into(), Some(0o440))
    );
    assert_eq!(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsUser"]);
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "data");
    for index in 0..set["spec"]["replicas"].as_u64().unwrap() {
        let own = format!("{name}-{index}");
        let known = [("$(POD_INDEX)", index.to_string()), ("$(POD_IP)", format!("10.0.0.{index}"))];
        let declared: Vec<String> = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variable| format!("$({})", text(&variable["name"])))
            .collect();
        assert!(
            known.iter().all(|(variable, _)| declared.contains(&(*variable).to_owned()))
                && declared.len() == known.len()
        );
        let arguments: Vec<String> = texts(&container["args"])
            .iter()
            .map(|argument| {
                let path = argument.replace(mounts["config"], &folder.path().display().to_string());
                known.iter().fold(path, |argument, (variable, value)| argument.replace(variable, value))
            })
            .collect();
        let settings = settings("escrowmq-broker", &arguments, &BTreeMap::new(), &run);
        assert_eq!(settings["brokerName"], name);
        assert_eq!(settings["dLegerSelfId"], format!("n{index}"));
        assert_eq!(settings["brokerIP1"], format!("10.0.0.{index}"));
        let seat = seats(&settings["dLegerPeers"]).into_iter().nth(index as usize).unwrap();
        assert_eq!(seat, (format!("n{index}"), format!("{own}.{name}"), ports["members"].to_string()));
        assert_eq!(settings["listenPort"], ports["clients"].to_string());
        assert_eq!(settings["metricsPort"], ports["metrics"].to_string());
        assert!(Path::new(&settings["storePathRootDir"]).starts_with(mounts["data"]));
        assert!(Path::new(&settings["groupSecretFile"]).starts_with(mounts["secret"]));
        assert!(!settings["namesrvAddr"].is_empty());
        for nameserver in settings["namesrvAddr"].split(';') {
            assert!(nameservers.iter().any(|one| one == nameserver), "{nameserver} is none of {nameservers:?}");
        }
        assert_eq!(settings["bindAddress"], "0.0.0.0", "the hook asks at the loopback address");
        assert!(hook(set).contains(&format!("--broker 127.0.0.1:{}", settings["listenPort"])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_probes_ask_for_is_there() {
    let port = free_port();
    let _broker = Broker::start(Settings::default().with("metricsPort", port)).await;
    until("the page", async || Page::of(port).await).await;
    let objects = kubernetes();
    let mut asked = 0;
    for set in of_kind(&objects, "StatefulSet").values() {
        for probe in ["readinessProbe", "livenessProbe"] {
            let path = &set["spec"]["template"]["spec"]["containers"][0][probe]["httpGet"]["path"];
            if let Some(path) = path.as_str() {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                stream
                    .write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes())
                    .await
                    .unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 1);
}

/// A member that follows passes commands on, so the hook must look first: it would depose a leader that stays.
#[tokio::test(flavor = "multi_thread")]
async fn the_hook_hands_over_where_it_leads_and_does_nothing_elsewhere() {
    let objects = kubernetes();
    let script = hook(of_kind(&objects, "StatefulSet")["broker-a"]);
    let group = Group::start(Plan::new(Settings::default())).await;
    let leader = group.until_leader().await;
    let program = binary("escrowmq").display().to_string();
    let run = |address: String| {
        let script = script.replace("127.0.0.1:10911", &address).replace("escrowmq", &program);
        let output = tokio::task::block_in_place(|| Command::new("sh").arg("-c").arg(&script).output()).unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for follower in (0..MEMBERS).filter(|member| *member != leader) {
        assert!(run(group.address(follower)).contains("nothing was done"));
    }
    assert_eq!(group.leader().await, Some(leader));
    assert!(run(group.address(leader)).contains("leads the group"));
    assert_ne!(group.until_other_leader(leader).await, leader);
}
