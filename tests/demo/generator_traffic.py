"""Second part of the demo: the packet generator, which misses no packet, on memif ports."""

import time

from report import say

from fixtures.lab import CHAIN, MemifSite, edge_chain
from fixtures.traffic import Generator
from fixtures.waiting import wait_until

_FLOWS = 1000
_KILLS = 50
_KILL_INTERVAL_MS = 120
_RATE = "240kpps"
_RATE_REQUIRED_PPS = 200_000
_SIZES_AND_FLOORS_PPS = ((64, _RATE_REQUIRED_PPS), (512, 100_000), (1500, 50_000))


def steps(lab, report):
    traffic = GeneratorTraffic(lab, report)
    return [
        ("A node on memif ports, and the packet generator on both sides", traffic.start),
        (f"{_KILLS} workers killed under {_RATE}", traffic.kills),
        ("The chain is updated under traffic", traffic.update),
        ("Throughput", traffic.throughput),
    ]


class GeneratorTraffic:
    def __init__(self, lab, report):
        self.lab, self.report = lab, report
        self.site = self.ctl = None

    def start(self):
        self.site = MemifSite(self.lab)
        self.ctl = self.site.ctl
        self.site.deploy(edge_chain())

    def _generate(self, name, **options):
        before = self.ctl.chain_on_node(CHAIN).get("forwarded_packets", 0)
        settings = {"flows": _FLOWS, "size": 64, "rate": _RATE, **options}
        generator = Generator(self.lab, self.site, name, **settings)
        wait_until(lambda: not generator.running()
                   or self.ctl.chain_on_node(CHAIN).get("forwarded_packets", 0) > before + 1000,
                   "generated packets to pass", interval_s=0.05)
        return generator

    def _nothing_lost(self, what, report):
        for key in ("lost", "duplicated", "reordered"):
            self.report.equal(f"{what}: packets {key}", report[key], 0, "packets")
        self.report.equal(f"{what}: flows whose mapping changed", report["mapping_changes"], 0, "flows")

    def kills(self):
        free_before = self.ctl.node()["packets_free"]
        generator = self._generate("kills", duration=_KILLS * (_KILL_INTERVAL_MS / 1000 + 0.05) + 4)
        drill = self.ctl.json("drill", "kill-worker", "--chain", CHAIN, "--count", str(_KILLS),
                              "--interval-ms", str(_KILL_INTERVAL_MS), timeout_s=120, check=False)
        under_traffic = generator.running()
        report = generator.report()
        victims = {injection["victim_pid"] for injection in drill["injections"]}
        self.report.check("kills: the traffic went on beyond the last kill", under_traffic, under_traffic, True)
        self.report.at_least("kills: workers killed", len(victims), _KILLS, "workers")
        self.report.at_least("kills: packets sent", report["tx_packets"], 1, "packets")
        self.report.at_least("kills: rate received", round(report["rx_pps"]), _RATE_REQUIRED_PPS, "packets/s")
        self._nothing_lost("kills", report)
        for check in drill["checks"]:
            self.report.check(f"kills: the drill says: {check['name']}", check.get("ok", False), check.get("measured", 0),
                              check.get("required", 0), check.get("unit", ""))
        wait_until(lambda: self.ctl.node()["packets_free"] >= free_before, "every packet to come back", 5)
        self.report.equal("kills: free packet buffers afterwards", self.ctl.node()["packets_free"], free_before,
                          "buffers")
        self.report.note(f"A killed worker: known after {drill['detect_us_p50']:.0f} us (median; 99 %: "
                         f"{drill['detect_us_p99']:.0f} us); its successor's first burst after "
                         f"{drill['first_packet_us_p50']:.0f} us (99 %: {drill['first_packet_us_p99']:.0f} us).")

    def update(self):
        document = edge_chain()
        generator = self._generate("update", duration=6)
        revision = self.ctl.chain_on_node(CHAIN)["revision"]
        firewall = next(function for function in document["spec"]["functions"] if function["type"] == "firewall")
        firewall["config"]["rules"].insert(0, {"name": "added-by-the-update", "action": "drop", "protocol": "tcp",
                                               "destination_ports": ["9999"]})
        self.ctl.apply(self.lab.write_yaml("updated.yaml", document))
        self.ctl.wait_for_chain(CHAIN, revision + 1)
        under_traffic = generator.running()
        report = generator.report()
        self.report.check("update: the traffic went on beyond the update", under_traffic, under_traffic, True)
        self.report.equal("update: revision that runs", self.ctl.chain_on_node(CHAIN)["revision"], revision + 1)
        self._nothing_lost("update", report)

    def throughput(self):
        rows = []
        for size, floor_pps in _SIZES_AND_FLOORS_PPS:
            report = self._generate(f"throughput-{size}", size=size, rate="max", duration=3).report()
            pps = report["rx_pps"]
            rows.append(f"  {size:>6}  {pps / 1e6:>11.3f}  {pps * size * 8 / 1e9:>7.2f}  "
                        f"{100 * report['lost'] / max(1, report['tx_packets']):>9.2f}")
            self.report.at_least(f"throughput, {size}-byte frames", round(pps), floor_pps, "packets/s")
        table = ["Throughput, one worker, generator and node on the same cores, the generator at full speed:",
                 "   bytes    Mpackets/s   Gbit/s     % lost", *rows]
        for line in table:
            self.report.note(line)
        say()
