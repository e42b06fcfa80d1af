"""The same rules and the same traces through our chain and through Linux (nftables: a stateful filter and
masquerade). Verdicts and translations agree, or the difference is of a class that docs/differences-from-linux.md
lists, with who is right and why."""

import collections
import os
import re

from fixtures import paths
from fixtures.frames import TCP
from fixtures.lab import edge_chain
from fixtures.outcome import time_limit
from fixtures.routers import HOSTS, FlowkeepRouter, LinuxRouter
from fixtures.traces import ACK, FIN, RST, SYN, URG, capture, random_trace
from fixtures.translations import DROPPED, Translator, runs

_RULES = [
    {"name": "web", "action": "accept", "direction": "from_inside", "protocol": "tcp",
     "destination_ports": ["80", "443", "8000-9000", "30303"]},
    {"name": "low-ports", "action": "accept", "direction": "from_inside", "protocol": "tcp",
     "destination_ports": ["1-22"]},
    {"name": "udp", "action": "accept", "direction": "from_inside", "protocol": "udp",
     "destination_ports": ["53", "443", "1024-65535"]},
    {"name": "icmp", "action": "accept", "direction": "from_inside", "protocol": "icmp"},
]
_RULESET = """
table ip filter {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state invalid drop
    ct state established,related accept
    iifname "in" ct state new jump new
  }
  chain new {
    tcp dport { 80, 443, 8000-9000, 30303, 1-22 } accept
    udp dport { 53, 443, 1024-65535 } accept
    icmp type echo-request accept
  }
}
table ip nat {
  chain postrouting { type nat hook postrouting priority srcnat; oifname "out" masquerade; }
}
"""
_DOCUMENT = os.path.join(paths.ROOT, "docs", "differences-from-linux.md")
_LISTED = re.compile(r"^## `([a-z-]+)`", re.M)


# Flags beside PSH, ECE and CWR of segments that Linux takes for possible.
_POSSIBLE_FLAGS = {SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG}


class _Classes:
    """Finds the class of a difference. Remembers what the flows have been through."""

    def __init__(self):
        self._blurred = set()      # flows of which a packet's checksum was wrong
        self._overshot = set()     # flows of which one of us has let data pass beyond the window, the other has not

    def see(self, event):
        if not event.packet.l4_checksum_is_right():
            self._blurred.add(self._flow(event))

    def of(self, event, ours, theirs):
        """A heading of docs/differences-from-linux.md, or None if nobody has thought of it."""
        packet, flow = event.packet, self._flow(event)
        if DROPPED not in (ours, theirs):
            return None
        if flow in self._blurred:
            return "wrong-checksum"
        if packet.protocol != TCP:
            return None
        flags = packet.octets[packet.header_bytes + 13] & (FIN | SYN | RST | ACK | URG)
        if ours is DROPPED:
            if flags == ACK and packet.payload_bytes() > 0:
                self._overshot.add(flow)
            return "tcp-beyond-window" if flow in self._overshot else None
        if flow in self._overshot:
            return "tcp-beyond-window"
        if flags not in _POSSIBLE_FLAGS:
            return "tcp-flags"
        return "tcp-syn-within" if flags & SYN else None

    @staticmethod
    def _flow(event):
        about = event.packet.quote() if event.packet.is_error() else event.packet
        return about.protocol, frozenset((about.endpoints()[:2], about.endpoints()[2:]))


class _Comparison:
    def __init__(self, lab):
        document = edge_chain()
        document["spec"]["functions"][0]["config"]["rules"] = _RULES
        self.ours, self.theirs = FlowkeepRouter(lab, document), LinuxRouter(lab, _RULESET)
        self._translators = Translator(self.ours), Translator(self.theirs)
        self.classes, self.agreed = collections.Counter(), collections.Counter()
        self.unlisted, self._known = [], _Classes()
        with open(_DOCUMENT) as file:
            self._listed = set(_LISTED.findall(file.read()))

    def replay(self, name, events):
        for run in runs(events):
            fates = [translator.run(run) for translator in self._translators]
            for event, ours, theirs in zip(run, *fates):
                self._known.see(event)
                if ours == theirs:
                    self.agreed["dropped" if ours is DROPPED else "forwarded"] += 1
                    continue
                side = "inside" if event.from_inside else "outside"
                self._differ(self._known.of(event, ours, theirs), f"{name}, {event.what}, from the {side}\n  packet "
                             f"{event.packet.octets.hex()}\n  ours   {_shown(ours)}\n  theirs {_shown(theirs)}")

    def _differ(self, found, text):
        self.classes[found] += 1
        if found not in self._listed:
            self.unlisted.append(f"{found}: {text}")

    def _compare_translations(self):
        ours, theirs = (translator.external for translator in self._translators)
        for flow in ours.keys() & theirs.keys():
            text = f"{flow}: {ours[flow]}, {theirs[flow]}"
            if ours[flow] == theirs[flow]:
                self.agreed["translations"] += 1
            elif ours[flow][0] == theirs[flow][0]:
                self._differ("external-port", text)
            else:
                self._differ("external-address", text)
        self._want_one_inside_endpoint_of_each("ours", ours)
        self._want_one_inside_endpoint_of_each("theirs", theirs)
        self._want_one_external_endpoint_of_each(ours)

    def _want_one_inside_endpoint_of_each(self, whose, external):
        """An answer from a remote endpoint must have one way to go."""
        holders = {}
        for (protocol, host, port, *remote), translated in external.items():
            holder = holders.setdefault((protocol, translated, *remote), (host, port))
            if holder != (host, port):
                self._differ("external-shared", f"{whose}: {translated} towards {remote} is {holder} and {(host, port)}")

    def _want_one_external_endpoint_of_each(self, external):
        """RFC 4787, REQ-1: what ours does instead of keeping the port."""
        mappings = {}
        for (*inside, _, _), translated in external.items():
            mapped = mappings.setdefault(tuple(inside), translated)
            if mapped != translated:
                self._differ("external-by-remote", f"ours: {inside} is {mapped} and {translated}")

    def check(self):
        self._compare_translations()
        compared = self.agreed["translations"] + self.classes["external-port"]
        assert compared > 50, f"only {compared} translations to compare"
        print("agreed:", dict(self.agreed), "differences:", dict(self.classes), "our drops:", self.ours.drops())
        assert self.ours.died() == 0
        assert not self.unlisted, f"{len(self.unlisted)} differences that are not listed:\n" + "\n".join(self.unlisted[:20])


def _shown(fate):
    return "dropped" if fate is DROPPED else fate.hex()


def _capture(name, limit=400):
    path = os.path.join(paths.REAL_INPUTS, "pcaps", name)
    assert os.path.exists(path), f"{path} is missing: the real inputs belong beside the project, in ../shared/data"
    return capture(path, HOSTS[:-1], limit)


@time_limit(300)
def test_random_traces(lab):
    comparison = _Comparison(lab)
    seed = int.from_bytes(os.urandom(3), "big")
    print("seed", seed)
    comparison.replay(f"random trace {seed}", random_trace(seed, HOSTS[:-1], 1500))
    comparison.check()
    assert comparison.agreed["forwarded"] > 500 and comparison.agreed["dropped"] > 50, comparison.agreed


_CAPTURES = ("ndpi__ethereum.pcap", "ndpi__synscan.pcap", "ndpi__whatsapp_login_call.pcap", "tcpreplay__test.pcap",
             "ndpi__teams.pcap", "ndpi__bittorrent.pcap", "snabb__lamernews.pcap", "zeek__bruteforce.pcap",
             "ndpi__reddit.pcap", "ndpi__WebattackRCE.pcap", "zeek__206_example_b.pcap", "sv__bug-4376.pcap",
             "edge/sv__tcp-split-handshake-01-4whs.pcap", "edge/zeek__fin_retransmission.pcap",
             "edge/zeek__handshake-reorder.pcap", "edge/zeek__icmp-destunreach-udp.pcap", "edge/zeek__icmp-ping.pcap",
             "edge/zeek__icmp-timeexceeded.pcap", "edge/zeek__ip4-tcp-bad-chksum.pcap", "edge/zeek__missing-syn.pcap",
             "edge/zeek__retransmit-fast009.pcap", "edge/zeek__syn-then-stuff-then-rst.pcap", "edge/ndpi__malformed_dns.pcap")


@time_limit(300)
def test_captures(lab):
    comparison = _Comparison(lab)
    for name in _CAPTURES:
        comparison.replay(name, _capture(name))
    comparison.check()
    assert comparison.agreed["forwarded"] > 500 and comparison.agreed["dropped"] > 50, comparison.agreed
