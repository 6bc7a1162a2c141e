"""``netpol report`` and ``netpol compare``: drawing from records, without running anything."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.report.files import RecordError, read
from harness.report.shape import RunRecord

OK, WORSE, USAGE = 0, 1, 2
DEFAULT = Path("reports/latest")


def add_parser(subparsers: Any) -> None:
    """Add both commands; ``run`` of the parsed arguments takes them and returns the exit code."""
    _add_report(subparsers)
    _add_compare(subparsers)


def _add_report(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "report",
        help="draw a report from a run's record",
        description="Draw a report from a record (record.json, record.jsonl, or the directory of "
        "a run), also from one that was cut off. Several records are compared, as by "
        "'netpol compare'.",
        epilog="exit codes: 0 done; 2 a record could not be read (the others are drawn)",
    )
    parser.add_argument(
        "records", nargs="*", type=Path, metavar="RECORD", help=f"default: {DEFAULT}"
    )
    parser.add_argument(
        "--format",
        choices=sorted(FORMATS),
        default="html",
        help="html (default): the whole report; text, markdown: a summary; ctrf: JSON for other "
        "tools; badge: SVG; conformance: YAML as network-policy-api publishes it; baseline: what "
        "failed, for --lab-baseline",
    )
    parser.add_argument(
        "--redact",
        action="store_true",
        help="without names, addresses, evidence and command lines, to show to strangers",
    )
    _add_output(parser)
    parser.set_defaults(run=_report)


def _add_compare(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="hold runs against each other",
        description="Runs side by side: features, scenarios, latency, what the API leaves open, "
        "deviations. With --changes: what changed from the first of two runs to the second.",
        epilog="exit codes: 0 done; 1 with --changes: something got worse; 2 a record could not "
        "be read (the others are compared)",
    )
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD")
    parser.add_argument(
        "--format", choices=["html", "markdown", "text"], default="text", help="default: text"
    )
    parser.add_argument(
        "--changes", action="store_true", help="what changed from the first to the second"
    )
    _add_output(parser)
    parser.set_defaults(run=_compare)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to write; - is standard output (default: report.html beside the record for "
        "one HTML report, standard output for the rest)",
    )


def _report(arguments: argparse.Namespace) -> int:
    paths: list[Path] = arguments.records or [DEFAULT]
    if len(paths) > 1:
        if arguments.redact:
            print("netpol report: --redact is of one record", file=sys.stderr)
            return USAGE
        if arguments.format not in ("html", "markdown", "text"):
            print(
                f"netpol report: --format {arguments.format} is of one record, and "
                f"{len(paths)} were named",
                file=sys.stderr,
            )
            return USAGE
        return _compare(argparse.Namespace(**{**vars(arguments), "changes": False}))
    records, problems = _read(paths)
    if not records:
        return USAGE
    record = records[0]
    if arguments.redact:
        from harness.report.redact import redact

        record = redact(record)
    content = FORMATS[arguments.format](record)
    output = arguments.output
    if output is None and arguments.format == "html":
        directory = paths[0] if paths[0].is_dir() else paths[0].parent
        output = str(directory / "report.html")
    for text in records[0].damage:
        print(f"netpol report: {paths[0]}: {text}", file=sys.stderr)
    _write(content, output)
    return USAGE if problems else OK


def _compare(arguments: argparse.Namespace) -> int:
    from harness.report import changes, compare

    records, problems = _read(arguments.records)
    if not records:
        return USAGE
    if arguments.changes:
        if len(arguments.records) != 2:
            print("netpol compare: --changes takes two records, the older first", file=sys.stderr)
            return USAGE
        if len(records) != 2:
            return USAGE
        found = changes.changes(*records)
        first, second = (_moment(r) for r in records)
        _write(_form(changes.document(found, (first, second)), arguments.format), arguments.output)
        return WORSE if found.worse else OK
    comparison = compare.compare(records, problems)
    _write(_form(compare.document(comparison), arguments.format), arguments.output)
    return USAGE if problems else OK


def _moment(record: RunRecord) -> str:
    run = record.run
    return f"{run.get('cni') or '?'} {run.get('started') or run.get('id') or ''}".strip()


def _read(paths: list[Path]) -> tuple[list[RunRecord], list[str]]:
    """What can be read, and one message for each that cannot, which is printed as well."""
    records, problems = [], []
    for path in paths:
        try:
            records.append(read(path))
        except RecordError as error:
            print(f"netpol: {error}", file=sys.stderr)
            problems.append(str(error).partition("\n")[0])
    return records, problems


def _form(document: Any, form: str) -> str:
    from harness.report import document as forms

    if form == "html":
        from harness.report import html

        return html.render_document(document)
    return forms.to_markdown(document) if form == "markdown" else forms.to_text(document)


def _write(content: str, output: str | None) -> None:
    data = content.encode(errors="replace")
    if output in (None, "-"):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise RecordError(path, f"cannot be written: {error.strerror or error}") from None
    print(path)


def _html(record: RunRecord) -> str:
    from harness.report import html

    return html.render(record)


def _text(record: RunRecord) -> str:
    from harness.report import brief

    return _form(brief.document(record), "text")


def _markdown(record: RunRecord) -> str:
    from harness.report import brief

    return _form(brief.document(record), "markdown")


def _ctrf(record: RunRecord) -> str:
    from harness.report import ctrf

    return json.dumps(ctrf.render(record), indent=2) + "\n"


def _badge(record: RunRecord) -> str:
    from harness.report import badge

    return badge.render(record)


def _conformance(record: RunRecord) -> str:
    from harness.report import conformance

    return conformance.render(record)


def _baseline(record: RunRecord) -> str:
    from harness.report import baseline

    return baseline.text(record)


# Each imports what it needs when it is asked for.
FORMATS: dict[str, Callable[[RunRecord], str]] = {
    "html": _html,
    "text": _text,
    "markdown": _markdown,
    "ctrf": _ctrf,
    "badge": _badge,
    "conformance": _conformance,
    "baseline": _baseline,
}
