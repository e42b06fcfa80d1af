"""Packets truncated inside each header, and other wrong ones: each is dropped for its named reason."""

import collections
import struct

from fixtures import pcap
from fixtures.frames import (ETHERTYPE_IPV6, ETHERTYPE_VLAN, ICMP, TCP, UDP, ethernet, icmp, ipv4, send, tcp, udp)
from fixtures.lab import CHAIN, OUTSIDE_HOST, MemifSite, VethSite
from fixtures.traffic import Generator
from fixtures.waiting import TimedOut, wait_until

_ECHO_REQUEST, _UNREACHABLE, _TIMESTAMP = 8, 3, 13
_COPIES = 3


def _quoting(packet):
    """An ICMP error about `packet`."""
    return ipv4(ICMP, icmp(_UNREACHABLE, packet, code=1))


def _packets():
    """[(reason, what, IPv4 packet)]: everything behind the Ethernet header."""
    whole = ipv4(UDP, udp())
    return [
        ("truncated_ipv4", "nothing", b""),
        ("truncated_ipv4", "19 bytes of the header", whole[:19]),
        ("truncated_ipv4", "total length beyond the frame", whole[:-1]),
        ("truncated_ipv4", "options cut off", ipv4(UDP, b"", options=bytes(8))[:24]),
        ("bad_ipv4_header", "version 5", ipv4(UDP, udp(), version=5)),
        ("bad_ipv4_header", "header of 4 words", ipv4(UDP, udp(), header_words=4)),
        ("bad_ipv4_header", "total length within the header", ipv4(UDP, udp(), total_length=19)),
        ("bad_ipv4_header", "header longer than the packet", ipv4(UDP, udp(), header_words=15, total_length=35)),
        ("bad_ipv4_checksum", "checksum", ipv4(UDP, udp(), checksum=0x1234)),
        ("firewall_denied", "GRE: a flow without ports", ipv4(47, bytes(16))),
        ("bad_source", "loopback", ipv4(UDP, udp(), source="127.0.0.1")),
        ("bad_source", "multicast", ipv4(UDP, udp(), source="224.0.0.1")),
        ("bad_source", "this network", ipv4(UDP, udp(), source="0.0.0.0")),
        ("truncated_l4", "TCP: 19 bytes of the header", ipv4(TCP, tcp()[:19])),
        ("truncated_l4", "TCP: no header", ipv4(TCP, b"")),
        ("bad_tcp_header", "data offset of 4 words", ipv4(TCP, tcp(offset_words=4))),
        ("bad_tcp_header", "options cut off", ipv4(TCP, tcp(offset_words=6))),
        ("truncated_l4", "UDP: 7 bytes of the header", ipv4(UDP, udp()[:7])),
        ("bad_udp_length", "length within the header", ipv4(UDP, udp(length=7))),
        ("bad_udp_length", "length beyond the packet", ipv4(UDP, udp(length=100))),
        ("truncated_l4", "ICMP: 7 bytes of the header", ipv4(ICMP, icmp(_ECHO_REQUEST)[:7])),
        ("unsupported_icmp", "ICMP: timestamp", ipv4(ICMP, icmp(_TIMESTAMP, bytes(12)))),
        ("truncated_ipv4", "quoted: 19 bytes of the header", _quoting(whole[:19])),
        ("truncated_l4", "quoted: 7 bytes of UDP", _quoting(whole[:27])),
        ("bad_ipv4_header", "quoted: version 5", _quoting(ipv4(UDP, udp(), version=5))),
        ("bad_icmp_checksum", "error with a wrong checksum", ipv4(ICMP, icmp(_UNREACHABLE, whole, check=0x1234))),
        ("no_flow", "error about an unknown flow", _quoting(ipv4(UDP, udp(), OUTSIDE_HOST, "10.0.0.2"))),
    ]


def _drops(ctl):
    """Drops by reason, of the ports and of the chain together."""
    total = collections.Counter()
    status = ctl.node()
    for holder in [*status["ports"], *status["chains"]]:
        total.update(holder.get("drops", {}))
    return total


def test_each_broken_packet_has_its_reason(lab):
    site = VethSite(lab)
    site.deploy()
    mac = next(port["mac"] for port in site.ctl.node()["ports"] if port["name"] == "inside")
    cases = [(reason, what, ethernet(mac, packet)) for reason, what, packet in _packets()]
    cases += [("bad_ipv6_header", "IPv6: version 0", ethernet(mac, bytes(40), ETHERTYPE_IPV6)),
              ("truncated_ipv6", "IPv6: 39 bytes of the header", ethernet(mac, b"\x60" + bytes(38), ETHERTYPE_IPV6)),
              ("wrong_vlan", "VLAN", ethernet(mac, struct.pack("!HH", 100, 0x0800) + ipv4(UDP, udp()), ETHERTYPE_VLAN))]
    wrong = []
    for reason, what, frame in cases:
        before = _drops(site.ctl)
        send(site.inside, "eth0", [frame] * _COPIES)
        try:
            wait_until(lambda: sum((_drops(site.ctl) - before).values()) >= _COPIES, "the drops", 20)
        except TimedOut:
            pass
        found = dict(_drops(site.ctl) - before)
        if found != {reason: _COPIES}:
            wrong.append(f"{what}: {found}, expected {_COPIES} of {reason}")
    assert not wrong, "\n".join(wrong)
    assert site.ctl.chain_on_node(CHAIN).get("worker_deaths", 0) == 0
    ping = site.inside.run("ping", "-n", "-c", "2", "-i", "0.2", OUTSIDE_HOST).stdout
    assert ", 0 received" not in ping, f"{ping}\n{site.ctl.node()}"


def test_fragments(lab):
    """A datagram whose fragments overlap is dropped with all that follows of it."""
    site = MemifSite(lab)
    site.deploy()
    fragments = [("bad_fragment", 0x2000, 15), ("bad_fragment", 0x2001, 0), ("fragment_overlap", 0x2000, 16),
                 ("fragment_overlap", 0x2001, 16)]
    frames = [ethernet("02:00:00:00:00:01", ipv4(UDP, bytes([number]) * size, fragment=fragment))
              for number, (_, fragment, size) in enumerate(fragments)]
    capture = pcap.write(lab.path("fragments.pcap"), frames * _COPIES)
    Generator(lab, site, "fragments", profile="pcap", pcap=capture, rate="1kpps").report()
    expected = collections.Counter({reason: 2 * _COPIES for reason, _, _ in fragments})
    wait_until(lambda: _drops(site.ctl) == expected, f"drops to be {expected}", 20)


def test_a_packet_at_the_end_of_its_life_is_answered(lab):
    site = VethSite(lab)
    site.deploy()
    done = site.inside.run("ping", "-n", "-c", "1", "-t", "1", "-W", "2", OUTSIDE_HOST, check=False)
    assert "From 10.0.0.1" in done.stdout and "Time to live exceeded" in done.stdout, done.stdout
