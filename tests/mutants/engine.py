"""The in-house enforcer with one bug seeded: ``python engine.py MUTANT events --node …``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from harness.enforcer import cli
from tests.mutants.bugs import MUTANTS

if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)].seed()
    sys.exit(cli.main())
