"""Clients of a lab's API server: kubeconfig files, and the ``kubernetes`` client through the lab.

Nothing listens on the host: connections are made with sockets out of the lab
(:class:`harness.labs.controlplane.dialer.Dialer`).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import urllib3
import yaml
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Dial = Callable[[], socket.socket]


def kubeconfig(server: str, authority: str, token: str, *, namespace: str = "default") -> str:
    """The text of a kubeconfig file with one context, named ``netpol-lab``.

    ``authority`` is the certificate authority's certificate, PEM.
    """
    import base64

    name = "netpol-lab"
    ca = base64.b64encode(authority.encode()).decode()
    data = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": ca}}
        ],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}
        ],
        "current-context": name,
    }
    text: str = yaml.safe_dump(data, sort_keys=False)
    return text


def client(server: str, authority: str, token: str, dial: Dial) -> ApiClient:
    """A ``kubernetes`` client whose connections ``dial`` makes."""
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration(host=server)
    configuration.ca_cert_data = authority
    configuration.proxy = None  # what the environment names leads elsewhere
    configuration.api_key = {"BearerToken": token}
    configuration.api_key_prefix = {"BearerToken": "Bearer"}
    configuration.connection_pool_maxsize = 16
    made = ApiClient(configuration)
    made.rest_client.pool_manager.pool_classes_by_scheme = {"https": _pool(dial)}
    return made


def _pool(dial: Dial) -> type[HTTPSConnectionPool]:
    class Connection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            try:
                made = dial()
            except OSError as error:
                raise urllib3.exceptions.NewConnectionError(self, str(error)) from error
            # As urllib3 does; without it each small request waits for a delayed ACK.
            with contextlib.suppress(OSError):
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            timeout: Any = self.timeout
            made.settimeout(timeout if isinstance(timeout, int | float) else None)
            return made

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool
