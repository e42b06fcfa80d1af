"""Wrong input is answered with the field's name, and nothing changes."""

import copy
import os
import struct

from fixtures import paths
from fixtures.controller import Ctl
from fixtures.lab import CHAIN, MemifSite, edge_chain
from fixtures.node import Node, configuration, write_yaml
from fixtures.process import run
from fixtures.waiting import wait_until


_VERSION_OFFSET = 8    # in the superblock: docs/state-format.md


def _function(document, kind):
    return next(function for function in document["spec"]["functions"] if function["type"] == kind)


def _changed(change):
    document = edge_chain()
    change(document)
    return document


def _wrong_chains():
    """[(what is wrong, the chain, what the answer must name)]."""
    def second(document):
        document["metadata"]["name"] = "second"
    return [
        ("missing port", _changed(lambda d: d["spec"].update(outside="nowhere")), ("spec.outside", "nowhere")),
        ("same port twice", _changed(lambda d: d["spec"].update(outside=d["spec"]["inside"])), ("spec.outside",)),
        ("port of another chain", _changed(second), ("spec.inside", CHAIN)),
        ("unknown function", _changed(lambda d: _function(d, "nat44").update(type="nat99")),
         ("spec.functions[1].type", "nat99", "nat44")),
        ("bad prefix", _changed(lambda d: _function(d, "firewall")["config"]["rules"].insert(
            0, {"name": "bad", "action": "accept", "destination": ["10.0.0.0/33"]})),
         ("spec.functions[0].config.rules[0].destination", "10.0.0.0/33")),
        ("unknown field", _changed(lambda d: _function(d, "nat44")["config"].update(colour="red")),
         ("spec.functions[1].config", "colour")),
        ("no external address", _changed(lambda d: _function(d, "nat44").update(config={})), ("external_addresses",)),
        ("buckets no power of two", _changed(lambda d: d["spec"].update(buckets=100)), ("spec.buckets", "100")),
        ("too many workers", _changed(lambda d: d["spec"].update(workers=99)), ("spec.workers", "99")),
        ("bad name", _changed(lambda d: d["metadata"].update(name="No Name")), ("name", "No Name")),
    ]


def test_wrong_chains(lab):
    site = MemifSite(lab)
    site.deploy()
    before = site.ctl.list("chains")[0]
    wrong = []
    for what, document, named in _wrong_chains():
        answer = site.ctl.apply(lab.write_yaml("wrong.yaml", document), check=False)
        if answer.returncode != site.ctl.EXIT_REFUSED or not all(word in answer.stderr for word in named):
            wrong.append(f"{what}: status {answer.returncode}, {answer.stderr.strip()!r} (must name {named})")
    assert not wrong, "\n".join(wrong)
    chains = site.ctl.list("chains")
    assert len(chains) == 1 and chains[0]["revision"] == before["revision"] and chains[0]["spec"] == before["spec"]
    assert site.ctl.chain_on_node(CHAIN)["revision"] == before["revision"]


def test_not_found_and_usage(lab):
    site = MemifSite(lab)
    missing = site.ctl("describe", "chain", "nothing", check=False)
    assert missing.returncode == site.ctl.EXIT_NOT_FOUND and "nothing" in missing.stderr, missing
    assert site.ctl("delete", "chain", "nothing", check=False).returncode == site.ctl.EXIT_NOT_FOUND
    assert site.ctl("frobnicate", check=False).returncode == site.ctl.EXIT_USAGE
    assert site.ctl("apply", check=False).returncode == site.ctl.EXIT_USAGE
    unreadable = site.ctl.apply("/nonexistent.yaml", check=False)
    assert unreadable.returncode in (site.ctl.EXIT_FAILED, site.ctl.EXIT_REFUSED) and "/nonexistent.yaml" in unreadable.stderr


def test_controller_down():
    ctl = Ctl("127.0.0.1:7999")
    for command in (("get", "chains"), ("stats",), ("apply", "-f", os.path.join(paths.CHAINS, "edge.yaml"))):
        answer = ctl(*command, check=False)
        assert answer.returncode == ctl.EXIT_UNREACHABLE and "127.0.0.1:7999" in answer.stderr, answer


# ---- Nodes. No controller is needed: a node that refuses its configuration never asks for one.

def _document(lab, **changes):
    return configuration(lab.directory, f"net_memif0,role=server,id=0,socket={lab.path('a.sock')},socket-abstract=no",
                         f"net_memif1,role=server,id=0,socket={lab.path('b.sock')},socket-abstract=no", **changes)


def _assert_refused(lab, document, *named):
    """The node ends by itself, not with success and not by a signal, and says why."""
    node = lab.add(Node(lab.directory, document, name="wrong-node"))
    status = node.wait(30)
    said = node.output()
    assert 0 < status < 128, f"status {status}\n{said}"
    missing = [word for word in named if word not in said]
    assert not missing, f"the answer does not name {missing}:\n{said}"


def test_a_port_in_two_roles(lab):
    document = _document(lab)
    document["ports"][1]["device"] = document["ports"][0]["device"]
    _assert_refused(lab, document, "ports[1].device", "inside", "outside")


def test_wrong_node_configurations(lab):
    good = _document(lab)
    cases = [
        (lambda d: d["ports"][1].update(name="inside"), ("ports[1].name",)),
        (lambda d: d["ports"][0].update(role="sideways"), ("ports[0].role", "sideways")),
        (lambda d: d["ports"][0].update(addresses=["10.0.0.1/40"]), ("ports[0].addresses", "10.0.0.1/40")),
        (lambda d: d["packets"].update(hugepages="perhaps"), ("packets.hugepages", "perhaps")),
        (lambda d: d["packets"].update(count=0), ("packets.count",)),
        (lambda d: d["pool"].update(size="a lot"), ("pool.size", "a lot")),
        (lambda d: d["workers"].update(slots=1000), ("workers.slots", "1000")),
        (lambda d: d.update(colour="red"), ("colour",)),
    ]
    wrong = []
    for change, named in cases:
        document = copy.deepcopy(good)
        change(document)
        path = write_yaml(lab.path("wrong.yaml"), document)
        done = run(paths.NODE, "--check-config", "--config", path, check=False)
        said = done.stdout + done.stderr
        if done.returncode == 0 or not all(word in said for word in named):
            wrong.append(f"status {done.returncode}, {said.strip()!r} (must name {named})")
    assert not wrong, "\n".join(wrong)
    good_path = write_yaml(lab.path("good.yaml"), good)
    assert run(paths.NODE, "--check-config", "--config", good_path).returncode == 0


def test_memory_that_cannot_be_reserved(lab):
    _assert_refused(lab, _document(lab, packets={"count": 4_000_000, "hugepages": "always"}), "packets")


def test_unknown_device(lab):
    document = _document(lab)
    document["ports"][0]["device"] = "net_af_packet0,iface=nowhere"
    _assert_refused(lab, document, "ports[inside].device", "nowhere")


def test_an_interface_that_carries_too_little(lab):
    run("ip", "link", "add", "fk-small", "mtu", 500, "type", "veth", "peer", "name", "fk-peer")
    document = _document(lab)
    document["ports"][0]["device"] = "net_af_packet0,iface=fk-small"
    _assert_refused(lab, document, "ports[inside].device", "500", "576 or more")


def _pool(lab):
    """A pool that a node has made and left."""
    document = _document(lab)
    node = lab.add(Node(lab.directory, document))
    wait_until(lambda: os.path.exists(lab.path("a.sock")) or not node.running(), "the node to be up")
    assert node.running(), node.tail()
    assert node.stop() == 0, node.tail()
    return document


def test_pool_of_another_size(lab):
    document = _pool(lab)
    document["pool"]["size"] = "512M"
    _assert_refused(lab, document, "pool", document["pool"]["path"])
    assert os.path.getsize(document["pool"]["path"]) == 256 << 20


def test_pool_of_another_version(lab):
    document = _pool(lab)
    path = document["pool"]["path"]
    with open(path, "r+b") as file:
        file.seek(_VERSION_OFFSET)
        assert struct.unpack("<I", file.read(4)) == (3,)
        file.seek(_VERSION_OFFSET)
        file.write(struct.pack("<I", 99))
    _assert_refused(lab, document, "version", "99", path)


def test_a_file_that_is_no_pool_is_not_touched(lab):
    document = _document(lab)
    path = document["pool"]["path"]
    content = b"someone's file\n" * 1000
    with open(path, "wb") as file:
        file.write(content)
    _assert_refused(lab, document, path)
    with open(path, "rb") as file:
        assert file.read() == content


def test_two_nodes_on_one_pool(lab):
    document = _document(lab)
    node = lab.add(Node(lab.directory, document))
    wait_until(lambda: os.path.exists(lab.path("a.sock")) or not node.running(), "the node to be up")
    second = _document(lab, agent={"listen": "127.0.0.1:7481"}, node={"name": "node-2"},
                       state_dir=lab.path("state-2"))
    for port, name in zip(second["ports"], "cd"):
        port["device"] = f"net_memif0,role=server,id=0,socket={lab.path(name + '.sock')},socket-abstract=no"
    second["ports"][1]["device"] = second["ports"][1]["device"].replace("net_memif0", "net_memif1")
    _assert_refused(lab, second, document["pool"]["path"])
    assert node.running()
