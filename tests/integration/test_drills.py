"""Drills as users run them: storms of kills, their reports, and ending one early."""

import json
import os
import random
import signal

from fixtures import paths
from fixtures.lab import CHAIN, MemifSite
from fixtures.outcome import time_limit
from fixtures.storm import Storm
from fixtures.traffic import Generator
from fixtures.waiting import wait_until

_KILLS = 300


@time_limit(400)
def test_a_storm_loses_nothing(lab):
    seed = random.randrange(1, 2**32)
    print(f"seed {seed}")
    storm = Storm(lab, kills=_KILLS, seed=seed, flows=2000, rate="100kpps", kills_per_s=25, echo=True)
    storm.run()
    print(storm.lab.logs()["drill.log"])
    checks = storm.checks()
    assert not checks.failed(), f"seed {seed}: {json.dumps(checks.failed(), indent=1)}\n{storm.generator}"
    report = storm.drill
    assert len(report["injections"]) == 10 and int(report["kills"]) >= _KILLS
    assert int(report["standby_kills"]) > 0 and int(report["successor_kills"]) > 0
    assert int(report["bursts_redone"]) + int(report["bursts_completed"]) + int(report["bursts_none"]) \
        == int(report["takeover_us"]["count"])
    assert {int(chain["kills"]) > _KILLS / 10 for chain in report["chains"]} == {True}, report["chains"]
    assert report["medium"] == "tmpfs" and report["emulated"]
    figures = report["detect_us"]
    assert 0 < figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["p999"] <= figures["max"]


def _deployed(lab):
    site = MemifSite(lab)
    site.deploy()
    return site


def _storm(lab, site, *options):
    return lab.start([paths.CTL, "--controller", site.ctl.address, "drill", "storm", "--json", lab.path("report.json"),
                      *options], "drill", start_new_session=True)


def _report(lab):
    with open(lab.path("report.json")) as file:
        return json.load(file)


def test_the_seed_decides_the_victims(lab):
    site = _deployed(lab)
    plans = []
    for seed in (7, 7, 8):
        with _storm(lab, site, "--kills", 20, "--seed", seed, "--rate", 20) as drill:
            assert drill.wait(60) == 0, drill.tail()
        report = _report(lab)
        assert int(report["seed"]) == seed
        plans.append((report["standby_kills"], report["successor_kills"]))
    assert plans[0] == plans[1] != plans[2], plans


def test_a_drill_that_is_interrupted_reports_what_it_did(lab):
    site = _deployed(lab)
    drill = _storm(lab, site, "--kills", 1_000_000, "--rate", 50)
    drill.wait_for_output("faults")
    wait_until(lambda: site.ctl.chain_on_node(CHAIN).get("failovers", 0) > 10, "some failovers")
    drill.send(signal.SIGINT)
    assert drill.wait(30) == 0, drill.tail()
    report = _report(lab)
    assert report["stopped"] and 0 < int(report["kills"]) < 1_000_000
    # It is over: another may run.
    assert site.ctl("drill", "storm", "--kills", "3").returncode == 0


def test_a_drill_ends_with_its_client(lab):
    site = _deployed(lab)
    drill = _storm(lab, site, "--kills", 1_000_000, "--rate", 50)
    wait_until(lambda: site.ctl.chain_on_node(CHAIN).get("failovers", 0) > 3, "some failovers")
    assert site.ctl("drill", "storm", "--kills", "3", check=False).returncode == site.ctl.EXIT_REFUSED
    drill.send(signal.SIGKILL)
    drill.wait()
    wait_until(lambda: site.ctl("drill", "storm", "--kills", "3", check=False).returncode == 0, "the drill to end", 30)


def test_a_wrong_victim_is_refused(lab):
    site = _deployed(lab)
    refused = site.ctl("drill", "storm", "--victims", "worker,switch", check=False)
    assert refused.returncode == site.ctl.EXIT_REFUSED, refused
    assert "switch" in refused.stderr and "worker, standby, successor, several" in refused.stderr, refused.stderr
    assert not os.path.exists(lab.path("report.json"))


def test_several_at_once(lab):
    site = _deployed(lab)
    generator = Generator(lab, site, "pktgen", flows=500, rate="50kpps", duration=600)
    with _storm(lab, site, "--kills", 20, "--victims", "several", "--rate", 10, "--seed", 5) as drill:
        assert drill.wait(120) == 0, drill.tail()
    generator.process.stop()
    report = generator.report()
    found = {key: report[key] for key in ("lost", "duplicated", "reordered", "mapping_changes")}
    assert report["tx_packets"] > 0 and not any(found.values()), report
    # One slot: each time its worker and the standby that is to follow it.
    kills, standbys = (int(_report(lab)[key]) for key in ("kills", "standby_kills"))
    assert kills >= 20 and standbys >= 8, (kills, standbys)


def test_every_report_names_the_medium(lab):
    site = _deployed(lab)
    report = site.ctl.json("drill", "kill-worker", "--count", "2")
    assert report["medium"] == "tmpfs" and report["emulated"] and "process" in report["medium_survives"], report
    assert len(report["injections"]) == 2 and report["detect_us"]["count"] == 2
    described = site.ctl("describe", "node", "node-1").stdout
    assert "tmpfs: survives" in described and "emulated" in described, described
