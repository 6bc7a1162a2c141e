"""What the API's refusals say to people."""

from __future__ import annotations

import pytest

from harness.labs.cluster import api


def test_who_is_not_known_is_told_why() -> None:
    said = b'{"kind": "Status", "message": "Unauthorized", "code": 401}'
    with pytest.raises(api.ApiError, match="GET /api/v1/nodes: Unauthorized") as caught:
        api._data("GET", "/api/v1/nodes", 401, said)
    assert "has run out" in caught.value.hint
    with pytest.raises(api.ApiError) as caught:
        api._data("GET", "/api/v1/nodes", 404, b"not found")
    assert caught.value.hint == ""
