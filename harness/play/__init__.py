"""The embedded lab as a playground: ``netpol lab``, ``netpol try``, ``netpol clean``."""
