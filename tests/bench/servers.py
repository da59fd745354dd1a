"""Brokers for measurements: EscrowMQ and Apache RocketMQ, started on free ports with folders of their own."""
import json, os, re, shutil, socket, struct, subprocess, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SEND_MESSAGE_V2, CREATE_TOPIC = 310, 17


def default_bin():
    """The folder of our binaries, as `make build` leaves it."""
    target = os.environ.get("CARGO_TARGET_DIR", os.path.expanduser("~/.cache/escrowmq/target"))
    for folder in (os.environ.get("ESCROWMQ_BIN", ""), os.path.join(ROOT, "bin"), os.path.join(target, "release")):
        if folder and os.access(os.path.join(folder, "escrowmq"), os.X_OK):
            return folder
    raise SystemExit("no escrowmq binary: run `make build`, or name its folder with --escrowmq or ESCROWMQ_BIN")


def frame(code, fields, body=b"", opaque=1):
    """A request with a JSON header."""
    head = json.dumps({"code": code, "extFields": {k: str(v) for k, v in fields.items()}, "flag": 0,
                       "language": "JAVA", "opaque": opaque, "serializeTypeCurrentRPC": "JSON",
                       "version": 479}, separators=(",", ":")).encode()
    return struct.pack(">II", 4 + len(head) + len(body), len(head)) + head + body


def send_request(topic, queue, body, opaque=1):
    return frame(SEND_MESSAGE_V2, {"a": "probe", "b": topic, "c": "TBW102", "d": 4, "e": queue, "f": 0,
                                   "g": int(time.time() * 1000), "h": 0, "i": "WAIT\u0001true", "j": 0,
                                   "k": "false", "m": "false"}, body, opaque)


def create_request(topic, queues, opaque=1):
    return frame(CREATE_TOPIC, {"topic": topic, "defaultTopic": "TBW102", "readQueueNums": queues,
                                "writeQueueNums": queues, "perm": 6, "topicFilterType": "SINGLE_TAG",
                                "topicSysFlag": 0, "order": "false"}, b"", opaque)


def code_of(answer):
    """The response code of a frame without its length."""
    return json.loads(answer[4:4 + int.from_bytes(answer[1:4], "big")])["code"]


class Wire:
    """A connection that takes requests one by one or many at a time."""

    def __init__(self, port, timeout=60):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb", buffering=1 << 16)

    def read(self):
        length = self.input.read(4)
        if len(length) < 4:
            raise OSError("the connection ended")
        return self.input.read(int.from_bytes(length, "big"))

    def ask(self, request):
        self.socket.sendall(request)
        return code_of(self.read())

    def many(self, requests, window=256):
        """Sends all, with so many under way; answers the number of refusals and the first one's answer."""
        refused, first, waiting, batch = 0, None, 0, []
        for request in list(requests) + [None]:
            if request is not None:
                batch.append(request)
            if batch and (request is None or len(batch) >= window):
                self.socket.sendall(b"".join(batch))
                waiting, batch = len(batch), []
                for _ in range(waiting):
                    answer = self.read()
                    if code_of(answer) != 0:
                        refused, first = refused + 1, first or answer
        return refused, first

    def close(self):
        self.input.close()
        self.socket.close()


def free_ports(count):
    """Ports that are free; Apache's brokers also use the one two below theirs."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            base = probe.getsockname()[1]
        ports = [base + at for at in range(-2, 3 * count)]
        try:
            probes = []
            for port in ports:
                probes.append(socket.socket())
                probes[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return ports[2::3][:count]


class Failed(Exception):
    """A server does not start."""


class External:
    """Somebody else's server: never started, stopped or killed."""

    managed = False

    def __init__(self, name, namesrv, pids):
        self.name, self.namesrv, self.pids = name, namesrv, pids

    @staticmethod
    def parse(text):
        pairs = dict(part.split("=", 1) for part in text.split(","))
        return External(pairs["name"], pairs["namesrv"], [int(p) for p in pairs.get("pids", "").split(":") if p])

    def start(self, _flush):
        pass

    def stop(self):
        pass


class Server:
    """A nameserver and a broker, or a group of several, on an empty folder."""

    managed = True

    def __init__(self, name, work, members=1):
        self.name = name if members == 1 else f"{name}-{members}"
        self.folder = os.path.join(work, self.name)
        self.brokers = [f"broker{member}" for member in range(members)]
        self.processes, self.first_ack = {}, None

    @property
    def pids(self):
        return [process.pid for process in self.processes.values() if process.poll() is None]

    def start(self, flush, attempts=3):
        """Starts both. A port may have been taken meanwhile: then again, with others."""
        for left in reversed(range(attempts)):
            try:
                return self.start_once(flush)
            except Failed:
                self.stop()
                if left == 0:
                    raise

    def start_once(self, flush):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.name_port, *ports = free_ports(1 + 3 * len(self.brokers))
        self.broker_ports, self.ha_ports, self.peer_ports = ports[::3], ports[1::3], ports[2::3]
        self.namesrv = f"127.0.0.1:{self.name_port}"
        self.flush = flush
        began = time.monotonic()
        self.spawn("namesrv")
        self.wait_port(self.name_port, "namesrv")
        for broker in self.brokers:
            self.spawn(broker)
        self.wait_ack()
        self.first_ack = time.monotonic() - began
        self.wait_registered()

    def group(self, member):
        """The lines of a configuration that make a broker a member of a group."""
        if len(self.brokers) == 1:
            return []
        peers = ";".join(f"n{seat}-127.0.0.1:{port}" for seat, port in enumerate(self.peer_ports))
        return ["enableDLegerCommitLog=true", "dLegerGroup=broker-a", f"dLegerPeers={peers}", f"dLegerSelfId=n{member}"]

    def spawn(self, which):
        command, environment = self.command(which)
        log = open(os.path.join(self.folder, which + ".log"), "ab")
        self.processes[which] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                                 env=dict(os.environ, **environment), start_new_session=True)

    def alive(self, which):
        code = self.processes[which].poll()
        if code is not None:
            raise Failed(f"{self.name}: the {which} ended with {code}: {self.last_words(which)}")

    def last_words(self, which):
        with open(os.path.join(self.folder, which + ".log"), errors="replace") as log:
            return log.read()[-400:].strip()

    def wait_port(self, port, which):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            self.alive(which)
            time.sleep(0.005)
        raise Failed(f"{self.name}: the {which} does not listen")

    def wait_ack(self):
        """Until a message is acknowledged."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            for broker, port in zip(self.brokers, self.broker_ports):
                try:
                    wire = Wire(port, timeout=10)
                    code = wire.ask(send_request("FirstAck", 0, b"x"))
                    wire.close()
                    if code == 0:
                        return
                except OSError:
                    pass
                self.alive(broker)
            time.sleep(0.005)
        raise Failed(f"{self.name}: no message is accepted")

    def wait_registered(self):
        """Until the nameserver knows the broker, or the leader of the group."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            wire = Wire(self.name_port)
            wire.socket.sendall(frame(106, {}))
            known = re.search(rb'[{,]"?0"?:"127', wire.read())
            wire.close()
            if known:
                return
            time.sleep(0.05)
        raise Failed(f"{self.name}: the broker does not register")

    def crash(self):
        """kill -9 of the broker and a new start; seconds until a message is acknowledged."""
        broker = self.processes.pop(self.brokers[0])
        broker.kill()
        broker.wait()
        began = time.monotonic()
        self.spawn(self.brokers[0])
        self.wait_ack()
        return time.monotonic() - began

    def stop(self):
        for which in (*self.brokers, "namesrv"):
            process = self.processes.pop(which, None)
            if process and process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class EscrowMQ(Server):
    def __init__(self, bin_folder, work, settings=(), members=1):
        super().__init__("escrowmq", work, members)
        self.bin, self.settings = bin_folder, list(settings)

    def command(self, which):
        if which == "namesrv":
            return [os.path.join(self.bin, "escrowmq-nameserver"), "--bind", "127.0.0.1", "-p", str(self.name_port),
                    "--set", f"kvConfigPath={self.folder}/kvConfig.json"], {}
        path, member = os.path.join(self.folder, which + ".conf"), self.brokers.index(which)
        with open(path, "w") as conf:
            conf.write("\n".join([
                "brokerName=broker-a", "brokerIP1=127.0.0.1", f"listenPort={self.broker_ports[member]}",
                f"storePathRootDir={self.folder}/store-{which}", f"namesrvAddr={self.namesrv}",
                f"flushDiskType={self.flush.upper()}_FLUSH", *self.group(member), *self.settings, ""]))
        return [os.path.join(self.bin, "escrowmq-broker"), "-c", path], {}


class RocketMQ(Server):
    """JVM options as upstream's scripts have them, but a heap that fits a small machine."""

    def __init__(self, lib_folder, work, members=1):
        super().__init__("rocketmq", work, members)
        # Either a folder of jars, or a distribution with lib/.
        inner = os.path.join(lib_folder, "lib")
        self.lib = os.path.abspath(inner if os.path.isdir(inner) else lib_folder)
        self.heap = os.environ.get("ROCKETMQ_HEAP", "2g" if members == 1 else "1g")

    def command(self, which):
        os.makedirs(os.path.join(self.folder, "home"), exist_ok=True)
        environment = {"ROCKETMQ_HOME": self.folder, "HOME": os.path.join(self.folder, "home")}
        java = ["java", "-server", "-XX:+UseG1GC", "-XX:-OmitStackTraceInFastThrow", "-XX:-UseLargePages",
                f"-Duser.home={self.folder}/home"]
        path = os.path.join(self.folder, which + ".conf")
        if which == "namesrv":
            lines = [f"listenPort={self.name_port}", f"kvConfigPath={self.folder}/kvConfig.json",
                     f"configStorePath={self.folder}/namesrv.properties"]
            java += ["-Xms256m", "-Xmx256m"]
            main = "org.apache.rocketmq.namesrv.NamesrvStartup"
        else:
            member, store = self.brokers.index(which), f"{self.folder}/store-{which}"
            lines = ["brokerClusterName=DefaultCluster", "brokerName=broker-a", "brokerId=0", "brokerRole=ASYNC_MASTER",
                     "brokerIP1=127.0.0.1", f"listenPort={self.broker_ports[member]}",
                     f"haListenPort={self.ha_ports[member]}", f"namesrvAddr={self.namesrv}",
                     f"flushDiskType={self.flush.upper()}_FLUSH", f"storePathRootDir={store}",
                     f"storePathCommitLog={store}/commitlog", *self.group(member)]
            java += [f"-Xms{self.heap}", f"-Xmx{self.heap}", "-XX:G1HeapRegionSize=16m", "-XX:G1ReservePercent=25",
                     "-XX:InitiatingHeapOccupancyPercent=30", "-XX:SoftRefLRUPolicyMSPerMB=0",
                     "-XX:MaxDirectMemorySize=15g", "--add-opens=java.base/java.nio=ALL-UNNAMED",
                     "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
                     "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
                     "--add-opens=java.base/jdk.internal.ref=ALL-UNNAMED"]
            main = "org.apache.rocketmq.broker.BrokerStartup"
        with open(path, "w") as conf:
            conf.write("\n".join(lines + [""]))
        return java + ["-cp", f"{self.lib}/*", main, "-c", path], environment


def memory(pids):
    """Resident and anonymous MiB of processes together."""
    total = {"VmRSS": 0, "RssAnon": 0}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status") as status:
                for line in status:
                    key, _, value = line.partition(":")
                    if key in total:
                        total[key] += int(value.split()[0])
        except OSError:
            pass
    return total["VmRSS"] / 1024, total["RssAnon"] / 1024
