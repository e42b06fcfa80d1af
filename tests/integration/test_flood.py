"""A flood of SYNs that nobody answers, beside a thousand connections that go on."""

import random
import re
import sys

from fixtures import paths
from fixtures.frames import TCP, ethernet, ipv4, send, tcp
from fixtures.lab import CHAIN, OUTSIDE_HOST, VethSite, edge_chain
from fixtures.waiting import wait_until

_CONNECTIONS, _HALF_OPEN, _FLOOD = 1_000, 200, 10      # flood: times the limit
_PORTION = 500         # SYNs in a row: as many as a port's queue holds while its switch does something else
_PORT = 8007
_CROWD = f"{paths.ROOT}/tests/fixtures/crowd.py"


def _round(client):
    """Number of rounds in which every connection has answered."""
    assert client.running(), f"a connection has suffered:\n{client.tail(8)}"
    return max(map(int, re.findall(r"^round (\d+)$", client.output(), re.M)), default=0)


def _flows(site, expression):
    answer = site.ctl.json("flows", CHAIN, "--filter", expression, "--limit", 20_000)
    return len(answer if isinstance(answer, list) else answer.get("flows", []))


def _wait_for_rounds(client, more):
    before = _round(client)
    wait_until(lambda: _round(client) >= before + more, f"{more} more rounds", 60)


def _syns(mac, seed):
    """Each of a flow of its own, to addresses where nobody is."""
    rng = random.Random(seed)
    return [ethernet(mac, ipv4(TCP, tcp(source_port=1024 + number, destination_port=80), f"10.0.0.{rng.randrange(50, 250)}",
                               f"198.51.100.{rng.randrange(1, 250)}")) for number in range(_FLOOD * _HALF_OPEN)]


def _flood(site, syns, refused):
    """Sends them and waits until all are judged but those that could open a flow: none may be lost on the way."""
    before = refused()
    for sent in range(_PORTION, len(syns) + 1, _PORTION):
        send(site.inside, "eth0", syns[sent - _PORTION:sent])
        wait_until(lambda: refused() - before >= sent - _HALF_OPEN, f"{sent} SYNs to be opened or refused")


def test_a_syn_flood_harms_no_connection(lab):
    site = VethSite(lab)
    document = edge_chain()
    document["spec"]["functions"][0]["config"]["half_open"] = {"limit": _HALF_OPEN}
    site.deploy(document)
    server = lab.add(site.outside.start([sys.executable, "-u", _CROWD, "server", OUTSIDE_HOST, _PORT],
                                        lab.path("crowd-server.log")))
    server.wait_for_output("listening")
    client = lab.add(site.inside.start([sys.executable, "-u", _CROWD, "client", OUTSIDE_HOST, _PORT, _CONNECTIONS],
                                       lab.path("crowd-client.log")))
    client.wait_for_output("round 2", 60)
    mac = next(port["mac"] for port in site.ctl.node()["ports"] if port["name"] == "inside")
    before = site.ctl.drops(CHAIN, "half_open_limit")
    for seed in (1, 2):
        _flood(site, _syns(mac, seed), lambda: site.ctl.drops(CHAIN, "half_open_limit"))
        _wait_for_rounds(client, 3)
    refused = site.ctl.drops(CHAIN, "half_open_limit") - before
    opened, established = _flows(site, "proto=tcp dport=80"), _flows(site, f"proto=tcp dport={_PORT} phase=established")
    print(f"{2 * _FLOOD * _HALF_OPEN} SYNs: {opened} half-open flows, {refused} refused; {established} connections go on")
    # As many as the limit leaves have opened, and each of the others was refused by its name.
    assert 0 < opened <= _HALF_OPEN
    assert refused >= 2 * _FLOOD * _HALF_OPEN - _HALF_OPEN and opened + refused == 2 * _FLOOD * _HALF_OPEN
    assert established == _CONNECTIONS
    assert site.ctl.chain_on_node(CHAIN).get("worker_deaths", 0) == 0
