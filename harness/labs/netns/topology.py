"""Nodes, pods and outside hosts made out of boxes and links."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.labs import server
from harness.labs.base import LabError
from harness.labs.netns import detect
from harness.labs.netns import fabric as fabrics
from harness.labs.netns.client import Completed, Holder
from harness.labs.netns.fabric import Fabric
from harness.labs.netns.furnish import directory
from harness.model.policy import Protocol
from harness.model.world import ContainerPort, External, Node, Pod, Workload

NGINX_READY = 'using the "epoll" event method'
CLUSTER_DOMAIN = "cluster.local"

Spec = dict[str, Any]


def node_box(name: str) -> str:
    """Box of a node; it has the text form of the node's Endpoint."""
    return f"node:{name}"


def external_box(name: str) -> str:
    """Box of an outside host."""
    return f"external:{name}"


def stream_module(holder: Holder) -> str | None:
    """The file of nginx' stream module, or None where it is built in."""
    options = holder.run("", ["nginx", "-V"]).err.split()
    if "--with-stream" in options:
        return None
    modules = [o.partition("=")[2].strip("'\"") for o in options if "--modules-path=" in o]
    return f"{modules[0] if modules else 'modules'}/ngx_stream_module.so"


class Topology:
    """What is there of a lab's network. Methods raise LabError with what a tool complained of."""

    def __init__(self, holder: Holder, fabric: Fabric, families: Sequence[int]) -> None:
        self.holder = holder
        self.fabric = fabric
        self.families = tuple(families)
        self.nodes: dict[str, tuple[int, Node]] = {}
        self.nameservers: tuple[str, ...] = ()
        self._outside = 0
        self._stream_module = stream_module(holder)

    def run(self, box: str, argv: Sequence[str], text: str = "") -> Completed:
        """Run a command that has to succeed."""
        done = self.holder.run(box, argv, text)
        if done.code != 0:
            raise LabError(
                f"in {box or 'the fabric'}: {' '.join(argv)} ended with {done.code}: "
                f"{done.err.strip()}"
            )
        return done

    def ip(self, box: str, lines: Iterable[str]) -> None:
        """``ip -batch`` in a box."""
        text = "\n".join(lines)
        if text:
            self.run(box, ["ip", "-batch", "-"], text + "\n")

    def nft(self, node: str, commands: str) -> None:
        """``nft -f`` in a node."""
        self.run(node_box(node), ["nft", "-f", "-"], commands)

    # -- nodes and outside hosts -------------------------------------------------------------

    def start(self, nodes: Sequence[Node]) -> None:
        """Make the fabric and its nodes."""
        self.nodes = {node.name: (index, node) for index, node in enumerate(nodes)}
        for path, value in fabrics.root_sysctls(self.families):
            self.holder.request("write", path=f"/proc/sys/{path}", text=value)
        self.ip("", fabrics.root_batch(self.families))
        self.holder.make([self._node_spec(index, node) for index, node in self.nodes.values()])
        root = []
        for index, node in self.nodes.values():
            root += fabrics.root_batch_for_node(self.fabric, index, node)
        self.ip("", root)
        for name in self.nodes:
            fdb = fabrics.fdb_batch(self.fabric, self._others(name))
            if fdb:
                self.run(node_box(name), [detect.bridge(), "-batch", "-"], "\n".join(fdb) + "\n")
        ports = tuple(
            ContainerPort(server.NODE_SERVER_PORT, protocol)
            for protocol in (Protocol.TCP, Protocol.UDP)
        )
        self.holder.make(
            [
                _with(
                    {
                        "name": f"server@{node_box(name)}",
                        "hostname": name,
                        "net": node_box(name),
                    },
                    self._nginx(node_box(name), ports),
                )
                for name in self.nodes
            ]
        )

    def assign(self, nodes: Sequence[Node]) -> None:
        """Give nodes that were made without pod CIDRs those that they have by now."""
        self.nodes = {node.name: (self.nodes[node.name][0], node) for node in nodes}
        for name, (_, node) in self.nodes.items():
            batch = fabrics.pod_cidr_batch(self.fabric, node, self._others(name))
            self.ip(node_box(name), batch)
            self.ip("", fabrics.root_pod_cidr_batch(node))

    def _others(self, name: str) -> list[tuple[int, Node]]:
        return [entry for other, entry in self.nodes.items() if other != name]

    def _node_spec(self, index: int, node: Node) -> Spec:
        batch = fabrics.node_batch(self.fabric, index, node, self._others(node.name))
        return {
            "name": node_box(node.name),
            "hostname": node.name,
            "netns": node.name,
            "own_run": True,
            "sysctls": fabrics.sysctls(self.fabric, self.families),
            "setup": [[["ip", "-batch", "-"], "\n".join(batch) + "\n"]],
            "files": {"/etc/resolv.conf": self._resolv_conf(None)},
        }

    def add_external(self, external: External) -> None:
        """Make a host outside of the cluster."""
        self._outside += 1
        batch = fabrics.external_batch(self._outside, external.ips)
        self.holder.make(
            [
                _with(
                    {
                        "name": external_box(external.name),
                        "hostname": external.name,
                        "sysctls": fabrics.quick_addresses(self.families),
                        "setup": [[["ip", "-batch", "-"], "\n".join(batch) + "\n"]],
                        "files": {"/etc/resolv.conf": "nameserver 127.0.0.1\n"},
                    },
                    self._nginx(external_box(external.name), external.ports),
                )
            ]
        )
        self.ip("", fabrics.root_batch_for_external(self._outside, external.ips))

    def remove_external(self, name: str) -> None:
        """Take an outside host away."""
        self.holder.run(external_box(name), ["ip", "link", "del", "eth0"])
        self.holder.request("drop", boxes=[external_box(name)])

    # -- pods --------------------------------------------------------------------------------

    def make_pods(self, pods: Sequence[Pod], run: Mapping[str, Spec] | None = None) -> None:
        """Make pods whose servers listen; nothing reaches them before :meth:`plug`.

        ``run`` replaces what runs in a pod (by its text form).
        """
        run = run or {}
        self.holder.make([_with(self.pod_spec(pod), run.get(str(pod), {})) for pod in pods])

    def plug(self, pods: Sequence[Pod]) -> None:
        """Bring the links of new pods up."""
        self._on_nodes(pods, fabrics.plug_batch)

    def remove_pods(self, pods: Sequence[Pod], *, whole: bool = True) -> None:
        """Take pods away: their links first, then their processes.

        ``whole``: they were made; else some of it may not be there.
        """
        self._on_nodes(pods, fabrics.unplug_batch, force=not whole)
        self.holder.request("drop", boxes=[str(pod) for pod in pods])

    def _on_nodes(
        self,
        pods: Sequence[Pod],
        batch: Callable[[Fabric, Node, Sequence[Pod]], list[str]],
        force: bool = False,
    ) -> None:
        """One ``ip`` batch in each node that has some of these pods."""
        for name, (_, node) in self.nodes.items():
            here = [pod for pod in pods if pod.node == name and not pod.host_network]
            lines = batch(self.fabric, node, here) if here else []
            if force and lines:
                text = "\n".join(lines) + "\n"
                self.holder.run(node_box(name), ["ip", "-force", "-batch", "-"], text)
            else:
                self.ip(node_box(name), lines)

    def pod_spec(self, pod: Pod) -> Spec:
        """The box of a pod."""
        assert pod.node is not None
        spec: Spec = {
            "name": str(pod),
            "hostname": pod.node if pod.host_network else pod.name,
            "files": {
                "/etc/resolv.conf": self._resolv_conf(pod.namespace),
                "/etc/hosts": self._hosts(pod),
            },
        }
        if pod.host_network:
            spec["net"] = node_box(pod.node)
        else:
            batch = fabrics.pod_batch(self.fabric, self.nodes[pod.node][1], pod)
            spec["sysctls"] = fabrics.quick_addresses(self.families)
            spec["setup"] = [[["ip", "-batch", "-"], "\n".join(batch) + "\n"]]
        if pod.workload != Workload.CLIENT:
            return _with(spec, self._nginx(str(pod), pod.ports, pod.page))
        return spec

    def _nginx(self, name: str, ports: Sequence[ContainerPort], page: str | None = None) -> Spec:
        home = directory(name)
        by_protocol = {
            protocol: list(dict.fromkeys(p.port for p in ports if p.protocol == protocol))
            for protocol in Protocol
        }
        config = server.nginx_config(
            name,
            tcp=by_protocol[Protocol.TCP] or ([] if ports else [server.DEFAULT_PORT]),
            udp=by_protocol[Protocol.UDP],
            families=self.families,
            page_directory=home if page is not None else None,
            work_directory=home,
            stream_module=self._stream_module,
        )
        files = {f"{home}/nginx.conf": config}
        if page is not None:
            files[f"{home}/{server.PAGE_FILE}"] = page
        argv = ["nginx", "-e", "stderr", "-c", f"{home}/nginx.conf"]
        argv += ["-g", "daemon off; master_process off; user root;"]
        return {"files": files, "argv": argv, "ready": NGINX_READY}

    def _resolv_conf(self, namespace: str | None) -> str:
        lines = [f"nameserver {address}" for address in self.nameservers]
        if namespace:
            domains = (f"{namespace}.svc.", "svc.", "")
            lines.append("search " + " ".join(f"{d}{CLUSTER_DOMAIN}" for d in domains))
            lines.append("options ndots:5")
        return "\n".join(lines) + "\n"

    def _hosts(self, pod: Pod) -> str:
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
        lines += [f"{address} {pod.name}" for address in pod.ips]
        return "\n".join(lines) + "\n"


def _with(spec: Spec, more: Spec) -> Spec:
    """A box specification with more in it; files add up."""
    return {**spec, **more, "files": {**spec.get("files", {}), **more.get("files", {})}}
