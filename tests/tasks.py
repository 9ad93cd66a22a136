"""Ten things that people ask agents to do, as the calls that a good model makes, against the real server over stdio.

    python tests/tasks.py        plays them and prints what each costs: calls, and tokens (o200k) of the replies as a model sees them

A task fails when it comes to another end than the one written here, or a reply is not of its tool's schema. What a call costs depends on nothing but the reply: paths of the state
folder are shortened, and what a weaker tier adds (`degraded`) is left out.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
from bpe_openai import get_encoding
from mcp import Client, StdioServerParameters

COMMAND = [sys.executable, "-m", "agent_kernel_mcp"]
TOKENS = get_encoding("o200k_base")


@dataclass
class Desk:
    """A user's folder, a state folder, and a host that is connected."""

    place: Path
    calls: int = 0
    tokens: int = 0
    images: int = 0
    client: Client | None = None
    schemas: dict[str, Any] = field(default_factory=dict)
    leaving: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def state(self) -> Path:
        return self.place / "state"

    async def connect(self) -> None:
        """Through the bridge that hosts start; it starts the kernel."""
        options = ["--state", str(self.state), "--folder", str(self.home), "--folder", f"{self.home}/out:rw"]
        server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "mcp", *options])
        self.client = await self.leaving.enter_async_context(Client(server, cache=None, read_timeout_seconds=90))
        listed = await self.client.read_resource("kernel://schemas")
        self.schemas = json.loads(listed.contents[0].text)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        assert self.client is not None
        result = await self.client.call_tool(tool, arguments)
        text = result.content[0].text
        if not result.is_error:
            jsonschema.validate(json.loads(text), self.schemas[tool])
        self.calls += 1
        self.images += sum(block.type == "image" for block in result.content)
        reply: dict[str, Any] = result.structured_content or json.loads(text)
        seen = {name: value for name, value in reply.items() if name != "degraded"}
        shown = text if result.is_error else json.dumps(seen, separators=(",", ":"), ensure_ascii=False)
        self.tokens += len(TOKENS.encode(shown.replace(str(self.place), "")))
        return reply

    async def leave(self) -> None:
        """The host is closed, and the machine switched off."""
        await self.leaving.aclose()
        self.person("stop")

    def person(self, *words: str) -> None:
        """The user, in a terminal."""
        subprocess.run(
            [*COMMAND, *words, "--state", str(self.state)], check=True, timeout=60, stdout=subprocess.DEVNULL
        )


# --- the tasks


async def table_on_disk(desk: Desk) -> None:
    """'How much did we sell in May? It is in sales.csv.'"""
    (desk.home / "sales.csv").write_text("month,amount\nApril,20\nMay,30\nMay,12\n")
    code = (
        f"import csv\nrows = csv.DictReader(open('{desk.home}/sales.csv'))\n"
        "sum(int(row['amount']) for row in rows if row['month'] == 'May')"
    )
    assert (await desk.call("sandbox_run", code=code))["value"] == "42"


async def bug_in_repository(desk: Desk) -> None:
    """'The tests of my project fail. Mend it, and give me the patch.'"""
    repository = desk.home / "project"
    repository.mkdir()
    (repository / "sums.py").write_text("def mean(xs):\n    return sum(xs) / (len(xs) + 1)\n")
    (repository / "test_sums.py").write_text(
        "import unittest, sums\nclass T(unittest.TestCase):\n    def test_mean(self):\n        self.assertEqual(sums.mean([2, 4]), 3)\n"
    )
    look = f"cp -r {repository} . && cd project && cat sums.py && python3 -m unittest 2>&1 | tail -3"
    assert "FAILED" in (await desk.call("sandbox_run", language="bash", code=look))["stdout"]
    mend = (
        f"cp -r {repository} project && cp -r project new && sed -i 's/(len(xs) + 1)/len(xs)/' new/sums.py"
        " && (cd new && python3 -m unittest 2>&1 | tail -1) && rm -rf new/__pycache__; diff -ru project new > mean.patch; rm -r project new"
    )
    mended = await desk.call("sandbox_run", language="bash", code=mend)
    assert mended["stdout"] == "OK\n", mended
    [patch] = mended["files"]
    await desk.call("sandbox_export", **{"from": [patch["uri"]], "to": f"{desk.home}/out/"})
    assert "+    return sum(xs) / len(xs)" in (desk.home / "out/mean.patch").read_text()
    assert "+ 1" in (repository / "sums.py").read_text(), "the user's own files are as they were"


async def page_to_remember(desk: Desk) -> None:
    """'Read example.org/news, sum it up, and remember it.' The operator allowed no host; the user pastes the page."""
    scrape = "import urllib.request\nprint(urllib.request.urlopen('https://example.org/news').read())"
    refused = await desk.call("sandbox_run", code=scrape, allow_hosts=["example.org"])
    assert refused["error"]["code"] == "egress.denied"
    assert "--allow-host example.org" in refused["error"]["message"]
    page = "<h1>Harbour closed</h1><p>Ice until Friday.</p>"
    code = "import re\nprint(re.sub('<[^>]+>', ' ', open('page.html').read()))"
    assert "Ice until Friday" in (await desk.call("sandbox_run", code=code, files={"page.html": page}))["stdout"]
    fact = {"text": "The harbour is closed by ice until Friday.", "source": "https://example.org/news"}
    await desk.call("memory_add", items=[fact])


async def long_training(desk: Desk) -> None:
    """'Train it, it may take a while, and tell me how it goes.'"""
    epoch = "import kernel\nfor n in range(50): kernel.progress(n + 1, 50)\nprint(0.5 ** ({n} + 1))"
    program = (
        "async def main(input):\n    losses = []\n    for n in range(input['epochs']):\n"
        f"        done = await kernel.sandbox.run({epoch!r}.replace('{{n}}', str(n)), timeout_s=3600)\n"
        "        losses.append(float(done.stdout))\n        kernel.progress(n + 1, input['epochs'], f'loss {losses[-1]}')\n    return losses"
    )
    run = await desk.call("run_start", program=program, input={"epochs": 3}, name="training", wait_s=0)
    ended = await desk.call("run_get", run_id=run["run_id"], wait_s=50)
    assert ended["output"] == [0.5, 0.25, 0.125]
    assert ended["progress"]["done"] == 3


async def approval_before_sending(desk: Desk) -> None:
    """'Write to the editor, but show me before it goes out.'"""
    program = (
        "async def main(input):\n    if not await kernel.approve('Send this letter?', details=input):\n        return 'kept'\n"
        "    return await kernel.step('send', lambda: 'sent')"
    )
    run = await desk.call("run_start", program=program, input={"to": "editor", "text": "The harbour is closed."})
    [item] = run["waiting"]
    assert f"agent-kernel approve {item['item_id']}" in run["next"]
    desk.person("approve", item["item_id"], "--yes")
    assert (await desk.call("run_get", run_id=run["run_id"], wait_s=50))["output"] == "sent"


async def yesterdays_run(desk: Desk) -> None:
    """'What became of the report you began yesterday? Take the short form.' The host was restarted since."""
    program = (
        "async def main(input):\n    form = await kernel.ask('Which form?', {'type': 'object', 'required': ['form']})\n"
        "    return f\"report, {form['form']}\""
    )
    assert desk.client is not None
    await desk.client.call_tool("run_start", {"program": program, "name": "report"})
    await desk.leave()
    await desk.connect()
    [report] = (await desk.call("run_get", status="input_required"))["runs"]
    run = await desk.call("run_get", run_id=report["run_id"])
    answer = {"run_id": run["run_id"], "item_id": run["waiting"][0]["item_id"], "content": {"form": "short"}}
    assert (await desk.call("run_send", **answer))["output"] == "report, short"


async def skill_on_a_file(desk: Desk) -> None:
    """'Use our letter counter on the manuscript.'"""
    (desk.home / "manuscript.txt").write_text("It was a dark night.")
    skill = desk.state / "skills/letter-counter"
    (skill / "scripts").mkdir(parents=True)
    (skill / "SKILL.md").write_text(
        "---\nname: letter-counter\ndescription: Counts the letters of a manuscript. Use for lengths of texts.\n---\n"
        "Run `scripts/count.py FILE`; it prints the number of letters.\n"
    )
    (skill / "scripts/count.py").write_text("import sys\nprint(sum(c.isalpha() for c in open(sys.argv[1]).read()))\n")
    [found, *_] = (await desk.call("skill_search", query="count letters of a manuscript", limit=1))["skills"]
    loaded = await desk.call("skill_load", name=found["name"])
    assert "scripts/count.py" in json.dumps(loaded)
    ran = await desk.call(
        "skill_run", name="letter-counter", script="scripts/count.py", args=[f"{desk.home}/manuscript.txt"]
    )
    assert ran["stdout"] == "15\n"


async def three_attempts(desk: Desk) -> None:
    """'Try three ways and keep the shortest that works.'"""
    program = (
        "WAYS = ['sum(range(101))', 'sum(x for x in range(1, 101))', '100 * 101 // 2 +']\n"
        "async def main(input):\n    tried = await kernel.map(lambda way: kernel.sandbox.run(way), WAYS)\n"
        "    return min((way for way, ran in zip(WAYS, tried) if ran.value == '5050'), key=len)"
    )
    assert (await desk.call("run_start", program=program))["output"] == "sum(range(101))"


async def plot(desk: Desk) -> None:
    """'Install matplotlib and draw a wedge.' The operator allowed no packages; the standard library can draw one."""
    refused = await desk.call("sandbox_run", code="import matplotlib", packages=["matplotlib"])
    assert refused["error"]["code"] == "packages.denied"
    assert "--allow-packages" in refused["error"]["message"]
    draw = """
import struct, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
rows = b"".join(b"\\0" + bytes(255 if x > y else 0 for x in range(64)) for y in range(64))
head = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
open("wedge.png", "wb").write(
    b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
None
"""
    drawn = await desk.call("sandbox_run", code=draw)
    assert desk.images == 1
    assert Path(drawn["files"][0]["local_path"]).read_bytes().startswith(b"\x89PNG")


async def issue_on_github(desk: Desk) -> None:
    """'File an issue for it.' No other server's tools are connected: the reply says so, and how it goes on."""
    program = "async def main(input):\n    return await kernel.tools.github.create_issue(title='mean() is off by one')"
    failed = await desk.call("run_start", program=program)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "tool.unavailable")


@dataclass(frozen=True)
class Task:
    play: Callable[[Desk], Awaitable[None]]
    calls: int
    tokens: int
    """Of all its replies; a quarter more or less is still as expected."""


TASKS = (
    Task(table_on_disk, 1, 10),
    Task(bug_in_repository, 3, 250),
    Task(page_to_remember, 3, 85),
    Task(long_training, 2, 220),
    Task(approval_before_sending, 2, 270),
    Task(yesterdays_run, 3, 410),
    Task(skill_on_a_file, 3, 150),
    Task(three_attempts, 1, 85),
    Task(plot, 2, 130),
    Task(issue_on_github, 1, 205),
)


async def played(task: Task, place: Path) -> Desk:
    """The desk as the task left it."""
    desk = Desk(place)
    (desk.home / "out").mkdir(parents=True)
    place.chmod(0o755)
    desk.state.mkdir(mode=0o700)
    try:
        await desk.connect()
        async with asyncio.timeout(120):
            await task.play(desk)
    finally:
        await desk.leave()
    return desk


def main() -> None:
    for task in TASKS:
        with tempfile.TemporaryDirectory(prefix="agent-kernel-task-") as place:
            desk = asyncio.run(played(task, Path(place)))
        print(f"{task.play.__name__:<24} {desk.calls} calls ({task.calls})  {desk.tokens:>5} tokens ({task.tokens})")


if __name__ == "__main__":
    main()
