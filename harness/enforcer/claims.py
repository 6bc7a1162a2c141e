"""Who an address belongs to when more than one pod claims it.

An address changes hands between two pods whose events may come in either order, so for a moment
both claim it. It belongs to the last that began to claim it, pods being deleted after all others:
a late event of the old owner must not take it back.
"""

from __future__ import annotations

from harness.enforcer.compiled import PodKey


class Claims:
    """Claims on addresses, in the order in which they were first made."""

    def __init__(self) -> None:
        # address -> claimant -> is it being deleted?
        self._claims: dict[str, dict[PodKey, bool]] = {}
        self._owned: dict[PodKey, set[str]] = {}
        self._claimed: dict[PodKey, tuple[tuple[str, ...], str]] = {}

    def of(self, key: PodKey) -> tuple[str, ...]:
        """The addresses that a pod owns, in the order in which it lists them."""
        owned = self._owned.get(key, ())
        claimed, _ = self._claimed.get(key, ((), ""))
        return tuple(address for address in claimed if address in owned)

    def claim(
        self, key: PodKey, addresses: tuple[str, ...], *, uid: str = "", leaving: bool = False
    ) -> set[PodKey]:
        """A pod has exactly these addresses; returns the pods whose addresses changed.

        Another ``uid`` than before is another pod of the same name: its claims are new ones.
        """
        before, old_uid = self._claimed.get(key, ((), uid))
        if addresses:
            self._claimed[key] = addresses, uid
        else:
            self._claimed.pop(key, None)
        for address in before:
            if address not in addresses or uid != old_uid:
                claimants = self._claims[address]
                claimants.pop(key)
        for address in addresses:
            self._claims.setdefault(address, {})[key] = leaving
        changed: set[PodKey] = set()
        for address in dict.fromkeys((*before, *addresses)):
            changed |= self._settle(address, key)
        return changed

    def _settle(self, address: str, changed: PodKey) -> set[PodKey]:
        claimants = self._claims[address]
        owner = None
        for key, leaving in claimants.items():
            if owner is None or not leaving or claimants[owner]:
                owner = key
        if not claimants:
            del self._claims[address]
        moved: set[PodKey] = set()
        for key in {*claimants, changed}:
            owned = self._owned.setdefault(key, set())
            if (key == owner) != (address in owned):
                owned.symmetric_difference_update((address,))
                moved.add(key)
            if not owned:
                del self._owned[key]
        return moved
