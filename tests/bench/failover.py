"""`flowkeep bench failover`: how long a killed worker's flows wait.

From SIGKILL to the first packet out of the replacement, detection included, with a warm standby: on a nearly idle
machine, under load, and with a thousand and with a million live flows in turn, in one run. The moments are those of
`drill kill-worker`, whose signals come from another process at moments that the node does not know.
"""

import json
import statistics
import sys

import bench
import measurement

from fixtures.lab import CHAIN, MemifSite, edge_chain
from fixtures.storm import DESTINATION, FIRST_PORT, GENERATOR_HOST
from fixtures.traffic import Generator
from fixtures.waiting import wait_until

_IDLE, _LOADED = "10kpps", "240kpps"
_FEW = 1_000
_SOURCE_PORTS = 10_000          # of many flows, each to flows / 10,000 destination ports
_FILL_PPS = 100_000
_IDLE_P50_US, _LOADED_P50_US, _LOADED_P99_US = 100, 1_000, 10_000
_MOST_DIFFERENCE = 0.2


def _options(parser):
    parser.add_argument("--kills", type=int, default=100, help="in each case and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flows", type=int, default=1_000_000, help="of the case with many")


class FailoverSite(MemifSite):
    def __init__(self, lab, most_flows):
        super().__init__(lab, pool={"path": "/dev/shm/failover.pool", "size": f"{320 + most_flows * 300 // 1_000_000}M",
                                    "emulate_pmem": True})
        self._generators = 0

    def deploy_anew(self, first):
        if not first:
            self.ctl("delete", "chain", CHAIN)
            wait_until(lambda: not self.ctl.json("get", "chains").get("chains"), "the chain to be gone", 60)
        self.deploy(edge_chain())

    def generate(self, flows, rate, duration_s, **options):
        self._generators += 1
        ports = min(flows, _SOURCE_PORTS)
        return Generator(self.lab, self, f"generator-{self._generators}", flows=flows, source=GENERATOR_HOST,
                         source_ports=f"{FIRST_PORT}-{FIRST_PORT + ports - 1}", destination=DESTINATION,
                         destination_ports=f"1000-{999 + -(-flows // ports)}", size=64, rate=rate,
                         duration=duration_s, no_warmup=True, **options)

    def flows_open(self):
        return self.ctl.chain_on_node(CHAIN).get("flows", 0)

    def fill(self, flows):
        for _ in range(10):         # what a port drops comes again
            self.generate(flows, f"{_FILL_PPS}pps", 1.1 * flows / _FILL_PPS + 1).report()
            if self.flows_open() == flows:
                return
        raise AssertionError(f"only {self.flows_open()} of {flows} flows were opened: {self.ctl.json('stats')}")

    def kill_workers(self, kills, flows, rate):
        """Microseconds to the first packet, one for each kill."""
        generator = self.generate(flows, rate, 600)
        forwarded = self.ctl.chain_on_node(CHAIN).get("forwarded_packets", 0)
        wait_until(lambda: self.ctl.chain_on_node(CHAIN).get("forwarded_packets", 0) > forwarded + 1_000,
                   "traffic to flow", 30)
        path = self.lab.path("drill.json")
        self.ctl("drill", "kill-worker", "--chain", CHAIN, "--count", kills, "--interval-ms", 50, "--json", path,
                 timeout_s=300)
        generator.process.stop(60)
        with open(path) as file:
            drill = json.load(file)
        failed = [check for check in drill["checks"] if not check["ok"]]
        assert not failed, failed
        lost = generator.report()["lost"]
        assert lost == 0, f"{lost} packets were lost"
        return [injection["first_packet_us"] for injection in drill["injections"] if injection["first_packet_us"] > 0]


def _quantile(samples, share):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(lab, options):
    site = FailoverSite(lab, options.flows)
    idle, few, many = [], [], []
    for round_number in range(options.rounds):
        site.deploy_anew(first=round_number == 0)
        idle += [site.kill_workers(options.kills, _FEW, _IDLE)]
        few += [site.kill_workers(options.kills, _FEW, _LOADED)]
        site.fill(options.flows)
        many += [site.kill_workers(options.kills, options.flows, _LOADED)]
        for name, samples in (("idle", idle), ("few", few), ("many", many)):
            print(f"{name}: median {statistics.median(samples[-1]):.0f} us", file=sys.stderr)
    return _rows(options, idle, few, many)


def _rows(options, idle, few, many):
    """Each sample of a row is a round's quantile."""
    def row(case, rounds, rank, share, goal=None):
        return measurement.result(case, f"first packet, {rank}", "us", [_quantile(samples, share) for samples in rounds],
                                  goal, at_most=True)
    rows = [row(f"{_IDLE}, cores nearly free", idle, "p50", 0.5, _IDLE_P50_US),
            row(f"{_IDLE}, cores nearly free", idle, "p99", 0.99)]
    for flows, rounds in ((_FEW, few), (options.flows, many)):
        case = f"{_LOADED}, {flows} flows"
        rows += [row(case, rounds, "p50", 0.5, _LOADED_P50_US), row(case, rounds, "p99", 0.99, _LOADED_P99_US)]
    ratios = [statistics.median(b) / statistics.median(a) for a, b in zip(few, many)]
    rows.append(measurement.result(f"{options.flows} of {_FEW} flows", "medians' ratio", "times", ratios,
                                   1 + _MOST_DIFFERENCE, at_most=True))
    return rows


if __name__ == "__main__":
    sys.exit(bench.run(__file__, "failover", measure, _options))
