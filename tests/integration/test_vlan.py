"""Ports in VLANs. The host inside is made of single frames: kernels need not know of VLANs."""

import struct

from fixtures.frames import ETHERTYPE_IPV4, ETHERTYPE_VLAN, ICMP, UDP, ethernet, exchange, icmp, ipv4, send, udp
from fixtures.lab import CHAIN, OUTSIDE_HOST, VethSite
from fixtures.waiting import wait_until

_SERVICE_VLAN = 0x88A8
_HOST_MAC = "02:00:00:00:00:02"
_ECHO_REQUEST, _ECHO_REPLY = 8, 0


def _site(lab, vlan):
    ports = [
        {"name": "inside", "device": "net_af_packet0,iface=fk-in", "role": "inside", "addresses": ["10.0.0.1/24"],
         "vlan": vlan, "neighbours": [{"address": "10.0.0.2", "mac": _HOST_MAC}]},
        {"name": "outside", "device": "net_af_packet1,iface=fk-out", "role": "outside",
         "addresses": ["203.0.113.1/24"], "routes": [{"prefix": "0.0.0.0/0", "via": OUTSIDE_HOST}]},
    ]
    site = VethSite(lab, ports=ports)
    site.deploy()
    return site


def _mac(site):
    return next(port["mac"] for port in site.ctl.node()["ports"] if port["name"] == "inside")


def _tagged(mac, packet, *tags):
    """A frame with these (EtherType, VLAN) tags, the outermost first."""
    kind = ETHERTYPE_IPV4
    for ethertype, vlan in reversed(tags):
        packet = struct.pack("!HH", vlan, kind) + packet
        kind = ethertype
    return ethernet(mac, packet, kind, source=_HOST_MAC)


def _echo_replies(site, sent, *tags):
    """Echo replies with exactly these tags, among what comes back."""
    mac = bytes.fromhex(_HOST_MAC.replace(":", ""))
    header = b"".join(struct.pack("!HH", ethertype, vlan) for ethertype, vlan in tags) + struct.pack("!H", ETHERTYPE_IPV4)
    found = exchange(site.inside, "eth0", [sent], 2)
    return [frame for frame in found if frame[:6] == mac and frame[12:12 + len(header)] == header
            and frame[12 + len(header) + 9] == ICMP and frame[12 + len(header) + 20] == _ECHO_REPLY]


def test_port_in_a_vlan(lab):
    site = _site(lab, 100)
    tag = (ETHERTYPE_VLAN, 100)
    for target in (OUTSIDE_HOST, "10.0.0.1"):
        request = _tagged(_mac(site), ipv4(ICMP, icmp(_ECHO_REQUEST, b"x" * 40), destination=target), tag)
        assert _echo_replies(site, request, tag), f"{target}: {site.ctl.node()}"


def test_port_in_a_vlan_of_a_vlan(lab):
    site = _site(lab, [200, 100])
    tags = [(_SERVICE_VLAN, 200), (ETHERTYPE_VLAN, 100)]
    request = _tagged(_mac(site), ipv4(ICMP, icmp(_ECHO_REQUEST, b"x" * 40)), *tags)
    assert _echo_replies(site, request, *tags), site.ctl.node()


def test_arp_is_answered_in_the_vlan(lab):
    site = _site(lab, 100)
    question = bytes.fromhex("0001080006040001") + bytes.fromhex(_HOST_MAC.replace(":", "")) + \
        bytes([10, 0, 0, 2]) + bytes(6) + bytes([10, 0, 0, 1])
    broadcast = "ff:ff:ff:ff:ff:ff"
    frame = ethernet(broadcast, struct.pack("!HH", 100, 0x0806) + question, ETHERTYPE_VLAN, source=_HOST_MAC)
    answers = [got for got in exchange(site.inside, "eth0", [frame], 2)
               if got[12:18] == struct.pack("!HHH", ETHERTYPE_VLAN, 100, 0x0806) and got[18 + 7] == 2]
    assert answers and answers[0][18 + 14:18 + 18] == bytes([10, 0, 0, 1]), answers


def test_frames_of_other_vlans_are_dropped_and_counted(lab):
    site = _site(lab, 100)
    mac, packet = _mac(site), ipv4(UDP, udp())

    def dropped():
        port = next(port for port in site.ctl.node()["ports"] if port["name"] == "inside")
        return port.get("drops", {}).get("wrong_vlan", 0)

    def forwarded():
        return site.ctl.chain_on_node(CHAIN).get("forwarded_packets", 0)

    wrong = [[], [(ETHERTYPE_VLAN, 101)], [(ETHERTYPE_VLAN, 100)] * 2, [(ETHERTYPE_VLAN, 101), (ETHERTYPE_VLAN, 100)]]
    before, through = dropped(), forwarded()
    send(site.inside, "eth0", [_tagged(mac, packet, *tags) for tags in wrong])
    wait_until(lambda: dropped() >= before + len(wrong), "the drops", 10)
    assert forwarded() == through
