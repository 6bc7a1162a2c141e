"""The catalogue: how each CNI is installed, when it is ready, what it can and where it departs."""
