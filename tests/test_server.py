"""mcp_server/server.py: the real server as a subprocess, driven by the real client in both eras, and by raw lines."""

import asyncio
import contextlib
import functools
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time

import pytest
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult

ERAS = ("legacy", "auto")
COMMAND = [sys.executable, "-m", "agent_kernel_mcp", "mcp", "--standalone", "--state"]

ASKS = """
async def main(input):
    return {"ok": await kernel.approve("Publish the report?", details={"to": "editor"})}
"""


@contextlib.asynccontextmanager
async def client(state, *options, mode="auto", **more):
    server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], str(state), *map(str, options)])
    async with Client(server, mode=mode, cache=None, read_timeout_seconds=90, **more) as connected:
        yield connected


def bounded(main):
    return asyncio.run(asyncio.wait_for(main, 120))


async def ok(c, tool, **arguments):
    result = await c.call_tool(tool, arguments)
    assert not result.is_error, result.content[0].text
    return result.structured_content


async def refused(c, tool, **arguments):
    result = await c.call_tool(tool, arguments)
    assert result.is_error, result.content[0].text
    return result.structured_content["error"]


async def followed(c, run):
    for _ in range(6):
        if run["status"] != "working":
            return run
        run = await ok(c, "run_get", run_id=run["run_id"], wait_s=10)
    raise AssertionError(run)


class Servers:
    """Servers that several tests share, one for each era and with or without a person to ask; each is started once."""

    def __init__(self, folder):
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.held = {}
        self.person = {}

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, 100), self.loop).result(110)

    def state(self, mode):
        return self.folder / f"{mode}-False"

    @contextlib.asynccontextmanager
    async def client(self, mode, person=None):
        key = (mode, person is not None)
        self.person[key] = person
        if key not in self.held:
            ready, over = self.loop.create_future(), asyncio.Event()
            self.held[key] = (self.loop.create_task(self.hold(key, ready, over)), ready, over)
        yield await self.held[key][1]

    async def hold(self, key, ready, over):
        mode, asks = key
        more = {"elicitation_callback": functools.partial(self.answer, key)} if asks else {}
        try:
            async with client(self.folder / f"{mode}-{asks}", mode=mode, **more) as connected:
                ready.set_result(connected)
                await over.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(AssertionError(f"the server did not start: {error!r}"))

    async def answer(self, key, *asked):
        return await self.person[key](*asked)

    async def close(self):
        for task, _, over in self.held.values():
            over.set()
            await task


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    shared = Servers(tmp_path_factory.mktemp("servers"))
    yield shared
    shared.run(shared.close())
    shared.loop.call_soon_threadsafe(shared.loop.stop)
    shared.thread.join(30)
    shared.loop.close()


class Person:
    """Answers forms as told, and keeps what it was shown."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.shown = []

    async def __call__(self, _context, params):
        self.shown.append(params)
        return self.answers.pop(0)


YES = ElicitResult(action="accept", content={"decision": "approve", "note": "fine"})
NO = ElicitResult(action="accept", content={"decision": "deny"})
DECLINED = ElicitResult(action="decline")
CLOSED = ElicitResult(action="cancel")


# --- results


@pytest.mark.parametrize("mode", ERAS)
def test_what_a_model_stores_is_trusted_as_a_models_word_and_its_uri_opens(servers, mode):
    async def main():
        async with servers.client(mode) as c:
            added = await c.call_tool("memory_add", {"items": [{"text": "The lighthouse is red."}]})
            memory_id = added.structured_content["items"][0]["id"]
            found = await c.call_tool("memory_search", {"query": "lighthouse"})
            [hit] = found.structured_content["hits"]
            assert (hit["trust"], hit["client"]) == ("agent", "mcp")
            whole = await c.call_tool("sandbox_read", {"uri": f"memory://{memory_id}"})
            assert whole.structured_content["text"] == "The lighthouse is red."
            unknown = await c.call_tool("sandbox_read", {"uri": "memory://mem_aaaaaaaaaaaa"})
            assert unknown.is_error

    servers.run(main())


def test_the_operator_names_the_client_of_a_connection(tmp_path):
    async def main():
        async with client(tmp_path / "state", "--agent", "the editor") as c:
            await ok(c, "memory_add", items=[{"text": "The lighthouse is red."}])
            [hit] = (await ok(c, "memory_search", query="lighthouse"))["hits"]
            assert hit["client"] == "the editor"
            assert (await refused(c, "memory_add", items=[{"text": "x", "client": "me"}]))["code"] == "argument.unknown"

    bounded(main())


@pytest.mark.parametrize("mode", ERAS)
def test_code_runs_and_both_forms_of_the_result_are_complete(servers, mode):
    async def main():
        async with servers.client(mode) as c:
            assert (c.protocol_version == "2026-07-28") == (mode == "auto")
            result = await c.call_tool("sandbox_run", {"code": "print('hello')\n6 * 7"})
            assert result.structured_content == {"exit_code": 0, "stdout": "hello\n", "value": "42"} | (
                {"degraded": result.structured_content["degraded"]} if "degraded" in result.structured_content else {}
            )
            assert [block.type for block in result.content] == ["text"]
            assert json.loads(result.content[0].text) == result.structured_content
            assert result.meta["tier"] in ("full", "confined")
            assert any("seccomp" in layer for layer in result.meta["layers"])
            assert result.meta["usage"]["wall_s"] > 0

    servers.run(main())


@pytest.mark.parametrize("mode", ERAS)
def test_a_refusal_is_one_text_block_and_four_fields(servers, mode):
    async def main():
        async with servers.client(mode) as c:
            for tool, arguments, code in (
                ("sandbox_rum", {}, "tool.unknown"),
                ("sandbox_run", {"code": "1", "cmd": "2"}, "argument.unknown"),
                ("run_get", {"run_id": "run_aaaaaaaaaaaa"}, "run.unknown"),
            ):
                result = await c.call_tool(tool, arguments)
                error = result.structured_content["error"]
                assert result.is_error
                assert set(error) == {"code", "message", "fault", "retryable"}
                assert (error["code"], error["fault"]) == (code, "caller")
                assert [block.text for block in result.content] == [f"{error['code']}: {error['message']}"]

    servers.run(main())


def test_long_output_is_cut_head_and_tail_and_its_uri_opens(servers):
    async def main():
        async with servers.client("auto") as c:
            result = await c.call_tool("sandbox_run", {"code": "for n in range(20_000): print(f'{n:09d}')"})
            cut = result.structured_content
            assert len(result.content[0].text) < 16 * 1024
            assert cut["stdout"].startswith("000000000\n")
            assert cut["stdout"].endswith("000019999\n")
            uri = re.search(r"whole at (\S+) ", cut["stdout"])[1]
            page = await ok(c, "sandbox_read", uri=uri)
            assert page["text"].startswith("000000000\n")
            pages = 1
            read = page["text"]
            while "next_offset" in page and pages < 40:
                page = await ok(c, "sandbox_read", uri=uri, offset=page["next_offset"])
                assert len(json.dumps(page)) < 16 * 1024
                read += page["text"]
                pages += 1
            assert read == "".join(f"{n:09d}\n" for n in range(20_000))

    servers.run(main())


def test_a_long_value_of_a_run_is_cut_and_kept_whole(servers):
    program = "async def main(input):\n    return {'numbers': list(range(20000))}"

    async def main():
        async with servers.client("auto") as c:
            run = await followed(c, await ok(c, "run_start", program=program))
            assert len(json.dumps(run)) < 16 * 1024
            whole = await c.read_resource(run["whole"])
            assert json.loads(whole.contents[0].text)["output"]["numbers"][-1] == 19999
            assert (await ok(c, "sandbox_read", uri=run["whole"]))["size_bytes"] > 100_000

    servers.run(main())


def test_files_come_back_as_uris_that_open(servers):
    async def main():
        async with servers.client("auto") as c:
            code = "open('a.txt', 'w').write('ä' * 9000); open('b.bin', 'wb').write(bytes(range(256)))"
            files = {file["path"]: file for file in (await ok(c, "sandbox_run", code=code))["files"]}
            assert files["a.txt"]["size_bytes"] == 18000
            page = await ok(c, "sandbox_read", uri=files["a.txt"]["uri"], offset=1, limit=5)
            assert (page["offset"], page["text"], page["next_offset"]) == (0, "ää", 4)
            binary = await ok(c, "sandbox_read", uri=files["b.bin"]["uri"])
            assert "text" not in binary
            assert "no text" in binary["note"]
            blob = await c.read_resource(files["b.bin"]["uri"])
            assert blob.contents[0].blob

    servers.run(main())


# --- time


def test_a_wait_longer_than_hosts_wait_needs_a_progress_token(servers):
    async def heard(progress, total, message):
        pass

    async def main():
        async with servers.client("auto") as c:
            error = await refused(c, "sandbox_run", code="1", timeout_s=51)
            assert error["code"] == "timeout.too_long"
            assert "run_start" in error["message"]
            error = await refused(c, "run_start", program="async def main(input): return 1", wait_s=51)
            assert (error["code"], "run_start" in error["message"]) == ("timeout.too_long", True)
            result = await c.call_tool("sandbox_run", {"code": "1", "timeout_s": 51}, progress_callback=heard)
            assert not result.is_error

    servers.run(main())


@pytest.mark.parametrize("mode", ERAS)
def test_progress_of_a_run_reaches_the_client_and_only_rises(servers, mode):
    program = (
        "async def main(input):\n    for n in range(3):\n        kernel.progress(n + 1, 3, f'part {n + 1}')\n"
        "        await kernel.sleep(2)\n    return 'done'"
    )
    heard = []

    async def hear(progress, total, message):
        heard.append((progress, total, message))

    async def main():
        async with servers.client(mode) as c:
            result = await c.call_tool("run_start", {"program": program, "wait_s": 40}, progress_callback=hear)
            assert result.structured_content["output"] == "done"

    servers.run(main())
    values = [value for value, _, _ in heard]
    assert len(values) >= 2
    assert values == sorted(set(values))
    assert any(total == 3 and "part" in (message or "") for _, total, message in heard)


# --- a person decides


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize(("answer", "output"), [(YES, True), (NO, False), (DECLINED, False)])
def test_a_person_is_asked_once_and_the_answer_counts(servers, mode, answer, output):
    person = Person(answer)

    async def main():
        async with servers.client(mode, person) as c:
            before = len((await ok(c, "run_get", limit=100)).get("runs", []))
            run = await followed(c, await ok(c, "run_start", program=ASKS, wait_s=20))
            assert run["output"] == {"ok": output}
            assert len((await ok(c, "run_get", limit=100))["runs"]) == before + 1  # the second round started nothing

    servers.run(main())
    [form] = person.shown
    assert "Publish the report?" in form.message
    assert '"to":"editor"' in form.message


@pytest.mark.parametrize("mode", ERAS)
def test_a_closed_form_leaves_the_item_waiting_and_is_not_shown_again(servers, mode):
    person = Person(CLOSED)

    async def main():
        async with servers.client(mode, person) as c:
            run = await ok(c, "run_start", program=ASKS, wait_s=20)
            assert run["status"] == "input_required"
            assert f"agent-kernel approve {run['waiting'][0]['item_id']} --state /" in run["next"]
            again = await ok(c, "run_get", run_id=run["run_id"], wait_s=1)
            assert again["status"] == "input_required"

    servers.run(main())
    assert len(person.shown) == 1


def test_the_advice_says_what_a_run_waits_for(servers):
    async def main():
        async with servers.client("auto") as c:
            run = await ok(c, "run_start", program=ASKS)
            steps = await ok(c, "run_get", run_id=run["run_id"], view="steps")
            assert "run_get(run_id) shows" in steps["next"], "this view has no `waiting`, and nothing comes by waiting"
            slow = await ok(c, "run_start", program="async def main(i): await kernel.sleep(60)", wait_s=0)
            paused = await ok(c, "run_control", run_id=slow["run_id"], action="pause")
            assert "resume" in paused["next"]

    servers.run(main())


@pytest.mark.parametrize("mode", ERAS)
def test_without_elicitation_the_model_cannot_approve_and_may_deny(servers, mode):
    async def main():
        async with servers.client(mode) as c:
            run = await ok(c, "run_start", program=ASKS, wait_s=20)
            [item] = run["waiting"]
            assert (item["kind"], item["answer_by"]) == ("approve", "person")
            assert re.fullmatch(r"[0-9a-f]{12}", item["digest"])
            answer = {"run_id": run["run_id"], "item_id": item["item_id"], "digest": item["digest"]}
            error = await refused(c, "run_approve", **answer, decision="approve")
            assert error["code"] == "approval.elsewhere"
            assert f"agent-kernel approve {item['item_id']}" in error["message"]
            sent = await refused(
                c, "run_send", run_id=run["run_id"], item_id=item["item_id"], content={"decision": "approve"}
            )
            assert sent["code"] == "approval.elsewhere"
            error = await refused(c, "run_approve", **{**answer, "digest": "0" * 12}, decision="deny")
            assert error["code"] == "item.changed"
            await ok(c, "run_approve", **answer, decision="deny")
            run = await followed(c, await ok(c, "run_get", run_id=run["run_id"], wait_s=10))
            assert run["output"] == {"ok": False}

    servers.run(main())


def test_the_operator_may_let_the_host_approve(tmp_path):
    async def main():
        async with client(tmp_path / "s", "--approve-in-host") as c:
            run = await ok(c, "run_start", program=ASKS, wait_s=20)
            [item] = run["waiting"]
            answer = {"run_id": run["run_id"], "item_id": item["item_id"], "digest": item["digest"]}
            await ok(c, "run_approve", **answer, decision="approve", note="seen")
            run = await followed(c, await ok(c, "run_get", run_id=run["run_id"], wait_s=10))
            assert run["output"] == {"ok": True}

    bounded(main())


@pytest.mark.parametrize(("verb", "output"), [("approve", True), ("deny", False)])
def test_a_person_at_a_terminal_answers_while_the_server_runs(servers, verb, output):
    def terminal(*arguments):
        command = [sys.executable, "-m", "agent_kernel_mcp", *arguments, "--state", str(servers.state("auto"))]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    async def main():
        async with servers.client("auto") as c:
            run = await ok(c, "run_start", program=ASKS, wait_s=20)
            listed = await asyncio.to_thread(terminal, "items", "--json")
            [item] = [one for one in json.loads(listed.stdout) if one["run_id"] == run["run_id"]]
            assert item["item_id"] == run["waiting"][0]["item_id"]
            assert (await asyncio.to_thread(terminal, verb, "itm_aaaaaaaaaaaa")).returncode == 1
            done = await asyncio.to_thread(terminal, verb, item["item_id"], "--note", "seen")
            assert (done.returncode, done.stderr) == (0, "")
            run = await followed(c, await ok(c, "run_get", run_id=run["run_id"], wait_s=10))
            assert run["output"] == {"ok": output}
            status = json.loads((await asyncio.to_thread(terminal, "status", "--json")).stdout)
            assert status["pid"] > 1

    servers.run(main())


def test_a_person_at_a_terminal_answers_when_no_server_runs(tmp_path):
    state = tmp_path / "s"

    async def start():
        async with client(state) as c:
            return await ok(c, "run_start", program=ASKS, wait_s=20)

    async def look(run_id):
        async with client(state) as c:
            return await followed(c, await ok(c, "run_get", run_id=run_id, wait_s=20))

    run = bounded(start())
    command = [sys.executable, "-m", "agent_kernel_mcp", "approve", run["waiting"][0]["item_id"], "--state", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert bounded(look(run["run_id"]))["output"] == {"ok": True}


# --- runs


def test_the_same_key_gives_the_same_run_and_other_arguments_a_conflict(servers):
    program = "async def main(input):\n    return input['n']"

    async def main():
        async with servers.client("auto") as c:
            first = await ok(c, "run_start", program=program, input={"n": 1}, idempotency_key="k")
            second = await ok(c, "run_start", program=program, input={"n": 1}, idempotency_key="k")
            assert (second["run_id"], second["replayed"]) == (first["run_id"], True)
            assert (await refused(c, "run_start", program=program, input={"n": 2}, idempotency_key="k"))[
                "code"
            ] == "key.conflict"

    servers.run(main())


def test_a_question_of_a_program_is_answered_by_the_model(servers):
    program = "async def main(input):\n    return await kernel.ask('Which?', {'type': 'object', 'required': ['n']})"

    async def main():
        async with servers.client("auto", Person()) as c:
            run = await ok(c, "run_start", program=program)
            [item] = run["waiting"]
            assert item["answer_by"] == "any"
            assert "run_send" in run["next"]
            run = await ok(c, "run_send", run_id=run["run_id"], item_id=item["item_id"], content='{"n": 3}')
            assert (await followed(c, run))["output"] == {"n": 3}

    servers.run(main())


# --- resources


@pytest.mark.parametrize("mode", ERAS)
def test_resources_are_listed_and_read(servers, mode):
    async def main():
        async with servers.client(mode) as c:
            run = await followed(
                c, await ok(c, "run_start", program="async def main(input):\n    return 1", name="one")
            )
            await ok(c, "memory_edit", label="todo", text="water the plants")
            listed = {str(resource.uri) for resource in (await c.list_resources()).resources}
            assert {"kernel://status", "memory://blocks", f"run://{run['run_id']}"} <= listed
            templates = {template.uri_template for template in (await c.list_resource_templates()).resource_templates}
            assert "run://{run_id}/steps" in templates
            for uri, words in (
                ("kernel://status", '"pid"'),
                ("kernel://audit", '"program"'),
                ("kernel://audit/1", '"events":[]'),
                ("memory://blocks", "water the plants"),
                ("memory://stats", '"notes":'),
                (f"run://{run['run_id']}", '"completed"'),
                (f"run://{run['run_id']}/steps", "{"),
                ("skill://kernel/durable-programs/SKILL.md", "durable"),
            ):
                read = await c.read_resource(uri)
                assert words in read.contents[0].text, uri
                assert not (await c.call_tool("sandbox_read", {"uri": uri})).is_error
            for uri in (
                "run://run_aaaaaaaaaaaa",
                "sandbox://none",
                "kernel://nothing",
                "kernel://audit/x",
                "file:///etc/passwd",
            ):
                with pytest.raises(MCPError):
                    await c.read_resource(uri)
                assert (await refused(c, "sandbox_read", uri=uri))["code"] in (
                    "run.unknown",
                    "uri.unknown",
                    "uri.invalid",
                )

    servers.run(main())


def test_the_audit_is_read_back_page_by_page_and_names_the_client(tmp_path):
    async def main():
        async with client(tmp_path / "s", "--agent", "a-label") as c:
            for number in range(70):
                assert (await refused(c, "sandbox_run", code="1", memory_mb=9000 + number))["code"] == "limit.exceeded"
            await ok(c, "sandbox_run", code="1")
            uri, seen = "kernel://audit", []
            while uri:
                text = (await c.read_resource(uri)).contents[0].text
                assert len(text) < 12 << 10
                page = json.loads(text)
                assert page["events"]
                seen, uri = page["events"] + seen, page.get("older")
            assert [event["memory_mb"] for event in seen if event["outcome"] == "refused"] == list(range(9000, 9070))
            assert {event["client"] for event in seen} == {"a-label"}
            assert len(seen[-1]["code_sha256"]) == 12

    bounded(main())


def test_instructions_name_what_is_shared(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()

    async def main(*options):
        async with client(tmp_path / "s", *options) as c:
            return c.instructions

    assert "No folder is shared" in bounded(main())
    text = bounded(main("--folder", shared))
    assert str(shared) in text
    assert len(text.encode()) < 1500


# --- raw lines


class Raw:
    """The server on plain pipes, with the handshake done."""

    def __init__(self, state, *options, **more):
        self.process = subprocess.Popen(
            [*COMMAND, str(state), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        assert self.ask(0, "initialize", hello)["result"]["serverInfo"]["name"] == "agent-kernel"
        self.line(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode())

    def line(self, line: bytes) -> None:
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def ask(self, number, method, params):
        self.line(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())
        return self.answer(number)

    def answer(self, number):
        while line := self.process.stdout.readline():
            message = json.loads(line)
            if message.get("id") == number:
                return message
        raise AssertionError(self.process.stderr.read().decode())

    def end(self, *, kill=False):
        if kill:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()
        return self.process.wait(30)


def tool_line(number: int, arguments: bytes) -> bytes:
    params = b'{"name":"sandbox_run","arguments":' + arguments + b"}"
    return b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":%s}' % (number, params)


def test_bad_bytes_are_refused_for_the_model_to_read_and_the_server_lives_on(tmp_path):
    raw = Raw(tmp_path / "s")
    try:
        for number, (arguments, code) in enumerate(
            [
                (b'{"code":"1","timeout_s":NaN}', "argument.invalid_json"),
                (b'{"code":"\\udc00"}', "argument.invalid_json"),
                (b'{"code":"1","code":"2"}', "argument.duplicate_key"),
                (b'{"code":"1","files":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "argument.too_deep"),
                (b'{"code":"' + b"#" * (10 << 20) + b'"}', "argument.too_large"),
                (b'{"code":"1","memory_mb":' + b"1" * 30 + b"}", "argument.invalid"),
            ],
            start=1,
        ):
            raw.line(tool_line(number, arguments))
            result = raw.answer(number)["result"]
            assert result["isError"]
            assert result["structuredContent"]["error"]["code"] == code
        raw.line(
            b'{"jsonrpc":"2.0","id":50,"method":"tools/call","params":{"name":"x","arguments":' + b"[" * 20_000_000
        )
        assert raw.answer(50)["error"]["data"]["code"] == "argument.too_large"
        for line in (b"{not json", b"[1]", b"\xff\xfe"):
            raw.line(line)
        raw.line(tool_line(99, b'{"code":"print(1)"}'))
        assert raw.answer(99)["result"]["structuredContent"]["stdout"] == "1\n"
    finally:
        assert raw.end() == 0


def test_end_of_input_answers_what_was_asked_and_ends_with_status_0(tmp_path):
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    lines = [
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).encode(),
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
        tool_line(2, b'{"code":"print(41 + 1)"}'),
    ]
    done = subprocess.run(
        [*COMMAND, str(tmp_path / "s")], input=b"\n".join(lines), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["result"]["structuredContent"]["stdout"] == "42\n"
    assert not (tmp_path / "s/control").exists()


def test_end_of_input_during_a_wait_does_not_wait_for_it(tmp_path):
    raw = Raw(tmp_path / "s")
    params = {
        "name": "run_start",
        "arguments": {"program": "async def main(input):\n    await kernel.sleep(3600)", "wait_s": 50},
    }
    raw.line(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode())
    assert raw.end() == 0  # bounded by 30 s, the wait is 50 s


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_like_the_end_of_input(tmp_path, number):
    raw = Raw(tmp_path / "s")
    raw.process.send_signal(number)
    assert raw.process.wait(30) == 0
    raw.end()
    assert not (tmp_path / "s/control").exists()


def test_the_server_does_not_outlive_the_process_that_started_it(tmp_path):
    read, write = os.pipe()  # our end keeps the server's input open when its parent is gone
    code = (
        "import os, subprocess, sys\n"
        f"p = subprocess.Popen({[*COMMAND, str(tmp_path / 's')]!r}, stdin={read}, stdout=subprocess.DEVNULL)\n"
        "print(p.pid, flush=True)\nsys.stdin.readline()\nos._exit(0)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(read,)
    )
    pid = int(parent.stdout.readline())
    handle = os.pidfd_open(pid)
    try:
        until = time.monotonic() + 30
        while not (tmp_path / "s/control").exists() and time.monotonic() < until:
            time.sleep(0.05)
        parent.communicate("\n", timeout=30)
        assert select.select([handle], [], [], 30)[0], "the server still runs"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for fd in (handle, read, write):
            os.close(fd)


def test_what_prints_inside_the_server_never_reaches_the_wire(tmp_path):
    raw = Raw(tmp_path / "s")
    raw.line(
        tool_line(
            1, json.dumps({"code": "import os; os.write(1, b'x'); print('loud'); os.system('echo louder')"}).encode()
        )
    )
    line = raw.process.stdout.readline()
    assert json.loads(line)["id"] == 1
    assert raw.end() == 0


def test_a_second_server_on_a_folder_is_refused_with_the_first_one_s_pid(tmp_path):
    raw = Raw(tmp_path / "s")
    second = subprocess.run(
        [*COMMAND, str(tmp_path / "s")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert f"pid {raw.process.pid}" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert raw.end() == 0
