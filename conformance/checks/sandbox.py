"""Checks of sandbox_run and sandbox_read. The suite plays the host: it owns a canary file, a listener and a marked process."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..driver import Driver
from ..registry import Failed, Untestable, check, expect
from .protocol import raw_call

AUDIT_PAGES = 5


@check("sandbox.run.keeps-streams-apart")
async def streams_are_kept_apart(c: Driver) -> None:
    result = await c.python(f"import sys\nprint('out{c.token}')\nprint('err{c.token}', file=sys.stderr)")
    expect(result.get("exit_code") == 0, f"exit_code is {result.get('exit_code')!r}")
    expect(result.get("stdout") == f"out{c.token}\n", f"stdout is {result.get('stdout')!r}")
    expect(result.get("stderr") == f"err{c.token}\n", f"stderr is {result.get('stderr')!r}")


@check("sandbox.run.failing-code-is-a-result")
async def failing_code_is_a_result(c: Driver) -> None:
    result = await c.python(f"print('before')\nraise ValueError('{c.token}')")
    expect(result.get("exit_code") == 1, f"exit_code is {result.get('exit_code')!r}")
    expect(result.get("stdout") == "before\n", f"what was printed before is lost: {result}")
    told = result.get("stderr", "")
    expect("ValueError" in told and c.token in told and "line 2" in told, f"no traceback on stderr: {told!r}")
    result = await c.python("import sys\nsys.exit(7)")
    expect(result.get("exit_code") == 7, f"exit_code is {result.get('exit_code')!r} after sys.exit(7)")


@check("sandbox.run.value-is-the-last-expression")
async def value_is_the_last_expression(c: Driver) -> None:
    result = await c.python("x = 6\n{'answer': x * 7}")
    expect(result.get("value") == "{'answer': 42}", f"value is {result.get('value')!r}")
    for code in ("None", "x = 5", "print(1)"):
        result = await c.python(code)
        expect("value" not in result, f"{code!r} has the value {result.get('value')!r}")
    long = (await c.python("'x' * 100_000")).get("value", "")
    expect(1000 < len(long) < 2200, f"the value of a long string is {len(long)} characters long")


@check("sandbox.run.bash")
async def bash_runs(c: Driver) -> None:
    code = f"for n in 1 2 3; do echo ${{n}}{c.token}; done | tail -1\nexit 5"
    result = await c.python(code, language="bash")
    expect(result.get("exit_code") == 5, f"exit_code is {result.get('exit_code')!r}: {result}")
    expect(result.get("stdout") == f"3{c.token}\n", f"stdout is {result.get('stdout')!r}")


@check("sandbox.run.reads-stdin")
async def stdin_is_read(c: Driver) -> None:
    code = "import sys\nprint(repr(sys.stdin.read()))"
    result = await c.python(code, stdin=f"one\n{c.token}")
    expect(f"'one\\n{c.token}'" in result.get("stdout", ""), f"the guest read {result.get('stdout')!r}")
    result = await c.python(code)
    expect(result.get("stdout") == "''\n", f"without stdin the guest read {result}")


@check("sandbox.run.starts-fresh")
async def every_call_starts_fresh(c: Driver) -> None:
    leave = (
        "import builtins, json\n"
        f"builtins.left_{c.token} = 1\njson.left_{c.token} = 1\n"
        f"for path in ('left_{c.token}', '/tmp/left_{c.token}'):\n"
        "    try:\n        open(path, 'w').write('left')\n    except OSError:\n        pass\n"
    )
    look = (
        "import builtins, json, os\n"
        f"print([hasattr(builtins, 'left_{c.token}'), hasattr(json, 'left_{c.token}'),"
        f" os.path.exists('left_{c.token}'), os.path.exists('/tmp/left_{c.token}')])"
    )
    await c.python(leave)
    seen = (await c.python(look)).get("stdout")
    expect(seen == "[False, False, False, False]\n", f"left by the call before (builtin, module, file, /tmp): {seen}")


@check("sandbox.run.calls-run-side-by-side")
async def calls_run_side_by_side(c: Driver) -> None:
    slow = asyncio.create_task(c.python("import time\ntime.sleep(3)"))
    try:
        for _ in range(3):
            await c.python("1")
        expect(not slow.done(), "three quick calls were answered after the slow one that was started before them")
    finally:
        await asyncio.gather(slow, return_exceptions=True)


# --- files


@check("sandbox.files.go-in-and-come-out")
async def files_go_in_and_come_out(c: Driver) -> None:
    code = (
        "import os\n"
        "assert open('in/kept.txt').read() == 'kept'\n"
        "open('changed.txt', 'a').write('+')\n"
        "os.makedirs('deep/er', exist_ok=True)\n"
        "open('deep/er/new.txt', 'w').write('12345')\n"
    )
    result = await c.python(code, files={"in/kept.txt": "kept", "changed.txt": "old"})
    expect(result.get("exit_code") == 0, f"the files were not there: {result}")
    files = {file.get("path"): file for file in result.get("files") or []}
    expect(set(files) == {"changed.txt", "deep/er/new.txt"}, f"listed: {sorted(map(str, files))}")
    sizes = {path: file.get("size_bytes") for path, file in files.items()}
    expect(sizes == {"changed.txt": 4, "deep/er/new.txt": 5}, f"sizes: {sizes}")
    expect(all(file.get("uri") for file in files.values()), f"without a uri: {files}")


@check("sandbox.files.uri-outlives-the-sandbox")
async def uri_outlives_the_sandbox(c: Driver) -> None:
    result = await c.python(f"open('kept.txt', 'w').write('first {c.token} last')")
    uri = (result.get("files") or [{}])[0].get("uri")
    expect(uri, f"no file with a uri: {result}")
    whole = await c.ok("sandbox_read", uri=uri)
    expect(f"first {c.token} last" in json.dumps(whole), f"{uri} is {whole}")
    part = json.dumps(await c.ok("sandbox_read", uri=uri, offset=6))
    expect(f"{c.token} last" in part and "first" not in part, f"{uri} from byte 6 is {part}")


@check("sandbox.files.paths-outside-are-refused")
async def paths_outside_are_refused(c: Driver) -> None:
    target = c.place.root / f"planted-{c.token}"
    for path in (f"../planted-{c.token}", f"a/../../planted-{c.token}", str(target), f"a\0{c.token}", ".."):
        reply = await c.call("sandbox_run", code="1", files={path: "planted"})
        expect(reply.refused, f"files took the path {path!r}: {reply.text[:200]}")
        expect(reply.code == "path.outside", f"{path!r} was refused with {reply.code!r}: {reply.text[:200]}")
    expect(not target.exists(), f"{target} was written")


@check("sandbox.files.links-out-are-not-followed")
async def links_out_are_not_followed(c: Driver) -> None:
    secret = c.place.secret_file
    code = (
        f"import os\nos.symlink({str(secret)!r}, 'file')\nos.symlink({str(secret.parent)!r}, 'folder')\n"
        "open('honest.txt', 'w').write('honest')\n"
    )
    result = await c.python(code)
    expect(result.get("exit_code") == 0, f"the guest could not make a link: {result}")
    files = result.get("files") or []
    expect(any(file.get("path") == "honest.txt" for file in files), f"the file beside the links is not listed: {files}")
    for file in files:
        if file.get("uri"):
            reply = await c.call("sandbox_read", uri=file["uri"])
            expect(c.place.canary not in reply.text, f"{file['path']} brought the canary out")


# --- limits


@check("sandbox.limits.time")
async def time_is_limited(c: Driver) -> None:
    result = await c.python("print('begun', flush=True)\nwhile True: pass", timeout_s=1)
    expect(result.get("stopped_by") == "timeout", f"stopped_by is {result.get('stopped_by')!r}: {result}")
    expect("begun" in result.get("stdout", ""), f"what was printed before is lost: {result}")


@check("sandbox.limits.memory")
async def memory_is_limited(c: Driver) -> None:
    code = (
        "parts = []\nfor n in range(64):\n    parts.append(bytearray(b'x' * (16 << 20)))\nprint('had', len(parts) * 16)"
    )
    result = await c.python(code, memory_mb=128)
    expect("had 1024" not in result.get("stdout", ""), "a guest with memory_mb=128 had 1 GiB")
    told = result.get("stopped_by") == "memory" or "MemoryError" in result.get("stderr", "")
    expect(told, f"neither stopped_by memory nor MemoryError: {result}")


@check("sandbox.limits.output")
async def output_is_limited(c: Driver) -> None:
    result = await c.python("import sys\nwhile True: sys.stdout.write('y' * 65536)", timeout_s=30)
    expect(result.get("stopped_by") == "output", f"stopped_by is {result.get('stopped_by')!r}")
    expect(len(json.dumps(result)) < 16 * 1024, f"the reply is {len(json.dumps(result))} bytes long")


@check("sandbox.limits.processes")
async def processes_are_limited(c: Driver) -> None:
    code = (
        "import os, time\ncount = 0\n"
        "try:\n"
        "    for count in range(2000):\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(20)\n            os._exit(0)\n"
        "except OSError:\n    pass\n"
        "print('children', count, flush=True)\n"
    )
    result = await c.python(code, timeout_s=20)
    ended = result.get("stopped_by") in ("processes", "memory", "killed")
    count = result.get("stdout", "").rpartition("children ")[2].strip()
    expect(ended or (count.isdigit() and int(count) < 1000), f"a guest forked without a limit: {result}")
    quick = await c.python("print('still here')")
    expect(quick.get("stdout") == "still here\n", f"the call after it: {quick}")


@check("sandbox.limits.above-the-operators")
async def limits_above_the_operators_are_refused(c: Driver) -> None:
    await c.refused("limit.exceeded", "sandbox_run", code="1", memory_mb=1_000_000)


# --- isolation


@check("sandbox.isolation.no-network")
async def network_is_closed(c: Driver) -> None:
    arrived: list[str] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append("tcp")
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.setblocking(False)  # noqa: FBT003
    ports = (server.sockets[0].getsockname()[1], udp.getsockname()[1])
    code = (
        "import socket\n"
        f"for kind, port in zip((socket.SOCK_STREAM, socket.SOCK_DGRAM), {ports}):\n"
        "    try:\n"
        "        with socket.socket(socket.AF_INET, kind) as s:\n"
        "            s.settimeout(2)\n"
        "            s.connect(('127.0.0.1', port))\n"
        "            s.send(b'out')\n"
        "            print('sent')\n"
        "    except OSError as error:\n"
        "        print('refused')\n"
    )
    try:
        result = await c.python(code)
        with suppress(BlockingIOError):
            arrived.append(udp.recv(16).decode())
    finally:
        server.close()
        udp.close()
    expect(result.get("exit_code") == 0, f"the guest did not get to try: {result}")
    expect(not arrived, f"arrived at the host: {arrived}")
    expect(result.get("stdout", "").startswith("refused"), f"the guest connected: {result.get('stdout')!r}")


READ = (
    "import sys\ntry:\n    print(open({path!r}).read())\nexcept OSError as error:\n    print('refused', error.errno)\n"
)


@check("sandbox.isolation.no-host-files")
async def host_files_are_out_of_reach(c: Driver) -> None:
    path = str(c.place.secret_file)
    result = await c.python(READ.format(path=path))
    expect(c.place.canary not in json.dumps(result), "python read ~/.ssh of the server's user")
    expect("refused" in result.get("stdout", ""), f"the guest did not get to try: {result}")
    result = await c.python(f"cat {path} || echo refused", language="bash")
    expect(c.place.canary not in json.dumps(result), "bash read ~/.ssh of the server's user")
    expect("refused" in result.get("stdout", ""), f"bash did not get to try: {result}")


@check("sandbox.isolation.no-state-files")
async def state_files_are_out_of_reach(c: Driver) -> None:
    skill = c.place.state / "skills" / "conformance-tally" / "SKILL.md"
    code = READ.format(path=str(skill)) + (
        f"import os\ntry:\n    print('listed', os.listdir({str(c.place.state)!r}))\nexcept OSError:\n    print('closed')\n"
    )
    stdout = (await c.python(code)).get("stdout", "")
    expect("marmalade" not in stdout, "a guest read a file of the state folder")
    expect("listed" not in stdout and "closed" in stdout, f"a guest listed the state folder: {stdout!r}")


@check("sandbox.isolation.no-environment")
async def environment_is_out_of_reach(c: Driver) -> None:
    code = (
        "import glob, os\nseen = [repr(dict(os.environ))]\n"
        "for path in glob.glob('/proc/*/environ'):\n"
        "    try:\n        seen.append(open(path, errors='replace').read())\n    except OSError:\n        pass\n"
        f"print('reached' if any({c.place.canary!r} in text for text in seen) else 'clean', len(seen) > 0)\n"
    )
    stdout = (await c.python(code)).get("stdout", "")
    expect(stdout.startswith("clean"), f"the server's environment reached a guest: {stdout!r}")


async def marked_process(token: str) -> asyncio.subprocess.Process:
    """It has begun: before that its command line is still that of whoever started it."""
    argv = [sys.executable, "-I", "-S", "-c", "import time; print(flush=True); time.sleep(60)", f"marked-{token}"]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    return process


def marked(token: str) -> list[Path]:
    """The host's processes with this mark in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"marked-{token}".encode() in (entry / "cmdline").read_bytes():
                found.append(entry)
    return found


@check("sandbox.isolation.no-host-processes")
async def host_processes_are_out_of_reach(c: Driver) -> None:
    helper = await marked_process(c.token)
    try:
        if not marked(c.token):
            raise Untestable("this host has no /proc")
        code = (
            "import glob, os, signal\n"
            "def read(path):\n"
            "    try:\n        return open(path, 'rb').read()\n    except OSError:\n        return b''\n"
            f"print('sees' if any(b'marked-' + {c.token.encode()!r} in read(p) for p in glob.glob('/proc/*/cmdline')) else 'blind')\n"
            f"if {helper.pid} > 100:\n"
            "    try:\n"
            f"        os.kill({helper.pid}, signal.SIGKILL)\n"
            "        print('killed')\n"
            "    except OSError:\n        print('refused')\n"
        )
        stdout = (await c.python(code)).get("stdout", "")
        expect("sees" not in stdout and "blind" in stdout, f"a guest sees a process of the host: {stdout!r}")
        with suppress(TimeoutError):
            await asyncio.wait_for(helper.wait(), 0.2)
        expect(helper.returncode is None, "a guest killed a process of the host")
    finally:
        if helper.returncode is None:
            helper.kill()
        await helper.wait()


@check("sandbox.isolation.nothing-survives")
async def nothing_survives_the_call(c: Driver) -> None:
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        devnull = os.open('/dev/null', os.O_RDWR)\n"
        "        for fd in (0, 1, 2):\n            os.dup2(devnull, fd)\n"
        f"        os.execv('/bin/sh', ['sh', '-c', 'sleep 20; : marked-{c.token}'])\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "time.sleep(0.3)\n"
        "print('left it behind')\n"
    )
    result = await c.python(code)
    expect("left it behind" in result.get("stdout", ""), f"the guest could not start a process: {result}")
    for _ in range(50):
        survivors = marked(c.token)
        if not survivors:
            return
        await asyncio.sleep(0.1)
    for entry in survivors:
        with suppress(OSError):
            os.kill(int(entry.name), signal.SIGKILL)
    raise Failed(f"5 s after the reply {survivors[0]} still runs")


@check("sandbox.isolation.runtime-is-read-only")
async def runtime_is_read_only(c: Driver) -> None:
    code = (
        "import json, os, sys\n"
        f"targets = [os.path.dirname(json.__file__) + '/planted_{c.token}.py', json.__file__, os.path.realpath(sys.executable)]\n"
        "for path in targets:\n"
        "    try:\n"
        "        open(path, 'ab').close()\n"
        "        print('open for writing:', path)\n"
        "    except OSError:\n        print('refused')\n"
    )
    stdout = (await c.python(code)).get("stdout", "")
    expect(stdout == "refused\n" * 3, f"a guest can write to the runtime: {stdout!r}")


@check("sandbox.report.tier-and-layers")
async def tier_and_layers_are_reported(c: Driver) -> None:
    meta: dict[str, Any] = (await raw_call(c, "sandbox_run", code="1")).get("_meta") or {}
    told = {name.rpartition("/")[2]: value for name, value in meta.items()}
    expect(told.get("tier") in ("full", "confined", "limits"), f"the tier is {told.get('tier')!r} in _meta: {meta}")
    expect(isinstance(told.get("layers"), list) and told["layers"], f"no layers in _meta: {meta}")
    expect((told.get("usage") or {}).get("wall_s", -1) >= 0, f"no usage.wall_s in _meta: {meta}")


# --- the audit


async def audit_of(c: Driver, code: str | None = None, **wanted: Any) -> dict[str, Any]:
    """The newest event that fits, from the first pages of kernel://audit."""
    uri, digest = "kernel://audit", None if code is None else hashlib.sha256(code.encode()).hexdigest()[:12]
    for _ in range(AUDIT_PAGES):
        message = await c.subject.ask_raw("resources/read", {"uri": uri})
        contents = message.get("result", {}).get("contents") or []
        expect(contents, f"{uri} is not readable: {str(message)[:300]}")
        page = json.loads(contents[0].get("text", ""))
        for event in reversed(page.get("events") or []):
            ended = event.get("outcome") != "started" and (digest is None or event.get("code_sha256") == digest)
            if ended and all(event.get(name) == value for name, value in wanted.items()):
                return dict(event)
        if not page.get("older"):
            break
        uri = page["older"]
    raise Failed(f"no event of {wanted} {digest or ''} in kernel://audit")


@check("sandbox.audit.lists-calls")
async def calls_are_audited(c: Driver) -> None:
    code = f"'{c.token}'; raise SystemExit(7)"
    await c.python(code, memory_mb=300)
    event = await audit_of(c, code)
    seen = {name: event.get(name) for name in ("op", "outcome", "memory_mb", "exit_code", "language")}
    expect(
        seen == {"op": "run", "outcome": "ended", "memory_mb": 300, "exit_code": 7, "language": "python"}, f"{event}"
    )
    expect(event.get("sandbox_id") and event.get("at"), f"without an id or a time: {event}")
    slow = f"'{c.token}'\nimport time\ntime.sleep(20)"
    await c.python(slow, timeout_s=0.5)
    event = await audit_of(c, slow)
    expect(event.get("stopped_by") == "timeout" and event.get("timeout_s") == 0.5, f"out of time, and it says {event}")
    text = (await c.ok("sandbox_read", uri="kernel://audit")).get("text", "")
    expect('"events"' in text, f"sandbox_read of kernel://audit: {text[:200]!r}")


@check("sandbox.audit.lists-refusals")
async def refusals_are_audited(c: Driver) -> None:
    asked = 1_000_000 + int(c.token[1:], 16) % 1_000_000
    for code, more in (
        ("limit.exceeded", {}),
        ("egress.denied", {"memory_mb": 64, "allow_hosts": [f"{c.token}.invalid"]}),
        ("packages.denied", {"memory_mb": 64, "packages": [f"{c.token}-none"]}),
    ):
        given: dict[str, Any] = {"memory_mb": asked, **more}
        await c.refused(code, "sandbox_run", code="1", **given)
        event = await audit_of(c, outcome="refused", error=code, **given)
        expect(event.get("op") == "run" and "exit_code" not in event, f"the refusal is recorded as {event}")


@check("sandbox.audit.holds-no-payload")
async def audit_holds_no_payload(c: Driver) -> None:
    code = f"import sys\nprint('{c.token}', sys.stdin.read())\nopen('out-{c.token}.txt', 'w').write('{c.token}')"
    result = await c.python(code, stdin=c.token, files={f"in-{c.token}.txt": c.token})
    await c.ok("sandbox_read", uri=result["files"][0]["uri"])
    event = await audit_of(c, code)
    expect(event.get("files_out") == 1, f"one file came out: {event}")
    message = await c.subject.ask_raw("resources/read", {"uri": "kernel://audit"})
    expect(c.token not in json.dumps(message), "the audit holds what only the code, its files or its output held")


@check("sandbox.audit.names-the-run")
async def audit_names_the_run(c: Driver) -> None:
    code = f"print('{c.token}')"
    program = (
        f"async def main(input):\n    await kernel.sleep(0.01)\n    await kernel.sandbox.run({code!r})\n    return 1"
    )
    run = await c.run(program)
    expect(run.get("status") == "completed", f"the program ended as {run}")
    steps = (await c.ok("run_get", run_id=run["run_id"], view="steps"))["steps"]
    n = next(step["n"] for step in steps if step.get("kind") == "sandbox.run")
    event = await audit_of(c, code)
    expect((event.get("run_id"), event.get("step")) == (run["run_id"], n), f"run {run['run_id']} call {n}: {event}")
