"""Directives that write pages from the code: pytest's options, feature labels, the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Generated(SphinxDirective):
    """Markdown lines, made from the code, in the place of the directive."""

    def lines(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        node = nodes.Element()
        self.state.nested_parse(StringList(list(self.lines()), source="generated"), 0, node)
        return list(node.children)


class PytestOptions(Generated):
    """Every option that the plugin adds to pytest."""

    def lines(self) -> Iterator[str]:
        from _pytest.config.argparsing import Parser

        from harness.plugin import options

        parser = Parser(_ispytest=True)
        options.add(parser)
        for option in parser.getgroup("netpol").options:
            given: dict[str, Any] = option.attrs()
            choices = given.get("choices")
            value = "|".join(choices) if choices else given.get("metavar") or ""
            yield f"`{' '.join([*option.names(), value]).strip()}`"
            yield f": {given['help']}"
            yield ""


class Features(Generated):
    """The closed list of feature labels."""

    def lines(self) -> Iterator[str]:
        from harness.scenarios.features import FEATURES, GROUPS

        for group, labels in GROUPS.items():
            yield from (f"**{group}**", "")
            for label in labels:
                yield from (f"`{label}`", f": {FEATURES[label]}", "")


class Catalogue(Generated):
    """Every CNI of the catalogue, with what is known of it."""

    def lines(self) -> Iterator[str]:
        from harness.cnis import catalogue

        for name in catalogue.names():
            cni = catalogue.get(name)
            version = f" {cni.version}" if cni.version else ""
            yield from (f"**`--cni {name}`**: {cni.title}{version}", "")
            yield from (f"{cni.summary}." if cni.summary else "", "")
            yield f"* labs: {', '.join(cni.labs)}; network: {cni.network}"
            yield f"* {'denies by ' + cni.deny if cni.enforces else '**enforces nothing**'}"
            yield from (f"* lacks {what}: {why}" for what, why in cni.lacks.items())
            yield from (
                f"* known deviation ({', '.join(sorted(one.features)) or one.scenario}"
                f"{', ' + one.versions if one.versions else ''}): {one.reason} "
                f"([upstream]({one.link}))"
                for one in cni.deviations
            )
            yield from (f"* pinned behaviour: {what} is {how}" for what, how in cni.profile.items())
            yield from (f"* {note}" for note in cni.notes)
            yield ""


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("pytest-options", PytestOptions)
    app.add_directive("features", Features)
    app.add_directive("catalogue", Catalogue)
    return {"parallel_read_safe": True}
