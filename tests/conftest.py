"""Hypothesis profiles: the same examples every time, more of them at night.

``HYPOTHESIS_PROFILE=nightly pytest`` looks at other and many more examples.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Deadlines would measure how busy the machine is, not the code.
settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
