"""The user's own folders, where the XDG Base Directory Specification has them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_DEFAULTS = {
    "XDG_CACHE_HOME": ".cache",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
}


def base(variable: str, environ: Mapping[str, str] | None = None) -> Path:
    """The folder that this variable names, or else its default below the user's home.

    The specification has relative ones ignored. ``environ`` None: that of now.
    """
    environ = os.environ if environ is None else environ
    named = Path(environ.get(variable, ""))
    home = Path(environ.get("HOME") or Path.home())
    return named if named.is_absolute() else home / _DEFAULTS[variable]


def cache(environ: Mapping[str, str] | None = None) -> Path:
    """Where the harness keeps what can be had again: it may be deleted at any time."""
    return base("XDG_CACHE_HOME", environ) / "netpol"


def state(environ: Mapping[str, str] | None = None) -> Path:
    """Where the harness remembers what it has made on this machine."""
    return base("XDG_STATE_HOME", environ) / "netpol"
