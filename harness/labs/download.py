"""Downloads that are held against a digest: whole and right, or not there at all."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import requests
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

from harness.labs.base import LabError

#: Time to connect, and the longest silence in the middle of a download.
SILENCE_SECONDS = 30.0
#: Between two of the three tries at one address.
RETRY_SECONDS = 1.0
#: Seconds between two lines about one download.
LINE_SECONDS = 2.0

Progress = Callable[[str], None]
T = TypeVar("T")


class DownloadError(LabError):
    """The address cannot be reached, or the download broke off."""


class NotThereError(DownloadError):
    """The server says that it has no such thing."""


class DigestError(DownloadError):
    """What came is not what was published. Nothing of it was kept."""


def text(address: str) -> str:
    """What an address has, as text. Raises DownloadError."""
    with _reaching(address):
        return _again(_get, address)


def download(address: str, digest: str, path: Path, progress: Progress = lambda _: None) -> None:
    """Write what ``address`` has to ``path``, which is there only if its SHA-256 is ``digest``.

    ``progress`` gets a line every two seconds, and one at the end. Raises DownloadError, and
    OSError where the file cannot be written.
    """
    begun = time.monotonic()
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _reaching(address):
            found, size = _again(_stream, address, part, path.name, progress)
        if found != digest:
            raise DigestError(
                f"{address} is not what was published: its SHA-256 is {found}, published is "
                f"{digest}",
                hint="nothing of it was kept; try again, and see what stands between here and "
                "there",
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    progress(f"{path.name}: {size / 1e6:.1f} MB in {time.monotonic() - begun:.0f} s, digest good")


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _may_pass(error: BaseException) -> bool:
    """Whether trying again can help: not where the server says that there is no such thing."""
    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code >= 500
    return isinstance(error, requests.RequestException)


def _again(call: Callable[..., T], *args: Any) -> T:
    return Retrying(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_attempt(3),
        wait=wait_fixed(RETRY_SECONDS),
        reraise=True,
    )(call, *args)


def _get(address: str) -> str:
    answer = requests.get(address, timeout=SILENCE_SECONDS)
    answer.raise_for_status()
    return answer.text


def _stream(address: str, path: Path, name: str, progress: Progress) -> tuple[str, int]:
    """The SHA-256 and the size in bytes of what came from ``address`` and went to ``path``."""
    sha256, size, said = hashlib.sha256(), 0, time.monotonic()
    with (
        requests.get(address, timeout=SILENCE_SECONDS, stream=True) as answer,
        path.open("wb") as file,
    ):
        answer.raise_for_status()
        total = int(answer.headers.get("Content-Length", 0))
        for chunk in answer.iter_content(1 << 16):
            file.write(chunk)
            sha256.update(chunk)
            size += len(chunk)
            if time.monotonic() - said > LINE_SECONDS:
                said = time.monotonic()
                of = f" of {total / 1e6:.1f}" if total else ""
                progress(f"{name}: {size / 1e6:.1f}{of} MB")
    return sha256.hexdigest(), size


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Turns what ``requests`` raises into words for people."""
    try:
        yield
    except requests.HTTPError as error:
        # Its text is such as "404 Client Error: Not Found for url: ..."
        raise NotThereError(
            f"{address} is not to be had: {str(error).partition(' for url')[0]}",
            hint="see that this version was published",
        ) from error
    except requests.RequestException as error:
        raise DownloadError(
            f"{address} cannot be reached or broke off: {type(error).__name__}",
            hint="see the connection and the proxy settings, then try again",
            detail=str(error),
        ) from error
