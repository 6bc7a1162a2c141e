"""What runs that were killed have left: clusters of ours whose owner is gone. `netpol clean`."""

from __future__ import annotations

import shutil

from harness.labs.base import LabError
from harness.labs.kind import state
from harness.labs.kind.cluster import delete
from harness.labs.kind.program import Kind
from harness.labs.kind.runtime import NAMES, Runtime


def leftovers(*, kept: bool = False) -> list[state.Known]:
    """Clusters of the harness that nobody will delete; with ``kept`` those, too, that were kept on
    purpose. Clusters of others are never among them."""
    return [one for one in state.all_known() if one.abandoned or (kept and one.state == state.KEPT)]


def clean(one: state.Known) -> None:
    """Delete one of them and forget it. Raises LabError."""
    path = shutil.which(one.runtime) if one.runtime in NAMES else None
    if path is None:
        raise LabError(
            f"cluster {one.name} was made with {one.runtime}, which is not on PATH",
            hint=f"install it; or forget the cluster: rm -r {state.folder(one.name)}",
        )
    delete(Kind.find(Runtime(one.runtime, path)), one.name)
