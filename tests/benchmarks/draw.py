"""Plots out of the enforcer's figures: ``python -m tests.benchmarks.draw`` after ``make bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from tests.benchmarks.test_enforcer import OUT

IMAGES = Path(__file__).parents[2] / "docs" / "img"
STYLES: dict[str, tuple[str, str, str]] = {
    # name -> colour, line, what it is called
    "no rules": ("#8a8a8a", ":", "no rules"),
    "nftables": ("#1b7f4b", "-", "enforcer, nftables"),
    "iptables": ("#2b5fa8", "-", "enforcer, iptables"),
    "per pod": ("#b8860b", "--", "Calico's shape: per policy of the pod"),
    "per cluster": ("#a8452b", "--", "Weave's shape: per rule of the cluster"),
    "linear list": ("#7a3b8f", "-.", "one list of address pairs"),
}


def cost(figures: dict[str, Any]) -> None:
    """A new connection's cost against the number of policies, both axes logarithmic."""
    titles = {
        "cost, ten select": "ten policies select the pod",
        "cost, all select": "all policies select the pod, each with a port of its own",
    }
    plot, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for ax, (key, title) in zip(axes, titles.items(), strict=True):
        for name, row in figures[key].items():
            colour, line, label = STYLES[name]
            sizes = [int(size) for size in row]
            ax.plot(sizes, list(row.values()), line, color=colour, label=label, marker="o", ms=4)
        ax.set(title=title, xlabel="policies", xscale="log", yscale="log")
        ax.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("processor time of a new connection, µs")
    axes[0].legend(fontsize=8)
    plot.savefig(IMAGES / "enforcer-cost.svg", metadata={"Date": None})


def change(figures: dict[str, Any]) -> None:
    """Change to enforced: median and 99th percentile for each kind of change."""
    plot, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for turn, plane in enumerate(("iptables", "nftables")):
        colour, _, label = STYLES[plane]
        for place, row in enumerate(figures[f"change {plane}"].values()):
            at = place + 0.38 * (turn - 0.5)
            ax.barh(at, row["p50"], 0.34, color=colour, label=label if place == 0 else None)
            ax.plot([row["p50"], row["p99"]], [at, at], color=colour)
            ax.plot(row["p99"], at, "|", color=colour, ms=10)
    ax.set_yticks(range(4), list(figures["change nftables"]))
    ax.invert_yaxis()
    ax.set(xlabel="milliseconds until the wire shows it: bar p50, line to p99", xscale="log")
    ax.grid(alpha=0.3, axis="x", which="both")
    ax.legend(fontsize=8)
    plot.savefig(IMAGES / "enforcer-change.svg", metadata={"Date": None})


def main() -> None:
    mpl.rcParams["svg.hashsalt"] = "netpol"  # the same figures give the same file
    figures = json.loads(OUT.read_text())
    cost(figures)
    change(figures)


if __name__ == "__main__":
    main()
