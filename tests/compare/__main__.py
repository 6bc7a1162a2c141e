"""``make compare``: the enforcer on both data planes and every engine that is here, in one run.

    python -m tests.compare [--engine ENTRY.toml:ENGINE]… [--suites suites/] [--sizes 10 …]
                            [--changes 0 100 1000] [--only calico …] [--out build/compare] [--draw]

First all are measured, then the suites are run on each. ``figures.json`` holds what is there so
far: a run that was broken off can be drawn (``--draw``, which takes nothing anew). Runs of the
suites are in ``records/NAME``, and the page is ``comparison.md`` with its plots beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.labs.base import LabError
from tests.compare import contenders, measure, page

_STAT = Path("/proc/stat")
_WMEM = Path("/proc/sys/net/core/wmem_default")


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    figures = out / "figures.json"
    if not options.draw:
        before = json.loads(figures.read_text()) if options.resume else {}
        for taken in _taken(options, before):
            figures.write_text(json.dumps(taken, indent=1) + "\n")
    page.write(json.loads(figures.read_text()), out)
    print(f"the page: {out / 'comparison.md'}")
    return 0


def _taken(options: argparse.Namespace, before: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All that is known, again and again as it comes to be more. ``before``: of a run that was
    broken off."""
    there, missing = contenders.foreign(options.engine, options.only)
    everyone = [*contenders.enforcer(), *there]
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {text}", flush=True)

    for text in missing:
        say(f"not compared: {text}")
    found: dict[str, Any] = {
        "machine": before.get("machine")
        or {
            "processors": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "busy": _busy(),
            "wmem_default": int(_WMEM.read_text()),
            "taken": time.strftime("%Y-%m-%d"),
        },
        "missing": missing,
        "suites": options.suites,
        "alone": before.get("alone", {}),
        "engines": before.get("engines", {}),
        "records": dict(options.record),
    }
    for one in everyone:
        if one.name in found["engines"]:
            continue
        key = f"{one.place.fabric}, {one.place.dataplane}"
        try:
            if key not in found["alone"]:
                found["alone"][key] = measure.without(contenders.none(one.place))
            taken = measure.measured(one, options.changes, options.sizes, say)
            found["engines"][one.name] = {**taken, "alone": key}
        except (LabError, AssertionError) as error:
            missing.append(f"{one.name} could not be measured: {str(error).splitlines()[0]}")
            say(missing[-1])
        yield found
    for one in everyone if options.suites else ():
        if one.name not in found["records"]:
            found["records"][one.name] = _suites(one, options, say)
        yield found


def _busy(seconds: float = 2.0) -> float:
    """How much of the processors other work takes, from 0 to 1."""

    def used() -> tuple[int, int]:
        user, nice, system, idle, wait, *more = map(int, _STAT.read_text().split()[1:9])
        return idle + wait, user + nice + system + idle + wait + sum(more)

    before = used()
    time.sleep(seconds)
    after = used()
    return 1 - (after[0] - before[0]) / (after[1] - before[1])


def _suites(one: contenders.Contender, options: argparse.Namespace, say: object) -> str:
    """Run the suites with it; the record's folder."""
    name = "".join(c if c.isalnum() else "-" for c in one.name)
    folder: Path = options.out / "records" / name
    argv = [sys.executable, "-m", "pytest", *options.suites, *one.arguments]
    argv += ["-n", "2", "-q", "--lab-report", str(folder), "-p", "no:cacheprovider"]
    done = subprocess.run(argv, capture_output=True, text=True)
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]
    say(f"{one.name}: suites: {last}")  # type: ignore[operator]
    return str((folder / "latest").resolve())


def _named(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not (Path(folder) / "record.json").is_file():
        raise argparse.ArgumentTypeError(f"{text}: NAME=FOLDER, with the record.json of a run")
    return name, folder


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make compare", description=__doc__.partition("\n")[0])
    option = parser.add_argument
    option("--engine", action="append", default=[], metavar="ENTRY.toml:ENGINE")
    option("--only", nargs="+", default=[], metavar="CNI", help="of the engines here (all)")
    option("--suites", nargs="*", default=["suites/"], help="what of the suites is run (all)")
    option(
        "--record",
        action="append",
        default=[],
        type=_named,
        metavar="NAME=FOLDER",
        help="a run of the suites that was made before, in the place of another",
    )
    option("--sizes", nargs="+", type=int, default=[10, 100, 1000, 10_000])
    option("--changes", nargs="+", type=int, default=[0, 100, 1000])
    option("--out", type=Path, default=Path("build/compare"))
    option("--resume", action="store_true", help="keep what was measured, and measure the rest")
    option("--draw", action="store_true", help="draw the page again out of what was measured")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
