"""Captures of real traffic, replayed from the inside: as many packets forwarded, and dropped for each
reason, as an independent model of the chain says."""

import collections
import os

from fixtures import paths, pcap
from fixtures.chain_model import ARP, FORWARDED, ChainModel
from fixtures.frames import TCP, UDP
from fixtures.lab import CHAIN, MemifSite, edge_chain
from fixtures.traffic import Generator
from fixtures.waiting import TimedOut, wait_until

_RULES = [
    {"name": "web", "action": "accept", "direction": "from_inside", "protocol": "tcp",
     "destination_ports": ["80", "443", "8000-9000", "30303"]},
    {"name": "low-ports", "action": "accept", "direction": "from_inside", "protocol": "tcp",
     "destination_ports": ["1-22"]},
    {"name": "udp", "action": "accept", "direction": "from_inside", "protocol": "udp",
     "destination_ports": ["53", "443", "1024-65535"]},
    {"name": "icmp", "action": "accept", "direction": "from_inside", "protocol": "icmp"},
]


def _accepts(protocol, _source, _destination, _source_port, port):
    """The same rules again, for the model."""
    if protocol == TCP:
        return port in (80, 443, 30303) or 8000 <= port <= 9000 or 1 <= port <= 22
    if protocol == UDP:
        return port in (53, 443) or port >= 1024
    return True


def _trace(name):
    path = os.path.join(paths.REAL_INPUTS, "pcaps", name)
    assert os.path.exists(path), f"{path} is missing: the real inputs belong beside the project, in ../shared/data"
    return path


def _expected(frames):
    model = ChainModel(_accepts, ["10.0.0.1", "203.0.113.1", "203.0.113.10"])
    return collections.Counter(verdict for verdict in map(model.judge, frames) if verdict != ARP)


def _counted(ctl):
    """Forwarded and dropped for each reason, on ports and in the chain together."""
    status = ctl.node()
    total = collections.Counter({FORWARDED: status["chains"][0].get("forwarded_packets", 0)})
    for holder in [*status["ports"], *status["chains"]]:
        total.update(holder.get("drops", {}))
    return total


def _site(lab):
    """With a gateway outside whose address needs no resolving, so that no packet waits for an answer."""
    site = MemifSite(lab, neighbours=[{"address": "203.0.113.2", "mac": "02:00:00:00:00:02"}],
                     fragments={"timeout_ms": 1000})
    document = edge_chain()
    firewall = next(function for function in document["spec"]["functions"] if function["type"] == "firewall")
    firewall["config"]["rules"] = _RULES
    firewall["config"]["tcp_tracking"] = "off"  # some captures lack segments
    site.deploy(document)
    return site


def _replay(lab, name):
    frames = pcap.read(_trace(name))
    expected = _expected(frames)
    site = _site(lab)
    before = _counted(site.ctl)
    Generator(lab, site, "replay", profile="pcap", pcap=_trace(name), rate="20kpps").report()
    try:
        wait_until(lambda: sum((_counted(site.ctl) - before).values()) >= sum(expected.values()), "every packet", 20)
    except TimedOut:
        pass
    found = _counted(site.ctl) - before
    table = [f"{reason:<28}{expected[reason]:>10}{found[reason]:>10}" for reason in sorted(expected | found)]
    print("\n".join([f"{name:<28}{'expected':>10}{'found':>10}", *table]))
    assert found == expected
    assert site.ctl.chain_on_node(CHAIN).get("worker_deaths", 0) == 0


def test_ethereum(lab):
    _replay(lab, "ndpi__ethereum.pcap")


def test_syn_scan(lab):
    _replay(lab, "ndpi__synscan.pcap")


def test_whatsapp(lab):
    _replay(lab, "ndpi__whatsapp_login_call.pcap")


def test_many_protocols(lab):
    _replay(lab, "tcpreplay__test.pcap")


def test_fuzzed_packets(lab):
    _replay(lab, "ndpi__fuzz-2006-06-26-2594.pcap")
