"""`netpol api fetch` against a server on loopback that has the layout of the real ones."""

from __future__ import annotations

import hashlib
import http.server
import io
import platform
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_elf import KUBERNETES, program

from harness.labs import download
from harness.labs.controlplane.binaries import Binaries, BinariesError
from harness.labs.controlplane.fetch import etcd_for, fetch

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the stand-ins for real programs are x86-64 code"
)

ETCD = etcd_for("1.36")
ARCHIVE = f"/etcd/v{ETCD}/etcd-v{ETCD}-linux-amd64.tar.gz"


def path_of(name: str) -> str:
    return f"/kube/release/v1.36.9/bin/linux/amd64/{name}"


class Site:
    """A web server: what it has by path, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/kube/release/stable-1.36.txt": b"v1.36.9"}
        self.asked: list[str] = []
        self.broken_off: set[str] = set()
        self.failures: dict[str, int] = {}
        for name in KUBERNETES:
            content = program(name, "1.36.9")
            self.files[path_of(name)] = content
            self.files[path_of(name) + ".sha256"] = sha256(content).encode()
        self.put_etcd(f"etcd-v{ETCD}-linux-amd64/etcd", program("etcd", ETCD))

    def put_etcd(self, member: str, content: bytes) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
        self.files[ARCHIVE] = buffer.getvalue()
        name = ARCHIVE.rpartition("/")[2]
        other = f"{'0' * 64}  {name.replace('amd64', 'arm64')}\n"
        sums = f"{other}{sha256(buffer.getvalue())}  {name}\n"
        self.files[f"/etcd/v{ETCD}/SHA256SUMS"] = sums.encode()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, str]]:
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            content = site.files.get(self.path)
            if site.failures.get(self.path, 0) > 0:
                site.failures[self.path] -= 1
                self.send_error(503)
            elif content is None:
                self.send_error(404)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                half = len(content) // 2 if self.path in site.broken_off else len(content)
                self.wfile.write(content[:half])

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setattr(download, "RETRY_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield site, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def get(url: str, dest: Path, version: str = "1.36", said: list[str] | None = None) -> Binaries:
    progress = (said if said is not None else []).append
    return fetch(version, dest, progress, kubernetes_url=f"{url}/kube", etcd_url=f"{url}/etcd")


def left(folder: Path) -> list[str]:
    """What was left in a folder, but for the lock."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_a_minor_version_is_its_newest_patch(site: tuple[Site, str], tmp_path: Path) -> None:
    server, url = site
    said: list[str] = []
    found = get(url, tmp_path / "here", said=said)
    assert found.version == "1.36.9"
    assert found.found["etcd"].version == ETCD
    assert left(tmp_path) == ["here"]
    assert left(tmp_path / "here") == sorted(["etcd", *KUBERNETES])
    assert said[0] == "the newest Kubernetes 1.36 is 1.36.9"
    for name in KUBERNETES:
        assert any(line.startswith(f"{name}: ") and "digest good" in line for line in said)

    server.asked.clear()
    get(url, tmp_path / "here", "1.36.9", said)
    assert server.asked == []
    assert said[-1] == f"{tmp_path / 'here'} is whole already: nothing to do"


def test_it_goes_to_the_cache(
    site: tuple[Site, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _, url = site
    found = fetch("1.36.9", kubernetes_url=f"{url}/kube", etcd_url=f"{url}/etcd")
    assert found["etcd"] == tmp_path / "netpol" / "api" / "1.36.9" / "etcd"


@pytest.mark.parametrize("path", [path_of("kube-scheduler"), ARCHIVE])
def test_other_bytes_than_were_published(site: tuple[Site, str], tmp_path: Path, path: str) -> None:
    server, url = site
    published = sha256(server.files[path])
    server.files[path] += b"!"
    with pytest.raises(BinariesError) as caught:
        get(url, tmp_path / "here")
    error = caught.value
    assert f"{url}{path} is not what was published" in error.message
    assert published in error.message
    assert sha256(server.files[path]) in error.message
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("/kube/release/stable-1.36.txt", None, "stable-1.36.txt is not to be had: 404"),
        ("/kube/release/stable-1.36.txt", b"<html>Log in</html>", "names no patch"),
        ("/kube/release/stable-1.36.txt", b"v1.35.1", "names no patch of Kubernetes 1.36"),
        (path_of("kube-proxy"), None, "kube-proxy is not to be had: 404"),
        (path_of("kube-proxy") + ".sha256", None, "kube-proxy.sha256 is not to be had: 404"),
        (path_of("kube-proxy") + ".sha256", b"<html>", "has no SHA-256 digest"),
        (path_of("kube-proxy") + ".sha256", b"", "has no SHA-256 digest"),
        (f"/etcd/v{ETCD}/SHA256SUMS", b"", "has no SHA-256 digest"),
    ],
)
def test_a_server_that_lacks_something(
    site: tuple[Site, str], tmp_path: Path, path: str, content: bytes | None, words: str
) -> None:
    server, url = site
    if content is None:
        del server.files[path]
    else:
        server.files[path] = content
    with pytest.raises(BinariesError) as caught:
        get(url, tmp_path / "here")
    assert words in caught.value.message
    assert caught.value.hint
    assert left(tmp_path) == []
    assert server.asked.count(path) == 1  # it says no, so it is not asked again


@pytest.mark.parametrize("member", ["etcd-v9/etcd", "../etcd"])
def test_an_archive_without_etcd(site: tuple[Site, str], tmp_path: Path, member: str) -> None:
    server, url = site
    server.put_etcd(member, b"")
    with pytest.raises(BinariesError, match=f"holds no etcd-v{ETCD}-linux-amd64/etcd"):
        get(url, tmp_path / "here")
    assert left(tmp_path) == []


def test_an_archive_that_is_none(site: tuple[Site, str], tmp_path: Path) -> None:
    server, url = site
    sums = f"/etcd/v{ETCD}/SHA256SUMS"
    old, server.files[ARCHIVE] = sha256(server.files[ARCHIVE]), b"no archive"
    server.files[sums] = server.files[sums].replace(old.encode(), sha256(b"no archive").encode())
    with pytest.raises(BinariesError, match="holds no etcd"):
        get(url, tmp_path / "here")
    assert left(tmp_path) == []


def test_a_program_that_is_published_but_is_not_what_it_says(
    site: tuple[Site, str], tmp_path: Path
) -> None:
    server, url = site
    wrong = program("kube-proxy", "1.35.0")
    server.files[path_of("kube-proxy")] = wrong
    server.files[path_of("kube-proxy") + ".sha256"] = sha256(wrong).encode()
    with pytest.raises(BinariesError, match="no usable kube-proxy"):
        get(url, tmp_path / "here")
    assert left(tmp_path) == []


def test_a_hiccup_is_got_over(site: tuple[Site, str], tmp_path: Path) -> None:
    server, url = site
    server.failures = {path_of("kube-proxy"): 2, "/kube/release/stable-1.36.txt": 1}
    assert get(url, tmp_path / "here").version == "1.36.9"
    assert server.asked.count(path_of("kube-proxy")) == 3


def test_a_download_that_breaks_off(site: tuple[Site, str], tmp_path: Path) -> None:
    server, url = site
    server.broken_off = {path_of("kube-proxy")}
    with pytest.raises(BinariesError, match="kube-proxy cannot be reached or broke off"):
        get(url, tmp_path / "here")
    assert server.asked.count(path_of("kube-proxy")) == 3
    assert left(tmp_path) == []


def test_nobody_there(site: tuple[Site, str], tmp_path: Path) -> None:
    with pytest.raises(BinariesError) as caught:
        get("http://127.0.0.1:1", tmp_path / "here")
    assert "http://127.0.0.1:1/kube/release/stable-1.36.txt cannot be reached" in str(caught.value)
    assert "make api-binaries" in caught.value.hint


def test_progress_of_a_long_download(
    site: tuple[Site, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = site
    monkeypatch.setattr(download, "LINE_SECONDS", 0.0)
    big = program("kube-proxy", "1.36.9") + bytes(300_000)
    server.files[path_of("kube-proxy")] = big
    server.files[path_of("kube-proxy") + ".sha256"] = sha256(big).encode()
    said: list[str] = []
    get(url, tmp_path / "here", said=said)
    lines = [line for line in said if line.startswith("kube-proxy: ") and " of 0.3 MB" in line]
    assert len(lines) > 1
