"""mcp_server/bridge.py, shared.py: one kernel for all hosts of a state folder, driven by real clients and by raw lines."""

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
from agent_kernel.base.policy import MEMORY_PROFILES
from agent_kernel_mcp import hello, options
from agent_kernel_mcp.control import ask

sys.path.insert(0, str(Path(__file__).parent))
from hosts import COMMAND, PATIENCE_S, bounded, bridge, end_kernel, host, kernel_pid, kill_kernel, ok, wait_gone

INITIALIZE = {
    "jsonrpc": "2.0", "id": 0, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}  # fmt: skip
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


@pytest.fixture
def state(tmp_path):
    folder = tmp_path / "state"
    yield folder
    end_kernel(folder)


class Raw:
    """A host that writes lines itself, past the handshake."""

    def __init__(self, state, *options, **more):
        self.process = bridge(state, *options, **more)
        self.last = 0
        self.say(INITIALIZE)
        assert self.hear()["id"] == 0
        self.say(INITIALIZED)

    def say(self, *messages):
        self.process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
        self.process.stdin.flush()

    def hear(self):
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        assert ready, "no answer"
        return json.loads(self.process.stdout.readline())

    def ask(self, tool, **arguments):
        """Sends a call; its id."""
        self.last += 1
        params = {"name": tool, "arguments": arguments}
        self.say({"jsonrpc": "2.0", "id": self.last, "method": "tools/call", "params": params})
        return self.last

    def call(self, tool, **arguments):
        number = self.ask(tool, **arguments)
        while (heard := self.hear()).get("id") != number:
            pass
        return heard["result"]

    def close(self):
        self.process.stdin.close()
        status = self.process.wait(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        return status


# --- one kernel


def test_hosts_share_the_kernel_that_the_first_of_them_starts(state):
    async def main():
        async with host(state) as cursor, host(state, mode="legacy") as claude:
            await ok(cursor, "memory_add", items=[{"text": "The harbour master is called Runa"}])
            assert "Runa" in (await ok(claude, "memory_search", query="harbour master"))["hits"][0]["text"]
            assert (await ok(claude, "sandbox_run", code="print(6*7)"))["stdout"] == "42\n"
        return kernel_pid(state)

    pid = bounded(main())
    assert pid is not None, "the kernel outlives its hosts"

    async def again():
        async with host(state) as client:
            assert (await ok(client, "memory_search", query="harbour"))["hits"]

    bounded(again())
    assert kernel_pid(state) == pid


def test_hosts_that_start_at_once_start_one_kernel(state):
    async def one(n):
        async with host(state) as client:
            return (await ok(client, "sandbox_run", code=f"print({n})"))["stdout"]

    async def main():
        return await asyncio.gather(*(one(n) for n in range(6)))

    assert bounded(main()) == [f"{n}\n" for n in range(6)]
    pids = [line for line in (state / "kernel.log").read_text().splitlines() if "locked" in line]
    assert pids == []


def test_the_kernel_has_nothing_of_the_host_that_started_it(state, tmp_path):
    held, far = os.pipe()
    os.set_inheritable(far, True)  # as hosts leave them open
    raw = Raw(state, env={**os.environ, "OPENAI_API_KEY": "sk-of-the-host"}, cwd=tmp_path, close_fds=False)
    pid = kernel_pid(state)
    proc = Path(f"/proc/{pid}")
    try:
        names = {entry.partition("=")[0] for entry in (proc / "environ").read_text().split("\0") if entry}
        assert "OPENAI_API_KEY" not in names
        assert "PATH" in names
        assert str((proc / "cwd").readlink()) == "/"
        assert os.getsid(pid) != os.getsid(0)
        assert Path(f"/proc/self/fd/{far}").readlink() not in {link.readlink() for link in (proc / "fd").iterdir()}
    finally:
        os.close(held)
        os.close(far)
        assert raw.close() == 0


def test_folders_of_one_host_are_not_seen_by_the_calls_of_another(state, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "secret.txt").write_text("of mine")
    looks = f"import os; print(os.path.exists({str(mine / 'secret.txt')!r}))"

    async def main():
        async with host(state, "--folder", mine) as with_folder, host(state) as without:
            seen = [(await ok(client, "sandbox_run", code=looks))["stdout"] for client in (with_folder, without)]
            resource = json.loads((await without.read_resource("kernel://status")).contents[0].text)
            return seen, with_folder.instructions, without.instructions, resource

    seen, told, told_other, resource = bounded(main())
    assert seen == ["True\n", "False\n"]
    assert str(mine) in told
    assert str(mine) not in told_other
    assert str(mine) not in json.dumps(resource)


def test_the_operators_file_bounds_every_host(state, tmp_path):
    state.mkdir(mode=0o700)
    (state / "config.toml").write_text("folders = []\n")
    done = subprocess.run(
        [*COMMAND, "mcp", "--state", str(state), "--folder", str(tmp_path)], input=b"", capture_output=True, timeout=60
    )
    assert done.returncode == 1
    assert b"grant.denied" in done.stderr
    assert done.stdout == b""


# --- ends


def test_end_of_input_ends_the_bridge_after_what_was_asked_is_answered(state):
    raw = Raw(state)
    number = raw.ask("sandbox_run", code="print('late')")
    raw.process.stdin.close()
    lines = [json.loads(line) for line in raw.process.stdout]
    assert [line["result"]["structuredContent"]["stdout"] for line in lines if line.get("id") == number] == ["late\n"]
    assert raw.process.wait(PATIENCE_S) == 0
    raw.process.stdout.close()
    raw.process.stderr.close()


def test_one_line_from_a_pipe_is_answered(state):
    """What scripts do: everything is there, and the end of input with it, before a kernel runs."""
    lines = b"".join(json.dumps(line).encode() + b"\n" for line in (INITIALIZE, INITIALIZED))
    listing = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()  # no newline at the end
    done = subprocess.run(
        [*COMMAND, "mcp", "--state", str(state)], input=lines + listing, capture_output=True, timeout=90
    )
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [0, 1]
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_bridge_as_the_end_of_input_does(state, number):
    raw = Raw(state)
    raw.process.send_signal(number)
    assert raw.process.wait(PATIENCE_S) == 0
    raw.close()


def test_the_bridge_ends_with_the_process_that_started_it(state):
    """Also while somebody else holds its input open."""
    held, ours = os.pipe()
    code = (
        "import signal, subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); signal.pause()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *COMMAND, "mcp", "--state", str(state)],
        stdin=held,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(parent.stdout.readline())
    os.write(ours, json.dumps(INITIALIZE).encode() + b"\n")
    assert json.loads(parent.stdout.readline())["id"] == 0
    parent.kill()
    parent.wait()
    wait_gone(pid)
    parent.stdout.close()
    os.close(ours)
    os.close(held)


def test_a_kernel_that_nobody_needs_leaves(state):
    raw = Raw(state, "--idle-exit", "0.2")
    raw.call("sandbox_run", code="1")
    pid = kernel_pid(state)
    raw.close()
    wait_gone(pid)
    assert not (state / "control").exists()


def test_work_in_flight_holds_the_kernel_and_a_far_timer_does_not(state):
    sleeps = "async def main(input):\n    await kernel.sleep(3600)"
    works = "async def main(input):\n    await kernel.sandbox.run('import time; time.sleep(2)')\n    return 'done'"
    raw = Raw(state, "--idle-exit", "0.2")
    raw.call("run_start", program=sleeps, wait_s=0)
    working = raw.call("run_start", program=works, wait_s=0)["structuredContent"]["run_id"]
    pid = kernel_pid(state)
    raw.close()
    wait_gone(pid)
    raw = Raw(state)
    assert raw.call("run_get", run_id=working)["structuredContent"]["output"] == "done"
    raw.close()


def test_status_and_stop(state):
    def said(verb, *more):
        return subprocess.run(
            [*COMMAND, verb, "--state", str(state), *more], capture_output=True, text=True, timeout=60
        )

    assert said("stop").returncode == 0
    raw = Raw(state, "--agent", "cursor")
    status = json.loads(said("status", "--json").stdout)
    assert status["pid"] == kernel_pid(state)
    assert status["version"] == hello.VERSION
    assert [client["agent"] for client in status["clients"]] == ["cursor"]
    assert {"tier", "load", "sandboxes", "commit_ms"} <= set(status)
    assert said("stop").returncode == 0
    assert kernel_pid(state) is None
    assert "not_running" in said("status").stderr
    assert raw.call("memory_blocks")["structuredContent"] is not None, "the host's next call starts another"
    assert raw.close() == 0


def test_serve_in_the_foreground_is_joined_and_stays(state):
    process = subprocess.Popen([*COMMAND, "serve", "--state", str(state)], stderr=subprocess.PIPE, text=True)
    assert "hosts may come" in process.stderr.readline()
    raw = Raw(state)
    assert kernel_pid(state) == process.pid
    raw.close()
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    process.stderr.close()


# --- a kernel that ends


def test_a_kernel_that_is_killed_between_calls_is_not_noticed(state):
    async def main():
        async with host(state) as modern, host(state, mode="legacy") as legacy:
            for client in (modern, legacy):
                await ok(client, "memory_add", items=[{"text": "before"}])
            await asyncio.to_thread(kill_kernel, state)
            for client in (modern, legacy):
                assert (await ok(client, "memory_search", query="before"))["hits"]
                assert (await ok(client, "sandbox_run", code="print(1)"))["stdout"] == "1\n"

    bounded(main())


def test_a_call_that_only_reads_is_answered_by_the_next_kernel(state):
    raw = Raw(state)
    run = raw.call("run_start", program="async def main(input):\n    return await kernel.receive('go')", wait_s=0)
    run_id = run["structuredContent"]["run_id"]
    waiting = raw.ask("run_get", run_id=run_id, wait_s=30)
    raw.call("memory_blocks")  # the wait has begun
    kill_kernel(state)
    raw.call("run_send", run_id=run_id, topic="go", content={"n": 7}, wait_s=0)
    while (heard := raw.hear()).get("id") != waiting:
        pass
    assert heard["result"]["structuredContent"]["output"] == {"n": 7}
    raw.close()


def test_the_verbs_of_memory_and_runs_answer_over_the_bridge(state):
    """Their effects are stamped: nothing of what they give may be in the way of that."""
    raw = Raw(state, "--approve-in-host")
    asks = "async def main(input):\n    await kernel.receive('go')\n    return await kernel.approve('publish?')"
    run = raw.call("run_start", program=asks, wait_s=0)["structuredContent"]["run_id"]
    paused = raw.call("run_control", run_id=run, action="pause")
    resumed = raw.call("run_control", run_id=run, action="resume")
    sent = raw.call("run_send", run_id=run, topic="go", content={"n": 1}, wait_s=20)
    item = sent["structuredContent"]["waiting"][0]
    approved = raw.call("run_approve", run_id=run, item_id=item["item_id"], digest=item["digest"], decision="approve")
    added = raw.call("memory_add", items=[{"text": "a"}, {"text": "b"}])
    ids = [entry["id"] for entry in added["structuredContent"]["items"]]
    retracted = raw.call("memory_forget", ids=ids[:1], reason="test")
    erased = raw.call("memory_forget", ids=ids[1:], mode="erase", reason="test")
    edited = raw.call("memory_edit", label="l", text="t")
    for result in (paused, resumed, sent, approved, added, retracted, erased, edited):
        assert not result.get("isError"), result
    assert raw.call("run_get", run_id=run, wait_s=20)["structuredContent"]["output"] is True
    raw.close()


def test_a_sandbox_call_in_flight_fails_as_one_that_may_be_repeated(state, tmp_path):
    raw = Raw(state)
    asked = raw.ask("sandbox_run", code="import time; time.sleep(60)", timeout_s=50)
    raw.call("memory_blocks")
    kill_kernel(state)
    while (heard := raw.hear()).get("id") != asked:
        pass
    error = heard["result"]["structuredContent"]["error"]
    assert (error["code"], error["retryable"]) == ("call.interrupted", True)
    raw.close()


# --- versions


def version_of(state, *, protocol=hello.PROTOCOL, version=hello.VERSION):
    """What the kernel answers to a bridge of that version."""
    folder = hello.opened(str(state))
    sock = hello.connected(str(state), folder)
    os.close(folder)
    grants = {"folders": [], "hosts": [], "packages": False, "approve_in_host": False}
    said = {"protocol": protocol, "version": version, "cwd": "/", "agent": None, "grants": grants, "bridge": "b"}
    with sock, sock.makefile("rb") as lines:
        sock.sendall(json.dumps(said).encode() + b"\n")
        return json.loads(lines.readline())


def test_a_newer_version_replaces_a_kernel_only_when_that_is_idle(state):
    raw = Raw(state)
    pid = kernel_pid(state)
    assert "ok" in version_of(state, version="99.0.0"), "it is in use: an older one serves"
    assert "ok" in version_of(state, version="0.0.1"), "never downwards"
    assert "stop" in version_of(state, protocol=hello.PROTOCOL + 1)["error"]
    assert "newer version" in version_of(state, protocol=0)["error"]
    raw.close()
    while ask(state, "status")["clients"]:
        pass
    assert "ok" in version_of(state, version="0.0.1")
    while ask(state, "status")["clients"]:
        pass
    assert version_of(state, version="99.0.0") == {"replace": True}
    wait_gone(pid)


def test_version_and_profiles_are_those_of_the_project():
    """They are written down where the bridge can read them without importing anything."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert project["project"]["version"] == hello.VERSION
    assert options.MEMORY_PROFILES == MEMORY_PROFILES
    assert [hello.newer(one, "0.10.0") for one in ("0.9.9", "0.10.0", "0.10.1", "1", "dev")] == [
        False,
        False,
        True,
        True,
        False,
    ]


# --- the folder


def refused(state, *more):
    done = subprocess.run([*COMMAND, "mcp", "--state", str(state), *more], input=b"", capture_output=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == b""
    return done.stderr.decode()


def test_a_folder_that_is_not_ours_alone_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "state.link" in refused(tmp_path / "link")
    assert "state.not_a_folder" in refused(tmp_path / "file")
    assert "state.not_private" in refused(tmp_path / "open")


def test_a_standalone_kernel_and_a_shared_one_refuse_each_other_with_the_pid(state):
    raw = Raw(state)
    pid = kernel_pid(state)
    assert f"pid {pid}" in (line := refused(state, "--standalone"))
    assert "state.locked" in line
    raw.close()
    end_kernel(state)
    alone = Raw(state, "--standalone")
    assert f"pid {alone.process.pid}" in (line := refused(state))
    assert "state.locked" in line
    alone.close()


def test_a_path_longer_than_a_sockets_name_works():
    with tempfile.TemporaryDirectory() as above:
        state = Path(above) / ("d" * 120) / "state"
        try:
            raw = Raw(state)
            assert raw.call("memory_blocks")["structuredContent"] is not None
            raw.close()
        finally:
            end_kernel(state)


def test_a_start_that_fails_says_why(state):
    state.mkdir(mode=0o700)
    (state / "config.toml").write_text("floders = []\n")
    assert "config.invalid" in refused(state)


# --- what hosts complain about


def test_the_bridge_imports_next_to_nothing():
    code = (
        "import sys, agent_kernel_mcp.__main__, agent_kernel_mcp.bridge;"
        "print(sorted({'mcp', 'pydantic', 'uvloop', 'aiosqlite', 'agent_kernel', 'asyncio', 'subprocess', 'json'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_line_too_long_is_refused_under_its_id_and_the_next_one_served(state):
    raw = Raw(state)
    number = raw.ask("memory_add", items=[{"text": "x" * (21 << 20)}])
    while (heard := raw.hear()).get("id") != number:
        pass
    assert "argument.too_large" in heard["error"]["message"]
    assert raw.call("memory_blocks")["structuredContent"] is not None
    raw.close()


def test_a_host_that_never_reads_costs_bounded_memory_and_holds_nobody_up(state):
    deaf = Raw(state)
    os.set_blocking(deaf.process.stdin.fileno(), False)
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode() + b"\n"
    written, full = 0, 0
    while full < 20 and written < 64 << 20:
        try:
            written += os.write(deaf.process.stdin.fileno(), line * 500)
            full = 0
        except BlockingIOError:
            full += 1
            select.select([], [deaf.process.stdin], [], 0.1)
    assert full == 20, "it takes no more than it can hold"
    other = Raw(state)
    assert other.call("memory_blocks")["structuredContent"] is not None
    rss = int(Path(f"/proc/{deaf.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert rss < 100 << 20
    other.close()
    deaf.process.kill()
    deaf.process.wait()
    for stream in (deaf.process.stdin, deaf.process.stdout, deaf.process.stderr):
        with contextlib.suppress(BlockingIOError):
            stream.close()


def test_a_call_in_flight_at_the_end_of_input_costs_no_cpu_and_leaves_nothing(state):
    """The bridge gives the kernel its grace, asleep, and the kernel lets the call go."""
    raw = Raw(state)
    raw.ask("sandbox_run", code="import time; time.sleep(60)", timeout_s=50)
    raw.call("memory_blocks")
    raw.process.stdin.close()
    _, status, used = os.wait4(raw.process.pid, 0)
    raw.process.returncode = os.waitstatus_to_exitcode(status)
    assert raw.process.returncode == 0
    assert used.ru_utime + used.ru_stime < 1.0, "seconds of CPU; the grace is longer"
    while ask(state, "status")["sandboxes"]["in_use"]:
        pass
    for stream in (raw.process.stdout, raw.process.stderr):
        stream.close()


def test_what_prints_in_the_kernel_goes_into_its_log(state):
    raw = Raw(state)
    proc = Path(f"/proc/{kernel_pid(state)}/fd")
    assert {(proc / name).readlink() for name in ("1", "2")} == {state / "kernel.log"}
    assert (proc / "0").readlink() == Path(os.devnull)
    assert (
        raw.call("sandbox_run", code="print('{}'); import os; os.write(1, b'x')")["structuredContent"]["stdout"]
        == "{}\nx"
    )
    raw.close()


def test_a_kernel_whose_environment_is_removed_serves_and_then_leaves(state, tmp_path):
    """As `uvx` does when it cleans up."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    [site] = venv.glob("lib/python3*/site-packages")
    ours = next(entry for entry in sys.path if entry.startswith(sys.prefix) and entry.endswith("site-packages"))
    (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    raw = Raw(state, python=venv / "bin/python")
    pid = kernel_pid(state)
    shutil.rmtree(venv)
    assert raw.call("sandbox_run", code="print(6*7)")["structuredContent"]["stdout"] == "42\n"
    assert raw.call("memory_add", items=[{"text": "after"}])["structuredContent"]["items"]
    raw.close()
    wait_gone(pid)


def test_output_that_nobody_reads_any_more_ends_the_bridge(state):
    raw = Raw(state)
    raw.process.stdout.close()
    assert raw.process.wait(PATIENCE_S) == 0
    raw.process.stdin.close()
    raw.process.stderr.close()


def test_a_question_of_the_kernel_before_is_not_answered_for_the_next(state):
    """A person's late yes to the form of a kernel that was killed must not approve what the next one asks."""
    asks = "async def main(input):\n    return await kernel.approve(input['q'])"
    raw = Raw.__new__(Raw)
    raw.process, raw.last = bridge(state), 0
    capable = json.loads(json.dumps(INITIALIZE))
    capable["params"]["capabilities"] = {"elicitation": {}}
    raw.say(capable)
    raw.hear()
    raw.say(INITIALIZED)
    raw.ask("run_start", program=asks, input={"q": "harmless?"}, wait_s=20)
    first = raw.hear()
    assert first["method"] == "elicitation/create"
    kill_kernel(state)
    raw.ask("run_start", program=asks, input={"q": "delete everything?"}, wait_s=20)
    while (second := raw.hear()).get("method") != "elicitation/create" or "delete" not in second["params"]["message"]:
        pass
    assert second["id"] != first["id"]
    raw.say({"jsonrpc": "2.0", "id": first["id"], "result": {"action": "accept", "content": {"decision": "approve"}}})
    assert raw.call("run_get")["structuredContent"]["runs"][0]["status"] == "input_required"
    raw.close()
