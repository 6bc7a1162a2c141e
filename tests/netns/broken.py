"""Hypothesis: manifests with something in them that an API server might mind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Json = Any
Path = tuple[str | int, ...]

#: Next to what is right, on either side of the line.
NEAR: tuple[Json, ...] = (
    *("", " ", "a", "A", "-a", "a-", "a--b", "a.b", "a/b", "a/b/c", "/a", "a/", "ä", "a\n"),
    *("a" * 15, "a" * 16, "a" * 63, "a" * 64, "a." * 126 + "a", "a." * 127 + "a"),
    *("80", "http", "TCP", "tcp", "ICMP", "Ingress", "ingress", "In", "in", "Exists", "NotIn"),
    *("10.0.0.0/8", "10.0.0.1/8", "010.0.0.0/8", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/08"),
    *("fd00::/8", "fd00::1/64", "FD00::/8", "::ffff:10.0.0.0/104", "::/0", "fd00::%1/64"),
    *("Admin", "admin", "Accept", "*.example.com", "example", "a_b.example.com.", "1e3", "null"),
    *(-1, 0, 1, 80, 81, 65535, 65536, 1000, 1001, 2**31 - 1, 2**31, 2**63, 1.5, True, False),
    *(None, [], {}, [None], [""], [{}], {"": ""}, {"a": "b"}, {"podSelector": {}}, ["Ingress"] * 3),
)
#: Control characters are YAML's affair: it takes no text that has one, and neither does kubectl.
text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")), max_size=5)
odd = st.one_of(
    st.sampled_from(NEAR),
    text,
    st.integers(-(2**40), 2**40),
    # Whole ones are written as integers on the way: 80.0 of a YAML text reaches a server as 80.
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: number % 1 != 0),
)


def places(value: Json, path: Path = ()) -> Iterator[Path]:
    """Paths of all that is in a value."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def changed(value: Json, path: Path, change: Any) -> Json:
    """A copy in which ``change(container, key)`` was done where the path leads."""
    copy: Json = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        change(copy, path[0])
    else:
        copy[path[0]] = changed(copy[path[0]], path[1:], change)
    return copy


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[Json], most: int = 2) -> Json:
    """A manifest in which up to ``most`` things were changed, somewhere below its three first
    fields; its namespace stays, for the URL of a request names it as well."""
    data = draw(whole)
    for _ in range(draw(st.integers(1, most))):
        fixed = {("apiVersion",), ("kind",), ("metadata",), ("metadata", "namespace")}
        found = [path for path in places(data) if path not in fixed]
        path = draw(st.sampled_from(found))
        data = changed(data, path, draw(_changes))
    return data


def _put(new: Json) -> Any:
    def change(container: Json, key: Any) -> None:
        container[key] = new

    return change


def _add(item: tuple[str, Json]) -> Any:
    """A field beside this one, or in it."""

    def change(container: Json, key: Any) -> None:
        inside = container[key]
        if isinstance(inside, dict):
            container[key] = {**inside, item[0]: item[1]}
        elif isinstance(inside, list):
            container[key] = [*inside, item[1]]
        elif isinstance(container, dict):
            container[item[0]] = item[1]

    return change


def _double(container: Json, key: Any) -> None:
    inside = container[key]
    if isinstance(inside, list):
        container[key] = inside * 2
    elif isinstance(inside, str):
        container[key] = inside.swapcase()
    elif isinstance(inside, int):
        container[key] = inside + 65535


def _drop(container: Json, key: Any) -> None:
    del container[key]


FIELDS = (
    *("podSelector", "namespaceSelector", "ipBlock", "matchLabels", "matchExpressions", "key"),
    *("operator", "values", "cidr", "except", "port", "endPort", "protocol", "ports", "from"),
    *("to", "ingress", "egress", "policyTypes", "spec", "status", "labels", "annotations"),
    *("name", "generateName", "tier", "priority", "subject", "networks", "nodes", "number"),
    *("domainNames", "action", "protocols", "range", "destinationNamedPort", "x"),
)
_changes = st.one_of(
    odd.map(_put),
    st.tuples(st.sampled_from(FIELDS), odd).map(_add),
    st.sampled_from((_double, _drop)),
)
