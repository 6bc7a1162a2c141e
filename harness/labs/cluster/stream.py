"""Exec streams: one WebSocket each, to be selected on, without a thread of its own.

Messages are binary; their first byte is the channel (0 input, 1 output, 2 error, 3 how it ended,
as a ``Status``). A stream that is cut is told from a command that has ended, and both from an
answer: :class:`harness.labs.base.ShellLostError` says which.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import selectors
import socket
import ssl
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from harness.labs.base import LabError, ShellLostError
from harness.labs.cluster.api import Api, ApiError, path

if TYPE_CHECKING:
    from kubernetes.client import Configuration

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR = 0, 1, 2, 3

_OPEN_SECONDS = 30.0
_SEND_SECONDS = 10.0
# Standard error stays open, as 9: containerd takes the end of either output for the end of all.
_MERGED = ("sh", "-c", "exec 9>&2; exec sh 2>&1")


class ExecShell:
    """A ``sh`` in a container. Implements :class:`harness.labs.base.Shell`."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str] = _MERGED,
        protocols: Sequence[str] = (V5, V4),
    ) -> None:
        self.name = f"{namespace}/{pod}"
        self._closed = False
        self._over = ""
        self.status: dict[str, Any] = {}
        query = [("container", container), ("stdin", "true"), ("stdout", "true")]
        query += [("stderr", "true")] if command is not _MERGED else []
        query += [("command", word) for word in command]
        where = f"{path('Pod', namespace, pod)}/exec?{urlencode(query)}"
        try:
            self._socket = _connect(api)
        except OSError as error:
            api.check()
            raise LabError(
                f"no stream to {self.name}: {api.server} cannot be reached: {error}"
            ) from None
        self._ws = WSConnection(ConnectionType.CLIENT)
        try:
            self._handshake(api, where, protocols)
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Write shell text; waits while the shell is busy reading (at most 10 s)."""
        try:
            self._write(self._ws.send(BytesMessage(bytes([STDIN]) + data)))
        except (OSError, LocalProtocolError, TimeoutError) as error:
            raise self._lost(str(error)) from None

    def receive(self) -> bytes:
        """What has arrived (output and errors). Raises ShellLostError at the end of the stream."""
        found = bytearray()
        while not self._over:
            try:
                data = self._socket.recv(1 << 16)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                self._over = f"the connection broke: {error}"
                break
            self._take(data, found)
        if self._over and not found:
            raise self._lost(self._over)
        return bytes(found)

    def close(self) -> None:
        """Close the stream; the kubelet ends the shell."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError, LocalProtocolError):
            self._socket.send(self._ws.send(CloseConnection(1000)))
        self._socket.close()

    def _take(self, data: bytes, found: bytearray) -> None:
        try:
            self._ws.receive_data(data or None)
            for event in self._ws.events():
                match event:
                    case BytesMessage():
                        self._message(bytes(event.data), event.message_finished, found)
                    case Ping():
                        self._write(self._ws.send(event.response()))
                    case CloseConnection():
                        self._over = self._over or f"it was closed ({event.code} {event.reason})"
        except (RemoteProtocolError, OSError) as error:
            self._over = f"what came is no WebSocket message: {error}"
        if not data:
            self._over = self._over or "the connection was closed without a word"

    _channel = -1

    def _message(self, data: bytes, finished: bool, found: bytearray) -> None:
        """A message, or a piece of one: only the first piece says the channel."""
        if self._channel < 0 and data:
            self._channel, data = data[0], data[1:]
        if self._channel in (STDOUT, STDERR):
            found += data
        elif self._channel == ERROR and data:
            with contextlib.suppress(ValueError):
                self.status = json.loads(data)
            self._over = self.status.get("message") or "the shell has ended"
        if finished:
            self._channel = -1

    def _write(self, data: bytes) -> None:
        deadline = time.monotonic() + _SEND_SECONDS
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(selectors.EVENT_WRITE, deadline)
            except ssl.SSLWantReadError:
                self._wait(selectors.EVENT_READ, deadline)

    def _wait(self, events: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, events)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"nothing could be sent within {_SEND_SECONDS:g} s")

    def _lost(self, why: str) -> ShellLostError:
        return ShellLostError(
            f"the exec stream to {self.name} is gone: {why}",
            hint="the pod was deleted or finished, or its node or the API server is away",
        )

    def _handshake(self, api: Api, where: str, protocols: Sequence[str]) -> None:
        parts = urlsplit(api.server)
        headers = [(key, value) for key, value in api.headers().items()]
        request = Request(
            host=parts.netloc,
            target=parts.path.rstrip("/") + where,
            subprotocols=list(protocols),
            extra_headers=[(k.encode(), v.encode()) for k, v in headers],
        )
        self._socket.settimeout(_OPEN_SECONDS)
        self._socket.sendall(self._ws.send(request))
        status, body = 0, bytearray()
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError as error:
                api.check()
                raise LabError(f"no stream to {self.name}: {error}") from None
            self._ws.receive_data(data or None)
            for event in self._ws.events():
                match event:
                    case AcceptConnection():
                        if event.subprotocol not in protocols:
                            raise LabError(
                                f"no stream to {self.name}: the server speaks none of "
                                f"{', '.join(protocols)}"
                            )
                        return
                    case RejectConnection():
                        status = event.status_code
                        if not event.has_body:
                            raise self._refused(status, b"")
                    case RejectData():
                        body += event.data
                        if event.body_finished:
                            raise self._refused(status, bytes(body))
            if not data:
                raise self._refused(status, bytes(body))

    def _refused(self, status: int, body: bytes) -> ApiError:
        try:
            message = json.loads(body)["message"]
        except (ValueError, KeyError, TypeError):
            message = body.decode(errors="replace").strip() or "no reason is given"
        return ApiError(f"no stream to {self.name}: {message}", status)


def run(
    api: Api,
    namespace: str,
    pod: str,
    container: str,
    command: Sequence[str],
    *,
    seconds: float = 30.0,
    protocols: Sequence[str] = (V5, V4),
) -> tuple[int, str]:
    """Run a command in a container to its end: exit code and output. Raises LabError."""
    shell = ExecShell(api, namespace, pod, container, command, protocols)
    deadline = time.monotonic() + seconds
    output = bytearray()
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(shell, selectors.EVENT_READ)
            while True:
                try:
                    output += shell.receive()
                except ShellLostError:
                    break
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise LabError(f"{command[0]} in {shell.name} has not ended in {seconds:g} s")
    finally:
        shell.close()
    text = output.decode(errors="replace")
    if not shell.status:
        raise LabError(f"the stream to {shell.name} was cut while {command[0]} ran", detail=text)
    if shell.status.get("status") == "Success":
        return 0, text
    for cause in (shell.status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"]), text
    raise LabError(f"{command[0]} in {shell.name}: {shell.status.get('message')}", detail=text)


def _connect(api: Api) -> ssl.SSLSocket | socket.socket:
    """A connection to the API server. Raises OSError."""
    configuration = api.client.configuration
    parts = urlsplit(api.server)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if api.dial is not None:
        raw = api.dial()
    elif configuration.proxy:
        proxy = urlsplit(configuration.proxy)
        tunnel = http.client.HTTPConnection(proxy.hostname or "", proxy.port, timeout=_OPEN_SECONDS)
        tunnel.set_tunnel(host, port)
        tunnel.connect()
        raw = tunnel.sock
    else:
        raw = socket.create_connection((host, port), timeout=_OPEN_SECONDS)
    raw.settimeout(_OPEN_SECONDS)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if parts.scheme != "https":
        return raw  # type: ignore[no-any-return]
    name = getattr(configuration, "tls_server_name", None) or host
    try:
        if api.tls is None:  # made once: it costs as much as a handshake
            api.tls = _context(configuration)
        return api.tls.wrap_socket(raw, server_hostname=name)
    except BaseException:
        raw.close()
        raise


def _context(configuration: Configuration) -> ssl.SSLContext:
    """TLS as the client's configuration has it."""
    data = getattr(configuration, "ca_cert_data", None)
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=data)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif configuration.assert_hostname is False:
        context.check_hostname = False
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context
