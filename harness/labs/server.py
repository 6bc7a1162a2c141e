"""What the servers of every lab answer: one nginx configuration, the same in all of them.

* ``GET /t/TOKEN`` -> ``TOKEN NAME SERVER_ADDRESS SERVER_PORT CLIENT_ADDRESS CLIENT_PORT`` on one
  line. NAME is ``NAMESPACE/POD`` (or ``node:NAME``, ``external:NAME``): the reply names who
  answered, so that a wrong backend shows, the address that it saw, so that NAT shows, and the
  port, so that a flow of before shows. The token ties the line to the probe.
* a UDP datagram -> the same line with ``-`` for the token.
* ``GET /`` -> the pod's page on its first port (nginx' own welcome page in the demo); elsewhere
  the line with ``-`` for the token.
"""

from __future__ import annotations

from collections.abc import Sequence

WELCOME = (
    "<!DOCTYPE html>\n<html>\n<head>\n<title>Welcome to nginx!</title>\n</head>\n<body>\n"
    "<h1>Welcome to nginx!</h1>\n</body>\n</html>\n"
)
TOKEN_PATH = "/t/"
PAGE_FILE = "index.html"
DEFAULT_PORT = 80
"""Where a server listens (TCP) that declares no port, as nginx does."""
NODE_SERVER_PORT = 9100
"""Where every node itself listens, TCP and UDP, so that nodes can be targets."""

_TEMPS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx_config(
    name: str,
    *,
    tcp: Sequence[int],
    udp: Sequence[int] = (),
    families: Sequence[int] = (4, 6),
    page_directory: str | None = None,
    work_directory: str = "/tmp",  # noqa: S108 - inside of the server's own file system
    stream_module: str | None = None,
) -> str:
    """The configuration of one server.

    ``name`` is what it calls itself. ``page_directory`` holds :data:`PAGE_FILE` for the first
    TCP port. ``work_directory`` must be writable; nothing is left there. ``stream_module`` is
    the file of nginx' stream module where it is not built in; it is needed for UDP only.
    Run it in the foreground with ``-g 'daemon off; master_process off;'``.
    """
    lines = ["error_log stderr notice;", f"pid {work_directory}/nginx.pid;"]
    if udp and stream_module:
        lines.insert(0, f"load_module {stream_module};")
    lines += ["events { worker_connections 512; }", "http {"]
    lines += ["  access_log off; keepalive_timeout 0; default_type text/plain;"]
    lines += [f"  {temp}_temp_path {work_directory}/{temp};" for temp in _TEMPS]
    for index, port in enumerate(tcp):
        page = page_directory if index == 0 else None
        lines += _http_server(name, port, families, page)
    lines.append("}")
    if udp:
        lines.append("stream {")
        for port in udp:
            listen = _listen(port, families, " udp")
            lines.append(f"  server {{ {listen} return {_answer('-', name)}; }}")
        lines.append("}")
    return "\n".join(lines) + "\n"


def _http_server(name: str, port: int, families: Sequence[int], page: str | None) -> list[str]:
    if page:
        root = f"root {page}; default_type text/html; try_files /{PAGE_FILE} =404;"
    else:
        root = f"return 200 {_answer('-', name)};"
    return [
        f"  server {{ {_listen(port, families)}",
        f"    location ~ ^{TOKEN_PATH}(?<token>[A-Za-z0-9._:-]+)$ {{",
        f"      return 200 {_answer('$token', name)}; }}",
        f"    location = / {{ {root} }}",
        "  }",
    ]


def _listen(port: int, families: Sequence[int], suffix: str = "") -> str:
    addresses = [f"{port}" for family in families if family == 4]
    addresses += [f"[::]:{port}" for family in families if family == 6]
    return " ".join(f"listen {address}{suffix};" for address in addresses)


def _answer(token: str, name: str) -> str:
    return f'"{token} {name} $server_addr $server_port $remote_addr $remote_port\\n"'
