"""The commands of ``netpol lab``, from the side of the one who types them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from harness.desk.inputs import read
from harness.labs.netns import wire
from harness.model.manifest import documents, to_manifest
from harness.play import options, terminal
from harness.play.home import Home, PlayError, home

Json = dict[str, Any]
_END_SECONDS = 60.0
_POLL = 0.02


# -- up and down -----------------------------------------------------------------------------------


def up(arguments: argparse.Namespace) -> int:
    """Start the keeper of a lab, and wait until it is up."""
    cni = options.cni_of(arguments)
    options.check(cni, options.place_of(arguments, cni))
    there = home(arguments.name)
    left = there.directory.exists() and not there.is_up()
    lock = there.make()
    try:
        if left:
            print(f"netpol: what was left of an earlier lab {there.name} is cleaned up")
        told = _start(there, lock, options.chosen(arguments))
    finally:
        os.close(lock)
    if "error" in told:
        there.remove()
        raise PlayError(told["error"])
    _told_up(told["ready"])
    return 0


def _start(there: Home, lock: int, chosen: Json) -> Json:
    """What the keeper says of its start."""
    ours, theirs = os.pipe()
    request = {
        "home": str(there.directory),
        "name": there.name,
        "lock": lock,
        "report": theirs,
        "chosen": chosen,
    }
    try:
        with open(there.log, "wb") as log:
            subprocess.run(
                [sys.executable, "-m", "harness.play.keeper", json.dumps(request)],
                pass_fds=(lock, theirs),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                check=False,
            )
    finally:
        os.close(theirs)
    with os.fdopen(ours, encoding="utf-8") as report:
        try:
            line = report.readline()
        except KeyboardInterrupt:
            _end_now(there)
            raise
    if line:
        told: Json = json.loads(line)
        return told
    last = there.log.read_text(errors="replace").strip()
    return {"error": f"the lab's keeper ended before the lab was up\n{last}"}


def _end_now(there: Home) -> None:
    """End a keeper whose lab is not yet up."""
    if pid := there.keeper():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    there.remove()


def _told_up(about: Json) -> None:
    print(f"lab {about['name']} is up after {about['ready_seconds']:.1f} s: {about['what']}")
    if about["kubeconfig"]:
        print(f"  export KUBECONFIG={about['kubeconfig']}")
    name = "" if about["name"] == "default" else f" --name {about['name']}"
    print(f"  `netpol lab down{name}` ends it")


def down(arguments: argparse.Namespace) -> int:
    """End a lab; returns when all of it is gone."""
    there = home(arguments.name)
    if not there.is_up():
        if there.directory.exists():
            there.remove()
            print(f"lab {there.name} was gone already; what was left of it is cleaned up")
            return 0
        raise there.not_up()
    end(there)
    print(f"lab {there.name} is down")
    return 0


def end(there: Home) -> None:
    """End a lab that is up. Raises PlayError if it does not go."""
    pid = there.keeper()
    with there.ending() as ended:
        with contextlib.suppress(PlayError):
            _ask(there, {"op": "down"})
        if not _waited(ended):
            _end_now(there)
            if not _waited(ended):
                raise PlayError(f"lab {there.name} does not end: its keeper is process {pid}")
    there.remove()


def _waited(ended: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _END_SECONDS
    while not ended():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


# -- commands to a lab -----------------------------------------------------------------------------


def apply(arguments: argparse.Namespace) -> int:
    """Take manifests in."""
    return _change("apply", arguments)


def delete(arguments: argparse.Namespace) -> int:
    """Take what manifests name away."""
    return _change("delete", arguments)


def _change(op: str, arguments: argparse.Namespace) -> int:
    there = home(arguments.name)
    began = time.monotonic()
    done = _ask(there, {"op": op, "manifests": _manifests(there, arguments.manifests)})
    for line in done:
        print(line)
    count = f"{len(done)} change{'' if len(done) == 1 else 's'}" if done else "nothing to change"
    print(f"{count}, {time.monotonic() - began:.2f} s")
    return 0


def _manifests(there: Home, paths: Sequence[str]) -> list[Json]:
    """As they are written, where a server reads them; else the objects that the model reads."""
    with there.connect():  # before anything is read of standard input
        pass
    if not there.kubeconfig.exists():
        return [to_manifest(thing) for thing in read(paths, keep_going=False).objects]
    found, problems = documents(paths)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise PlayError("not all of the input could be read, so nothing was sent")
    return found


def shell(arguments: argparse.Namespace) -> int:
    """A shell, or a command, on the caller's own terminal or files."""
    there = home(arguments.name)
    argv = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    argv = argv or ["busybox", "sh"]
    message = {"op": "spawn", "where": arguments.where, "argv": argv, "env": _environment()}
    with there.connect() as call:
        if terminal.both(0, 1):
            return terminal.relay(lambda fd: _spawn(call, message, [fd] * 3, terminal=True))
        code: int = _spawn(call, message, [0, 1, 2], terminal=False)()
        return 128 - code if code < 0 else code


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("TERM",) if name in os.environ}


def _spawn(call: socket.socket, message: Json, fds: Sequence[int], *, terminal: bool) -> Any:
    """Send it off; what is returned waits for its end and gives its exit code."""
    _send(call, {**message, "terminal": terminal}, fds)
    return lambda: _answer(call)


def probe(arguments: argparse.Namespace) -> int:
    """Ask one connection."""
    there = home(arguments.name)
    result = _ask(
        there,
        {
            "op": "probe",
            "source": arguments.source,
            "target": arguments.target,
            "by_name": arguments.via == "name",
            "family": 6 if arguments.ipv6 else 4,
        },
    )
    for note in result.pop("notes"):
        print(f"note: {note}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"schema": "netpol-probe/1", **result}, indent=1))
    else:
        print(_probed(result))
    return 1 if result["finding"] in ("leak", "outage", "flaky", "unknown") else 0


def _probed(result: Json) -> str:
    counts = ", ".join(f"{what} {n} times" for what, n in result["outcomes"].items())
    by = f"; answered by {result['answered_by']}" if result["answered_by"] else ""
    lines = [
        f"{result['cell']}: {result['finding']}",
        f"  expected {result['expected']}: {result['because']}",
        f"  observed {counts} in {result['seconds']:.2f} s{by}",
    ]
    if result["note"]:
        lines.append(f"  {result['note']}")
    return "\n".join(lines)


def status(arguments: argparse.Namespace) -> int:
    """What is up, and what is in it."""
    there = home(arguments.name)
    about = _ask(there, {"op": "status"})
    if arguments.json:
        print(json.dumps({"schema": "netpol-lab/1", **about}, indent=1))
        return 0
    minutes = (time.time() - about["started"]) / 60
    print(f"lab {about['name']}, up for {minutes:.0f} min: {about['what']}")
    if about["kubeconfig"]:
        print(f"  kubeconfig: {about['kubeconfig']}")
    print(f"  logs: {about['directory']}")
    for node in about["engines_ended"]:
        print(f"  the engine of node {node} has ended: nothing is enforced there any more")
    for title, things in (("node", about["nodes"]), ("outside host", about["outside"])):
        for thing in things:
            print(f"  {title} {thing['name']} {' '.join(thing['ips'])}")
    for pod in about["pods"]:
        labels = ",".join(f"{key}={value}" for key, value in pod["labels"].items())
        print(f"  pod {pod['name']} {' '.join(pod['ips'])} on {pod['node']} {labels}".rstrip())
    for service in about["services"]:
        print(f"  service {service['name']} {' '.join(service['ips'])}".rstrip())
    for policy in about["policies"]:
        print(f"  policy {policy}")
    return 0


def _ask(there: Home, message: Json) -> Any:
    with there.connect() as call:
        _send(call, message)
        return _answer(call)


def _send(call: socket.socket, message: Json, fds: Sequence[int] = ()) -> None:
    try:
        wire.send(call, message, fds)
    except ConnectionError:
        raise _gone_away() from None


def _answer(call: socket.socket) -> Any:
    receiver = wire.Receiver(call)
    while receiver.read():
        for answer, _ in receiver.messages():
            if "error" in answer:
                raise PlayError(answer["error"])
            return answer["result"]
    raise _gone_away()


def _gone_away() -> PlayError:
    return PlayError("the lab's keeper has gone away without an answer")
