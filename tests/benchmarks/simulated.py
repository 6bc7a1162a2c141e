"""A cluster that is not there: an API server with the exec streams of very many clients.

``python -m tests.benchmarks.simulated CERTIFICATE`` serves HTTPS on a port of loopback, which it
prints. Of Kubernetes it knows as much as the fan-out asks for: what is created is there, and exec
is a WebSocket.

* Exec in a pod of namespace ``x`` is a client's shell that is made up: it answers probes at once,
  as busybox does with a server behind every address.
* Exec in a pod ``fan-out-N`` starts the worker's program, as it is, in a process of its own, with
  this server in the place of the API server.

So what the harness and its workers do is real, connections and TLS included, and what a cluster
does is not there: no kubelet, no second connection behind each stream, no network.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
import sys
from pathlib import Path

from aiohttp import WSMsgType, web
from kubernetes.client import ApiClient, Configuration

from harness.labs.cluster.api import Api
from harness.labs.cluster.worker import Worker, exec_shell

STDIN, STDOUT = b"\0", b"\1"
PROTOCOL = "v5.channel.k8s.io"


def api(server: str, certificate: str) -> Api:
    """The simulated API server as its users have it."""
    configuration = Configuration()
    configuration.host = server
    configuration.ssl_ca_cert = certificate  # type: ignore[assignment]
    configuration.connection_pool_maxsize = 16
    return Api(ApiClient(configuration))


class Client:
    """What is remembered of one client's shell."""

    def __init__(self) -> None:
        self.mark = b""

    def answer(self, said: bytes) -> bytes:
        if b" ready 0" in said:
            before, _, said = said.partition(b" ready 0")
            self.mark = b"!" + before.rpartition(b"!")[2]
            return self.mark + b" ready 0 cut bash\n" + self.answer(said.partition(b"\n")[2])
        found = []
        for line in said.splitlines():
            words = line.split()
            if words[:1] == [b"w"]:
                _, token, _, where = words
                address, _, port = where.rpartition(b":")
                told = b" ".join((token, b"x/a", address, port, b"10.0.0.1", b"40000"))
                found.append(self.mark + b" %b 0 Connecting to x (x) %b - 100%%\n" % (token, told))
        return b"".join(found)


class Server:
    def __init__(self, certificate: str) -> None:
        self.certificate = certificate
        self.url = ""

    async def other(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        return web.json_response(body or {"metadata": {}})

    async def exec(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(PROTOCOL,), max_msg_size=1 << 26)
        await socket.prepare(request)
        if request.match_info["pod"].startswith("fan-out-"):
            await self._worker(socket)
        else:
            client = Client()
            async for message in socket:
                if message.type is WSMsgType.BINARY and (said := client.answer(message.data[1:])):
                    await socket.send_bytes(STDOUT + said)
        return socket

    async def _worker(self, socket: web.WebSocketResponse) -> None:
        argv = [sys.executable, "-m", "tests.benchmarks.simulated", self.certificate, self.url]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
        assert process.stdin is not None
        assert process.stdout is not None
        reading = asyncio.create_task(self._pass_on(process.stdout, socket))
        with contextlib.suppress(ConnectionError):
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    process.stdin.write(message.data[1:])
                    await process.stdin.drain()
        process.stdin.close()
        reading.cancel()
        await process.wait()

    async def _pass_on(self, source: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                await socket.send_bytes(STDOUT + data)

    async def run(self) -> None:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/exec", self.exec)
        app.router.add_route("*", "/{path:.*}", self.other)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context, backlog=1024)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"https://127.0.0.1:{port}"
        print(self.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until it is closed
        await runner.cleanup()


def main(certificate: str, server: str = "") -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if server:
        known = api(server, certificate)
        Worker(lambda where: exec_shell(known, where), 0, 1).run()
    else:
        asyncio.run(Server(str(Path(certificate).resolve())).run())


if __name__ == "__main__":
    main(*sys.argv[1:])
