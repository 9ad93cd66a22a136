"""`agent-kernel demo`: a real MCP client drives a real server through every primitive, on real data, and checks each claim it prints.

The server is started as a host would start it: `python -m agent_kernel_mcp mcp --standalone --state DIR`, on pipes. The client is the one of
the MCP SDK. The data are the Palmer penguins (data/README.md names source and licence).

Guarantees
1. Nothing is printed as shown unless it was compared with what came back; what does not hold is printed as FAILED and the exit status is 1.
2. A refusal is shown beside its control: the same lines, run outside the sandbox, do what the sandbox refuses.
3. The kill is SIGKILL, to the process that answers for the state folder, sent when some steps of the program are recorded and some are not.
4. Whatever happens, the server is ended; the temporary folder too, unless --keep or --state was given.
5. Nothing leaves the machine: the only connection that is made goes to a listener of the tour's own on the loopback address.

Not here: the measuring of anything (agent-kernel bench), the checking of every promise (agent-kernel conformance).
"""

import argparse
import asyncio
import contextlib
import csv
import os
import shlex
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import mcp_types
import orjson
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.stdio import StdioServerParameters, stdio_client

from .tour_page import Page
from .tour_programs import ANALYSIS, APPROVAL, CONNECT, EMBED, FORK_BOMB, ONE_STEP, PEEK, PROGRAM

__all__ = ["main"]

COMMAND = "agent-kernel"
DATA = Path(__file__).parent / "data"
PENGUINS = DATA / "penguins.csv"


class Broken(Exception):
    """The tour cannot go on: a call failed that had to succeed."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="agent-kernel demo", description="A tour: every claim is checked.")
    parser.add_argument("--state", type=Path, metavar="DIR", help="use this state folder and keep it")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    options = parser.parse_args(argv)
    work = Path(tempfile.mkdtemp(prefix="agent-kernel-demo-"))
    page = Page()
    try:
        return asyncio.run(_tour(page, work, (options.state or work / "state").absolute()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        page.say("Stopped.")
        return 1
    finally:
        if options.keep:
            page.say(f"Kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


async def _tour(page: Page, work: Path, state: Path) -> int:
    current = asyncio.current_task()
    assert current is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
    with (work / "server.log").open("w+") as log:
        tour = Tour(page, work, state, log)
        started = time.perf_counter()
        try:
            await tour.run()
        except Broken as problem:
            page.failed(str(problem))
        except Exception as problem:  # noqa: BLE001  (a reply of another shape than promised is a claim that failed)
            page.failed(f"{_innermost(problem)}, at {traceback.extract_tb(problem.__traceback__)[-1]}")
        finally:
            await tour.disconnect()
        log.seek(0)
        page.end(time.perf_counter() - started, log.read() if page.failures else "")
    return 1 if page.failures else 0


# --- the tour


@dataclass
class Tour:
    page: Page
    work: Path
    state: Path
    log: TextIO
    client: Client | None = None
    connection: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    times: dict[str, list[float]] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    person: str = "approve"
    """What the person at the keyboard does with the next question: approve, or leave."""
    tag: str = ""
    beside: dict[str, Any] = field(default_factory=dict)
    """What the last reply said beside its content: tier, layers and usage of a sandbox."""

    async def run(self) -> None:
        self.page.title("Agent Kernel: the tour")
        self.page.say(
            "An agent kernel gives a language model what it lacks: a place to run code, work that survives crashes, memory, skills, and a"
            " person to ask. Models reach it over MCP, the protocol that Claude, Cursor and VS Code speak. Here a program takes the model's"
            " place. Every claim is checked while you read; one that does not hold says FAILED."
        )
        self._prepare()
        await self.start_the_server()
        await self.analyse()
        await self.refuse()
        run_id = await self.survive()
        await self.remember(run_id)
        await self.use_a_skill()
        await self.ask_a_person()
        await self.time_it()
        self.three_doors()

    def _prepare(self) -> None:
        """A home folder with a key in it, and a skill where the kernel looks for skills."""
        self.tag = os.urandom(3).hex()
        key = self.work / "home" / ".ssh" / "id_ed25519"
        key.parent.mkdir(parents=True)
        key.write_text(f"CANARY-{os.urandom(12).hex()}\n")
        skill = self.state / "skills" / "summarise-csv"
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copytree(DATA / "skills" / "summarise-csv", skill, dirs_exist_ok=True)

    # 1
    async def start_the_server(self) -> None:
        page = self.page
        page.title("1. Start the server, as a host would")
        page.do("Start one command and talk to it over its pipes.")
        page.shell(shlex.join(["agent-kernel", "mcp", "--standalone", "--state", str(self.state)]))
        await self.connect()
        client = self.connected()
        listed = await client.list_tools()
        names = {tool.name for tool in listed.tools}
        wanted = {"sandbox_run", "run_start", "run_get", "memory_add", "memory_search", "skill_load", "skill_run"}
        page.claim(
            "an MCP server with tools for each primitive: sandbox, runs, memory, skills",
            f"{len(names)} tools over MCP {client.protocol_version}: {', '.join(sorted(names))}",
            holds=wanted <= names,
        )

    # 2
    async def analyse(self) -> None:
        page = self.page
        page.title("2. Analyse real data in the sandbox")
        page.say(
            "Data: body measures of 344 penguins near Palmer Station, Antarctica (Gorman, Horst, Hill; palmerpenguins; CC0, public domain)."
        )
        page.do("Send the table and 12 lines of Python to sandbox_run: does a longer bill go with a deeper bill?")
        with page.busy("running in the sandbox"):
            result = await self.call("sandbox_run", code=ANALYSIS, files={"penguins.csv": PENGUINS.read_text()})
        layers = self.beside.get("layers", [])
        outside = _correlations()
        page.say(f"Isolated by: {', '.join(layers)} (tier {self.beside.get('tier')}).")
        page.claim(
            "the same numbers as this program computes outside the sandbox",
            result.get("stdout", "").strip() or str(result),
            holds=result.get("exit_code") == 0 and _parsed(result.get("stdout", "")) == outside,
        )
        page.say(
            "Read it: over all birds longer bills are flatter, yet within each species they are deeper. A trap for anyone who skips the species"
            " (Simpson's paradox)."
        )
        kept = [file for file in result.get("files", []) if file.get("path") == "found.json"]
        text = (await self.call("sandbox_read", uri=kept[0]["uri"]))["text"] if kept else ""
        page.do("Read the file that the program wrote, though its sandbox is gone.")
        page.claim(
            "found.json by its uri, with the same numbers", text or "no such file", holds=_parsed(text) == outside
        )

    # 3
    async def refuse(self) -> None:
        page = self.page
        page.title("3. What the sandbox refuses")
        key = self.work / "home" / ".ssh" / "id_ed25519"
        page.do(
            "Read the user's ssh key: one made for this tour, the folder around it, and the ~/.ssh of this account."
        )
        paths = f"{key}\n{key.parent}\n{Path.home() / '.ssh'}"
        outside = await _plain_python(PEEK, str(key))
        inside = await self.call("sandbox_run", code=PEEK, stdin=paths)
        said = inside.get("stdout", "")
        page.claim(
            "outside the sandbox the lines read the key; inside they are refused, all three",
            f"outside: {outside.strip()}; inside: {', '.join(said.split(chr(10))[:-1]) or inside}",
            holds=outside.startswith("READ") and said.count("refused") == 3 and "READ" not in said,
        )
        await self._refuse_connection()
        page.do("Start a fork bomb: a program that copies itself until the machine stands still.")
        began = time.perf_counter()
        with page.busy("the bomb is in the sandbox"):
            bomb = await self.call("sandbox_run", code=FORK_BOMB, timeout_s=3)
            after = await self.call("sandbox_run", code="print('still here')")
        took = time.perf_counter() - began
        ended = (
            f"stopped by its limit: {bomb['stopped_by']}"
            if "stopped_by" in bomb
            else f"exit {bomb.get('exit_code')}: {_last_line(bomb.get('stderr', ''))}"
        )
        page.claim(
            "it ends at its limits, and the next call is answered",
            f"{ended}; next call: {after.get('stdout', '').strip()}; {took:.1f} s for both",
            holds=bomb.get("exit_code") != 0 and after.get("stdout") == "still here\n",
        )

    async def _refuse_connection(self) -> None:
        arrived = Counter[str]()

        async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived["connections"] += 1
            writer.close()

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as listener:
            port = str(listener.sockets[0].getsockname()[1])
            self.page.do(f"Connect out: a listener waits on this machine, port {port}.")
            outside = await _plain_python(CONNECT, port)
            before = arrived["connections"]
            inside = await self.call("sandbox_run", code=CONNECT, stdin=port)
            said = inside.get("stdout", "").strip()
            self.page.claim(
                "outside the sandbox the lines connect; inside they are refused and nothing arrives",
                f"outside: {outside.strip()}; inside: {said or inside}; {arrived['connections'] - before} arrived",
                holds=outside.startswith("CONNECTED")
                and before == 1
                and said.startswith("refused")
                and arrived["connections"] == 1,
            )

    # 4
    async def survive(self) -> str:
        page = self.page
        page.title("4. Kill the server in the middle of the work")
        page.say("A durable program is Python whose calls are recorded. After a crash it goes on where it was.")
        note = f"tour-{self.tag}"
        await self.call("memory_edit", label=note, text="(end)")
        heaviest = "Gentoo penguins are the heaviest of the three: 5076 g in the mean."
        await self.call("memory_add", items=[{"text": heaviest, "key": f"{note}/heaviest", "source": "penguins.csv"}])
        page.do(
            "Start a durable program. It weighs six groups of penguins: six steps, and after each a line in a note of the kernel."
        )
        started = await self.call(
            "run_start",
            program=PROGRAM,
            input={"note": note},
            files={"penguins.csv": PENGUINS.read_text()},
            name="weigh",
            wait_s=0,
        )
        run_id = str(started["run_id"])
        before = await self._until_half_done(run_id)
        done = [step for step in before if step["status"] == "completed"]
        pid = int(_parsed((await self.call("sandbox_read", uri="kernel://status"))["text"])["pid"])
        page.do(f"{len(done)} of 6 steps are recorded. Kill the server: SIGKILL, no time to tidy up.")
        page.shell(f"kill -9 {pid}")
        await self.kill(pid)
        page.claim(
            "the server is dead", f"process {pid} {'is gone' if not _alive(pid) else 'LIVES'}", holds=not _alive(pid)
        )
        page.do("Start it again on the same folder and wait for the run. Nobody tells it to resume.")
        began = time.perf_counter()
        with page.busy("the run goes on"):
            await self.connect()
            self._took("restart, until it serves", began)
            ended = await self.call("run_get", run_id=run_id, wait_s=20)
        self._check_weights(ended)
        await self._check_once(run_id, note, done)
        return run_id

    async def _until_half_done(self, run_id: str) -> list[dict[str, Any]]:
        """The steps of the program, as soon as three of the six are recorded."""
        until = time.perf_counter() + 30
        with self.page.busy("waiting for the third step") as status:
            while time.perf_counter() < until:
                view = await self.call("run_get", run_id=run_id, view="steps")
                steps = [step for step in view.get("steps", []) if step["kind"] == "step"]
                done = sum(step["status"] == "completed" for step in steps)
                if status is not None:
                    status.update(f"{done} of 6 steps recorded")
                if view["status"] != "working":
                    raise Broken(f"the program ended before it could be killed: {await self._story(run_id)}")
                if 3 <= done < 6:
                    return steps
                await asyncio.sleep(0.03)
        raise Broken(f"the program did not reach its third step within 30 s: {await self._story(run_id)}")

    async def _story(self, run_id: str) -> str:
        return str([await self.call("run_get", run_id=run_id, view=view) for view in ("summary", "steps", "events")])

    def _check_weights(self, ended: dict[str, Any]) -> None:
        output = ended.get("output") or {}
        means = _means()
        right = set(output) == set(means) and all(
            weighed["mean_g"] == means[name] and weighed["from_g"] <= means[name] <= weighed["to_g"]
            for name, weighed in output.items()
        )
        shown = "; ".join(f"{name} {weighed['mean_g']} g" for name, weighed in sorted(output.items()))
        self.page.claim(
            "the run completes, with the means that this program computes by itself",
            f"{ended.get('status')}: {shown or ended}",
            holds=ended.get("status") == "completed" and right,
        )

    async def _check_once(self, run_id: str, note: str, recorded: list[dict[str, Any]]) -> None:
        view = await self.call("run_get", run_id=run_id, view="steps")
        steps = {step["n"]: step for step in view.get("steps", []) if step["kind"] == "step"}
        unchanged = [steps.get(step["n"]) == step and step["attempts"] == 1 for step in recorded]
        self.page.claim(
            f"the {len(recorded)} steps recorded before the kill did not run again: one attempt each, their times and results untouched",
            f"{sum(unchanged)} of {len(recorded)} untouched; attempts of all six: {[step['attempts'] for step in steps.values()]}",
            holds=bool(recorded) and all(unchanged) and len(steps) == 6,
        )
        self._took_steps(list(steps.values()))
        [block] = (await self.call("memory_blocks", label=note))["blocks"]
        lines = block["text"].split("\n")[:-1]
        self.page.claim(
            "each group stands in the note exactly once, in order: no line twice, none lost",
            f"{', '.join(lines) or 'an empty note'}",
            holds=lines == sorted(_means()),
        )

    # 5
    async def remember(self, run_id: str) -> None:
        page = self.page
        page.title("5. Remember")
        page.say("Facts outlive conversations and crashes. Each knows where it came from.")
        key = f"tour-{self.tag}/heaviest"
        page.do(
            'Search, in other words, for the fact that was stored before the kill: "which penguin is the heaviest".'
        )
        found = (await self.call("memory_search", query="which penguin is the heaviest", key=key)).get("hits", [])
        page.claim(
            "the fact, with where it came from",
            "; ".join(f"{hit['text']} (source: {hit.get('source')})" for hit in found) or "nothing",
            holds=[hit.get("source") for hit in found] == ["penguins.csv"] and "5076" in found[0]["text"],
        )
        page.do("Tell it something newer under the same key.")
        newer = f"Gentoo penguins are the heaviest of the three; run {run_id} gave the interval of each sex."
        [added] = (await self.call("memory_add", items=[{"text": newer, "key": key, "source": run_id}]))["items"]
        now = (await self.call("memory_search", key=key)).get("hits", [])
        page.claim(
            "the newer fact stands, the older one is closed, not lost",
            f"{now[0]['text'] if now else 'nothing'} (supersedes {', '.join(added.get('superseded', [])) or 'nothing'})",
            holds=[hit["text"] for hit in now] == [newer]
            and bool(found)
            and added.get("superseded") == [found[0]["id"]],
        )

    # 6
    async def use_a_skill(self) -> None:
        page = self.page
        page.title("6. Use a skill")
        page.say("A skill is a folder: instructions in a SKILL.md, and scripts. The model finds it by what it is for.")
        page.do('Search for "what is in this csv table", and read what is found.')
        found = (await self.call("skill_search", query="what is in this csv table")).get("skills", [])
        loaded = await self.call("skill_load", name="summarise-csv")
        names = [skill["name"] for skill in found]
        page.claim(
            "summarise-csv is found and can be read",
            f"found {', '.join(names) or 'nothing'}; its text begins: {_title(loaded)!r}",
            holds="summarise-csv" in names and "Summarise a CSV table" in str(loaded),
        )
        page.do("Run its script on the penguins. It runs in a sandbox like any other code.")
        result = await self.call(
            "skill_run", name="summarise-csv", script="scripts/summarise.py", input={"csv": PENGUINS.read_text()}
        )
        summary = _parsed(result.get("stdout", "")) or {}
        mass: dict[str, Any] = next(
            (column for column in summary.get("columns", []) if column["name"] == "body_mass_g"), {}
        )
        page.claim(
            "344 rows; body mass known for 342, missing for 2",
            f"{summary.get('rows')} rows; body mass {mass or result}",
            holds=summary.get("rows") == 344 and (mass.get("count"), mass.get("missing")) == (342, 2),
        )

    # 7
    async def ask_a_person(self) -> None:
        page = self.page
        page.title("7. Ask a person before acting")
        page.do(
            "Start a program that must not publish without a yes. The server asks through the client (MCP elicitation); a person says yes."
        )
        self.person = "approve"
        asked = len(self.questions)
        run = await self.call("run_start", program=APPROVAL, input={"to": f"tour-{self.tag}/editor"}, wait_s=20)
        page.claim(
            "the question reached the person once; the yes let the program go on",
            f"the person saw: {' | '.join(self.questions[asked:])}; run {run.get('status')}, output {run.get('output')}",
            holds=run.get("output") == {"published": True}
            and len(self.questions) == asked + 1
            and "Publish the penguin report?" in self.questions[-1],
        )
        page.do("Start it again. This time nobody answers, and the model tries to approve its own request.")
        self.person = "leave"
        run = await self.call("run_start", program=APPROVAL, input={"to": f"tour-{self.tag}/press"}, wait_s=20)
        [item] = run.get("waiting") or [{}]
        answer = {"run_id": run["run_id"], "item_id": item.get("item_id"), "digest": item.get("digest")}
        refusal = await self.call("run_approve", refused=True, **answer, decision="approve")
        page.claim(
            "refused, naming the command for the person",
            str(refusal.get("message") or refusal),
            holds=refusal.get("code") == "approval.elsewhere" and "agent-kernel approve" in refusal.get("message", ""),
        )
        page.do("A person answers in a terminal of their own, with that command:")
        command = ["approve", str(item.get("item_id")), "--state", str(self.state)]
        page.shell(shlex.join(["agent-kernel", *command]))
        status, said = await _run(sys.executable, "-m", "agent_kernel_mcp", *command)
        ended = await self.call("run_get", run_id=run["run_id"], wait_s=10)
        page.claim(
            "the yes is taken, and the run goes on",
            f"{said.strip() or f'exit {status}'}; run {ended.get('status')}, output {ended.get('output')}",
            holds=status == 0 and ended.get("output") == {"published": True},
        )

    # 8
    async def time_it(self) -> None:
        page = self.page
        page.title("8. What each primitive took")
        for index in range(10):
            await self.call("sandbox_run", named="sandbox: print(1) in a fresh sandbox", code="print(1)")
            fact = {"text": f"Fact {index} of tour {self.tag}.", "conversation": f"tour-{self.tag}"}
            await self.call("memory_add", named="memory: add a fact, on disk", items=[fact])
            await self.call(
                "memory_search", named="memory: search", query=f"fact {index}", conversation=f"tour-{self.tag}"
            )
            await self.call("skill_load", named="skills: load", name="summarise-csv")
            await self.call("run_start", named="runs: a whole durable run of one step", program=ONE_STEP, wait_s=20)
        rows = [("round trip through the MCP client", "times", "fastest", "median")]
        wanted = [name for name in self.times if ":" in name or name.startswith("restart")]
        for name in wanted:
            times = self.times[name]
            rows.append((name, str(len(times)), _ms(min(times)), _ms(statistics.median(times))))
        page.table(rows)
        page.say("One machine, one moment, other work beside it. For numbers to compare, see door three.")

    def three_doors(self) -> None:
        page = self.page
        page.title("Three doors from here")
        here = COMMAND if shutil.which(COMMAND) else shlex.quote(str(Path(sys.executable).absolute().parent / COMMAND))
        page.say(
            "Connect a host. Prints the entry for Claude Code, Claude Desktop, VS Code, Cursor, Goose or Zed, or writes it:"
        )
        page.shell(f"{here} install claude-code --write")
        page.say("Embed it. In Python, without MCP:")
        page.code(EMBED)
        page.say(
            "Measure it. The benchmark beside its controls, and the conformance suite against this or any other server:"
        )
        page.shell(f"{here} bench --report bench-report")
        page.shell(f"{here} conformance run -- {here} mcp --standalone --state {{state}}")

    # --- the client's side

    async def connect(self) -> None:
        """Start the server and shake hands. Its home is the tour's own, so that there is a key which nobody minds losing."""
        server = StdioServerParameters(
            command=sys.executable,
            args=["-m", "agent_kernel_mcp", "mcp", "--standalone", "--state", str(self.state)],
            env={"HOME": str(self.work / "home")},
            cwd=self.work,
        )
        client = Client(
            stdio_client(server, errlog=self.log),
            elicitation_callback=self._answer,
            read_timeout_seconds=60,
            cache=None,
        )
        try:
            with self.page.busy("starting the server"):
                self.client = await asyncio.wait_for(_entered(self.connection, client), 30)
        except Exception as problem:
            raise Broken(f"the server did not start: {_innermost(problem)}") from problem

    async def disconnect(self) -> None:
        self.client = None
        with contextlib.suppress(Exception):  # a killed server leaves broken pipes; the SDK reports each
            await self.connection.aclose()
        self.connection = contextlib.AsyncExitStack()

    async def kill(self, pid: int) -> None:
        """SIGKILL to our own child and nothing else."""
        if pid <= 1 or pid == os.getpid() or _parent_of(pid) not in (None, os.getpid()):
            raise Broken(f"process {pid} is not the server that this tour started")
        os.kill(pid, signal.SIGKILL)
        await self.disconnect()

    def connected(self) -> Client:
        if self.client is None:
            raise Broken("the server is not running")
        return self.client

    async def call(self, tool: str, *, named: str = "", refused: bool = False, **arguments: Any) -> dict[str, Any]:
        """One tool call; its structured content. With `refused`, the error that it must be."""
        given = {name: value for name, value in arguments.items() if value is not None}
        began = time.perf_counter()
        result = await self.connected().call_tool(tool, given)
        self.beside = dict(result.meta or {})
        self._took(named or tool, began)
        content: dict[str, Any] = result.structured_content or {}
        if refused:
            return dict(content.get("error", {})) or {"message": f"not refused: {content}"}
        if result.is_error:
            raise Broken(f"{tool}: {_text_of(result)}")
        return content

    async def _answer(
        self,
        context: ClientRequestContext,  # noqa: ARG002  (the SDK's signature)
        params: mcp_types.ElicitRequestParams,
    ) -> mcp_types.ElicitResult | mcp_types.ErrorData:
        """The person: reads the question, then fills in the form or closes it."""
        self.questions.append(params.message)
        if self.person == "leave" or not isinstance(params, mcp_types.ElicitRequestFormParams):
            return mcp_types.ElicitResult(action="cancel")
        return mcp_types.ElicitResult(action="accept", content=_yes(params.requested_schema))

    def _took(self, name: str, began: float) -> None:
        self.times.setdefault(name, []).append(time.perf_counter() - began)

    def _took_steps(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            if step.get("ended_at") and step["attempts"] == 1:
                took = _seconds(step["ended_at"]) - _seconds(step["started_at"])
                self.times.setdefault("runs: one step of the program (300 resamplings)", []).append(took)


# --- what the tour computes by itself, to have something to compare with


def _birds() -> list[dict[str, str]]:
    with PENGUINS.open(encoding="utf8", newline="") as table:
        return list(csv.DictReader(table))


def _correlations() -> dict[str, float]:
    birds = [bird for bird in _birds() if bird["bill_length_mm"] != "NA"]
    flocks = {"all": birds} | {
        name: [b for b in birds if b["species"] == name] for name in {b["species"] for b in birds}
    }
    found = {
        name: round(
            statistics.correlation(
                [float(b["bill_length_mm"]) for b in flock], [float(b["bill_depth_mm"]) for b in flock]
            ),
            2,
        )
        for name, flock in flocks.items()
    }
    return {"birds": len(birds), **found}


def _means() -> dict[str, float]:
    masses: dict[str, list[float]] = {}
    for bird in _birds():
        if bird["sex"] != "NA":
            masses.setdefault(f"{bird['species']} {bird['sex']}", []).append(float(bird["body_mass_g"]))
    return {name: round(statistics.fmean(flock), 1) for name, flock in masses.items()}


# --- small things


async def _plain_python(code: str, stdin: str) -> str:
    """The same lines without the kernel: the control of a refusal."""
    return (await _run(sys.executable, "-I", "-c", code, stdin=stdin))[1]


async def _run(*argv: str, stdin: str = "") -> tuple[int | None, str]:
    """A command's exit status and everything it said."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 20)
    return process.returncode, output.decode(errors="replace")


async def _entered(stack: contextlib.AsyncExitStack, client: Client) -> Client:
    return await stack.enter_async_context(client)


def _alive(pid: int) -> bool:
    """A process that ended but was not reaped yet is not alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return _status_of(pid).get("State", "R")[0] != "Z"


def _parent_of(pid: int) -> int | None:
    """None where the system does not tell."""
    parent = _status_of(pid).get("PPid")
    return None if parent is None else int(parent)


def _status_of(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf8", errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _yes(schema: dict[str, Any]) -> dict[str, str | int | float | bool | list[str] | None]:
    """Fill in a form as somebody who agrees: the approving word of a choice, true for a yes-or-no."""
    form: dict[str, str | int | float | bool | list[str] | None] = {}
    for name, field_schema in schema.get("properties", {}).items():
        if "approve" in field_schema.get("enum", ()):
            form[name] = "approve"
        elif field_schema.get("type") == "boolean":
            form[name] = True
    return form


def _innermost(problem: BaseException) -> str:
    """Task groups wrap what happened, some more than once."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return f"{type(problem).__name__}: {problem}"


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _text_of(result: mcp_types.CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, mcp_types.TextContent))


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _title(loaded: dict[str, Any]) -> str:
    body = str(loaded.get("body") or loaded.get("text") or loaded)
    return next((line for line in body.splitlines() if line.startswith("# ")), body[:60])


def _seconds(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339).timestamp()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
