"""A real Kubernetes control plane for the embedded lab: where its programs come from, and it up."""
