"""One node with pods, remote pods and outside hosts, for the enforcer's own tests.

Run as a program (under ``unshare``) it is the node: its network namespace is the node's, each
endpoint is another one behind a veth pair, and one process opens all the sockets, each in its
endpoint's namespace, so that thousands of cells are asked in the time of one timeout.
:class:`OneNode` is the test's end of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CLONE_NEWNET = 0x40000000
NODE_ADDRESSES = ("10.0.0.1", "fd00::1")

Cell = tuple[str, str, str, int]  # client, address, protocol, port


class OneNode:
    """A node under test. Addresses are given by the test; use as a context manager."""

    def __init__(self, addresses: Sequence[str] = NODE_ADDRESSES) -> None:
        unshare = ["unshare", "-Urnmpf", "--mount-proc", "--kill-child"]
        self._agent = subprocess.Popen(
            [*unshare, sys.executable, __file__, *addresses],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._ask("hello")
        pid = self._agent.pid
        self.pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def __enter__(self) -> OneNode:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._agent.stdin
        self._agent.stdin.close()
        self._agent.kill()
        self._agent.wait()
        assert self._agent.stdout
        self._agent.stdout.close()

    def add(
        self, name: str, *addresses: str, tcp: Sequence[int] = (), udp: Sequence[int] = ()
    ) -> None:
        """An endpoint with these addresses, its servers listening."""
        self._ask("add", name, addresses, list(tcp), list(udp))

    def remove(self, name: str) -> None:
        self._ask("remove", name)

    def probe(
        self, cells: Sequence[Cell], wait: float = 0.25, hopes: Sequence[bool] = ()
    ) -> list[bool]:
        """Which of the cells get an answer within ``wait`` seconds, all asked at once.

        Client ``""`` is the node itself. For cells that are hoped for it waits up to three seconds:
        a busy machine is no denial.
        """
        found: list[bool] = self._ask("probe", cells, wait, [i for i, h in enumerate(hopes) if h])
        return found

    def can(self, client: str, address: str, port: int = 80, protocol: str = "tcp") -> bool:
        """Does one cell get an answer?"""
        return self.probe([(client, address, protocol, port)])[0]

    def run(self, *argv: str, text: str = "", check: bool = True) -> str:
        """Run a program on the node, return its output."""
        done = subprocess.run(
            [*self.enter(), *argv], input=text, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def enter(self, endpoint: str = "") -> list[str]:
        """The words that start a program on the node, or in an endpoint."""
        words = ["nsenter", "--preserve-credentials", "-t", str(self.pid), "-U", "-n", "-m", "-p"]
        return [*words, "ip", "netns", "exec", endpoint] if endpoint else words

    def _ask(self, what: str, *arguments: Any) -> Any:
        assert self._agent.stdin
        assert self._agent.stdout
        self._agent.stdin.write(json.dumps([what, *arguments]).encode() + b"\n")
        self._agent.stdin.flush()
        line = self._agent.stdout.readline()
        assert line, "the node's agent died"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]


class Enforcer:
    """The enforcer as a program on a node, driven by events."""

    def __init__(self, node: OneNode, dataplane: str, *options: str, name: str = "node") -> None:
        self.node = node
        self.command = ["events", "--node", name, "--dataplane", dataplane, *options]
        self.seq = 0
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the enforcer
        self.program = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.node.enter(), sys.executable, "-m", "harness.enforcer", *self.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            cwd=ROOT,
        )

    def __enter__(self) -> Enforcer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.log.close()

    def said(self) -> str:
        """All that it has written to stderr."""
        return os.pread(self.log.fileno(), 1 << 24, 0).decode()

    def mendings(self) -> list[str]:
        """What it found broken and mended."""
        return [line for line in self.said().splitlines() if '"mending"' in line]

    def is_calm(self) -> bool:
        """Is all mended that was found broken?"""
        events = [json.loads(line)["event"] for line in self.said().splitlines()]
        return not events or events[-1] == "mended"

    def kill(self) -> None:
        """SIGKILL."""
        if self.program.returncode is not None:
            return
        # nsenter has forked into the process namespace: its child ends when the input does,
        # and SIGKILL goes to the child itself
        children = Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children").read_text()
        for pid in children.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        self.program.kill()
        self.program.wait()
        for end in (self.program.stdin, self.program.stdout):
            assert end
            with contextlib.suppress(BrokenPipeError):
                end.close()

    def restart(self) -> None:
        self.kill()
        self.program = self._start()

    def send(self, *events: tuple[str, dict[str, Any] | None]) -> None:
        """Send events as one batch."""
        lines = []
        for kind, manifest in events:
            self.seq += 1
            event: dict[str, Any] = {"seq": self.seq, "type": kind}
            if manifest is not None:
                event["object"] = manifest
            lines.append(json.dumps(event) + "\n")
        assert self.program.stdin
        self.program.stdin.write("".join(lines).encode())
        self.program.stdin.flush()

    def acknowledged(self) -> dict[str, Any]:
        """The acknowledgement of all that was sent."""
        assert self.program.stdout
        while line := self.program.stdout.readline():
            ack: dict[str, Any] = json.loads(line)
            if ack["seq"] >= self.seq:
                return ack
        raise AssertionError(f"the enforcer ended: {self.said()}")

    def tell(self, *events: tuple[str, dict[str, Any] | None]) -> dict[str, Any]:
        self.send(*events)
        return self.acknowledged()

    def put(self, *manifests: dict[str, Any]) -> None:
        """Objects that are there now; all must be well."""
        if not manifests:
            return
        ack = self.tell(*(("ADDED", manifest) for manifest in manifests))
        assert ack["ok"], ack["errors"]

    def drop(self, *manifests: dict[str, Any]) -> None:
        ack = self.tell(*(("DELETED", manifest) for manifest in manifests))
        assert ack["ok"], ack["errors"]

    def sync(self, *manifests: dict[str, Any]) -> None:
        """The initial list."""
        ack = self.tell(*(("ADDED", manifest) for manifest in manifests), ("SYNCED", None))
        assert ack["ok"], ack["errors"]


# The node's side


class Agent:
    """What runs inside of the node's namespaces."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.endpoints: dict[str, tuple[int, list[str]]] = {}
        self.servers: dict[str, list[socket.socket]] = {}
        self.selector = select.epoll()
        self.listening: dict[int, socket.socket] = {}
        self.count = 0
        self.port = 0
        sh("mount -t tmpfs tmpfs /run && mkdir -p /run/netns")
        sh(
            "ip link set lo up && "
            + " && ".join(f"ip addr add {address} dev lo" for address in addresses)
        )
        for setting in (
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
        ):
            Path("/proc/sys/net", setting).write_text("1")
        for where in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{where}/accept_dad").write_text("0")
        self.serve("", [80, 81], [80, 81])

    def inside(self, name: str) -> contextlib.AbstractContextManager[None]:
        @contextlib.contextmanager
        def there() -> Iterator[None]:
            self.setns(self.endpoints[name][0] if name else self.home)
            try:
                yield
            finally:
                self.setns(self.home)

        return there()

    def setns(self, fd: int) -> None:
        if self.libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    def hello(self) -> str:
        return "here"

    def add(self, name: str, addresses: list[str], tcp: list[int], udp: list[int]) -> None:
        self.count += 1
        link = f"v{self.count}"
        lines = []
        pod = ["link set lo up", "link set eth0 up"]
        for address in addresses:
            if ":" in address:
                pod += [f"addr add {address}/128 dev eth0 nodad"]
                lines += [f"route replace {address}/128 dev {link}"]
            else:
                pod += [f"addr add {address}/32 dev eth0"]
                lines += [f"route replace {address}/32 dev {link}"]
        pod += [
            "route add 169.254.1.1 dev eth0",
            "route add default via 169.254.1.1",
            "route add ::/0 via fe80::1 dev eth0",
        ]
        sh(f"ip netns add {name} && ip link add {link} type veth peer name eth0 netns {name}")
        batch([f"link set {link} up", f"addr add 169.254.1.1/32 dev {link}"])
        batch([f"addr add fe80::1/64 dev {link} nodad", *lines])
        batch(pod, name)
        self.endpoints[name] = os.open(f"/run/netns/{name}", os.O_RDONLY), addresses
        self.serve(name, tcp, udp)

    def remove(self, name: str) -> None:
        for server in self.servers.pop(name):
            self.listening.pop(server.fileno())
            server.close()
        fd, _ = self.endpoints.pop(name)
        os.close(fd)
        sh(f"ip netns del {name}")

    def serve(self, name: str, tcp: list[int], udp: list[int]) -> None:
        self.servers[name] = []
        kinds = [(socket.SOCK_STREAM, port) for port in tcp]
        kinds += [(socket.SOCK_DGRAM, port) for port in udp]
        with self.inside(name):
            for kind, port in kinds:
                server = socket.socket(socket.AF_INET6, kind)
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                server.setblocking(False)
                server.bind(("::", port))
                if kind == socket.SOCK_STREAM:
                    server.listen(1024)
                else:
                    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                self.servers[name].append(server)
                self.listening[server.fileno()] = server
                self.selector.register(server, select.EPOLLIN)

    def probe(self, cells: list[Cell], wait: float, hopes: list[int]) -> list[bool]:
        found = [False] * len(cells)
        open_: dict[int, tuple[int, socket.socket]] = {}
        try:
            for index, (client, address, protocol, port) in enumerate(cells):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
                with self.inside(client):
                    end = socket.socket(family, kind)
                    end.setblocking(False)
                    own = self.endpoints[client][1] if client else self.addresses
                    mine = [a for a in own if (":" in a) == (":" in address)]
                    if not mine:
                        end.close()
                        continue
                    # Never the same port soon again: a datagram from it would belong to a flow
                    # that conntrack still knows, and that was allowed then.
                    self.port = 10000 + (self.port + 1) % 50000
                    end.bind((mine[0], self.port))
                    try:
                        end.connect((address, port))
                        if kind == socket.SOCK_DGRAM:
                            end.send(b"?")
                    except BlockingIOError:
                        pass
                    except OSError:
                        end.close()
                        continue
                open_[end.fileno()] = index, end
                ready = select.EPOLLOUT if kind == socket.SOCK_STREAM else select.EPOLLIN
                self.selector.register(end, ready)
            begun = time.monotonic()
            left = set(open_)
            hoped = {fd for fd in left if open_[fd][0] in hopes}
            while left:
                rest = begun + (3 if hoped & left else wait) - time.monotonic()
                if rest <= 0:
                    break
                for fd, _ in self.selector.poll(rest):
                    if fd in self.listening:
                        self.answer(self.listening[fd])
                    elif fd in left:
                        left.discard(fd)
                        index, end = open_[fd]
                        self.selector.unregister(fd)
                        found[index] = self.succeeded(end)
        finally:
            for _, end in open_.values():
                end.close()
        return found

    @staticmethod
    def succeeded(end: socket.socket) -> bool:
        if end.type == socket.SOCK_STREAM:
            return end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        try:
            return end.recv(10) == b"!"
        except OSError:
            return False

    @staticmethod
    def answer(server: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                if server.type == socket.SOCK_STREAM:
                    server.accept()[0].close()
                else:
                    # answered from the address that was asked, which need not be the one
                    # that the way back would choose
                    _, about, _, client = server.recvmsg(10, 100)
                    server.sendmsg([b"!"], about, 0, client)


def sh(line: str) -> None:
    subprocess.run(["sh", "-c", line], check=True)


def batch(lines: list[str], name: str = "") -> None:
    where = ["-n", name] if name else []
    subprocess.run(["ip", *where, "-b", "-"], input="\n".join(lines).encode(), check=True)


def main() -> None:
    agent = Agent(sys.argv[1:])
    for line in sys.stdin.buffer:
        what, *arguments = json.loads(line)
        try:
            answer = {"value": getattr(agent, what)(*arguments)}
        except Exception as error:  # told to the test, which fails by it
            answer = {"error": f"{what}: {error!r}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
