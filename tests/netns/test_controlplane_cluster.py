"""The embedded lab as a cluster: real API server and controllers, pods out of namespaces."""

from __future__ import annotations

import contextlib
import datetime
import gc
import ipaddress
import os
import re
import selectors
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.labs.base import LabError, ShellLostError
from harness.labs.cluster import objects, stream
from harness.labs.cluster.api import Api, ApiError
from harness.labs.cluster.pods import is_ready
from harness.labs.controlplane.engines import ACCOUNT_DIRECTORY, ApiEngine, ApiEngines
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.model.actions import Apply, Delete, Finish, Relabel
from harness.model.cluster_policy import (
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterRule,
    RuleAction,
    Subject,
    Tier,
)
from harness.model.flow import Endpoint
from harness.model.manifest import from_manifest
from harness.model.policy import LabelSelector, NetworkPolicy, Protocol
from harness.model.world import (
    ContainerPort,
    Namespace,
    Phase,
    Pod,
    Service,
    ServicePort,
    Workload,
    World,
)
from tests.netns.clusters import cluster_up, eventually, phase, pod_manifest, wget

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: Any) -> Iterator[EmbeddedClusterLab]:
    with cluster_up(tmp_path_factory.mktemp("lab"), direct=False) as lab:
        yield lab


@pytest.fixture(scope="module")
def api(cluster: EmbeddedClusterLab) -> Api:
    return cluster.api


# -- the demo --------------------------------------------------------------------------------------


def test_the_demo(cluster: EmbeddedClusterLab, tmp_path: Path) -> None:
    """Deployment of two replicas, its Service by name, by an unmodified client over kubeconfig."""
    from kubernetes import client, config
    from kubernetes import stream as client_stream

    forwarder = cluster.forward()
    path = tmp_path / "kubeconfig"
    path.write_text(cluster.plane.kubeconfig(forwarder.server))
    with contextlib.ExitStack() as stack:
        stack.callback(cluster._forwarders.remove, forwarder)
        stack.callback(forwarder.close)
        stack.callback(gc.collect)  # a socket left open is told here, not in a test that follows
        connection = stack.enter_context(config.new_client_from_config(str(path)))
        stack.callback(connection.rest_client.pool_manager.clear)
        connection.configuration.proxy = None
        core, apps = client.CoreV1Api(connection), client.AppsV1Api(connection)
        core.create_namespace({"metadata": {"name": "demo"}})
        template = {
            "metadata": {"labels": {"app": "nginx"}},
            "spec": {"containers": [{"name": "nginx", "image": "docker.io/library/nginx:1.29"}]},
        }
        selector = {"matchLabels": {"app": "nginx"}}
        spec = {"replicas": 2, "selector": selector, "template": template}
        apps.create_namespaced_deployment("demo", {"metadata": {"name": "nginx"}, "spec": spec})
        ports = [{"port": 80}]
        core.create_namespaced_service(
            "demo",
            {"metadata": {"name": "nginx"}, "spec": {"selector": {"app": "nginx"}, "ports": ports}},
        )
        idle = {"name": "c", "image": "busybox:1.36", "command": ["sleep", "3600"]}
        eventually(lambda: cluster.api.find("ServiceAccount", "demo", "default"))
        core.create_namespaced_pod(
            "demo",
            {
                "metadata": {"name": "access"},
                "spec": {"containers": [idle], "terminationGracePeriodSeconds": 1},
            },
        )
        eventually(
            lambda: apps.read_namespaced_deployment("nginx", "demo").status.ready_replicas == 2
        )
        pods = core.list_namespaced_pod("demo", label_selector="app=nginx").items
        assert {pod.status.phase for pod in pods} == {"Running"}
        nodes = {node.metadata.name: node.spec.pod_cidrs for node in core.list_node().items}
        assert sorted(cidr for cidrs in nodes.values() for cidr in cidrs) == [
            "10.244.0.0/24",
            "10.244.1.0/24",
            "10.244.2.0/24",
        ]
        for pod in pods:
            network = ipaddress.ip_network(nodes[pod.spec.node_name][0])
            assert ipaddress.ip_address(pod.status.pod_ip) in network
        eventually(lambda: phase(cluster.api, "access", "demo") == "Running")

        def page() -> str:
            command = client_stream.stream(
                core.connect_get_namespaced_pod_exec,
                "access",
                "demo",
                command=["wget", "-q", "-O", "-", "http://nginx"],
                stdin=False,
                stdout=True,
                stderr=True,
                tty=False,
                _preload_content=False,
            )
            command.run_forever(timeout=20)
            text = command.read_all()
            command.close()
            # Once the server has closed first, the client's close() leaves its socket open.
            command.sock.shutdown()
            return str(text)

        eventually(lambda: "Welcome to nginx!" in page())
        core.delete_namespace("demo")


def test_where_a_dns_server_that_does_not_answer_stops(cluster: EmbeddedClusterLab) -> None:
    """It does: so from each node, past its Service."""
    first, *others = cluster.told_of_dns().splitlines()
    assert re.fullmatch(r"  its pod: Running, 10\.244\.0\.\d+", first)
    address = first.rpartition(" ")[2]
    assert others == [f"  {address} from {node}: it answers" for node in cluster.node_names]


# -- nodes -----------------------------------------------------------------------------------------


def test_nodes_are_as_kubelets_have_them(api: Api) -> None:
    nodes = api.list("Node")["items"]
    assert {node["metadata"]["name"]: node["spec"]["podCIDR"] for node in nodes} == {
        "control-plane": "10.244.0.0/24",  # in their order: scenarios name addresses
        "worker": "10.244.1.0/24",
        "worker2": "10.244.2.0/24",
    }
    for node in nodes:
        assert is_ready(node)
        assert node["status"]["declaredFeatures"] == ["ExtendWebSocketsToKubelet"]
        name = node["metadata"]["name"]
        eventually(lambda name=name: _lease_age(api, name) < 40)
    # "Not ready" goes when the controller manager has seen that they are.
    wanted = [["node-role.kubernetes.io/control-plane"], [], []]
    eventually(lambda: _taints(api) == wanted)


def _taints(api: Api) -> list[list[str]]:
    nodes = api.list("Node")["items"]
    return [[taint["key"] for taint in node["spec"].get("taints", ())] for node in nodes]


def _lease_age(api: Api, node: str) -> float:
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}"
    try:
        renewed = api.request("GET", path)["spec"]["renewTime"]
    except ApiError:
        return 1e9
    return time.time() - datetime.datetime.fromisoformat(renewed).timestamp()


def test_nothing_listens_on_the_host(cluster: EmbeddedClusterLab) -> None:
    """This process holds the kubelets' listening sockets: not one of them is the host's."""
    cluster.plane.dialer.connect("worker", "172.18.0.3", 10250).close()  # they do listen
    ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _live(fd)}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                listening.add(f"socket:[{fields[9]}]")
    assert not ours & listening


def _live(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_kubelets_want_a_certificate(cluster: EmbeddedClusterLab) -> None:
    """A pod may connect to port 10250, but nobody except the API server is let in."""
    context = ssl.create_default_context(cadata=cluster.plane.authority.certificate)
    raw = cluster.plane.dialer.connect("worker", "172.18.0.3", 10250)
    secured = context.wrap_socket(raw, server_hostname="worker")
    answer = b""
    with secured, contextlib.suppress(ssl.SSLError, ConnectionError):
        secured.sendall(b"GET /healthz HTTP/1.1\r\nHost: worker\r\n\r\n")
        answer = secured.recv(100)
    assert not answer


# -- pods ------------------------------------------------------------------------------------------


def test_pods_that_end(api: Api) -> None:
    api.create(
        pod_manifest("good", "busybox", "sh", "-c", "echo done; exit 0", restartPolicy="Never")
    )
    api.create(pod_manifest("bad", "busybox", "sh", "-c", "echo oh; exit 3", restartPolicy="Never"))
    eventually(lambda: phase(api, "good") == "Succeeded")
    eventually(lambda: phase(api, "bad") == "Failed")
    state = api.get("Pod", "default", "bad")["status"]["containerStatuses"][0]["state"]
    assert state["terminated"]["exitCode"] == 3
    assert api.text("/api/v1/namespaces/default/pods/bad/log") == "oh\n"


def test_a_container_that_fails_is_started_again(api: Api) -> None:
    api.create(pod_manifest("again", "busybox", "sh", "-c", "exit 1"))
    eventually(
        lambda: (
            api.get("Pod", "default", "again")["status"]
            .get("containerStatuses", [{}])[0]
            .get("state", {})
            .get("waiting", {})
            .get("reason")
            == "CrashLoopBackOff"
        )
    )
    status = api.get("Pod", "default", "again")["status"]["containerStatuses"][0]
    assert status["restartCount"] >= 1
    assert status["lastState"]["terminated"]["exitCode"] == 1
    api.delete("Pod", "default", "again")


def test_an_indexed_job(api: Api) -> None:
    """The Job controller's own doing: indexes by the downward API, results by logs."""
    container = {
        "name": "main",
        "image": "busybox",
        "command": ["sh", "-c", "echo share $JOB_COMPLETION_INDEX on $NODE"],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
    }
    template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    spec = {
        "completions": 3,
        "parallelism": 3,
        "completionMode": "Indexed",
        "template": template,
    }
    api.create(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "fan", "namespace": "default"},
            "spec": spec,
        }
    )
    eventually(lambda: api.get("Job", "default", "fan")["status"].get("succeeded") == 3)
    pods = api.list("Pod", "default", labelSelector="job-name=fan")["items"]
    lines = [
        api.text(f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}/log") for pod in pods
    ]
    assert sorted(line.split()[1] for line in lines) == ["0", "1", "2"]
    assert {line.split()[3] for line in lines} <= {"worker", "worker2"}
    api.delete("Job", "default", "fan", propagationPolicy="Background")
    eventually(lambda: not api.list("Pod", "default", labelSelector="job-name=fan")["items"])


def test_an_unknown_image_is_told_with_a_hint(api: Api) -> None:
    api.create(pod_manifest("stranger", "quay.io/some/thing:1"))

    def event() -> str:
        events = api.list("Event", "default", fieldSelector="involvedObject.name=stranger")["items"]
        return next((one["message"] for one in events if one["reason"] == "Failed"), "")

    message = eventually(event)
    assert "quay.io/some/thing:1" in message
    assert "--lab kind" in message

    def reason() -> bool:
        known = api.get("Pod", "default", "stranger")["status"].get("containerStatuses") or ()
        return [one["state"]["waiting"]["reason"] for one in known] == ["ErrImagePull"]

    eventually(reason)
    api.delete("Pod", "default", "stranger")
    eventually(lambda: api.find("Pod", "default", "stranger") is None)


def test_an_address_that_somebody_has_is_waited_for_and_told(api: Api) -> None:
    ask = {"annotations": {objects.IPS_ANNOTATION: "10.244.1.201"}}
    for name in ("has", "wants"):
        api.create(
            pod_manifest(name, "busybox", "sleep", "9", metadata=ask.copy(), nodeName="worker")
        )
        if name == "has":
            eventually(lambda: phase(api, "has") == "Running")

    def told() -> bool:
        conditions = api.get("Pod", "default", "wants")["status"].get("conditions") or ()
        return any("default/has" in one.get("message", "") for one in conditions)

    eventually(told)
    api.delete("Pod", "default", "has")
    eventually(lambda: phase(api, "wants") == "Running")
    assert api.get("Pod", "default", "wants")["status"]["podIP"] == "10.244.1.201"
    api.delete("Pod", "default", "wants")


def test_ready_means_that_the_listener_answers(api: Api) -> None:
    """Running first, Ready only when the server has come up behind the probe."""
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    manifest = pod_manifest(
        "slow",
        "busybox",
        "sh",
        "-c",
        "mkdir /tmp/www; echo hi > /tmp/www/index.html; mkfifo /tmp/go; read x < /tmp/go; "
        "exec httpd -f -p 8080 -h /tmp/www",
        container={"readinessProbe": probe, "ports": [{"containerPort": 8080}]},
    )
    api.create(manifest)
    eventually(lambda: phase(api, "slow") == "Running")
    time.sleep(1.5)  # longer than a period: a probe must have failed meanwhile
    assert not is_ready(api.get("Pod", "default", "slow"))
    code, _ = stream.run(api, "default", "slow", "main", ["sh", "-c", "echo go > /tmp/go"])
    assert code == 0
    eventually(lambda: is_ready(api.get("Pod", "default", "slow")))
    api.delete("Pod", "default", "slow")


def test_deletion_waits_for_the_grace(api: Api) -> None:
    """A container that cleans up after SIGTERM is given the time; one that does not is killed."""
    loop = "echo armed; while :; do sleep 0.1; done"
    script = f"trap 'echo bye > /proc/1/fd/2; sleep 1; exit 0' TERM; {loop}"
    api.create(
        pod_manifest("polite", "busybox", "sh", "-c", script, terminationGracePeriodSeconds=30)
    )
    deaf = f"trap '' TERM; {loop}"
    api.create(pod_manifest("deaf", "busybox", "sh", "-c", deaf, terminationGracePeriodSeconds=2))
    for name in ("polite", "deaf"):
        eventually(lambda name=name: phase(api, name) == "Running")
        log = f"/api/v1/namespaces/default/pods/{name}/log"
        eventually(lambda log=log: "armed" in api.text(log))  # before, TERM simply ends it
    for name in ("polite", "deaf"):
        api.delete("Pod", "default", name)
    assert api.get("Pod", "default", "polite")["metadata"]["deletionTimestamp"]
    began = time.monotonic()
    eventually(lambda: api.find("Pod", "default", "deaf") is None)
    assert time.monotonic() - began > 1.0
    eventually(lambda: api.find("Pod", "default", "polite") is None, seconds=25)


def test_sidecars_and_init_containers(cluster: EmbeddedClusterLab) -> None:
    """Init containers are over before, sidecars serve beside; every declared port listens."""
    api = cluster.api
    manifest = pod_manifest(
        "crew",
        "nginx",
        container={"ports": [{"containerPort": 80}, {"containerPort": 81}]},
        initContainers=[
            {"name": "first", "image": "busybox", "command": ["true"]},
            {
                "name": "side",
                "image": "nginx",
                "restartPolicy": "Always",
                "ports": [{"containerPort": 8080}],
            },
        ],
    )
    api.create(manifest)
    eventually(lambda: is_ready(api.get("Pod", "default", "crew")))
    pod = api.get("Pod", "default", "crew")
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    for port in (80, 81, 8080):
        url = f"http://{pod['status']['podIP']}:{port}/t/x"
        assert wget(cluster, "node:control-plane", url).startswith("x default/crew")
    api.delete("Pod", "default", "crew")


def test_a_service_account_token_is_mounted(api: Api, cluster: EmbeddedClusterLab) -> None:
    api.create(pod_manifest("account", "busybox", "sleep", "3600"))
    eventually(lambda: phase(api, "account") == "Running")
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    _, token = stream.run(api, "default", "account", "main", ["cat", f"{where}/token"])
    review = cluster.plane.api(token).request(
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
    )
    assert review["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
    with pytest.raises(ApiError) as caught:  # RBAC is on
        cluster.plane.api(token).list("Pod", "default")
    assert caught.value.status == 403
    api.delete("Pod", "default", "account")


def test_exec(api: Api) -> None:
    api.create(pod_manifest("shell", "busybox", "sleep", "3600"))
    eventually(lambda: phase(api, "shell") == "Running")

    def run(*argv: str) -> tuple[int, str]:
        return stream.run(api, "default", "shell", "main", argv)

    assert run("echo", "two words") == (0, "two words\n")
    assert run("sh", "-c", "exit 7") == (7, "")
    assert run("hostname") == (0, "shell\n")
    big = 3_000_000
    code, text = run("sh", "-c", f"head -c {big} /dev/zero | tr '\\0' x")
    assert (code, len(text)) == (0, big)
    with pytest.raises(LabError, match="no stream to default/shell"):
        stream.run(api, "default", "shell", "nobody", ["true"])
    api.delete("Pod", "default", "shell")


# -- the lab's own protocol ------------------------------------------------------------------------


def test_actions_and_what_the_lab_fills_in(cluster: EmbeddedClusterLab) -> None:
    ports = (
        ContainerPort(80, name="web"),
        ContainerPort(80, Protocol.UDP),
        ContainerPort(8080, container="side"),
    )
    server = Pod("x", "a", {"pod": "a"}, ports=ports, page="hello")
    client = Pod("y", "c", {"pod": "c"}, workload=Workload.CLIENT)
    service = Service("x", "svc", {"pod": "a"}, (ServicePort(80, "web"),))
    namespaces = [Namespace("x", {"ns": "x"}), Namespace("y")]
    things = [*namespaces, server, client, service]
    before = time.monotonic()
    started = cluster.apply([Apply(thing) for thing in things])
    assert before <= started <= time.monotonic()
    world = World(
        namespaces={n.name: n for n in namespaces},
        pods={p.key: p for p in (server, client)},
        services={service.key: service},
    )
    known = cluster.resolve(world)
    found = known.pods["x", "a"]
    assert found.node in ("worker", "worker2")
    assert found.ips[0].startswith("10.244.")
    assert known.services["x", "svc"].cluster_ips[0].startswith("10.96.")
    assert known.pods["kube-system", "coredns-0"].ips
    assert set(known.nodes) == {"control-plane", "worker", "worker2"}
    shell = cluster.shell(Endpoint.parse("y/c"))
    assert isinstance(shell, stream.ExecShell)
    address = found.ips[0]
    expected = f"1 x/a {address} 80 {known.pods['y', 'c'].ips[0]} "
    for text, answer in (
        (f"http://{address}/t/1", expected),
        (f"http://{address}/", "hello"),
        ("http://svc.x/t/1", expected),
        (f"http://{address}:8080/t/2", f"2 x/a {address} 8080"),
    ):
        eventually(lambda text=text, answer=answer: answer in _ask(shell, f"wget -qO - {text}"))
    shell.close()
    # As with containerd: the end of either output is that of the input, and a shell ends with it.
    container = objects.client_container(known.pods["y", "c"])
    rash = stream.ExecShell(cluster.api, "y", "c", container, ("sh", "-c", "exec sh 2>&1"))
    with pytest.raises(ShellLostError, match="the shell has ended"):
        eventually(rash.receive)
    rash.close()

    cluster.apply(
        [
            Relabel("Pod", "x", "a", {"pod": None, "new": "1"}),
            Relabel("Namespace", "", "y", {"team": "b"}),
            Apply(NetworkPolicy("x", "deny", LabelSelector())),
        ]
    )
    labels = cluster.api.get("Pod", "x", "a")["metadata"]["labels"]
    assert labels == {"new": "1", objects.RUN_LABEL: cluster.run}
    assert cluster.api.get("Namespace", "", "y")["metadata"]["labels"]["team"] == "b"
    assert cluster.api.get("NetworkPolicy", "x", "deny")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress"],
    }

    cluster.apply([Finish("y", "c", Phase.FAILED)])
    assert phase(cluster.api, "c", "y") == "Failed"
    uid = cluster.api.get("Pod", "x", "a")["metadata"]["uid"]
    again = Pod("x", "a", {"pod": "a"}, ports=ports, ips=(address,))
    cluster.apply([Delete("Pod", "x", "a"), Apply(again)])
    assert cluster.resolve(world).pods["x", "a"].node == found.node  # who has that address
    pod = cluster.api.get("Pod", "x", "a")
    assert pod["metadata"]["uid"] != uid
    assert pod["status"]["podIP"] == address  # of its own choosing: the one that was free again
    cluster.apply([Delete("Namespace", "", "x"), Delete("Namespace", "", "y")])
    assert not cluster.api.list("Pod", labelSelector=f"{objects.RUN_LABEL}={cluster.run}")["items"]


def _ask(shell: Any, command: str) -> str:
    shell.send(f"{command} 2>&1; echo =$((1+1))=\n".encode())
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(shell, selectors.EVENT_READ)
        while b"=2=" not in output:
            assert selector.select(20), output
            output += shell.receive()
    return output.decode()


def test_a_stream_that_is_cut_is_told_from_an_answer(cluster: EmbeddedClusterLab) -> None:
    cluster.apply([Apply(Namespace("cut")), Apply(Pod("cut", "c", workload=Workload.CLIENT))])
    shell = cluster.shell(Endpoint.parse("cut/c"))
    assert "=2=" in _ask(shell, "true")
    cluster.apply([Delete("Pod", "cut", "c")])

    def lost() -> bool:
        try:
            shell.receive()
        except ShellLostError as error:
            return "exec stream to cut/c is gone" in str(error)
        return False

    eventually(lost)
    shell.close()
    cluster.apply([Delete("Namespace", "", "cut")])


def test_outside_hosts_and_nodes(cluster: EmbeddedClusterLab) -> None:
    world = cluster.resolve(World())
    outside = world.externals["outside"].ips[0]
    assert "external:outside" in wget(cluster, "node:worker", f"http://{outside}/t/1")
    node = world.nodes["worker2"].ips[0]
    assert "node:worker2" in wget(cluster, "external:outside", f"http://{node}:9100/t/1")


def test_sockets_out_of_the_lab(cluster: EmbeddedClusterLab) -> None:
    dialer = cluster.plane.dialer
    with pytest.raises(OSError, match="no-such-node"):
        dialer.open_on("no-such-node", socket.AF_INET)
    with (
        dialer.listen("worker", "172.18.0.3", 4711) as listening,
        dialer.connect("worker2", "172.18.0.3", 4711) as one,
    ):
        accepted, peer = listening.accept()
        with accepted:
            assert peer[0] == "172.18.0.4"
            one.sendall(b"hello")
            assert accepted.recv(10) == b"hello"


def test_cluster_network_policies_are_served(cluster: EmbeddedClusterLab) -> None:
    """The CRD is upstream's: it refuses what the specification refuses."""
    assert "cluster-network-policy" in cluster.features, cluster.missing
    policy = ClusterNetworkPolicy(
        "rule",
        Tier.ADMIN,
        7,
        Subject(LabelSelector()),
        ingress=(ClusterRule(RuleAction.DENY, (ClusterPeer(namespaces=LabelSelector()),), ()),),
    )
    cluster.apply([Apply(policy)])
    stored = from_manifest(cluster.api.get("ClusterNetworkPolicy", "", "rule"))
    assert (stored.tier, stored.priority, stored.ingress) == (Tier.ADMIN, 7, policy.ingress)
    with pytest.raises(ApiError) as caught:
        cluster.apply([Apply(replace(policy, name="wrong", priority=5000))])
    assert caught.value.status == 422
    cluster.apply([Delete("ClusterNetworkPolicy", "", "rule")])
    assert cluster.api.find("ClusterNetworkPolicy", "", "rule") is None


# -- engines ---------------------------------------------------------------------------------------


def test_an_engine_has_an_account_of_its_own(cluster: EmbeddedClusterLab, tmp_path: Path) -> None:
    """With the rights that it was given and no other, by kubeconfig and as in a pod."""
    account = {"name": "engine", "namespace": "kube-system"}
    rules = [
        {
            "apiGroups": ["networking.k8s.io"],
            "resources": ["networkpolicies"],
            "verbs": ["list", "watch"],
        }
    ]
    rbac = "rbac.authorization.k8s.io"
    objects = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "engine"},
            "rules": rules,
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "engine"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "engine"},
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
    ]
    script = (
        "cat $KUBECONFIG; echo; echo node $NODE_NAME {node} {dataplane}; "
        f"cat {ACCOUNT_DIRECTORY}/token; exec sleep 1000"
    )
    engine = ApiEngine(["sh", "-c", script], ("kube-system", "engine"), objects)
    engines = ApiEngines(cluster.plane, engine, dataplane="nftables", logs=tmp_path)
    engines.prepare(cluster.api)
    try:
        engines.start("worker")
        log = engines.log("worker")
        eventually(lambda: "node worker worker nftables\n" in log.read_text())
        token = eventually(lambda: log.read_text().rpartition("nftables\n")[2])
        asked = cluster.plane.api(token)
        assert asked.list("NetworkPolicy")["kind"] == "NetworkPolicyList"
        with pytest.raises(ApiError) as caught:
            asked.list("Pod")
        assert caught.value.status == 403
        assert f"token: {token}" in log.read_text()
        assert engines.ended() == []
        engines.running["worker"].signal(9)
        eventually(lambda: engines.ended() == ["worker"])
    finally:
        engines.stop("worker")
