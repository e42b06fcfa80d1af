"""Programs that customers use, through firewall and NAT: many streams, names, what tells them their address."""

import json
import os
import sys

from fixtures import paths
from fixtures.lab import CHAIN, INSIDE_HOST, NAT_ADDRESS, OUTSIDE_HOST, Site, VethSite, edge_chain
from fixtures.network import Namespace, Veth
from fixtures.process import run
from fixtures.segment import Segment
from fixtures.traffic import HttpServer, random_file, sha256
from fixtures.waiting import wait_until

_SECOND_SERVER = "203.0.113.3"
_STREAMS = 8


def _script(name):
    return os.path.join(paths.ROOT, "tests", "fixtures", name)


def _site(lab, *rules):
    """A site whose chain accepts what `rules` name, besides what edge.yaml does."""
    site = VethSite(lab)
    document = edge_chain()
    next(function["config"]["rules"] for function in document["spec"]["functions"]
         if function["type"] == "firewall")[:0] = list(rules)
    site.deploy(document)
    return site


def _server(lab, site, script, *arguments):
    name = "-".join([script, *map(str, arguments)])
    process = lab.add(site.outside.start([sys.executable, "-u", _script(script), *arguments], lab.path(f"{name}.log")))
    process.wait_for_output("listening")
    return process


def test_iperf_with_eight_streams_both_ways(lab):
    site = _site(lab, {"name": "iperf", "action": "accept", "protocol": "tcp", "destination_ports": ["5201"]})
    server = lab.add(site.outside.start(["iperf3", "-s", "--forceflush", "-B", OUTSIDE_HOST], lab.path("iperf3.log")))
    server.wait_for_output("Server listening")
    for direction in ([], ["-R"]):
        def measured():
            """None while the server is not done with the run before."""
            report = json.loads(site.inside.run("iperf3", "-J", "-t", "2", "-P", _STREAMS, "-c", OUTSIDE_HOST,
                                                *direction, check=False).stdout)
            return None if "busy" in report.get("error", "") else report
        report = wait_until(measured, "iperf3", 30)
        streams = report["end"].get("streams", [])
        received = [stream["receiver"]["bytes"] for stream in streams]
        print(f"iperf3 {direction}: {sum(received) / 1e6:.0f} MB in {len(streams)} streams")
        assert len(received) == _STREAMS and min(received) > 100_000, report
    assert site.ctl.chain_on_node(CHAIN).get("worker_deaths", 0) == 0


def test_names_are_resolved_by_udp_and_by_tcp(lab):
    """By the C library's resolver, on behalf of curl."""
    site = _site(lab, {"name": "dns", "action": "accept", "protocol": "tcp", "destination_ports": ["53"]})
    names = _server(lab, site, "name_server.py", OUTSIDE_HOST, 53, OUTSIDE_HOST)
    server = HttpServer(lab, site.outside, OUTSIDE_HOST, 8000)
    digest = random_file(os.path.join(server.folder, "file"), 1)
    for content, target in ((f"nameserver {OUTSIDE_HOST}\n", "/etc/resolv.conf"), ("hosts: dns\n", "/etc/nsswitch.conf")):
        path = lab.path(os.path.basename(target))
        with open(path, "w") as file:
            file.write(content)
        run("mount", "--bind", path, os.path.realpath(target))     # in the sandbox's own mounts
    for name in ("www.example", "long.example"):
        site.inside.run("curl", "-4", "-sS", "--fail", "-o", lab.path("file"), f"http://{name}:8000/file")
        assert sha256(lab.path("file")) == digest
    asked = names.output().splitlines()
    assert "udp www.example" in asked and "udp long.example" in asked and "tcp long.example" in asked, asked


def _mappings(site, source_port, servers):
    """{server: the endpoint that it says it saw}."""
    asked = site.inside.run(sys.executable, _script("stun.py"), "client", source_port, *servers)
    return dict(line.split() for line in asked.stdout.splitlines())


def test_a_mapping_does_not_depend_on_the_remote_endpoint(lab):
    """RFC 4787 REQ-1, as RFC 5780 section 4.3 finds it out: another address, another port, one mapping."""
    site = _site(lab)
    site.outside.run("ip", "address", "add", f"{_SECOND_SERVER}/24", "dev", "eth0")
    servers = [f"{address}:{port}" for address in (OUTSIDE_HOST, _SECOND_SERVER) for port in (3478, 3479)]
    for server in servers:
        _server(lab, site, "stun.py", "server", *server.split(":"))
    taken = set()
    for source_port in (40000, 40001, 1025):
        mappings = _mappings(site, source_port, servers)
        assert sorted(mappings) == sorted(servers) and len(set(mappings.values())) == 1, mappings
        mapped = mappings[servers[0]]
        assert mapped.startswith(f"{NAT_ADDRESS}:") and mapped not in taken, mappings
        taken.add(mapped)
        assert {flow["external"] for flow in site.ctl.flows(CHAIN, f"proto=udp sport={source_port}")} == {mapped}


def test_destinations_that_are_not_translated(lab):
    """RFC 6888 REQ-6: a peer's network sees the hosts' own addresses, and may call them as far as the firewall lets it."""
    site = VethSite(lab)
    document = edge_chain()
    for function in document["spec"]["functions"]:
        if function["type"] == "nat44":
            function["config"]["untranslated"] = [{"prefix": f"{_SECOND_SERVER}/32"}]
        else:
            function["config"]["rules"][:0] = [{"name": "peer", "action": "accept", "source": [_SECOND_SERVER]}]
    site.deploy(document)
    site.outside.run("ip", "address", "add", f"{_SECOND_SERVER}/24", "dev", "eth0")
    site.outside.run("ip", "route", "add", "10.0.0.0/24", "via", "203.0.113.1", "src", _SECOND_SERVER)
    servers = [f"{OUTSIDE_HOST}:3478", f"{_SECOND_SERVER}:3478"]
    for server in servers:
        _server(lab, site, "stun.py", "server", *server.split(":"))
    mappings = _mappings(site, 40000, servers)
    assert mappings[servers[0]].startswith(f"{NAT_ADDRESS}:"), mappings
    assert mappings[servers[1]] == f"{INSIDE_HOST}:40000", mappings
    server = HttpServer(lab, site.inside, INSIDE_HOST, 8000)
    digest = random_file(os.path.join(server.folder, "file"), 1)
    url = f"http://{INSIDE_HOST}:8000/file"
    site.outside.run("curl", "-sS", "--fail", "--interface", _SECOND_SERVER, "-o", lab.path("file"), url)
    assert sha256(lab.path("file")) == digest
    site.outside.run("ping", "-c", "2", "-i", "0.2", "-I", _SECOND_SERVER, INSIDE_HOST)
    refused = site.outside.run("curl", "-sS", "--interface", OUTSIDE_HOST, "--max-time", "2", url, check=False)
    assert refused.returncode == 28, refused
    drops = site.ctl.chain_on_node(CHAIN)["drops"]
    assert drops.get("nat_no_mapping", 0) > 0, drops


def test_traceroute_of_every_kind(lab):
    site = _site(lab)
    HttpServer(lab, site.outside, OUTSIDE_HOST, 80)
    for kind in (["-I"], ["-U", "-p", "33434"], ["-T", "-p", "80"]):
        trace = site.inside.run("traceroute", *kind, "-n", "-q", "1", "-w", "2", "-m", "5", OUTSIDE_HOST).stdout
        assert [line.split()[1] for line in trace.splitlines()[1:]] == ["10.0.0.1", OUTSIDE_HOST], trace


def test_large_pings(lab):
    """In fragments, both ways: the NAT needs the whole packet to find its flow."""
    site = _site(lab)
    for size in (1472, 1473, 4000, 20000):
        answers = site.inside.run("ping", "-n", "-c", "3", "-i", "0.2", "-s", size, OUTSIDE_HOST)
        assert " 0% packet loss" in answers.stdout, answers.stdout


class _SegmentSite(Site):
    """Two hosts inside, on one segment."""

    def __init__(self, lab):
        self.outside = lab.add(Namespace("outside"))
        lab.add(Veth("fk-out", self.outside, "eth0", f"{OUTSIDE_HOST}/24"))
        segment = lab.add(Segment("fk-in", {"here": "10.0.0.2/24", "there": "10.0.0.3/24"}, ["default via 10.0.0.1"]))
        self.hosts = segment.hosts
        super().__init__(lab, "net_af_packet0,iface=fk-in", "net_af_packet1,iface=fk-out")


def test_two_inside_hosts_meet_at_their_external_endpoints(lab):
    """Hairpin (RFC 4787 REQ-9): a host reaches another one by what a STUN server told that one."""
    site = _SegmentSite(lab)
    document = edge_chain()
    translator = document["spec"]["functions"][1]
    translator["config"]["filtering"] = "endpoint_independent"
    document["spec"]["functions"][0]["config"]["rules"].append({"name": "in", "action": "accept", "protocol": "udp"})
    site.deploy(document)
    _server(lab, site, "stun.py", "server", OUTSIDE_HOST, 3478)
    # A host that is a STUN server itself tells whom it sees.
    here, there = site.hosts["here"], site.hosts["there"]
    mapped = dict(line.split() for line in there.run(
        sys.executable, _script("stun.py"), "client", 3478, f"{OUTSIDE_HOST}:3478").stdout.splitlines())
    there_outside = mapped[f"{OUTSIDE_HOST}:3478"]
    listener = lab.add(there.start([sys.executable, "-u", _script("stun.py"), "server", "10.0.0.3", 3478],
                                   lab.path("stun-inside.log")))
    listener.wait_for_output("listening")
    asked = dict(line.split() for line in here.run(
        sys.executable, _script("stun.py"), "client", 40000, f"{OUTSIDE_HOST}:3478", there_outside).stdout.splitlines())
    # The other host sees the external endpoint, not the inside one.
    assert asked[there_outside] == asked[f"{OUTSIDE_HOST}:3478"] and asked[there_outside].startswith(NAT_ADDRESS), asked
