"""The process that keeps a playground up, and does in it what commands ask for over a socket.

Started by ``netpol lab up`` as ``python -m harness.play.keeper OPTIONS``: a JSON object with
``home`` (the folder), ``name``, ``lock`` and ``report`` (descriptors: its own lock, and where to
say what became of the start) and ``chosen``, the options of :mod:`harness.play.options`. All of
the lab is its child and ends with it, whatever ends it.

A command is one message (:mod:`harness.labs.netns.wire`) with ``op``, and one answer: ``result``,
or ``error`` for people. ``spawn`` brings three descriptors, and its answer is the exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.labs.base import LabError
from harness.labs.netns import wire
from harness.labs.netns.shell import ENVIRONMENT
from harness.play import options
from harness.play.ground import Ground
from harness.play.home import Home
from harness.run import place as place_

Json = dict[str, Any]

#: So that a shell on a terminal has job control: its terminal becomes the session's own.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class Keeper:
    """Serves one lab from :meth:`up` until somebody ends it."""

    def __init__(self, home: Home, request: Json) -> None:
        self.home = home
        chosen = argparse.Namespace(**request["chosen"])
        self.cni = options.cni_of(chosen)
        self.place = options.place_of(chosen, self.cni)
        self.began = time.monotonic()
        self.started = time.time()
        self.lab: Any = place_.make(self.cni, self.place, home.directory)
        self.ground: Ground | None = None
        self.kubeconfig = ""
        self.ready = 0.0
        self._busy = threading.Lock()
        self._wake, self._woken = socket.socketpair()

    # -- up and down -------------------------------------------------------------------------

    def up(self) -> None:
        """Raises LabError."""
        self.lab.up()  # one of the two embedded labs
        if self.place.api:
            from harness.play.cluster import ClusterGround

            server = self.lab.forward().server
            self.home.kubeconfig.touch(mode=0o600)
            self.home.kubeconfig.write_text(self.lab.plane.kubeconfig(server), encoding="utf-8")
            self.kubeconfig = str(self.home.kubeconfig)
            self.ground = ClusterGround(self.lab, self.cni)
        else:
            self.ground = Ground(self.lab, self.cni)
        self.ready = time.monotonic() - self.began

    def serve(self, listening: socket.socket) -> None:
        """Until ``down``, a signal, or the end of the lab's holder."""
        holder = os.pidfd_open(self.lab.holder.pid)
        with selectors.DefaultSelector() as selector:
            selector.register(listening, selectors.EVENT_READ, "call")
            selector.register(self._woken, selectors.EVENT_READ, "end")
            selector.register(holder, selectors.EVENT_READ, "dead")
            while True:
                for key, _ in selector.select():
                    if key.data == "call":
                        call, _ = listening.accept()
                        threading.Thread(target=self._answer, args=(call,), daemon=True).start()
                    else:
                        if key.data == "dead":
                            say("the lab's holder process has died, and the lab with it")
                        return

    def end(self) -> None:
        """Let :meth:`serve` return. Any thread, and signal handlers."""
        with contextlib.suppress(OSError):
            self._wake.send(b".")

    def down(self) -> None:
        """End all of it."""
        if self.ground is not None:
            self.ground.close()
        self.lab.down()

    # -- commands ----------------------------------------------------------------------------

    def _answer(self, call: socket.socket) -> None:
        with call, contextlib.suppress(OSError):
            receiver = wire.Receiver(call)
            message, fds = None, []
            while message is None and receiver.read():
                message, fds = next(receiver.messages(), (None, []))
            if message is None:
                return
            try:
                wire.send(call, {"result": self._do(call, message, fds)})
            except Exception as error:
                told = str(error)
                if not type(error).__module__.startswith("harness."):  # a mistake of ours
                    traceback.print_exc()
                    told = f"the lab's keeper failed: {error!r}; its log is {self.home.log}"
                wire.send(call, {"error": told})
            finally:
                wire.close_all(fds)

    def _do(self, call: socket.socket, message: Json, fds: list[int]) -> Any:
        ground = self.ground
        assert ground is not None
        op = message.pop("op")
        if op == "down":
            self.end()
            return None
        if op == "spawn":
            with self._busy:
                box = ground.box(ground.find(message["where"]))
            return self._spawn(call, box, message, fds)
        with self._busy:
            match op:
                case "apply":
                    return ground.apply(message["manifests"])
                case "delete":
                    return ground.delete(message["manifests"])
                case "probe":
                    return ground.probe(**message)
                case "status":
                    return {**self.about(), **ground.status()}
        raise LabError(f"{op!r} is no command of a lab")

    def _spawn(self, call: socket.socket, box: str, message: Json, fds: list[int]) -> int:
        """Run a command on the caller's descriptors to its end, or to the caller's."""
        argv = list(message["argv"])
        if message["terminal"]:
            argv = [sys.executable, "-S", "-c", _ON_TERMINAL, *argv]
        env = {**ENVIRONMENT, "PS1": f"{message['where']} \\$ ", **message["env"]}
        stdin, stdout, stderr = fds
        process = self.lab.holder.spawn(
            box, argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd="/run"
        )
        wire.close_all(fds)  # the command's own copies are the last
        fds.clear()
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process, selectors.EVENT_READ)
                selector.register(call, selectors.EVENT_READ)
                selector.select()
            code = process.poll()
            return -signal.SIGHUP if code is None else code
        finally:
            process.close()

    def about(self) -> Json:
        """What the lab is."""
        return {
            "name": self.home.name,
            "pid": os.getpid(),
            "what": options.told(self.cni, self.place),
            "cni": self.cni.name,
            "place": {**asdict(self.place), "api_binaries": str(self.place.api_binaries or "")},
            "started": self.started,
            "ready_seconds": round(self.ready, 3),
            "phases": getattr(self.lab, "seconds", {}),
            "kubeconfig": self.kubeconfig,
            "directory": str(self.home.directory),
        }


def say(text: str) -> None:
    """Into the log."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Start, say what became of it, serve, end."""
    if os.fork():  # so that it is nobody's child, and nobody has to wait for it
        os._exit(0)
    request = json.loads(sys.argv[1])
    home = Home(request["name"], Path(request["home"]))
    os.truncate(request["lock"], 0)
    os.write(request["lock"], b"%d" % os.getpid())
    with os.fdopen(request["report"], "w", encoding="utf-8") as report:
        try:
            keeper = Keeper(home, request)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda *_: keeper.end())
            keeper.up()
            listening = home.listen()
            print(json.dumps({"ready": keeper.about()}), file=report, flush=True)
        except Exception as error:
            if not type(error).__module__.startswith("harness."):
                raise
            print(json.dumps({"error": str(error)}), file=report, flush=True)
            return 2
    with listening:
        keeper.serve(listening)
    keeper.down()
    home.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
