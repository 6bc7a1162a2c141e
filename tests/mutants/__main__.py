"""``make mutants``: the suites against each mutant of the in-house enforcer, and a table.

    python -m tests.mutants [NAME…] [--dataplane nftables] [--sample N] [--jobs 2] [--write]

A mutant counts as caught only by a *judged* cell: a leak or an outage, in a scenario that the true
enforcer passes. An error, an unknown cell or a dead lab is not a catch. Exit code 0: all were
caught.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict

from tests.mutants.bugs import IMPOSSIBLE, MUTANTS
from tests.mutants.table import KEPT, write
from tests.mutants.trial import Caught, attempt


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    chosen = options.names or [
        name for name, mutant in MUTANTS.items() if options.dataplane in mutant.planes
    ]
    if options.sample:
        # spread over the list, the same ones each time: a sample that wanders cannot be compared
        chosen = chosen[:: max(1, len(chosen) // options.sample)][: options.sample]
    found = []
    for one in _all(chosen, options.dataplane, options.jobs):
        found.append(one)
        if options.write:
            kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
            kept.setdefault(options.dataplane, {})[one.mutant] = asdict(one)
            write(kept)
    missed = [one.mutant for one in found if not one.scenario]
    if not options.names and not options.sample:
        for bug, why in IMPOSSIBLE.items():
            print(f"not seeded: {bug}: {why}")
    print(
        f"{len(chosen)} mutants on {options.dataplane}: {len(chosen) - len(missed)} caught, "
        f"{len(missed)} missed{': ' if missed else ''}{', '.join(missed)}"
    )
    return 1 if missed else 0


def _all(names: Sequence[str], dataplane: str, jobs: int) -> Iterator[Caught]:
    """Each result as it comes."""
    width = max(map(len, names))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        tried = {pool.submit(attempt, name, dataplane): name for name in names}
        for future in as_completed(tried):
            name = tried[future]
            wrong = future.exception()
            one = Caught(name, why=f"{wrong}") if wrong else future.result()
            verdict = f"caught by {one.scenario} ({one.cell})" if one.scenario else "MISSED"
            why = f" ({one.why})" if one.why else ""
            print(f"{name:{width}}  {one.seconds:5.1f} s, {one.tried:3} run  {verdict}{why}")
            sys.stdout.flush()
            yield one


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--dataplane", choices=("iptables", "nftables"), default="iptables")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only N of them")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once (2)")
    parser.add_argument(
        "--write", action="store_true", help="keep the results, and write docs/mutants.md"
    )
    options = parser.parse_args(argv)
    if unknown := [name for name in options.names if name not in MUTANTS]:
        parser.error(f"no mutant is called {', '.join(unknown)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
