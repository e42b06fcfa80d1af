"""Taste and structure, as checks."""

import os
import re
import shutil
import subprocess

import yaml

from fixtures import paths
from fixtures.outcome import Skipped
from fixtures.process import run

_OUR_FOLDERS = ("dataplane", "nfs", "state", "controller", "tests")
_CODE = (".h", ".cc", ".py", ".sh", ".proto")
_MOST_LINES = 800
_INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]', re.M)


def _files(*folders, endings=_CODE):
    for folder in folders:
        for where, _, names in os.walk(os.path.join(paths.ROOT, folder)):
            for name in sorted(names):
                if name.endswith(endings):
                    yield os.path.join(where, name)


def _read(path):
    with open(path, errors="replace") as file:
        return file.read()


def _relative(path):
    return os.path.relpath(path, paths.ROOT)


def _includes(folders, unwanted):
    """["file: header"] of the includes in `folders` that match `unwanted`."""
    return [f"{_relative(path)}: {header}" for path in _files(*folders, endings=(".h", ".cc"))
            for header in _INCLUDE.findall(_read(path)) if unwanted.match(header)]


def _none(offenders, rule):
    assert not offenders, f"{rule}:\n  " + "\n  ".join(offenders)


def test_only_the_dataplane_includes_dpdk():
    _none(_includes(("nfs", "state", "controller"), re.compile(r"rte_|eal_")), "DPDK belongs to dataplane/")


def test_only_the_state_pool_includes_libpmem():
    _none(_includes(("dataplane", "nfs", "controller"), re.compile(r"libpmem|libpmemobj")), "libpmem belongs to state/")


def test_dependencies_point_one_way():
    """controller -> dataplane (its .proto) -> nfs -> state."""
    _none(_includes(("state",), re.compile(r"(nfs|dataplane|controller)/")), "state/ depends on nothing above it")
    _none(_includes(("nfs",), re.compile(r"(dataplane|controller)/")), "nfs/ depends on state/ only")
    _none(_includes(("dataplane",), re.compile(r"controller/")), "dataplane/ does not know the controller")
    _none(_includes(("controller",), re.compile(r"dataplane/(?!.*\.pb\.h)")), "controller/ talks to a node by gRPC only")


def test_no_file_is_too_long():
    _none([f"{_relative(path)}: {count} lines" for path in _files(*_OUR_FOLDERS)
           if (count := _read(path).count("\n")) > _MOST_LINES], f"at most {_MOST_LINES} lines")


def test_headers_open_with_their_purpose():
    _none([_relative(path) for path in _files("dataplane", "nfs", "state", "controller", endings=(".h",))
           if not _read(path).startswith("//")], "a header opens with a comment")


def test_files_named_in_documents_exist():
    """Every path with a folder of ours in it, and every relative link, in README.md and docs/."""
    named = re.compile(r"`((?:%s|configs|docs)/[\w./-]+\.\w+|\.ci/run)`" % "|".join(_OUR_FOLDERS))
    link = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
    documents = list(_files("docs", endings=(".md",)))
    documents += [path for path in [os.path.join(paths.ROOT, "README.md")] if os.path.exists(path)]
    missing = []
    for document in documents:
        text = _read(document)
        for name in named.findall(text):
            if not os.path.exists(os.path.join(paths.ROOT, name)):
                missing.append(f"{_relative(document)}: {name}")
        for name in link.findall(re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)):
            if not os.path.exists(os.path.join(os.path.dirname(document), name)):
                missing.append(f"{_relative(document)}: {name}")
    _none(missing, "documents name files that are there")


def test_documents_show_the_source_as_it_is():
    """A code block whose first line names a file ("```cpp nfs/dscp/dscp.h") is part of that file, line for line."""
    block = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.M | re.S)
    shown = [(_relative(document), name, text) for document in _files("docs", endings=(".md",))
             for name, text in block.findall(_read(document))]
    assert any(document == os.path.join("docs", "functions.md") for document, _, _ in shown), "the guide shows no source"
    _none([f"{document}: {name}: {text.splitlines()[0]}" for document, name, text in shown
           if "\n" + text not in "\n" + _read(os.path.join(paths.ROOT, name)) + "\n"], "documents show the source as it is")


def test_tests_named_for_requirements_exist():
    """Every `Suite.Name` of docs/nat44.md is a GoogleTest of nfs/ or dataplane/."""
    defined = set()
    for path in _files("nfs", "dataplane", endings=("_test.cc",)):
        defined.update(f"{suite}.{name}" for suite, name in
                       re.findall(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", _read(path), re.M))
    named = re.findall(r"`([A-Z]\w+\.[A-Z]\w+)`", _read(os.path.join(paths.ROOT, "docs", "nat44.md")))
    assert named, "docs/nat44.md names no test"
    _none([name for name in named if name not in defined], "docs/nat44.md names tests that are there")


def _first_cells(document, heading):
    """The names in the first cells of the tables below a heading of a document, in order."""
    text = _read(os.path.join(paths.ROOT, "docs", document))
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert section, f"docs/{document} has no section {heading}"
    cells = re.findall(r"^\| (`[^|]*`) \|", section[1], re.M)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def _differences(documented, defined, what):
    twice = sorted({name for name in documented if documented.count(name) > 1})
    _none([f"{name}: not in the document" for name in sorted(defined - set(documented))] +
          [f"{name}: not in the source" for name in sorted(set(documented) - defined)] +
          [f"{name}: twice" for name in twice], what)


def test_every_drop_reason_is_explained():
    """The table of docs/operations.md has a row for each reason of the source, and no other; and each is somebody's."""
    names = dict(re.findall(r'case DropReason::(k\w+):\s+return "(\w+)";',
                            _read(os.path.join(paths.ROOT, "nfs", "drop_reason.cc"))))
    assert names.pop("kNone", "") == "none", "the names of the drop reasons are not found"
    _differences(_first_cells("operations.md", "Drop reasons"), set(names.values()),
                 "docs/operations.md explains each drop reason")
    used = set()
    for path in _files("nfs", "dataplane", endings=(".h", ".cc")):
        if not path.endswith("_test.cc") and "drop_reason." not in path:
            used.update(re.findall(r"DropReason::(k\w+)", _read(path)))
    _none([name for reason, name in names.items() if reason not in used], "each drop reason is given by something")


def test_every_command_is_explained():
    """The table of docs/operations.md has each command of flowkeepctl."""
    source = _read(os.path.join(paths.ROOT, "controller", "ctl", "command_line.cc"))
    table = re.search(r"kCommands = \{\{(.*?)\}\};", source, re.S)
    commands = set(re.findall(r'^      \{"(\w+)"', table[1], re.M))
    assert {"apply", "logs"} <= commands, commands
    documented = {name.split()[0] for name in _first_cells("operations.md", "Commands")}
    _differences(sorted(documented), commands, "docs/operations.md explains each command")


def test_every_option_of_a_function_is_explained():
    """docs/operations.md names each field of the functions' configurations, nested ones too."""
    text = _read(os.path.join(paths.ROOT, "docs", "operations.md"))
    section = re.search(r"^## Chain configuration\n(.*?)(?=^## )", text, re.M | re.S)[1]
    words = {word for code in re.findall(r"`([^`\n]+)`", section) for word in re.findall(r"\w+", code)}
    missing = []
    for proto in _files("nfs", endings=(".proto",)):
        if os.sep + "faulty" + os.sep in proto:
            continue
        fields = re.findall(r"^  (?:repeated )?\w+ (\w+) = \d+;", _read(proto), re.M)
        assert fields, proto
        missing += [f"{_relative(proto)}: {field}" for field in fields if field not in words]
    _none(missing, "docs/operations.md names each option")


def test_code_is_formatted():
    if not shutil.which("clang-format"):
        raise Skipped("clang-format is not installed")
    files = list(_files("dataplane", "nfs", "state", "controller", endings=(".h", ".cc")))
    done = run("clang-format", "--dry-run", "--Werror", *files, check=False, cwd=paths.ROOT, timeout_s=120)
    unformatted = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error", done.stderr, re.M)))
    _none([_relative(path) for path in unformatted], "clang-format -i wants to change")


def test_python_compiles_and_shell_parses():
    for path in _files("tests", endings=(".py",)):
        compile(_read(path), path, "exec")
    for script in ("flowkeep", os.path.join(".ci", "run")):
        run("bash", "-n", os.path.join(paths.ROOT, script))


def test_every_configuration_loads():
    refused = []
    for path in _files("configs", endings=(".yaml",)):
        documents = [document for document in yaml.safe_load_all(_read(path)) if document]
        kind = _relative(path).split(os.sep)[1]
        if not documents:
            refused.append(f"{_relative(path)}: empty")
        elif kind == "nodes":
            done = subprocess.run([paths.NODE, "--check-config", "--config", path], capture_output=True, text=True,
                                  timeout=30)
            if done.returncode != 0:
                refused.append(f"{_relative(path)}: {done.stdout}{done.stderr}")
        elif kind == "chains":     # deployed by tests/integration/test_configurations.py
            if any(document.get("kind") != "Chain" for document in documents):
                refused.append(f"{_relative(path)}: not of kind Chain")
        else:
            refused.append(f"{_relative(path)}: no test loads configs/{kind}")
    _none(refused, "every file of configs/ loads")
