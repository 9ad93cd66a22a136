"""What becomes of the sandbox on machines that allow less: the tier it reports is the one it has, and less is a refusal or said aloud."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from boxes import processes_with
from worlds import CONTAINER, NO_LANDLOCK, NO_SECCOMP, NO_USER_NAMESPACES, start

ROOT = os.geteuid() == 0
NAMESPACES = {"user": "user", "mount": "mnt", "pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}  # fmt: skip

WITHIN = """
import asyncio, json, sys
from pathlib import Path
from agent_kernel.base.errors import HostError
from boxes import Opened

async def main():
    given = json.loads(Path(sys.argv[1]).read_text())
    opened = Opened(Path(given["folder"]), given["tier"], tier_must_be_had=False)
    sandbox = await opened.open()
    said = {"tier": sandbox.tier, "degraded": sandbox.degraded}
    try:
        r = await sandbox.run(given["code"])
        said |= {"result_tier": r.tier, "layers": r.layers, "result_degraded": r.degraded, "stdout": r.stdout, "stderr": r.stderr}
        held = [asyncio.ensure_future(sandbox.run(code, language=language, timeout_s=600)) for language, code in given["held"]]
    except HostError as error:
        said |= {"error": [error.code, error.message]}
        held = []
    print(json.dumps(said), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    await opened.close()

asyncio.run(main())
"""

SMOKE = """
import os, socket
def tried(name, act):
    try:
        act()
    except OSError as error:
        print(name, "refused", error)
    else:
        print(name, "ESCAPED")
tried("read", lambda: open({canary!r}).read())
tried("list", lambda: os.listdir({folder!r}))
tried("cut", lambda: os.truncate({canary!r}, 0))
tried("mode", lambda: os.chmod({canary!r}, 0o777))
tried("write", lambda: open({folder!r} + "/planted", "w"))
tried("signal", lambda: os.kill({victim}, 0))
tried("tcp", lambda: socket.create_connection(("127.0.0.1", {port}), 2))
tried("abstract", lambda: socket.socket(socket.AF_UNIX).connect({abstract!r}))
tried("memory file", lambda: os.memfd_create("m"))
open("mine", "w").write("x")
print("all tried")
"""


@pytest.fixture
def around(tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("SECRET")
    tcp = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0tiers-{os.getpid()}")
    abstract.listen()
    victim = subprocess.Popen(["sleep", "600"])
    yield {
        "canary": str(canary), "folder": str(tmp_path), "port": tcp.getsockname()[1], "victim": victim.pid,
        "abstract": f"\0tiers-{os.getpid()}",
    }  # fmt: skip
    alive = victim.poll() is None
    victim.kill()
    victim.wait()
    tcp.close()
    abstract.close()
    assert alive
    assert canary.read_text() == "SECRET"
    assert not (tmp_path / "planted").exists()


class World:
    """A kernel in a smaller world, and what it says of itself; the guests it holds can be looked at from outside."""

    def __init__(self, tmp_path, around, rules, *, how="", tier=None):
        self.marks = {"python": f"{os.getpid()}.125", "bash": f"{os.getpid()}.25"}
        held = [
            ["python", f"import os; os.execv('/bin/sleep', ['sleep', {self.marks['python']!r}])"],
            ["bash", f"exec sleep {self.marks['bash']}"],
        ]
        given = tmp_path / "given.json"
        folder = str(tmp_path / "state")
        given.write_text(json.dumps({"folder": folder, "tier": tier, "code": SMOKE.format(**around), "held": held}))
        self.process = start(rules, sys.executable, "-c", WITHIN, str(given), how=how)
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate(timeout=60)[1])
        self.said = json.loads(line)

    def guest(self, language: str) -> int:
        for _ in range(1000):
            if found := processes_with(self.marks[language]):
                return found[0]
            subprocess.run(["sleep", "0.02"], check=True)
        raise AssertionError(f"no {language} guest")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate("end\n", timeout=60)
        assert not any(processes_with(mark) for mark in self.marks.values())


def status_of(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def assert_true_from_outside(said: dict, pid: int, kernel: int) -> None:
    status = status_of(pid)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
    assert {"seccomp allow-list", "no_new_privs"} <= set(said["layers"])
    uids = set(status["Uid"].split())
    if ROOT:
        assert "0" not in uids
        assert len(uids) == 1
        for layer, name in NAMESPACES.items():
            own = Path(f"/proc/{pid}/ns/{name}").readlink() != Path(f"/proc/{kernel}/ns/{name}").readlink()
            assert own == (f"{layer} namespace" in said["layers"]), layer
    else:
        assert uids == {str(os.geteuid())}


def assert_contained(said: dict) -> None:
    assert "ESCAPED" not in said["stdout"], said["stdout"]
    assert said["stdout"].endswith("all tried\n"), said["stderr"]


CONFINED_WORLDS = {"container": (CONTAINER, "capabilities"), "no user namespaces": (NO_USER_NAMESPACES, "")}
if not ROOT:
    CONFINED_WORLDS["user namespaces switched off"] = ([], "sysctl")


@pytest.mark.parametrize("world", CONFINED_WORLDS)
def test_without_namespaces_the_tier_is_confined_and_every_result_says_what_it_lacks(tmp_path, around, world):
    rules, how = CONFINED_WORLDS[world]
    with World(tmp_path, around, rules, how=how) as kernel:
        said = kernel.said
        assert (said["tier"], said["result_tier"]) == ("confined", "confined"), said
        assert said["degraded"] == said["result_degraded"]
        assert said["degraded"][0].startswith("not full: Tier full: ")
        assert "namespace" in said["degraded"][0]
        assert not any("namespace" in layer or layer in ("private root", "no capabilities") for layer in said["layers"])
        assert ("own uid" in said["layers"]) == ROOT
        assert any(layer.startswith("landlock abi") for layer in said["layers"])
        assert "landlock: signals, abstract sockets" in said["layers"]
        assert_contained(said)
        for language in ("python", "bash"):
            assert_true_from_outside(said, kernel.guest(language), kernel.process.pid)


def test_on_this_machine_as_it_is_the_tier_is_full_and_nothing_is_lacking(tmp_path, around):
    with World(tmp_path, around, []) as kernel:
        said = kernel.said
        assert (said["tier"], said["result_tier"], said["degraded"]) == ("full", "full", []), said
        assert {f"{layer} namespace" for layer in NAMESPACES} <= set(said["layers"])
        assert_contained(said)
        for language in ("python", "bash"):
            assert_true_from_outside(said, kernel.guest(language), kernel.process.pid)


@pytest.mark.parametrize(
    ("rules", "reasons"),
    [
        (NO_LANDLOCK, ["landlock: this kernel has no Landlock"]),
        (NO_SECCOMP, ["seccomp"]),
        (
            CONTAINER + NO_LANDLOCK,
            ["Tier full: ", "namespace: ", "Tier confined: ", "landlock: this kernel has no Landlock"],
        ),
    ],
)
def test_what_no_tier_can_do_without_is_a_refusal_with_the_reason(tmp_path, around, rules, reasons):
    """Landlock among it: namespaces alone would contain, but a tier that lacks a layer is not `full`."""
    with World(tmp_path, around, rules) as kernel:
        code, message = kernel.said["error"]
        assert (kernel.said["tier"], code) == ("none", "sandbox.unavailable")
        assert all(reason in message for reason in reasons), message
        assert "agent-kernel doctor" in message


WORLDS = {
    "container": (CONTAINER, "confined", {"user namespace", "mount namespace", "private root"}, "container"),
    "no landlock": (NO_LANDLOCK, "none", {"landlock"}, "5.13"),
    "no seccomp": (NO_SECCOMP, "none", {"seccomp"}, "CONFIG_SECCOMP_FILTER"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_doctor_says_the_same_tier_and_names_what_is_missing_and_how_to_get_it(tmp_path, world):
    rules, tier, failed, advice = WORLDS[world]
    command = (sys.executable, "-m", "agent_kernel_mcp", "doctor", "--json", "--state", str(tmp_path / "state"))
    process = start(rules, *command, how="capabilities")
    out, problem = process.communicate(timeout=120)
    report = json.loads(out)
    assert report["tier"] == tier, problem
    assert process.returncode == (0 if tier == "confined" else 1)
    assert failed <= {layer["name"] for layer in report["sandbox"]["layers"] if not layer["works"]}
    assert any(advice in line for line in report["sandbox"]["missing"])
    assert not any("namespace" in layer for layer in report["sandbox"].get("applied", ()))


def test_a_tier_that_was_asked_for_is_that_one_or_none(tmp_path, around):
    """Never the next lower one: whoever asked for `full` must not get `confined`."""
    with World(tmp_path, around, CONTAINER, tier="full") as kernel:
        assert kernel.said["tier"] == "none"
        assert kernel.said["error"][0] == "sandbox.unavailable"
        assert "Tier confined" not in kernel.said["error"][1]
