"""The conformance report: one HTML file that needs nothing else, not even script.

Everything is rendered here. What would make a large page slow (the insides of scenarios that are
not wrong) is packed, and unpacked by the page's script when it is asked for; wrong ones stand in
the page as they are, so that it reads in full without script.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness import __version__
from harness.report import plots, words
from harness.report.document import Document, to_html
from harness.report.pageview import GROUPS, PageView
from harness.report.scenarioview import TOLD, quoted
from harness.report.shape import RunRecord
from harness.report.summary import BAD_FINDINGS, OUTCOMES, duration, plural

#: Bytes of wrong scenarios that stand in the page unpacked; what is beyond is packed as well.
INLINE = 5_000_000
#: Scenarios that are packed together: small enough to unpack at once, large enough to pack well.
CHUNK = 16


def render(record: RunRecord) -> str:
    """The report as one HTML document (encode it as UTF-8)."""
    page = PageView(record)
    environment = _environment()
    body = environment.get_template("scenario.html.j2")
    inline: dict[int, Markup] = {}
    packed: list[str] = []
    place: dict[int, tuple[int, int]] = {}
    room = INLINE
    for number, view in enumerate(page):
        html = body.render(s=view)
        if view.bad and len(html) <= room:
            room -= len(html)
            inline[number] = Markup(html)  # noqa: S704  # rendered with escaping
        else:
            place[number] = divmod(len(packed), CHUNK)
            packed.append(html)
    return environment.get_template("report.html.j2").render(
        page=page,
        inline=inline,
        wrong_packed=sum(view.bad for view in page) - len(inline),
        place=place,
        chunks=list(_chunks(packed)),
        plot=plots.ecdf(
            {css: page.latencies[name] for name, css in (("allow", "al"), ("deny", "dn"))},
            "Share of cells that were enforced within a time, for allow and for deny",
        ),
        policy=content_security_policy(),
        style=Markup(_style()),  # noqa: S704  # our own file
        script=Markup(_script()),  # noqa: S704  # likewise
    )


def render_document(document: Document, kicker: str = "NetworkPolicy conformance") -> str:
    """A comparison or another small document as one HTML file, without any script."""
    policy, style = _policy(_style()), _style()
    return (
        _environment()
        .get_template("document.html.j2")
        .render(
            title=document.title,
            kicker=kicker,
            body=to_html(document),
            policy=policy,
            style=Markup(style),  # noqa: S704  # our own file
        )
    )


def write(record: RunRecord, path: Path) -> Path:
    """Render into a file and return its path. Raises OSError."""
    path.write_bytes(render(record).encode(errors="replace"))
    return path


def content_security_policy() -> str:
    """The policy that the report needs where a server sets one: no network, by hash alone."""
    return _policy(_style(), _script())


def _chunks(packed: list[str]) -> Iterator[str]:
    for start in range(0, len(packed), CHUNK):
        data = json.dumps(packed[start : start + CHUNK]).encode()
        yield base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


@cache
def _style() -> str:
    return _asset("report.css")


@cache
def _script() -> str:
    return _asset("report.js")


def _asset(name: str) -> str:
    return (files("harness.report") / "assets" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str = "") -> str:
    """The content security policy: nothing from elsewhere, style and script by their hash."""
    return "; ".join(
        [
            "default-src 'none'",
            *([f"script-src {_hash(script)}"] if script else []),
            f"style-src {_hash(style)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "quoted": quoted,
        "duration": duration,
        "plural": lambda n, noun: plural(n, noun),
    }
    environment.globals |= {
        "version": __version__,
        "words": words,
        "outcomes": OUTCOMES,
        "bad_findings": BAD_FINDINGS,
        "told": TOLD,
        "max_groups": GROUPS,
    }
    return environment
