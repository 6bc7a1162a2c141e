"""The CNI of a run: the catalogue's entry or one's own, and the policy engine that goes with it."""

from __future__ import annotations

import pytest

from harness.cnis import catalogue
from harness.cnis.cni import Cni, CniError
from harness.engines import choose
from harness.engines.choose import Wanted
from harness.engines.found import Found
from harness.labs.base import LabError
from harness.plugin.options import Options


def wanted(options: Options, name: str) -> Wanted:
    """What was asked for: ``name`` is the catalogue's, where no file was given. UsageError."""
    entry = None
    if options.engine_file is not None:
        name = options.engine_file.stem
        try:
            entry = options.engine_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text file"
            raise pytest.UsageError(f"--lab-engine-file {options.engine_file}: {why}") from None
    return Wanted(name, entry, options.engine, options.images, options.cni_version)


def entry(asked: Wanted) -> Cni:
    """The entry by itself. Raises UsageError."""
    try:
        if asked.entry is None:
            return catalogue.get(asked.name)
        return catalogue.parse(asked.name, asked.entry)
    except CniError as error:
        option = "--cni" if asked.entry is None else "--lab-engine-file"
        raise pytest.UsageError(f"{option}: {error}") from None


def with_engine(asked: Wanted) -> tuple[Cni, Found | None]:
    """The CNI as its engine's directory changes it, and that engine. Raises UsageError."""
    try:
        return choose.choose(asked)
    except (CniError, LabError) as error:
        raise pytest.UsageError(str(error)) from None
