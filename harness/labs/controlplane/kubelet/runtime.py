"""Sandboxes and containers out of boxes of the lab: what a container runtime does for a kubelet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from harness.labs.base import LabError
from harness.labs.netns.client import Process
from harness.labs.netns.topology import Topology, stream_module
from harness.model.world import Pod

Item = TypeVar("Item")

_KEPT_BYTES = 1 << 20
"""Of a container's output; older lines go."""


class Batches(Generic[Item]):
    """Collects what is asked for while the last batch is under way, and does it as one."""

    def __init__(self, do: Callable[[list[Item]], Awaitable[None]]) -> None:
        self._do = do
        self._waiting: list[tuple[Item, asyncio.Future[None]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> None:
        """Returns when it is done. Raises LabError."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        await future

    def close(self) -> None:
        """Give up what is not done yet."""
        if self._worker is not None:
            self._worker.cancel()

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # whoever asks in this turn of the loop comes along
            taken, self._waiting = self._waiting, []
            await self._attempt(taken)

    async def _attempt(self, taken: list[tuple[Item, asyncio.Future[None]]]) -> None:
        try:
            await self._do([item for item, _ in taken])
        except LabError as error:
            if len(taken) == 1:
                if not taken[0][1].done():
                    taken[0][1].set_exception(error)
                return
            for one in taken:  # so that each gets its own error, and the good ones none
                await self._attempt([one])
        else:
            for _, future in taken:
                if not future.done():
                    future.set_result(None)


@dataclass(frozen=True, slots=True)
class Line:
    """``at``: seconds since 1970; ``text`` without the newline."""

    at: float
    text: bytes


class Log:
    """A container's output: its last lines, and who waits for more."""

    def __init__(self) -> None:
        self.lines: deque[Line] = deque()
        self.ended = False
        self.count = 0  # of all lines that ever were
        self._size = 0
        self._rest = b""
        self._news = asyncio.Event()

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._take(lines)

    def end(self) -> None:
        """There is no more to come."""
        if self._rest:
            self._take([self._rest])
            self._rest = b""
        self.ended = True
        self._wake()

    def _take(self, lines: Iterable[bytes]) -> None:
        for text in lines:
            self.lines.append(Line(time.time(), text))
            self._size += len(text)
            self.count += 1
        while self._size > _KEPT_BYTES and len(self.lines) > 1:
            self._size -= len(self.lines.popleft().text)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def more(self) -> None:
        """Returns when there is news (or has been none for a while)."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), 30)


class Runtime:
    """Asks the holder off the event loop, in batches where many are asked for at once."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.holder = topology.holder
        self.stream_module = stream_module(self.holder)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="kubelet-runtime")
        self._sandboxes: Batches[Pod] = Batches(self._make_sandboxes)
        self._removals: Batches[tuple[Pod, tuple[str, ...]]] = Batches(self._remove)
        self._boxes: Batches[dict[str, Any]] = Batches(self._make_boxes)

    def close(self) -> None:
        """In the loop: nothing more is done."""
        for batches in (self._sandboxes, self._removals, self._boxes):
            batches.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def off_loop(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run what blocks in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, call, *arguments)

    # -- sandboxes ---------------------------------------------------------------------------

    async def make_sandbox(self, pod: Pod) -> None:
        """A pod's network namespace, connected."""
        await self._sandboxes.add(pod)

    async def remove_sandbox(self, pod: Pod, containers: Sequence[str]) -> None:
        """Everything of a pod; returns when all its processes are gone."""
        await self._removals.add((pod, tuple(containers)))

    async def _make_sandboxes(self, pods: list[Pod]) -> None:
        def make() -> None:
            try:
                self.topology.make_pods(pods)
                self.topology.plug(pods)
            except LabError:
                # Those that were made are made again one by one.
                with contextlib.suppress(LabError):
                    self.holder.request("drop", boxes=[str(pod) for pod in pods])
                raise

        await self.off_loop(make)

    async def _remove(self, items: list[tuple[Pod, tuple[str, ...]]]) -> None:
        def remove() -> None:
            inner = [f"{pod}/{name}" for pod, names in items for name in names]
            self.holder.request("drop", boxes=inner)
            self.topology.remove_pods([pod for pod, _ in items])

        await self.off_loop(remove)

    # -- containers --------------------------------------------------------------------------

    async def make_container(self, pod: Pod, name: str, files: Mapping[str, str]) -> None:
        """A container's own mount namespace in the pod's network, with an empty /tmp."""
        spec = self.topology.pod_spec(pod)
        # The file system first: files may belong below it.
        spec.update(name=f"{pod}/{name}", net=str(pod), tmpfs=["/tmp"])  # noqa: S108
        for key in ("sysctls", "setup"):
            spec.pop(key, None)
        spec["files"] = {**spec.get("files", {}), **files}
        await self._boxes.add(spec)

    async def _make_boxes(self, specs: list[dict[str, Any]]) -> None:
        def make() -> None:
            try:
                self.holder.make(specs)
            except LabError:
                with contextlib.suppress(LabError):
                    self.holder.request("drop", boxes=[spec["name"] for spec in specs])
                raise

        await self.off_loop(make)

    async def drop_container(self, pod: Pod, name: str) -> None:
        """End all that runs in a container, and forget it."""
        await self.off_loop(lambda: self.holder.request("drop", boxes=[f"{pod}/{name}"]))

    async def spawn(
        self, box: str, argv: Sequence[str], env: Mapping[str, str], fds: tuple[int, int, int]
    ) -> Process:
        """A process in a container; its standard descriptors stay the caller's to close."""

        def spawn() -> Process:
            return self.holder.spawn(
                box, argv, stdin=fds[0], stdout=fds[1], stderr=fds[2], env=env, cwd="/"
            )

        process: Process = await self.off_loop(spawn)
        return process

    async def spawn_logged(
        self, box: str, argv: Sequence[str], env: Mapping[str, str], log: Log
    ) -> Process:
        """A process without input whose output goes to ``log``."""
        ours, theirs = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            process = await self.spawn(box, argv, env, (null, theirs, theirs))
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
            os.close(null)
        on_output(ours, log.feed, log.end)
        return process


def on_output(fd: int, feed: Callable[[bytes], None], end: Callable[[], None]) -> None:
    """Have the running loop read ``fd`` to its end, and close it."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)

    def read() -> None:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        except OSError:  # a terminal whose last process is gone
            data = b""
        if data:
            feed(data)
            return
        loop.remove_reader(fd)
        os.close(fd)
        end()

    loop.add_reader(fd, read)


def settle(future: asyncio.Future[None]) -> None:
    """Mark as done what may be done, or given up, already."""
    if not future.done():
        future.set_result(None)


async def ended(process: Process) -> int:
    """Wait for the end of a process; its exit code as a shell gives it (128 + signal)."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    fd = process.fileno()
    loop.add_reader(fd, settle, done)
    try:
        await done
    finally:
        loop.remove_reader(fd)
    code = process.poll()
    code = 137 if code is None else code
    return code if code >= 0 else 128 - code
