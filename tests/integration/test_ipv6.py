"""IPv6 between two Linux hosts, through the switch: neighbour discovery, errors, fragments."""

import os

from fixtures.lab import CHAIN, OUTSIDE_HOST, VethSite, edge_chain
from fixtures.traffic import HttpServer, random_file, sha256
from fixtures.waiting import wait_until

_NODE_INSIDE, _NODE_OUTSIDE = "2001:db8:1::1", "2001:db8:2::1"
_INSIDE, _OUTSIDE = "2001:db8:1::2", "2001:db8:2::2"


def _speak_ipv6(namespace, address, gateway):
    namespace.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6; "
                  "echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra; "
                  "echo 1 >/proc/sys/net/ipv6/conf/eth0/keep_addr_on_down")
    namespace.run("ip", "address", "add", f"{address}/64", "dev", "eth0", "nodad")
    namespace.run("ip", "route", "replace", "default", "via", gateway, "dev", "eth0")


def _site(lab, outside=None):
    ports = [
        {"name": "inside", "device": "net_af_packet0,iface=fk-in", "role": "inside",
         "addresses": ["10.0.0.1/24", f"{_NODE_INSIDE}/64"]},
        {"name": "outside", "device": "net_af_packet1,iface=fk-out", "role": "outside",
         "addresses": ["203.0.113.1/24", f"{_NODE_OUTSIDE}/64"],
         "routes": [{"prefix": "0.0.0.0/0", "via": OUTSIDE_HOST}, {"prefix": "::/0", "via": _OUTSIDE}],
         **(outside or {})},
    ]
    site = VethSite(lab, ports=ports)
    _speak_ipv6(site.inside, _INSIDE, _NODE_INSIDE)
    _speak_ipv6(site.outside, _OUTSIDE, _NODE_OUTSIDE)
    document = edge_chain()
    document["spec"]["functions"] = [function for function in document["spec"]["functions"]
                                     if function["type"] != "firewall"]
    site.deploy(document)
    return site


def _ping(namespace, target, *options, count=3):
    return namespace.run("ping", "-6", "-n", "-c", count, "-i", "0.2", "-W", "2", *options, target, check=False).stdout


def test_ipv6_passes_and_the_node_answers(lab):
    site = _site(lab)
    for namespace, target in ((site.inside, _NODE_INSIDE), (site.outside, _NODE_OUTSIDE), (site.inside, _OUTSIDE)):
        for size in (56, 4000, 30000):
            out = _ping(namespace, target, "-s", size)
            assert " 0% packet loss" in out, f"{target} {size}: {out}\n{site.ctl.node()}"
    assert [port["addresses"] for port in site.ctl.node()["ports"]] == [
        ["10.0.0.1/24", f"{_NODE_INSIDE}/64"], ["203.0.113.1/24", f"{_NODE_OUTSIDE}/64"]]
    node = site.ctl.node()
    wait_until(lambda: site.ctl.node()["packets_free"] == node["packets_total"], f"all buffers to be free: {node}", 10)


def test_ipv6_download(lab):
    site = _site(lab)
    server = HttpServer(lab, site.outside, _OUTSIDE)
    digest = random_file(os.path.join(server.folder, "file"), 4)
    site.inside.run("curl", "-g", "-sS", "--fail", "--max-time", "30", "-o", lab.path("file"),
                    f"http://[{_OUTSIDE}]/file")
    assert sha256(lab.path("file")) == digest


def test_traceroute6_shows_the_node_and_the_server(lab):
    site = _site(lab)
    trace = site.inside.run("traceroute", "-6", "-I", "-n", "-q", "1", "-w", "2", "-m", "5", _OUTSIDE).stdout
    assert [line.split()[1] for line in trace.splitlines()[1:]] == [_NODE_INSIDE, _OUTSIDE], trace


def test_ipv6_sender_learns_the_mtu_of_the_path(lab):
    site = _site(lab, outside={"mtu": 1300})
    out = _ping(site.inside, _OUTSIDE, "-M", "do", "-s", 1400, count=1)
    assert f"From {_NODE_INSIDE}" in out and "mtu=1300" in out.replace(" ", ""), out
    assert site.ctl.drops(CHAIN, "frame_too_big") == 1
    assert " 0% packet loss" in _ping(site.inside, _OUTSIDE, "-s", 1400), site.ctl.node()


def test_neighbours_are_told_of_ipv6_addresses_that_come_up(lab):
    site = _site(lab)
    mac = next(port["mac"] for port in site.ctl.node()["ports"] if port["name"] == "outside")
    site.outside.run("ip", "link", "set", "eth0", "down")
    wait_until(lambda: not site.ctl.node()["ports"][1].get("link_up"), "the link to be down", 10)
    site.outside.run("ip", "link", "set", "eth0", "up")
    site.outside.run("ip", "neigh", "replace", _NODE_OUTSIDE, "lladdr", "02:00:00:00:de:ad", "dev", "eth0", "nud",
                     "stale")

    def known():
        line = site.outside.run("ip", "-6", "neigh", "show", _NODE_OUTSIDE).stdout.split()
        return line[line.index("lladdr") + 1] if "lladdr" in line else None
    wait_until(lambda: known() == mac, "the address to be announced", 10)
