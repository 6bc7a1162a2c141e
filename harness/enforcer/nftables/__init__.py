"""The nftables data plane: sets and verdict maps; no iptables, no ipset.

The way of a packet, in ``table ip netpol-a`` and ``table ip6 netpol-a`` (``a`` is the present
epoch, see :mod:`.plane`)::

    forward-out (hook forward, priority -10)
        established and related: accept; unknown address of a guarded prefix: drop
        ip saddr vmap @out        one lookup, however many pods
          -> co-…                 a class: the pods that the same policies select
               -> to-…            a target: a rule for each set of peers, or, where it has many
                                  lists of ports, one lookup of the port in a verdict map
    forward-in  (hook forward, priority -9)   the same by destination
    input-out   (hook input, priority -10)    what pods send to their own node

``accept`` ends the way through one of these chains only: the other and foreign ones follow.
"""
