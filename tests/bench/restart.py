"""`flowkeep bench restart`: a node's processes are killed by SIGKILL and started again, with a million live flows and
with an empty pool, in turn.

Measured is the time from exec to the first packet forwarded, under the same traffic. A generator goes round all flows
meanwhile; afterwards every flow must have the mapping that it had before the kills.
"""

import json
import os
import shutil
import signal
import statistics
import sys
import time

import bench
import measurement

from fixtures import paths
from fixtures.controller import Controller
from fixtures.lab import CHAIN, edge_chain
from fixtures.network import Namespace, Veth
from fixtures.node import Node, configuration
from fixtures.process import Process, run
from fixtures.storm import Checks
from fixtures.waiting import wait_until

_FILL_PPS, _RATE = 100_000, "20kpps"
_SOURCE_PORTS = 10_000      # each to flows / 10,000 destination ports
_GOAL = 1.5
_FULL, _EMPTY = "full", "empty"


def _options(parser):
    parser.add_argument("--flows", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=9)


def _mac(shown):
    return json.loads(shown.stdout)[0]["address"]


class RestartSite:
    """One controller, and a node that is started either on a pool with flows or on an empty one."""

    def __init__(self, lab, flows):
        self.lab, self.flow_count = lab, flows
        self.host = lab.add(Namespace("host"))
        lab.add(Veth("fk-in", self.host, "eth0", "10.0.0.2/24"))
        lab.add(Veth("fk-out", self.host, "eth1", "203.0.113.2/24"))
        for device in ("eth0", "eth1"):
            self.host.run("ip", "address", "flush", "dev", device)     # the generator answers, not the kernel
        self.ctl = lab.add(Controller(lab.directory)).wait_until_ready().ctl
        mac = _mac(self.host.run("ip", "-j", "link", "show", "eth1"))
        pool_mb = 256 + flows // 1000 * 256 // 1000
        self._documents = {kind: configuration(
            lab.directory, "net_af_packet0,iface=fk-in", "net_af_packet1,iface=fk-out",
            neighbours=[{"address": "203.0.113.100", "mac": mac}], state_dir=lab.path(f"state-{kind}"),
            pool={"path": f"/dev/shm/{kind}.pool", "size": f"{pool_mb}M", "emulate_pmem": True})
            for kind in (_FULL, _EMPTY)}
        self.node = None

    def start(self, kind):
        """Returns the Unix time just before exec."""
        now_s = time.time()
        self.node = self.lab.add(Node(self.lab.directory, self._documents[kind], name=f"node-{kind}"))
        return now_s

    def stop(self):
        assert self.node.stop() == 0, self.node.tail()

    def kill(self):
        self.node.send(signal.SIGKILL)
        self.node.wait()

    def path(self, kind):
        return self._documents[kind]["pool"]["path"]

    def keep_empty_pool(self):
        shutil.copytree(self.lab.path(f"state-{_FULL}"), self.lab.path(f"state-{_EMPTY}"), dirs_exist_ok=True)
        self.start(_EMPTY)
        self.wait_until_running()
        self.stop()
        # Written out: holes would have to be filled at the first touch, which a pool with flows is spared.
        self.lab.start(["cp", "--sparse=never", self.path(_EMPTY), "/dev/shm/kept.pool"], "cp").wait()

    def restore_empty_pool(self):
        os.replace(shutil.copyfile("/dev/shm/kept.pool", "/dev/shm/next.pool"), self.path(_EMPTY))

    def generate(self, name, rate, duration_s):
        destinations = -(-self.flow_count // _SOURCE_PORTS)
        return self.lab.add(Process(self.host.command(
            paths.PKTGEN, "--tx", "net_af_packet0,iface=eth0", "--rx", "net_af_packet1,iface=eth1", "--flows",
            self.flow_count, "--source", "10.0.0.100", "--source-ports", f"1024-{1023 + _SOURCE_PORTS}",
            "--destination", "203.0.113.100", "--destination-ports", f"1000-{999 + destinations}", "--gateway-mac",
            _mac(run("ip", "-j", "link", "show", "fk-in")), "--rate", rate, "--duration", duration_s, "--no-warmup", "--json",
            self.lab.path(f"{name}.json")), self.lab.path(f"{name}.log"), name="flowkeep-pktgen"))

    def status(self):
        """Of this start of the node; None until it answers."""
        status = next(iter(self.ctl.json("stats").get("nodes", [])), {})
        return status if status.get("supervisor_pid") == self.node.pid else None

    def wait_until_running(self):
        """Asked of the node: the controller may still believe in the one before it."""
        def runs():
            assert self.node.running(), self.node.tail()
            chains = (self.status() or {}).get("chains", [])
            return [chain for chain in chains if chain["chain"] == CHAIN and chain["state"] == "running"]
        wait_until(runs, "the chain to run", 60, interval_s=0.05)

    def first_forwarded_s(self):
        """Unix time of the first packet that this start of the node forwarded."""
        return wait_until(lambda: (self.status() or {}).get("first_forwarded_at_s"), "the first packet forwarded", 60,
                          interval_s=0.05)

    def mappings(self):
        answer = self.ctl("flows", CHAIN, "--limit", str(self.flow_count), "--timeout", "100", "-o", "json", timeout_s=120)
        return {(flow["inside_source"], flow["destination"]): flow["external"]
                for flow in json.loads(answer.stdout)["flows"]}

    def flows_open(self):
        return sum(chain.get("flows", 0) for chain in (self.status() or {}).get("chains", []))

    def fill(self):
        for attempt in range(20):      # what a port drops comes again
            self.generate(f"fill-{attempt}", f"{_FILL_PPS}pps", 1.1 * self.flow_count / _FILL_PPS).wait(120)
            if self.flows_open() == self.flow_count:
                return
        raise AssertionError(f"only {self.flows_open()} of {self.flow_count} flows were opened: {self.ctl.json('stats')}")


def _measured_start(site, kind):
    """Milliseconds from exec to the first packet of a node that follows a killed one on the same pool."""
    if kind == _EMPTY:
        site.restore_empty_pool()
    site.start(kind)
    site.first_forwarded_s()
    site.kill()
    if kind == _EMPTY:
        site.restore_empty_pool()
    started_s = site.start(kind)
    return 1000 * (site.first_forwarded_s() - started_s)


def measure(lab, options):
    site = RestartSite(lab, options.flows)
    site.start(_FULL)
    site.node.wait_until_ready(site.ctl)
    site.ctl.apply(lab.write_yaml("chain.yaml", edge_chain()))
    site.ctl.wait_for_chain(CHAIN)
    site.stop()
    site.keep_empty_pool()
    site.start(_FULL)
    site.wait_until_running()
    site.fill()
    before = site.mappings()
    generator = site.generate("traffic", _RATE, 3600)
    site.first_forwarded_s()
    site.stop()
    times_ms = {_FULL: [], _EMPTY: []}
    for repetition in range(options.repetitions):
        for kind in (_FULL, _EMPTY) if repetition % 2 == 0 else (_EMPTY, _FULL):
            times_ms[kind].append(_measured_start(site, kind))
            print(f"{kind}: {times_ms[kind][-1]:.0f} ms", file=sys.stderr)
            site.stop()
    site.start(_FULL)
    site.wait_until_running()
    generator.stop()
    after = site.mappings()
    return _results(times_ms, options, before, after)


def _results(times_ms, options, before, after):
    case = {_FULL: f"{options.flows} flows", _EMPTY: "empty pool"}
    rows = [measurement.result(case[kind], "exec to first packet", "ms", samples) for kind, samples in times_ms.items()]
    ratio = statistics.median(times_ms[_FULL]) / statistics.median(times_ms[_EMPTY])
    checks = Checks()
    checks.add("medians: with flows, of empty", ratio <= _GOAL, round(ratio, 3), _GOAL, "times at most")
    checks.equal("flows before the kills", len(before), options.flows, "flows")
    checks.equal("flows that are missing afterwards", sum(key not in after for key in before), 0, "flows")
    checks.equal("flows with another mapping", sum(after.get(key, mapping) != mapping for key, mapping in before.items()),
                 0, "flows")
    return {"results": rows, "checks": checks}


if __name__ == "__main__":
    sys.exit(bench.run(__file__, "restart", measure, _options, measurement.publish_checks))
