"""The iptables data plane: chains in the filter table, peers in ipsets, conntrack.

The way of a packet, for one address family (``a`` is the present epoch, see :mod:`.plane`)::

    FORWARD -> NETPOL            established and related: ACCEPT
                 -> NPa4-check   an unknown address of a guarded prefix: DROP
                      -> NPa4-out  dispatch by source, a tree over the address's digits
                           -> NPa4-co-…  a class: the pods that the same policies select
                                -> NPa4-to-…  a target: one rule for each set of peers; a match
                                              sets the mark and returns
                      -> NPa4-in   the same by destination
    INPUT -> NETPOL-INPUT -> NPa4-host -> NPa4-out

A packet that is allowed goes back to FORWARD, to whatever else is there.
"""
