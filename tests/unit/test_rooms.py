"""Imports go one way through the rooms of the house; docs/architecture.md draws the same.

plugin, __main__, doctor, play -> run -> report, probes, labs, scenarios, cnis, enforcer -> model
__main__, play -> desk -> cnis, report, model
plugin, __main__, doctor, run -> engines -> labs, cnis, model
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIBLINGS = {"report", "probes", "labs", "scenarios", "cnis", "enforcer"}
COMMON = {"model"}

#: What each room may import beside itself.
MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    **dict.fromkeys(SIBLINGS, COMMON),
    "desk": COMMON | {"cnis", "report"},
    "engines": COMMON | {"cnis", "labs"},
    "run": SIBLINGS | COMMON | {"engines"},
    "doctor": SIBLINGS | COMMON | {"engines"},
    "play": SIBLINGS | COMMON | {"run", "desk"},
    "plugin": SIBLINGS | COMMON | {"run", "engines", "play"},
    "__main__": SIBLINGS | COMMON | {"run", "desk", "doctor", "play", "engines"},
}

#: (room, module) that may be imported all the same, and why. One that nobody uses fails the test.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("scenarios", "harness.labs.server"): "the welcome page the demo asks for is the servers' own",
    **dict.fromkeys(
        (
            ("desk", "harness.labs.cluster.api"),
            ("desk", "harness.labs.cluster.connect"),
            ("desk", "harness.labs.cluster.snapshot"),
        ),
        "a live cluster is read as files are",
    ),
    ("probes", "harness.labs.base"): "probes go through the shells that labs give",
}

#: All that the oracle and the in-house enforcer may have in common: the values...
AST_MODULES = {
    "harness",
    "harness.model",
    "harness.model.actions",
    "harness.model.cluster_policy",
    "harness.model.flow",
    "harness.model.policy",
    "harness.model.world",
}

#: ... and their reader, which checks what is written and matches nothing.
READER = "harness.model.manifest"

#: The one door by which files come into the model; it imports what it needs for that inside.
IO_ALLOWED = {"harness.model.manifest"}

#: Modules by which a program touches the world outside of itself.
IO_MODULES = {
    *("asyncio", "glob", "http", "io", "kubernetes", "multiprocessing", "os", "pathlib", "random"),
    *("requests", "select", "shutil", "signal", "socket", "subprocess", "tempfile", "threading"),
    *("time", "urllib"),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "harness").rglob("*.py"))}


@cache
def imports(module: str) -> tuple[tuple[str, int], ...]:
    """``(module imported, line)`` for every import in a module, those inside functions too."""
    return tuple(_imports(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def _imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in MODULES else node.module), node.lineno


def for_types_alone(module: str) -> set[int]:
    """The lines under ``if TYPE_CHECKING``, which never run."""
    return {
        inner.lineno
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
        for inner in node.body
    }


def room_of(module: str) -> str:
    """``harness.labs.netns.pods`` -> ``labs``; the package itself belongs to no room."""
    return module.split(".")[1] if "." in module else ""


def ours(module: str) -> bool:
    return module == "harness" or module.startswith("harness.")


def reachable(module: str, stop: str) -> set[str]:
    """Our modules that ``module`` leads to, itself among them, without going through ``stop``."""
    seen: set[str] = {stop}
    todo = [module]
    while todo:
        current = todo.pop()
        if current in seen or current not in MODULES:
            continue
        seen.add(current)
        todo += [name for name, _ in imports(current) if ours(name)]
    return seen - {stop}


def where(module: str, line: int) -> str:
    return f"{MODULES[module].relative_to(ROOT)}:{line}"


def test_every_room_is_known() -> None:
    assert {room_of(module) for module in MODULES} - {""} <= set(MAY_IMPORT)


def test_imports_go_one_way() -> None:
    wrong, used = [], set()
    for module in MODULES:
        room = room_of(module)
        for name, line in imports(module):
            if not ours(name) or not room:
                continue
            target = room_of(name)
            if target in ("", room) or target in MAY_IMPORT[room]:
                continue
            if (room, name) in EXCEPTIONS:
                used.add((room, name))
            else:
                wrong.append(f"{where(module, line)}: {room} imports {name}")
    assert wrong == []
    assert used == set(EXCEPTIONS), "exceptions that nobody needs any more"


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ({"pytest", "_pytest", "pluggy", "xdist"}, {"plugin"}),
        ({"rich"}, {"__main__", "doctor"}),
    ],
    ids=["pytest", "rich"],
)
def test_libraries_that_belong_to_one_room(library: set[str], rooms: set[str]) -> None:
    wrong = [
        f"{where(module, line)}: {name}"
        for module in MODULES
        if room_of(module) not in rooms
        for name, line in imports(module)
        if name.split(".")[0] in library
    ]
    assert wrong == []


def test_the_model_does_no_io() -> None:
    wrong = []
    for module in MODULES:
        if room_of(module) != "model" or module in IO_ALLOWED:
            continue
        wrong += [
            f"{where(module, line)}: imports {name}"
            for name, line in imports(module)
            if name.split(".")[0] in IO_MODULES and line not in for_types_alone(module)
        ]
        wrong += [
            f"{where(module, node.lineno)}: calls {node.func.id}"
            for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("open", "print", "input")
        ]
    assert wrong == []


def test_oracle_and_enforcer_share_no_matching_code() -> None:
    oracle = reachable("harness.model.oracle", stop=READER)
    enforcer = set().union(
        *(reachable(module, stop=READER) for module in MODULES if room_of(module) == "enforcer")
    )
    assert "harness.model.oracle" in oracle, "the oracle has moved: this test looks at nothing"
    assert oracle & enforcer - AST_MODULES == set()
