"""One port on 127.0.0.1 that leads to a lab's API server, for clients outside of the lab."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

from harness.labs.base import LabError

_CHUNK = 1 << 16


class Forwarder:
    """Forwards connections for as long as it is open. ``dial`` makes them in the lab."""

    def __init__(self, dial: Callable[[], socket.socket], port: int = 0) -> None:
        self._dial = dial
        try:
            self._listening = socket.create_server(("127.0.0.1", port), backlog=128)
        except OSError as error:
            raise LabError(
                f"127.0.0.1:{port} cannot be listened on: {error.strerror}",
                hint="choose another port, or 0 for any",
            ) from None
        self.port: int = self._listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._serve, name="api-forwarder", daemon=True)
        self._thread.start()

    @property
    def server(self) -> str:
        """URL of the API server by way of this port."""
        return f"https://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Close the port and all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._listening.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._listening.setblocking(False)
        accepting = self._loop.create_task(self._accept())
        self._loop.run_forever()
        for task in (accepting, *self._tasks):
            task.cancel()
        self._loop.run_until_complete(
            asyncio.gather(accepting, *self._tasks, return_exceptions=True)
        )
        self._loop.close()

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listening)
            task = self._loop.create_task(self._forward(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, client: socket.socket) -> None:
        with client:
            try:
                server = await self._loop.run_in_executor(None, self._dial)
            except (OSError, LabError):
                return  # closed without a word: as if nobody listened behind it
            with server:
                for one in (client, server):
                    one.setblocking(False)
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await asyncio.gather(self._pipe(client, server), self._pipe(server, client))

    async def _pipe(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := await self._loop.sock_recv(source, _CHUNK):
                await self._loop.sock_sendall(sink, data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
