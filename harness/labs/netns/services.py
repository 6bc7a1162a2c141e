"""Services in a node's kernel: addresses of Services are rewritten to those of ready pods.

As kube-proxy does it (with ``--detect-local-mode=NodeCIDR``): one of the ready backends by chance;
traffic that does not come from this node's own pods, or that comes back to its own sender, is
masqueraded; a Service without backends refuses. All of it is in one nftables table of its own, so
that no policy engine is disturbed.

A World becomes :class:`Rules` (chains and map elements), two Rules become the commands between
them, in pieces, because a transaction in a user namespace must fit a socket buffer. New chains
come first, then the elements that lead to them, then what nobody uses any more goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.labs.netns import addresses as ip
from harness.model.policy import Protocol
from harness.model.world import Node, Pod, Service, ServicePort, World

TABLE = "inet lab-services"
MASQUERADE = "0x4000"
"""The bit of the packet mark that kube-proxy uses for the same purpose."""
PIECE = 60_000
"""Characters of commands in one transaction: well below what fits a socket buffer."""

SKELETON = f"""\
table {TABLE} {{
  map services4 {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map services6 {{ type ipv6_addr . inet_proto . inet_service : verdict; }}
  map node-ports4 {{ type inet_proto . inet_service : verdict; }}
  map node-ports6 {{ type inet_proto . inet_service : verdict; }}
  map no-backend4 {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map no-backend6 {{ type ipv6_addr . inet_proto . inet_service : verdict; }}
  map no-node-port4 {{ type inet_proto . inet_service : verdict; }}
  map no-node-port6 {{ type inet_proto . inet_service : verdict; }}
  set hairpin4 {{ type ipv4_addr . ipv4_addr; }}
  set hairpin6 {{ type ipv6_addr . ipv6_addr; }}
  chain refuse {{ reject; }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @services4
    ip6 daddr . meta l4proto . th dport vmap @services6
    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @node-ports4
    ip6 daddr != ::1 fib daddr type local meta l4proto . th dport vmap @node-ports6
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain output {{ type nat hook output priority -100; jump services; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    ct status dnat ip saddr . ip daddr @hairpin4 masquerade
    ct status dnat ip6 saddr . ip6 daddr @hairpin6 masquerade
    meta mark & {MASQUERADE} == 0 return
    meta mark set meta mark ^ {MASQUERADE}
    masquerade fully-random
  }}
  chain no-backend {{
    ct state new ip daddr . meta l4proto . th dport vmap @no-backend4
    ct state new ip6 daddr . meta l4proto . th dport vmap @no-backend6
  }}
  chain filter-forward {{ type filter hook forward priority -10; jump no-backend; }}
  chain filter-output {{ type filter hook output priority -10; jump no-backend; }}
  chain filter-input {{
    type filter hook input priority -10;
    ct state new meta nfproto ipv4 meta l4proto . th dport vmap @no-node-port4
    ct state new meta nfproto ipv6 meta l4proto . th dport vmap @no-node-port6
  }}
}}
"""

Chain = tuple[str, ...]
Element = tuple[str, str]


@dataclass(slots=True)
class Rules:
    """``chains``: rules by chain. ``elements``: (map, key) -> verdict, or "" in a set."""

    chains: dict[str, Chain] = field(default_factory=dict)
    elements: dict[Element, str] = field(default_factory=dict)


def rules(world: World, node: str, families: Sequence[int]) -> Rules:
    """What a node has to do for all Services, NodePorts and hostPorts of a world."""
    found = Rules()
    here = world.nodes[node]
    for _, service in sorted(world.services.items()):
        if service.headless:
            continue
        backends = world.backends(service)
        for port in service.ports:
            for family in families:
                _service_port(found, service, port, _ends(backends, port, family), here, family)
    for _, pod in sorted(world.pods.items()):
        if pod.node == node and pod.live and not pod.host_network:
            for family in families:
                _host_ports(found, pod, family)
    return found


def commands(old: Rules | None, new: Rules) -> Iterator[str]:
    """Input for ``nft -f``, a transaction a piece, that leads from one to the other.

    None: the table is not there yet.
    """
    steps = [] if old else [SKELETON]
    old = old or Rules()
    steps += [
        f"add chain {TABLE} {name}; flush chain {TABLE} {name}"
        + "".join(f"\nadd rule {TABLE} {name} {rule}" for rule in chain)
        for name, chain in new.chains.items()
        if old.chains.get(name) != chain
    ]
    changed = {
        e for e in new.elements.keys() & old.elements.keys() if new.elements[e] != old.elements[e]
    }
    steps += [
        _element("delete", element, old.elements)
        + (f"\n{_element('add', element, new.elements)}" if element in changed else "")
        for element in old.elements
        if element not in new.elements or element in changed
    ]
    steps += [
        _element("add", element, new.elements)
        for element in new.elements
        if element not in old.elements
    ]
    gone = [name for name in old.chains if name not in new.chains]
    steps += [f"flush chain {TABLE} {name}" for name in gone]  # they may lead to each other
    steps += [f"delete chain {TABLE} {name}" for name in gone]
    piece: list[str] = []
    size = 0
    for step in steps:
        if piece and size + len(step) >= PIECE:
            yield "\n".join(piece) + "\n"
            piece, size = [], 0
        piece.append(step)
        size += len(step) + 1
    if piece:
        yield "\n".join(piece) + "\n"


def _element(verb: str, element: Element, values: dict[Element, str]) -> str:
    where, key = element
    value = f" : {values[element]}" if values[element] and verb == "add" else ""
    return f"{verb} element {TABLE} {where} {{ {key}{value} }}"


def _ends(backends: Sequence[Pod], port: ServicePort, family: int) -> list[tuple[Pod, str, int]]:
    """Pod, address and number for each backend; a name is each pod's own number."""
    found = []
    for pod in backends:
        address = ip.of_family(pod.ips, family)
        number: int | None
        if isinstance(port.target_port, int):
            number = port.target_port
        else:
            number = next(
                (
                    own.port
                    for own in pod.ports
                    if own.name == port.target_port and own.protocol == port.protocol
                ),
                None,
            )
        if address and number:
            found.append((pod, address, number))
    return found


def _service_port(
    found: Rules,
    service: Service,
    port: ServicePort,
    ends: Sequence[tuple[Pod, str, int]],
    node: Node,
    family: int,
) -> None:
    proto = port.protocol.lower()
    cluster_ip = ip.of_family(service.cluster_ips, family)
    key = f"{cluster_ip} . {proto} . {port.port}"
    node_key = f"{proto} . {port.node_port}"
    if not ends:
        if cluster_ip:
            found.elements[f"no-backend{family}", key] = "goto refuse"
        if port.node_port:
            found.elements[f"no-node-port{family}", node_key] = "goto refuse"
        return
    name = _chain_name("svc", service, port, family)
    pods = next(c for c in node.pod_cidrs if ip.family_of(c.partition("/")[0]) == family)
    mark = f"meta mark set meta mark | {MASQUERADE}"
    found.chains[name] = (_rewrite(port.protocol, ends, family),)
    for _, address, _ in ends:
        found.elements[f"hairpin{family}", f"{address} . {address}"] = ""
    if cluster_ip:
        entry = _chain_name("ip", service, port, family)
        found.chains[entry] = (f"{_ip(family)} saddr != {pods} {mark}", f"goto {name}")
        found.elements[f"services{family}", key] = f"goto {entry}"
    if port.node_port:
        entry = _chain_name("nodeport", service, port, family)
        found.elements[f"node-ports{family}", node_key] = f"goto {entry}"
        if service.external_traffic_policy != "Local":
            found.chains[entry] = (mark, f"goto {name}")
            return
        local = [end for end in ends if end[0].node == node.name]
        found.chains[entry] = (
            f"{_ip(family)} saddr {pods} goto {name}",
            f"fib saddr type local {mark} goto {name}",
            *([_rewrite(port.protocol, local, family)] if local else []),
        )
        if not local:
            found.elements[f"no-node-port{family}", node_key] = "drop"


def _host_ports(found: Rules, pod: Pod, family: int) -> None:
    address = ip.of_family(pod.ips, family)
    for own in pod.ports:
        if own.host_port and address:
            proto = own.protocol.lower()
            name = _limited(f"hostport/{pod.namespace}/{pod.name}/{proto}/{own.host_port}/{family}")
            found.chains[name] = (_rewrite(own.protocol, [(pod, address, own.port)], family),)
            key = f"{proto} . {own.host_port}"
            found.elements[f"node-ports{family}", key] = f"goto {name}"
            found.elements.pop((f"no-node-port{family}", key), None)
            found.elements[f"hairpin{family}", f"{address} . {address}"] = ""


def _rewrite(protocol: Protocol, ends: Sequence[tuple[Pod, str, int]], family: int) -> str:
    choices = ", ".join(f"{n} : {address} . {port}" for n, (_, address, port) in enumerate(ends))
    return (
        f"meta l4proto {protocol.lower()} dnat {_ip(family)} to "
        f"numgen random mod {len(ends)} map {{ {choices} }}"
    )


def _ip(family: int) -> str:
    return "ip" if family == 4 else "ip6"


def _chain_name(kind: str, service: Service, port: ServicePort, family: int) -> str:
    return _limited(
        f"{kind}/{service.namespace}/{service.name}/{port.protocol.lower()}/{port.port}/{family}"
    )


def _limited(name: str) -> str:
    """A name that nftables takes (120 characters), and that nobody else has."""
    if len(name) <= 120:
        return name
    return name[:100] + "/" + hashlib.sha256(name.encode()).hexdigest()[:16]
