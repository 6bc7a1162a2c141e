"""``netpol bisect``: releases of a small engine in a registry on loopback, one of them wrong."""

from __future__ import annotations

import json
from pathlib import Path

import imaging
import pytest
from test_engines_foreign import ENTRY, SCENARIO, SMALL

from harness.__main__ import main
from harness.engines import images

pytestmark = pytest.mark.timeout(300)


def test_the_release_that_changed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if lack := imaging.missing():
        pytest.skip(f"not installed: {lack}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    api = Path.home() / ".cache" / "netpol" / "api"
    (tmp_path / "cache" / "netpol").mkdir(parents=True)
    (tmp_path / "cache" / "netpol" / "api").symlink_to(api)
    wrong = tmp_path / "wrong"
    text = (SMALL / "bin" / "small-engine").read_text()
    wrong.write_text(text.replace('os.environ.get("SMALL_FAULT", "none")', '"half"'))
    wrong.chmod(0o755)
    right = SMALL / "bin" / "small-engine"
    file = tmp_path / "small.toml"
    file.write_text(ENTRY)
    scenario = tmp_path / "demo.yaml"
    scenario.write_text(SCENARIO)
    seen = tmp_path / "seen.json"
    with imaging.registry(tmp_path) as address:
        repository = f"{address}/netpol/small"
        for version, program in (("1.0.0", right), ("1.1.0", right), ("1.2.0", wrong)):
            imaging.make(tmp_path / "layout", f"v{version}", {"/usr/bin/small-engine": program})
            imaging.push(tmp_path / "layout", f"v{version}", f"{repository}:v{version}")
        changed = f'[api_engine]\nimage = "{repository}"\ntag = "v{{version}}"'
        file.write_text(ENTRY.replace("[api_engine]", changed, 1))
        words = ["bisect", "--cni", str(file), "--good", "1.0", "--bad", "1.2", str(scenario)]
        words += [
            "--lab-deadline",
            "3",
            "--lab-timeout",
            "0.5",
            "--lab-nodes",
            "1",
            "-o",
            str(seen),
        ]
        assert main(words) == 1
        digests = {v: images.digest_of(f"{repository}:v{v}") for v in ("1.0.0", "1.1.0", "1.2.0")}
    out = capsys.readouterr().out
    assert "Small engine 1.2.0 changed it: 1.1.0 still does demo as it should" in out
    assert f"good: {repository}@{digests['1.1.0']}" in out
    assert f"bad:  {repository}@{digests['1.2.0']}" in out
    tried = json.loads(seen.read_text())["tried"]
    assert [(t["version"], t["outcome"]) for t in tried] == [
        ("1.0.0", "passed"),
        ("1.2.0", "failed"),
        ("1.1.0", "passed"),
    ]
    assert {t["version"]: t["digest"] for t in tried} == digests
    assert tried[1]["cells"]["leak"] >= 1
