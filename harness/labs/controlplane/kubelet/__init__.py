"""Hollow kubelets: nodes whose pods are pods of the embedded lab.

What is real: the Node and its lease, the watch, host-local addresses out of the node's CIDR, the
containers' processes, their logs and exec streams, and what is reported of them. What is not:
images (nginx, busybox and dnsmasq of this machine stand for those that the harness knows), most
volumes, resource limits, a file system and a process namespace of each container's own.
"""
