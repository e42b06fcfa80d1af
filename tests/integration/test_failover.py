"""Workers die under the packet generator, which misses no packet."""

import os

from fixtures.killing import kill_worker
from fixtures.lab import CHAIN, MemifSite, edge_chain
from fixtures.outcome import time_limit
from fixtures.traffic import Generator
from fixtures.waiting import wait_until

_RATE = "120kpps"


def _deployed(lab, **changes):
    site = MemifSite(lab, **changes)
    site.deploy()
    return site


def _generate(lab, site, name="pktgen", **options):
    before = site.ctl.chain_on_node(CHAIN).get("forwarded_packets", 0)
    generator = Generator(lab, site, name, **{"flows": 500, "size": 64, "rate": _RATE, **options})
    wait_until(lambda: not generator.running()
               or site.ctl.chain_on_node(CHAIN).get("forwarded_packets", 0) > before + 1000, "packets to pass")
    return generator


def _assert_nothing_lost(report, site):
    found = {key: report[key] for key in ("lost", "duplicated", "reordered", "mapping_changes")}
    assert report["tx_packets"] > 0 and not any(found.values()), f"{report}\n{site.ctl.node()}"


def _wait_until_quiet(ctl):
    """Until every packet is back in the pool of free ones; returns how many that are."""
    def settled():
        first, second = ctl.node()["packets_free"], ctl.node()["packets_free"]
        return first == second and first
    return wait_until(settled, "the number of free packets to settle")


def test_undisturbed_traffic_is_lossless(lab):
    site = _deployed(lab)
    _assert_nothing_lost(_generate(lab, site, duration=4).report(), site)


def test_killed_workers_lose_nothing(lab):
    site = _deployed(lab)
    generator = _generate(lab, site, duration=10)
    killed = []
    while generator.running() and len(killed) < 12:
        killed.append(kill_worker(site.ctl, CHAIN, killed))
    assert generator.running(), "the generator ended before the last kill"
    _assert_nothing_lost(generator.report(), site)
    assert len(killed) == 12


def test_several_workers_of_a_chain(lab):
    site = MemifSite(lab)
    document = edge_chain()
    document["spec"]["workers"] = 3
    site.deploy(document)
    generator = _generate(lab, site, duration=10)
    drill = site.ctl.json("drill", "kill-worker", "--chain", CHAIN, "--count", "9", "--interval-ms", "200")
    assert len({injection["victim_pid"] for injection in drill["injections"]}) == 9
    assert generator.running(), "the generator ended before the last kill"
    shares = {worker["slot"]: worker.get("packets", 0) for worker in site.ctl.workers(CHAIN)}
    assert len(shares) == 3 and min(shares.values()) > 0.1 * max(shares.values()), shares   # all of them work
    _assert_nothing_lost(generator.report(), site)


def test_buckets_move_between_more_and_fewer_workers(lab):
    site = _deployed(lab)
    generator = _generate(lab, site, duration=12, flows=2000)
    for workers in (3, 2, 4, 1):
        document = edge_chain()
        document["spec"]["workers"] = workers
        revision = site.ctl.chain_on_node(CHAIN)["revision"]
        before = {worker["slot"]: worker.get("packets", 0) for worker in site.ctl.workers(CHAIN)}
        site.ctl.apply(lab.write_yaml("chain.yaml", document))
        site.ctl.wait_for_chain(CHAIN, revision + 1)

        def all_work():
            now = {worker["slot"]: worker.get("packets", 0) for worker in site.ctl.workers(CHAIN)}
            return len(now) == workers and all(count > before.get(slot, 0) for slot, count in now.items())
        wait_until(all_work, f"{workers} workers to have packets")
    assert generator.running(), "the generator ended before the last move"
    _assert_nothing_lost(generator.report(), site)


@time_limit(420)
def test_a_thousand_kills_leak_no_packet(lab):
    site = _deployed(lab)
    free_before = _wait_until_quiet(site.ctl)
    generator = _generate(lab, site, duration=400, rate="20kpps")
    drill = site.ctl.json("drill", "kill-worker", "--chain", CHAIN, "--count", "1000", "--interval-ms", "5",
                          timeout_s=380)
    assert len(drill["injections"]) == 1000
    assert len({injection["victim_pid"] for injection in drill["injections"]}) > 900   # real processes, all of them
    assert drill.get("packets_lost", 0) == 0 and drill["state_verified"], drill["checks"]
    assert generator.running()
    generator.process.stop()
    _assert_nothing_lost(generator.report(), site)
    wait_until(lambda: site.ctl.node()["packets_free"] == free_before, "all packets to be free again")


def test_a_hung_worker_is_replaced(lab):
    site = _deployed(lab)
    generator = _generate(lab, site, duration=8)
    drill = site.ctl.json("drill", "hang-worker", "--chain", CHAIN, "--count", "2", "--interval-ms", "500", check=False)
    assert len(drill["injections"]) == 2 and drill["state_verified"], drill   # loss: the generator knows better
    _assert_nothing_lost(generator.report(), site)


def test_an_updated_chain_loses_nothing(lab):
    site = _deployed(lab)
    generator = _generate(lab, site, duration=8)
    for port in (9001, 9002, 9003):
        document = edge_chain()
        rules = next(function["config"]["rules"] for function in document["spec"]["functions"]
                     if function["type"] == "firewall")
        rules.insert(0, {"name": f"closed-{port}", "action": "drop", "protocol": "tcp",
                         "destination_ports": [str(port)]})
        revision = site.ctl.chain_on_node(CHAIN)["revision"]
        site.ctl.apply(lab.write_yaml("chain.yaml", document))
        site.ctl.wait_for_chain(CHAIN, revision + 1)
    assert generator.running(), "the generator ended before the last update"
    _assert_nothing_lost(generator.report(), site)
    assert all(worker["revision"] == 4 for worker in site.ctl.workers(CHAIN))


def test_the_dataplane_outlives_the_controller(lab):
    site = _deployed(lab)
    generator = _generate(lab, site, duration=8)
    victim = site.ctl.workers(CHAIN)[0]["pid"]
    site.controller.send(9)
    site.controller.wait()
    refused = site.ctl("get", "nodes", check=False)
    assert refused.returncode == site.ctl.EXIT_UNREACHABLE, refused
    assert site.ctl.address in refused.stderr and not refused.stdout, refused
    os.kill(victim, 9)      # and workers fail over without it
    _assert_nothing_lost(generator.report(), site)
