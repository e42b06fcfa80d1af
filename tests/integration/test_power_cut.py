"""drill power-cut: a node is killed and finds its state pool as a power cut could have left it."""

import json
import random
import signal

from fixtures import paths
from fixtures.lab import CHAIN, OUTSIDE_HOST, VethSite
from fixtures.outcome import time_limit
from fixtures.traffic import EchoClient, EchoServer
from fixtures.waiting import wait_until

_POOL = {"path": "/dev/shm/flowkeep.pool", "size": "64M", "emulate_pmem": True}
_CUTS = 4


def _deployed(lab, **pool):
    site = VethSite(lab, pool={**_POOL, **pool})
    site.deploy()
    return site


def _cut(lab, site, number, seed):
    """Runs the drill, starts the node again when it has died; the report."""
    report = lab.path(f"report-{number}.json")
    command = [paths.CTL, "--controller", site.ctl.address, "drill", "power-cut", "--seed", seed, "--json", report]
    with lab.start(command, f"drill-{number}") as drill:
        assert site.node.wait(30) == -signal.SIGKILL
        site.node.restart()
        assert drill.wait(90) == 0, drill.tail()
    with open(report) as file:
        return json.load(file)


@time_limit(300)
def test_connections_outlive_power_cuts(lab):
    seed = random.randrange(1, 2**31)
    print(f"seed {seed}")
    site = _deployed(lab, power_cut_drills=True)
    server = EchoServer(lab, site.outside, OUTSIDE_HOST)
    client = EchoClient(lab, site.inside, server)
    peer = client.wait_for_more()
    # Flows that come and go up to the cut, so that bursts with hard state are under way.
    lab.add(site.inside.start(["ping", "-q", "-i", "0.002", OUTSIDE_HOST], lab.path("ping.log"), name="ping"))
    opener = ("import socket\nwhile True:\n  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
              f"  s.connect(('{OUTSIDE_HOST}', 53))\n  s.send(b'x')\n  s.close()\n")
    lab.add(site.inside.start(["python3", "-c", opener], lab.path("opener.log"), name="opener"))
    lost = 0
    for number in range(_CUTS):
        report = _cut(lab, site, number, seed + number)
        assert int(report["seed"]) == seed + number and report["state_verified"], report
        assert report["medium"] == "tmpfs" and report["emulated"], report
        assert int(report["words_at_risk"]) > 0, report
        lost += int(report.get("words_lost", 0))
        assert client.wait_for_more() == peer
        flows = site.ctl.wait_for_chain(CHAIN) and site.ctl.flows(CHAIN, f"proto=tcp dport={server.port}")
        assert [flow["external"] for flow in flows] == [peer]
    assert lost > 0
    cuts = [event for event in site.ctl.list("events") if event["kind"] == "power_cut"]
    assert len(cuts) == _CUTS and f"seed {seed}" in cuts[0]["message"], cuts
    wait_until(lambda: site.node.output().count("power_cut") == _CUTS, "the node to say so")


def test_a_node_that_keeps_no_medium_refuses(lab):
    site = _deployed(lab)
    refused = site.ctl("drill", "power-cut", check=False)
    assert refused.returncode == site.ctl.EXIT_REFUSED, refused
    assert "pool.power_cut_drills" in refused.stderr and "is off" in refused.stderr, refused.stderr
    assert site.node.running()
