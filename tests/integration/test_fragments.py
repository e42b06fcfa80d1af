"""Packets larger than what a port carries, and hairpins: Linux hosts on both sides of firewall and NAT."""

import itertools
import os

from fixtures.frames import UDP, ethernet, ipv4, send
from fixtures.lab import CHAIN, NAT_ADDRESS, OUTSIDE_HOST, VethSite
from fixtures.process import run
from fixtures.traffic import HttpServer, random_file, sha256
from fixtures.waiting import wait_until

_NODE_INSIDE, _NODE_OUTSIDE = "10.0.0.1", "203.0.113.1"


def _site(lab, inside=None, outside=None, **changes):
    """A deployed chain; `inside` and `outside` are further fields of the ports."""
    ports = [
        {"name": "inside", "device": "net_af_packet0,iface=fk-in", "role": "inside", "addresses": ["10.0.0.1/24"],
         **(inside or {})},
        {"name": "outside", "device": "net_af_packet1,iface=fk-out", "role": "outside",
         "addresses": ["203.0.113.1/24"], "routes": [{"prefix": "0.0.0.0/0", "via": OUTSIDE_HOST}], **(outside or {})},
    ]
    site = VethSite(lab, ports=ports, **changes)
    site.deploy()
    return site


def _ping(namespace, target, *options, count=3):
    return namespace.run("ping", "-n", "-c", count, "-i", "0.2", "-W", "2", *options, target, check=False).stdout


def _node_is_whole(site):
    """No packet and no buffer is missing when all is quiet."""
    node = site.ctl.node()
    wait_until(lambda: site.ctl.node()["packets_free"] == node["packets_total"], f"all buffers to be free: {node}", 10)


def test_large_pings_go_both_ways_in_fragments(lab):
    site = _site(lab)
    for size in (1473, 4000, 30000, 65000):
        out = _ping(site.inside, OUTSIDE_HOST, "-s", size)
        assert " 0% packet loss" in out, f"{size}: {out}\n{site.ctl.node()}"
    # The node's own addresses, and those of the NAT, answer too.
    for namespace, target in ((site.inside, _NODE_INSIDE), (site.outside, _NODE_OUTSIDE), (site.outside, NAT_ADDRESS)):
        out = _ping(namespace, target, "-s", 4000)
        assert " 0% packet loss" in out, f"{target}: {out}\n{site.ctl.node()}"
    _node_is_whole(site)


def test_fragments_that_are_wrong_have_their_reasons(lab):
    site = _site(lab, fragments={"timeout_ms": 1000})
    mac = next(port["mac"] for port in site.ctl.node()["ports"] if port["name"] == "inside")

    hosts = itertools.count(20)

    def frames(*parts):
        """Of a datagram of its own: the one before may still be known as a wrong one."""
        source = f"10.0.0.{next(hosts)}"
        return [ethernet(mac, ipv4(UDP, payload, source, fragment=fragment)) for fragment, payload in parts]

    more = 0x2000
    cases = [
        ("bad_fragment", frames((more, bytes(7))), 1),
        ("fragment_overlap", frames((more, bytes(16)), (more | 1, b"other..." * 2)), 2),
        ("fragment_duplicate", frames((more | 4, bytes(16)), (more | 4, bytes(16))), 1),
        ("fragment_timeout", frames((more | 9, bytes(8))), 1),
    ]
    for reason, sent, packets in cases:
        before = site.ctl.drops(CHAIN, reason)
        send(site.inside, "eth0", sent)
        wait_until(lambda: site.ctl.drops(CHAIN, reason) >= before + packets,
                   f"{reason}: {site.ctl.chain_on_node(CHAIN)}", 10)
    _node_is_whole(site)


def test_sender_learns_the_mtu_of_the_path(lab):
    site = _site(lab, outside={"mtu": 1400})
    out = _ping(site.inside, OUTSIDE_HOST, "-M", "do", "-s", 1400, count=1)
    assert f"From {_NODE_INSIDE}" in out and "mtu = 1400" in out, out
    assert site.ctl.drops(CHAIN, "frame_too_big") == 1
    # What may be cut is cut.
    out = _ping(site.inside, OUTSIDE_HOST, "-M", "dont", "-s", 1440)
    assert " 0% packet loss" in out, out


def _restart_with_interface_of_1400(site):
    run("ip", "link", "set", site.outside_link.node_device, "mtu", 1400)
    assert site.node.stop() == 0
    site.node.restart()
    site.node.wait_until_ready(site.ctl)
    site.ctl.wait_for_chain(CHAIN)


def test_a_port_follows_the_mtu_of_its_interface(lab):
    site = _site(lab)
    site.outside.run("ip", "link", "set", "eth0", "mtu", 1400)
    _restart_with_interface_of_1400(site)
    out = _ping(site.inside, OUTSIDE_HOST, "-M", "do", "-s", 1400, count=1)
    assert f"From {_NODE_INSIDE}" in out and "mtu = 1400" in out, out
    out = _ping(site.inside, OUTSIDE_HOST, "-M", "dont", "-s", 1440)
    assert " 0% packet loss" in out, out


def test_an_interface_is_raised_to_the_mtu_of_its_port(lab):
    site = _site(lab, outside={"mtu": 1500})
    _restart_with_interface_of_1400(site)
    out = _ping(site.inside, OUTSIDE_HOST, "-M", "do", "-s", 1472)
    assert " 0% packet loss" in out, out


def test_tcp_finds_the_mtu_in_both_directions(lab):
    """Downloads set DF; the server behind the NAT's back is told about the small MTU inside."""
    site = _site(lab, inside={"mtu": 1280}, outside={"mtu": 1320})
    server = HttpServer(lab, site.outside, OUTSIDE_HOST)
    digest = random_file(os.path.join(server.folder, "file"), 4)
    site.inside.run("curl", "-sS", "--fail", "--max-time", "20", "-o", lab.path("file"), f"{server.url}/file")
    assert sha256(lab.path("file")) == digest
    assert site.ctl.drops(CHAIN, "frame_too_big") >= 1
    cached = site.outside.run("ip", "route", "get", NAT_ADDRESS).stdout
    assert "mtu 1280" in cached, cached


def test_inside_host_reaches_the_address_of_the_nat(lab):
    """The switch takes the packet back as if it came from the outside, and answers as it does there."""
    site = _site(lab)
    for size in (56, 4000):
        out = _ping(site.inside, NAT_ADDRESS, "-s", size)
        assert " 0% packet loss" in out, f"{out}\n{site.ctl.node()}"
    assert not site.ctl.node()["ports"][1].get("drops"), site.ctl.node()
    _node_is_whole(site)


def test_neighbours_are_told_of_addresses_that_come_up(lab):
    site = VethSite(lab)
    elsewhere = "02:00:00:00:de:ad"
    addresses = (_NODE_OUTSIDE, NAT_ADDRESS)

    def known(address):
        line = site.outside.run("ip", "neigh", "show", address).stdout.split()
        return line[line.index("lladdr") + 1] if "lladdr" in line else None

    for address in addresses:
        site.outside.run("ip", "neigh", "replace", address, "lladdr", elsewhere, "dev", "eth0", "nud", "stale")
    mac = next(port["mac"] for port in site.ctl.node()["ports"] if port["name"] == "outside")
    site.deploy()
    wait_until(lambda: known(NAT_ADDRESS) == mac, "the NAT's address to be announced", 10)
    # The port comes up again.
    for address in addresses:
        site.outside.run("ip", "neigh", "replace", address, "lladdr", elsewhere, "dev", "eth0", "nud", "stale")
    site.outside.run("ip", "link", "set", "eth0", "down")
    wait_until(lambda: not site.ctl.node()["ports"][1].get("link_up"), "the link to be down", 10)
    site.outside.run("ip", "link", "set", "eth0", "up")
    for address in addresses:
        site.outside.run("ip", "neigh", "replace", address, "lladdr", elsewhere, "dev", "eth0", "nud", "stale")
    wait_until(lambda: all(known(address) == mac for address in addresses), "both addresses to be announced", 10)
