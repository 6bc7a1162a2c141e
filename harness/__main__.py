"""``netpol``: what the harness does without pytest.

Each command lives in a module with ``add_parser(subparsers)``; the parser that it adds sets
``run``, a function that takes the parsed arguments and returns the exit code. Only the module of
the command that was asked for is imported, so that ``netpol --help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from harness import __version__

OK, FINDINGS, USAGE, INTERRUPTED = 0, 1, 2, 130

EPILOG = """\
exit codes:
  0  done, nothing found
  1  something was found: what a command's own help calls a finding
  2  wrong usage, or input that cannot be read
"""


class Command(NamedTuple):
    """Where a command lives, and its line in ``netpol --help``."""

    module: str
    help: str


COMMANDS: dict[str, Command] = {
    "explain": Command("harness.desk.explain", "why one connection is allowed or denied"),
    "matrix": Command(
        "harness.desk.matrix", "who reaches whom: the whole reachability of some manifests"
    ),
    "check": Command(
        "harness.desk.check", "verify assertions about who reaches whom, with a counter-example"
    ),
    "lint": Command("harness.desk.lint", "what is wrong, or likely wrong, with policies"),
    "diff": Command("harness.desk.diff", "what opens and what closes between two sets of policies"),
    "convert": Command(
        "harness.desk.convert",
        "policies from before Kubernetes 1.7: the v1 equivalent, and what differs",
    ),
    "try": Command("harness.play.trial", "manifests on the embedded lab, with real packets"),
    "lab": Command("harness.play.lab", "the embedded lab as a playground that stays"),
    "clean": Command("harness.play.clean", "take away what labs have left behind"),
    "report": Command("harness.report.cli", "draw a report from a run's record"),
    "compare": Command("harness.report.cli", "hold runs against each other"),
    "enforcer": Command("harness.enforcer.cli", "the in-house NetworkPolicy controller"),
    "cni": Command("harness.run.catalogue", "the catalogue of CNIs"),
    "engine": Command(
        "harness.engines.cli", "policy engines of other CNIs: which are here, fetch one"
    ),
    "bisect": Command("harness.run.bisect", "which release of a CNI's engine changed a verdict"),
    "api": Command(
        "harness.labs.controlplane.cli",
        "the programs of a Kubernetes control plane: find, fetch, build",
    ),
    "doctor": Command("harness.doctor", "what this machine can do, and what mends the rest"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Errors that are meant for people are printed."""
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in words if not word.startswith("-")), "")
    try:
        arguments = parse(build_parser([chosen] if chosen in COMMANDS else []), words)
        run: Callable[[argparse.Namespace], int] = arguments.run
        code = run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("netpol: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return OK
        # What our own rooms raise speaks to people, and so does the system's word on a file.
        # Everything else is a mistake of ours, and its traceback is what mends it.
        if not (type(error).__module__.startswith("harness.") or isinstance(error, OSError)):
            raise
        print(f"netpol: {describe(error)}", file=sys.stderr)
        return USAGE


def _reader_has_left() -> bool:
    """Has whoever read our output seen enough, as in `netpol … | head`?"""
    look = select.poll()
    try:
        look.register(sys.stdout.fileno(), 0)  # what cannot be written any more is always told
    except OSError:  # it is no file at all
        return False
    return bool(look.poll(0))


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """As ``parse_args``, but files may come after options as well: argparse gives a positional
    that may be empty its values at the first chance, and takes what follows for a mistake."""
    arguments, rest = parser.parse_known_args(words)
    if rest and (not hasattr(arguments, "manifests") or any(w.startswith("-") for w in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.manifests += rest
    return arguments


def describe(error: Exception) -> str:
    """An error in one line or a few, without a traceback."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def build_parser(wanted: Sequence[str]) -> argparse.ArgumentParser:
    """The parser with the commands in ``wanted`` complete, the others by name and help alone."""
    parser = argparse.ArgumentParser(
        prog="netpol",
        description="Tells whether a cluster network really enforces Kubernetes NetworkPolicy.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"netpol {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    modules = {COMMANDS[name].module for name in wanted}
    for name, command in COMMANDS.items():
        if name in commands.choices:
            continue  # it came with a sibling out of the same module
        if command.module in modules:
            importlib.import_module(command.module).add_parser(commands)
        else:
            commands.add_parser(name, help=command.help, add_help=False)
    _add_completion(commands)
    return parser


def full_parser() -> argparse.ArgumentParser:
    """The parser with every command complete: for completion and for the reference page."""
    return build_parser(list(COMMANDS))


def _add_completion(commands: Any) -> None:
    text = "print a script that completes netpol's words in a shell"
    parser = commands.add_parser(
        "completion",
        help=text,
        description=f'{text.capitalize()}: eval "$(netpol completion bash)".',
    )
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    parser.set_defaults(run=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    import shtab  # only here: it takes a tenth of a second

    parser = full_parser()
    for action in _actions(parser):
        if action.metavar in _PATHS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, arguments.shell))
    return OK


#: What stands for a file or a folder in the help.
_PATHS = ("FILE", "DIR", "PATH", "OLD NEW", "RECORD")


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in set(action.choices.values()):
                yield from _actions(command)
        else:
            yield action


if __name__ == "__main__":
    raise SystemExit(main())
