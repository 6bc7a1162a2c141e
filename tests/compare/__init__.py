"""The in-house enforcer and other people's engines side by side: ``make compare``."""
