"""The documentation builds with every warning an error, and its drawing has every room."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from harness.__main__ import COMMANDS
from harness.cnis import catalogue, patch
from harness.scenarios.load import load_file
from tests.unit.test_rooms import MAY_IMPORT

ROOT = Path(__file__).parents[2]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q"]
    done = subprocess.run(
        [*argv, "-d", tmp_path / "doctrees", ROOT / "docs", tmp_path / "site"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reference = text_of(tmp_path / "site/cli.html")
    for command in COMMANDS:
        assert f"netpol {command}" in reference
    assert "--lab-dataplane" in text_of(tmp_path / "site/options.html")
    assert "--cni weave" in text_of(tmp_path / "site/cnis.html")
    assert "named-port" in text_of(tmp_path / "site/features.html")


def test_no_report_takes_the_place_of_a_page() -> None:
    """What is served as it is lies beside the built pages, and would hide one of its name."""
    served = {path.name for path in (ROOT / "docs/extra").iterdir()}
    pages = {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")}
    assert served
    assert not served & pages


def text_of(page: Path) -> str:
    """The words of a page, without its tags."""
    return re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8"))


def block(page: str, language: str) -> str:
    """The first example in a language on a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_scenario_that_is_shown_is_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(block("scenarios.md", "yaml"), encoding="utf-8")
    assert [scenario.id for scenario in load_file(file)] == ["mine/only-b-of-y"]


def test_the_catalogue_entry_that_is_shown_is_one() -> None:
    cni = catalogue.parse("mine", block("cnis.md", "toml"))
    assert cni.deviations[0].features == {"end-port"}


def test_the_entry_from_scratch_does_what_the_page_says() -> None:
    text = (ROOT / "docs/cnis.md").read_text(encoding="utf-8")
    found = re.search(r"^   ```toml\n(.*?)^   ```", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    acme = catalogue.parse("acme", textwrap.dedent(found[1]))
    agent: dict[str, Any] = {"name": "agent", "image": "registry.example.org/acme/agent"}
    objects: list[dict[str, Any]] = [
        {
            "kind": "DaemonSet",
            "metadata": {"name": "acme-agent"},
            "spec": {"template": {"spec": {"containers": [agent]}}},
        },
        {
            "kind": "ConfigMap",
            "metadata": {"name": "acme-config"},
            "data": {"acme.json": '{"telemetry": true}'},
        },
    ]
    patch.prepared(acme, objects, {"pod_subnet": "10.244.0.0/16"})
    assert agent["image"] == acme.images[0]
    assert agent["env"] == [{"name": "ACME_POD_CIDR", "value": "10.244.0.0/16"}]
    assert objects[1]["data"]["acme.json"] == '{"telemetry": false}'


def test_the_drawing_of_the_rooms_has_all_of_them() -> None:
    drawing = (ROOT / "docs/img/rooms.svg").read_text(encoding="utf-8")
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for room in MAY_IMPORT:
        assert f">{room}<" in drawing
        assert f"`{room}`" in page or room == "__main__"
