"""Tools at the desk: what policies do, told from the model alone, without a lab or a cluster."""
