"""The kubelet's own API: exec and attach over WebSocket, and logs.

The API server is its only client, shown by a certificate of the lab's authority. Protocols
(Kubernetes, ``k8s.io/apimachinery/pkg/util/remotecommand``): binary messages whose first byte is
the channel: 0 standard input, 1 output, 2 error, 3 a ``Status`` at the end, 4 the terminal's size;
in v5 also 255 with the number of a channel that is closed. SPDY is not spoken.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import ssl
import struct
from typing import Any

from aiohttp import WSMsgType, web

from harness.labs.base import LabError
from harness.labs.controlplane.identity import KeyPair
from harness.labs.controlplane.kubelet.node import HollowNode
from harness.labs.controlplane.kubelet.pod import Container, PodWorker
from harness.labs.controlplane.kubelet.runtime import Line, ended, on_output, settle
from harness.labs.netns.client import Process

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_TIOCSWINSZ = 0x5414


def tls(authority: str, pair: KeyPair) -> ssl.SSLContext:
    """Serve with this certificate, to clients that have one of the authority's."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority)
    context.verify_mode = ssl.CERT_REQUIRED
    fd = os.memfd_create("certificate")  # the ssl module takes keys from files only
    try:
        os.write(fd, (pair.certificate + pair.key).encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return context


def application(node: HollowNode) -> web.Application:
    """The routes of one node's kubelet."""
    routes = _Routes(node)
    app = web.Application()
    for verb in ("exec", "attach"):
        for path in (
            f"/{verb}/{{namespace}}/{{pod}}/{{container}}",
            f"/{verb}/{{namespace}}/{{pod}}/{{uid}}/{{container}}",
        ):
            app.router.add_route("*", path, getattr(routes, verb))
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", routes.logs)
    app.router.add_get("/healthz", routes.health)
    return app


class _Routes:
    def __init__(self, node: HollowNode) -> None:
        self.node = node

    async def health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    def _find(self, request: web.Request) -> tuple[PodWorker, Container]:
        where = request.match_info
        worker = self.node.find(where["namespace"], where["pod"])
        if worker is None:
            raise web.HTTPNotFound(text=f"pod {where['namespace']}/{where['pod']} is not here\n")
        container = worker.container(where["container"])
        if container is None:
            raise web.HTTPNotFound(text=f"pod {where['pod']} has no such container\n")
        return worker, container

    # -- logs --------------------------------------------------------------------------------

    async def logs(self, request: web.Request) -> web.StreamResponse:
        _, container = self._find(request)
        query = request.query
        stamps = query.get("timestamps") in ("1", "true")
        log = container.log
        lines = list(log.lines)
        if "sinceSeconds" in query:
            since = datetime.datetime.now().timestamp() - float(query["sinceSeconds"])
            lines = [line for line in lines if line.at >= since]
        if "tailLines" in query:
            count = int(query["tailLines"])
            lines = lines[-count:] if count else []
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        left = int(query.get("limitBytes", 1 << 62))
        seen = log.count
        while True:
            data = b"".join(_shown(line, stamps) for line in lines)[:left]
            left -= len(data)
            if data:
                await response.write(data)
            if query.get("follow") not in ("1", "true") or left <= 0:
                break
            if log.count == seen:
                if log.ended:
                    break
                await log.more()
            fresh = min(log.count - seen, len(log.lines))
            lines = list(log.lines)[len(log.lines) - fresh :]
            seen = log.count
        await response.write_eof()
        return response

    # -- exec and attach ---------------------------------------------------------------------

    async def exec(self, request: web.Request) -> web.StreamResponse:
        worker, container = self._find(request)
        if not container.running:
            raise web.HTTPInternalServerError(
                text=f"container {container.name} is not running: {container.state.reason}\n"
            )
        argv = request.query.getall("command", [])
        if not argv:
            raise web.HTTPBadRequest(text="no command is given\n")
        socket = await _upgrade(request)
        await _Session(socket, request).run(worker, container, argv)
        return socket

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """Output from now on; these containers have no input."""
        _, container = self._find(request)
        socket = await _upgrade(request)
        log = container.log
        seen = log.count
        while not log.ended:
            await log.more()
            fresh = min(log.count - seen, len(log.lines))
            for line in list(log.lines)[len(log.lines) - fresh :]:
                await socket.send_bytes(bytes([STDOUT]) + line.text + b"\n")
            seen = log.count
        await socket.send_bytes(bytes([ERROR]) + _verdict(0))
        await socket.close()
        return socket


async def _upgrade(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=1 << 26)
    if not socket.can_prepare(request):
        raise web.HTTPBadRequest(
            text="this kubelet speaks WebSocket only (v5.channel.k8s.io, v4.channel.k8s.io); "
            "before Kubernetes 1.36 ask for v4.channel.k8s.io\n"
        )
    await socket.prepare(request)
    return socket


class _Session:
    """One exec: a process, and the channels of one WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        def asked(name: str) -> bool:
            return request.query.get(name) in ("1", "true")

        self.socket = socket
        self.tty = asked("tty")
        self.input = asked("input")
        self.output = asked("output")
        self.error = asked("error") and not self.tty
        self._to_send: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._open_outputs = 0
        self._stdin = -1

    async def run(self, worker: PodWorker, container: Container, argv: list[str]) -> None:
        try:
            process = await self._start(worker, container, argv)
        except LabError as error:
            await self.socket.send_bytes(bytes([ERROR]) + _failure(error.message))
            await self.socket.close()
            return
        reader = asyncio.create_task(self._read_input())
        sender = asyncio.create_task(self._send_output())
        over = asyncio.create_task(ended(process))
        try:
            await asyncio.wait({reader, over}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                # Whoever it left behind may hold its output open: as much as there is, then on.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(sender), 1.0)
                await self.socket.send_bytes(bytes([ERROR]) + _verdict(over.result()))
                await self.socket.close()
        except (ConnectionError, RuntimeError):
            pass  # the client is gone
        finally:
            for task in (reader, sender, over):
                task.cancel()
            await asyncio.gather(reader, sender, over, return_exceptions=True)
            self._close_input()
            await worker.node.runtime.off_loop(process.close)

    async def _start(self, worker: PodWorker, container: Container, argv: list[str]) -> Process:
        null = os.open(os.devnull, os.O_RDWR)
        theirs = [null]
        fds = [null, null, null]
        try:
            if self.tty:
                ours, terminal = os.openpty()
                theirs.append(terminal)
                fds = [terminal] * 3
                self._stdin = os.dup(ours)
                self._take(ours, STDOUT, asked=True)
            else:
                if self.input:
                    fds[0], self._stdin = os.pipe()
                    theirs.append(fds[0])
                for number, asked in ((STDOUT, self.output), (STDERR, self.error)):
                    ours, fds[number] = os.pipe()
                    theirs.append(fds[number])
                    self._take(ours, number, asked=asked)
            if self._stdin >= 0:
                os.set_blocking(self._stdin, False)
            return await worker.node.runtime.spawn(
                worker.box(container), argv, container.env, (fds[0], fds[1], fds[2])
            )
        finally:
            for fd in theirs:
                os.close(fd)

    def _take(self, fd: int, channel: int, *, asked: bool) -> None:
        """Pass an output on, if it was asked for. Like containerd, take the end of either for the
        end of the input as well: who closes one of them ends the conversation."""
        self._open_outputs += 1

        def feed(data: bytes) -> None:
            if asked:
                self._to_send.put_nowait(bytes([channel]) + data)

        def end() -> None:
            self._close_input()
            self._open_outputs -= 1
            if not self._open_outputs:
                self._to_send.put_nowait(None)

        on_output(fd, feed, end)

    async def _send_output(self) -> None:
        while (data := await self._to_send.get()) is not None:
            await self.socket.send_bytes(data)

    async def _read_input(self) -> None:
        async for message in self.socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                continue
            data = message.data if isinstance(message.data, bytes) else message.data.encode()
            if not data:
                continue
            channel, data = data[0], data[1:]
            if channel == STDIN and self._stdin >= 0:
                await self._write(data)
            elif channel == RESIZE and self.tty:
                self._resize(data)
            elif channel == CLOSE and data[:1] == bytes([STDIN]):
                self._close_input()

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._stdin >= 0:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await _writable(self._stdin)
            except OSError:
                self._close_input()

    def _resize(self, data: bytes) -> None:
        import fcntl

        with contextlib.suppress(ValueError, OSError, KeyError):
            size = json.loads(data)
            packed = struct.pack("HHHH", size["Height"], size["Width"], 0, 0)
            fcntl.ioctl(self._stdin, _TIOCSWINSZ, packed)

    def _close_input(self) -> None:
        if self._stdin >= 0:
            asyncio.get_running_loop().remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = -1


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, settle, done)
    await done
    loop.remove_writer(fd)


def _shown(line: Line, stamps: bool) -> bytes:
    if not stamps:
        return line.text + b"\n"
    at = datetime.datetime.fromtimestamp(line.at, datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode() + line.text + b"\n"


def _verdict(code: int) -> bytes:
    """How a process ended, as a ``Status``."""
    if code == 0:
        return json.dumps({"metadata": {}, "status": "Success"}).encode()
    return _failure(
        f"command terminated with non-zero exit code: exit status {code}",
        reason="NonZeroExitCode",
        details={"causes": [{"reason": "ExitCode", "message": str(code)}]},
    )


def _failure(message: str, **more: Any) -> bytes:
    status = {"metadata": {}, "status": "Failure", "message": message, **more}
    return json.dumps(status).encode()
