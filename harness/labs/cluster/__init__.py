"""Clusters with an API: everything beyond bringing one up, the same for all of them."""
