"""Talking to nftables: libnftables in this process, or the program ``nft`` where it lacks.

In the process a change costs a few milliseconds; starting ``nft`` for each costs several times as
much. Each call is one transaction.
"""

from __future__ import annotations

import ctypes
from typing import Any

from harness.enforcer import tool

LIBRARY = "libnftables.so.1"
JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON


class Nft:
    """One connection to nftables in the network namespace of this process."""

    def __init__(self) -> None:
        self._library = _load()
        self._context: Any = None

    @property
    def in_process(self) -> bool:
        """Is the library used?"""
        return self._library is not None

    def run(self, text: str, *, as_json: bool = False) -> str:
        """Perform commands as one transaction, return what they print. Raises ToolError."""
        if not text:
            return ""
        if self._library is None:
            return tool.run(["nft", *(["-j"] if as_json else []), "-f", "-"], text)
        if self._context is None:
            self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
            self._library.nft_ctx_buffer_output(self._context)
            self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, JSON if as_json else 0)
        failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        # both buffers are emptied by being read
        said = self._library.nft_ctx_get_output_buffer(self._context).decode()
        complained = self._library.nft_ctx_get_error_buffer(self._context).decode()
        if failed:
            raise tool.failure(["nft"], complained)
        return str(said)


def _load() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
    return library
