"""netpol: a conformance harness for Kubernetes NetworkPolicy."""

__version__ = "0.1.0"
