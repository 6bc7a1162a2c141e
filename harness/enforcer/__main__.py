"""``python -m harness.enforcer``: the controller without the rest of the command line."""

import sys

from harness.enforcer.cli import main

sys.exit(main())
