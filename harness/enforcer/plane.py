"""What a data plane is to the controller."""

from __future__ import annotations

from typing import Protocol

from harness.enforcer.compiled import Compiled


class Plane(Protocol):
    """One way of enforcing on this node.

    ``apply`` brings a snapshot into force; after a :class:`~harness.enforcer.tool.ToolError`
    what was in force before still is, and the next call does the whole again.
    ``forget`` says that somebody else changed something: the next ``apply`` starts afresh.
    ``clean`` takes away every trace.
    """

    name: str

    def apply(self, compiled: Compiled) -> None: ...

    def forget(self) -> None: ...

    def clean(self) -> None: ...
