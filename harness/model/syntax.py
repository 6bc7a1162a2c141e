"""The syntax of Kubernetes names, labels, ports and ranges, as the API server checks it.

Each function returns "" for a good value, else what is wrong with it, in words. Source:
``k8s.io/apimachinery/pkg/api/validate/content`` and ``…/pkg/util/validation``.
"""

from __future__ import annotations

import re
from functools import lru_cache

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_PORT_NAME = re.compile(r"[-a-z0-9]+")


def _too_long(text: str, limit: int) -> str:
    size = len(text.encode("utf-8", "surrogatepass"))
    return f"is {size} bytes long; at most {limit} are allowed" if size > limit else ""


@lru_cache(maxsize=65536)
def dns_label(text: str) -> str:
    if too_long := _too_long(text, 63):
        return too_long
    if _DNS_LABEL.fullmatch(text):
        return ""
    return "must be lower-case letters, digits and '-', beginning and ending with a letter or digit"


@lru_cache(maxsize=65536)
def dns_subdomain(text: str) -> str:
    if too_long := _too_long(text, 253):
        return too_long
    if _DNS_SUBDOMAIN.fullmatch(text):
        return ""
    return (
        "must be lower-case letters, digits, '-' and '.', each part beginning and ending with a "
        "letter or digit"
    )


def service_name(text: str) -> str:
    if too_long := _too_long(text, 63):
        return too_long
    if _DNS_1035.fullmatch(text):
        return ""
    return "must be lower-case letters, digits and '-', beginning with a letter"


@lru_cache(maxsize=65536)
def label_key(text: str) -> str:
    """A key of a label: ``name`` or ``prefix/name``."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        return "may have one '/' only, between an optional DNS prefix and the name"
    if slash and not prefix:
        return "has an empty prefix before the '/'"
    if slash and (wrong := dns_subdomain(prefix)):
        return f"has a prefix that {wrong}"
    if not name:
        return "is empty" if not slash else "has no name after the '/'"
    if too_long := _too_long(name, 63):
        return f"has a name that {too_long}"
    if not _NAME_PART.fullmatch(name):
        return (
            "must be letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
        )
    return ""


@lru_cache(maxsize=65536)
def label_value(text: str) -> str:
    if too_long := _too_long(text, 63):
        return too_long
    if not text or _NAME_PART.fullmatch(text):
        return ""
    return (
        "must be empty, or letters, digits, '-', '_' and '.', beginning and ending with a letter "
        "or digit"
    )


def port_name(text: str) -> str:
    if too_long := _too_long(text, 15):
        return too_long
    if not _PORT_NAME.fullmatch(text):
        return "must be lower-case letters, digits and '-'"
    if not any("a" <= char <= "z" for char in text):
        return "must contain at least one letter: a number in quotes is taken for a name"
    if "--" in text:
        return "must not have two '-' in a row"
    if text[0] == "-" or text[-1] == "-":
        return "must not begin or end with '-'"
    return ""


def port_number(number: int) -> str:
    return "" if 1 <= number <= 65535 else "must be from 1 to 65535"
