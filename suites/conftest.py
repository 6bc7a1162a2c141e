"""What lies in here is claimed of a CNI: run it with ``pytest suites/ --cni NAME``."""

netpol_suite = True
