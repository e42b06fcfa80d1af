"""First part of the demo: programs that know nothing of flowkeep, in two namespaces joined only by the node."""

import os
import sys
import time

from report import say

from fixtures import paths
from fixtures.killing import kill_workers_while
from fixtures.lab import CHAIN, INSIDE_HOST, NAT_ADDRESS, OUTSIDE_HOST, VethSite, edge_chain
from fixtures.traffic import EchoClient, EchoServer, HttpServer, random_file, sha256
from fixtures.waiting import wait_until

_DOWNLOAD_MB = 208            # of 2^20 bytes: 218 MB
_DOWNLOAD_RATE = "10M"        # bytes a second: long enough for the kills, on a busy machine too
_KILL_INTERVAL_S = 0.1
_KILLS = 50
_FORBIDDEN_PORT = 9090


def steps(lab, report):
    """[(title, function)]; makes the site."""
    return RealTraffic(lab, report).steps()


class RealTraffic:
    def __init__(self, lab, report):
        self.lab, self.report = lab, report
        self.site = self.ctl = self.http = self.long_lived = None

    def steps(self):
        return [
            ("Two namespaces, joined only by a node", self.start),
            ("A firewall and a NAT, deployed from a YAML file", self.deploy),
            ("ping and traceroute through the chain", self.ping_and_traceroute),
            ("The firewall", self.forbidden_port),
            ("A download, while the worker is killed again and again", self.download),
            ("The node itself is killed, under a long-lived connection", self.kill_node),
        ]

    def start(self):
        self.site = VethSite(self.lab)
        self.ctl = self.site.ctl
        status = self.ctl.node()
        say(f"  inside {INSIDE_HOST} -- [ node ] -- outside {OUTSIDE_HOST}; the NAT's address is {NAT_ADDRESS}")
        self.report.note(f"Packet memory: {status['packet_memory']}. State pool on {status['medium']}, which survives "
                         f"{status['medium_survives']}{', flushes emulated' if status.get('emulated') else ''}.")
        self.http = HttpServer(self.lab, self.site.outside, OUTSIDE_HOST)

    def deploy(self):
        self.site.deploy(edge_chain())
        chains = self.ctl.list("chains")
        self.report.equal("chain deployed through the API from a YAML file",
                          next(chain["status"]["phase"] for chain in chains if chain["name"] == CHAIN), "Ready")

    def ping_and_traceroute(self):
        answers = self.site.inside.run("ping", "-n", "-c", "5", "-i", "0.2", "-W", "2", OUTSIDE_HOST, check=False)
        received = answers.stdout.count("bytes from")
        self.report.equal("ping: answers", received, 5, "of 5")
        trace = self.site.inside.run("traceroute", "-I", "-n", "-q", "1", "-w", "2", "-m", "5", OUTSIDE_HOST)
        say("  " + trace.stdout.strip().replace("\n", "\n  "))
        hops = [line.split()[1] for line in trace.stdout.splitlines()[1:]]
        self.report.equal("traceroute: hops", " ".join(hops), f"10.0.0.1 {OUTSIDE_HOST}")

    def forbidden_port(self):
        HttpServer(self.lab, self.site.outside, OUTSIDE_HOST, _FORBIDDEN_PORT)
        url = f"http://{OUTSIDE_HOST}:{_FORBIDDEN_PORT}/"
        self.site.outside.run("curl", "-sS", "-o", os.devnull, url)   # it does listen
        before = self.ctl.drops(CHAIN, "firewall_denied")
        status = self.site.inside.run("curl", "-sS", "--connect-timeout", "2", url, check=False).returncode
        self.report.equal("forbidden port: curl's status (28: could not connect)", status, 28)
        self.report.at_least("forbidden port: drops counted as firewall_denied",
                             self.ctl.drops(CHAIN, "firewall_denied") - before, 1, "packets")

    def download(self):
        digest = random_file(os.path.join(self.http.folder, "file"), _DOWNLOAD_MB)
        target = self.lab.path("downloaded")
        restarts = self.ctl.node().get("switch_restarts", 0)
        started = time.monotonic()
        curl = self.lab.add(self.site.inside.start(
            ["curl", "-sS", "--fail", "--limit-rate", _DOWNLOAD_RATE, "-o", target, f"{self.http.url}/file"],
            self.lab.path("curl.log")))
        wait_until(lambda: os.path.exists(target) and os.path.getsize(target) > 0, "the download's first bytes")

        def progress(count):
            if sys.stdout.isatty():
                print(f"\r  {count} workers killed, {os.path.getsize(target) >> 20} MB downloaded", end="", flush=True)
        killed = kill_workers_while(curl.running, self.ctl, CHAIN, _KILL_INTERVAL_S, progress)
        took_s = time.monotonic() - started
        say()
        size_mb = os.path.getsize(target) / 1e6
        self.report.equal("download: curl's status", curl.wait(), 0)
        self.report.at_least("download: workers killed by SIGKILL meanwhile", len(set(killed)), _KILLS, "workers")
        self.report.at_least("download: size", size_mb, 200, "MB")
        self.report.equal("download: SHA-256 (first 12 digits)", sha256(target)[:12], digest[:12])
        self.report.equal("download: clients that the server saw", " ".join(self.http.clients() - {OUTSIDE_HOST}),
                          NAT_ADDRESS)
        self.report.equal("download: restarts of the switch", self.ctl.node().get("switch_restarts", 0) - restarts, 0)
        self.report.note(f"The download ran at {size_mb / took_s:.0f} MB/s (limited to {_DOWNLOAD_RATE}B/s, for time "
                         f"to kill {len(killed)} workers).")

    def kill_node(self):
        server = EchoServer(self.lab, self.site.outside, OUTSIDE_HOST)
        client = EchoClient(self.lab, self.site.inside, server)
        peer_before = client.wait_for_more()
        mapping_before = self._mapping(server.port)
        node, before = self.site.node, self.ctl.node()
        say(f"  connection open, the server sees {peer_before}; now: flowkeepctl drill kill-node")
        with self.lab.start([*self._ctl_command(), "drill", "kill-node", "-o", "json"], "drill-kill-node") as drill:
            status = node.wait(30)
            killed = time.monotonic()
            self.report.equal("node kill: signal that ended the node process", -status, 9)
            node.restart()
            self.report.equal("node kill: the drill's own checks (exit status)", drill.wait(60), 0)
        peer_after = client.wait_for_more()
        gap_s = time.monotonic() - killed
        after = self.ctl.node()
        self.report.check("node kill: another process tree runs", before["supervisor_pid"] != after["supervisor_pid"]
                          and before["switch_pid"] != after["switch_pid"], "yes", "yes")
        self.report.equal("node kill: the connection goes on; the server sees", peer_after, peer_before)
        self.report.equal("node kill: the flow's mapping in the state pool", self._mapping(server.port), mapping_before)
        self.report.note(f"The connection's next answers came {gap_s:.2f} s after the node had died (TCP's own "
                         "retransmission time-out included).")

    def _mapping(self, port):
        flows = self.ctl.flows(CHAIN, f"proto=tcp dport={port}")
        return " ".join(sorted(flow["external"] for flow in flows))

    def _ctl_command(self):
        return [paths.CTL, "--controller", self.ctl.address]
