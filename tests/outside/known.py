"""Where network-config-analyzer 2.1.0 departs from the specification, one by one.

Two of its departures are refusals, and the worlds are written so that it reads them:

* ``policyTypes`` has to list Ingress before Egress; the API takes any order.
* rules of a direction that ``policyTypes`` does not list are refused; the API takes them, and they
  do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.model.flow import Cell
from harness.model.world import World

#: What it says otherwise of cells -> whether a cell of a world is such a case. None are known: of
#: what it reads, it says what the oracle says.
KNOWN: Mapping[str, Callable[[World, Cell], bool]] = {}
