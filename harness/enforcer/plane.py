"""What a data plane is to the controller."""

from __future__ import annotations

from typing import Protocol

from harness.enforcer.compiled import Compiled
from harness.enforcer.listing import Listing


class Plane(Protocol):
    """One way of enforcing on this node.

    ``apply`` brings a snapshot into force; after a :class:`~harness.enforcer.tool.ToolError`
    what was in force before still is, and the next call does the whole again.
    ``clean`` takes away every trace. ``live`` lists what the kernel holds of us, an address family
    each; nothing where no rules are in force.

    What others do to our rules: ``fileno`` becomes readable when somebody changed something, and
    ``noticed`` says what of ours that was; ``glance`` looks, cheaply, at what the kernel does not
    tell of; ``verify`` compares everything. All three answer with what is wrong, an empty text for
    nothing; where something is, the next ``apply`` mends it.
    ``unsure`` is true while the kernel has told less than happened and ``verify`` was not called.
    ``size`` counts rules and sets in force.
    """

    name: str
    unsure: bool

    def apply(self, compiled: Compiled) -> None: ...

    def clean(self) -> None: ...

    def live(self) -> list[Listing]: ...

    def fileno(self) -> int: ...

    def noticed(self) -> str: ...

    def glance(self) -> str: ...

    def verify(self) -> str: ...

    def size(self) -> tuple[int, int]: ...
