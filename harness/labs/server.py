"""What the servers of every lab answer: one nginx configuration, the same in all of them.

* ``GET /t/TOKEN`` -> ``TOKEN NAMESPACE/POD SERVER_ADDRESS SERVER_PORT CLIENT_ADDRESS`` on one
  line: the reply names the pod that answered, so that a wrong backend shows, and the address that
  it saw, so that NAT shows. The token ties the line to the probe.
* a UDP datagram -> the same line with ``-`` for the token.
* ``GET /`` -> the pod's page: nginx' own welcome page in the demo.
"""

from __future__ import annotations

WELCOME = (
    "<!DOCTYPE html>\n<html>\n<head>\n<title>Welcome to nginx!</title>\n</head>\n<body>\n"
    "<h1>Welcome to nginx!</h1>\n</body>\n</html>\n"
)
TOKEN_PATH = "/t/"
