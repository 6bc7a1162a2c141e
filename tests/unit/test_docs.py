"""The documentation builds with every warning an error, and its drawing has every room."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from harness.__main__ import COMMANDS
from harness.cnis import catalogue
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


def test_the_drawing_of_the_rooms_has_all_of_them() -> None:
    drawing = (ROOT / "docs/img/rooms.svg").read_text(encoding="utf-8")
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for room in MAY_IMPORT:
        assert f">{room}<" in drawing
        assert f"`{room}`" in page or room == "__main__"
