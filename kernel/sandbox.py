"""Sandbox: code in, what became of it out; who lives, who is killed, what was used.

A zygote (cell/zygote.py) forks a fresh locked child for every call, ahead of it where it can (base/parking.py). The child has a frame socket,
two pipes and a workspace, and nothing else of the host; a call that finds one parked costs one frame out and one frame in. The layers are
cell/layers.py, the system calls base/filter.py, one live child base/cell.py; the parts that read what a hostile guest made are
base/output.py and base/workspace.py.

    tier       needs                                             what it lacks against the one above
    full       user namespaces, Landlock, seccomp                -
    confined   Landlock ABI 6, seccomp (typical in containers)   unseen host paths (stat sees them), own loopback, locks of multiprocessing
    none       -                                                 everything: no code is run, `sandbox.unavailable` says why

Guarantees
1. The tier is found by running a throw-away sandbox at start, told in every result with the layers that this very child reported,
   and never lowered for a call.
2. `exit_code`, `value`, `error` and the output are the guest's claim about itself; `stopped_by`, `usage`, `tier`, `layers` are ours.
3. When the reply is made every process of the sandbox is killed; the last is dead a few milliseconds later (`settled`). Of a sandbox that had
   more than one process, files are collected when all are dead. Nothing of one call is there in the next: no process is used twice.
4. Wall time, memory, tasks, output, files and disk are bounded by numbers (base/limits.py); what is over is killed and named.
5. As root every sandbox has a uid of its own. Uid, folders and the place among `sandboxes_max` return only when all processes are reaped.
   Nothing runs as uid 0.
6. Past `sandboxes_max` and `sandboxes_waiting_max` a call is refused at once with `sandbox.overloaded`; each answer is of its own call.
7. An argument can only narrow: more than the operator's limit is `limit.exceeded`, hosts `egress.denied`, packages `packages.denied`.
8. Changed files and long output live at least 24 h under `sandbox://<id>/...`, also when the sandbox is long gone. `export` copies them to
   the host, into a folder that the operator shared for writing and nowhere else; no sandbox writes there itself.

If this process dies, every sandbox dies, parked ones too (cell/inits.py); nothing here is durable but what `store.keep` committed. If the
zygote dies, calls in flight answer `sandbox.lost`, which may be repeated, and the next call starts another.
"""

import asyncio
import base64
import mimetypes
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import quote, unquote

from .base import filter as syscalls
from .base import system
from .base.advice import advice
from .base.asked import MEMORY_MB, Asked, utf8
from .base.audit import Audit, Origin, digest_of
from .base.cell import Bounds, Cell, Ended, Spawn, Usage
from .base.cgroups import Most
from .base.claims import Claim, Note, noted
from .base.errors import ArgumentError, GuestError, HostError, NotFound
from .base.export import Exported, Leaving, export
from .base.joining import Joining
from .base.limits import MIB, Limits
from .base.owned import Owned, abandoned
from .base.parking import Parking, Rooms
from .base.places import NOTHING, Places, View
from .base.policy import Grants, Policy
from .base.pool import CLOSE_S, Refused, Zygote, interpreters, probe_layers
from .base.ports import LOCAL, Ports
from .base.store import Store, Transaction
from .base.watch import Watch
from .base.workspace import Found, checked_files, clear
from .cell.frames import END, HEADER, NOTE

__all__ = ["Cell", "Content", "Ended", "FileOut", "LayerReport", "Report", "Result", "Sandbox", "Usage", "probe"]

TIERS = ("full", "confined")
PROBE = "agent-kernel-probe-"
FILTERS = ("full", "visiting", "shared", "nursery")
"""Of base/filter.py: `visiting` is for tier full where a folder of the host is shared, `shared` for tier confined, `nursery` for inits."""
CONFINED_LACKS = ("host paths can be seen by stat", "no loopback network", "no locks of multiprocessing")
KEPT_FROM_CHARS = 4096
"""Output longer than this also gets a uri, since a face may have to cut it further."""
NOTES_MAX = 1000


class Tasks(Protocol):
    """The part of the scheduler that a sandbox needs: whoever makes tasks here."""

    @property
    def spawn(self) -> Spawn: ...


@dataclass(frozen=True, slots=True)
class FileOut:
    path: str
    size_bytes: int
    uri: str | None
    """None: past a limit of the collection; the file is named and was not kept."""


@dataclass(frozen=True, slots=True)
class Output:
    """A picture among the files, by its name: a guest's claim."""

    mime: str
    uri: str


@dataclass(frozen=True, slots=True)
class Result:
    id: str
    exit_code: int | None
    stdout: str
    stderr: str
    value: str | None
    error: dict[str, str] | None
    outputs: tuple[Output, ...]
    files: tuple[FileOut, ...]
    stopped_by: str | None
    degraded: tuple[str, ...]
    tier: str
    layers: tuple[str, ...]
    usage: Usage
    stdout_uri: str | None = None
    stderr_uri: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    uri: str
    mime: str
    size_bytes: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LayerReport:
    name: str
    works: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    tier: str
    layers: tuple[LayerReport, ...]
    applied: tuple[str, ...]
    """What the throw-away sandbox of that tier reported of itself."""
    missing: tuple[str, ...]


class Sandbox:
    def __init__(self, store: Store, ports: Ports, limits: Limits, policy: Policy, scheduler: Tasks, *, audit: Audit) -> None:  # fmt: skip
        self.tier = "none"
        self.layers: tuple[str, ...] = ()
        self.degraded: tuple[str, ...] = ()
        self.python = ""
        """Version of the interpreter that runs guests; a program's replay is bound to its minor version."""
        self._store, self._ports, self._limits, self._policy, self._scheduler = store, ports, limits, policy, scheduler
        self._audit = audit
        self._rooms = Rooms(limits.sandboxes_max, limits.sandboxes_waiting_max)
        self._watch = Watch(ports.clock.monotonic)
        self._parking = Parking(
            self._bear, least=limits.sandboxes_parked_min, most=limits.sandboxes_parked_max, monotonic=ports.clock.monotonic,
            spawn=scheduler.spawn,
        )  # fmt: skip
        self._places: Places | None = None
        self._joining: Joining | None = None
        self._restarting = asyncio.Lock()
        self._filters: dict[str, bytes] = {}
        self._zygote: Zygote | None = None
        self._retired: list[Zygote] = []
        """Worn, and with children still."""
        self._ending: set[asyncio.Task[None]] = set()
        self.refusals: list[str] = []
        """Why a better tier was not taken."""
        self._cells: set[Cell] = set()
        """Those that have a call."""
        self._closing = False
        self._dying: set[asyncio.Future[None]] = set()

    @classmethod
    async def open(
        cls,
        *,
        store: Store,
        ports: Ports,
        limits: Limits,
        policy: Policy,
        scheduler: Tasks,
        audit: Audit,
        tier: str | None = None,
    ) -> Self:
        """`tier` asks for that one and no other; what cannot be had makes `tier` none and every run a refusal, not the open."""
        policy.granted(Grants(), store.folder)
        self = cls(store, ports, limits, policy, scheduler, audit=audit)
        if not system.ISOLATES:
            self.refusals.append(system.NO_SANDBOX)
            return self
        try:
            self._filters = {name: syscalls.compile_filter(name) for name in FILTERS}
        except HostError as error:
            self.refusals.append(error.message)
            return self
        for wanted in TIERS if tier is None else (tier,):
            if await self._try_tier(wanted):
                break
        if self.tier != "none":
            room = limits.workspace_bytes_max if self.tier == "full" else 0
            most = Most(MEMORY_MB * MIB + room, limits.processes_max)
            self._joining = await Joining.open(ports, parked=self._parked_cells, most=most, spawn=scheduler.spawn)
            self._parking.open()
        if self.tier == "confined":
            self.degraded = (*(f"not full: {reason}" for reason in self.refusals), *CONFINED_LACKS)
        return self

    async def close(self) -> None:
        """When it returns no process of any sandbox is left, unless as a zombie that others should have reaped."""
        self._closing = True
        self._parking.close()
        for cell in list(self._cells):
            cell.abandon()
        async with self._restarting:
            for zygote in (*self._retired, *([self._zygote] if self._zygote else [])):
                await zygote.close()
        if self._ending:
            await asyncio.wait(self._ending)
        await self.settled(CLOSE_S)
        self._watch.close()
        if self._joining is not None:
            await self._joining.close()
        if self._places is not None:
            await self._places.close()

    async def settled(self, at_most_s: float | None = None) -> None:
        """Wait until nothing is left of the sandboxes that had been answered, or let go of, before."""
        await self._ports.clock.sleep(0)  # for `run`, which lets go of its cell behind its reply
        if self._dying:
            await asyncio.wait(self._dying, timeout=at_most_s)

    def _parked_cells(self) -> list[Cell]:
        return [cell for cell in self._parking.cells if isinstance(cell, Cell)]

    @property
    def group(self) -> tuple[str, str]:
        """The layer that control groups are, and why they are none or lack something; each may be empty."""
        return ("", "") if self._joining is None else (self._joining.layer, self._joining.lacks)

    @property
    def parked(self) -> int:
        """Children that are ready."""
        return self._parking.parked

    @property
    def in_use(self) -> int:
        """Sandboxes that have a call, or had one and are not reaped."""
        return len(self._cells) + len(self._dying)

    # --- one-shot runs

    async def run(
        self,
        code: str,
        *,
        language: str = "python",
        files: Mapping[str, str | bytes] | None = None,
        stdin: str | None = None,
        timeout_s: float = 30.0,
        memory_mb: int = MEMORY_MB,
        packages: Sequence[str] = (),
        allow_hosts: Sequence[str] = (),
        skill: Path | None = None,
        argv: Sequence[str] = (),
        grants: Grants | None = None,
        principal: str = LOCAL,
        client: str | None = None,
        run_id: str | None = None,
        step: int | None = None,
        on_note: Callable[[Note], None] | None = None,
    ) -> Result:
        """`grants` are the caller's; without them those of the kernel."""
        grants = grants or self._policy.grants
        with self._audit.begin(
            "run", Origin(principal, client, run_id, step), language=language, timeout_s=timeout_s, memory_mb=memory_mb, packages=packages,
            allow_hosts=allow_hosts,
        ) as act:  # fmt: skip
            Asked(language, timeout_s, memory_mb, packages, allow_hosts).check(self._limits, grants)
            given = checked_files(files or {}, self._limits)
            texts = [utf8("code", code), utf8("stdin", stdin or ""), *(utf8("argv", word) for word in argv)]
            start = {
                "v": 1, "mode": "code", "language": language, "code": code, "argv": list(argv),
                "files": {path: _text_or_base64(data) for path, data in given.items()},
            }  # fmt: skip
            view = View(skill, grants.paths)
            cell, claim = await self._cell(timeout_s, memory_mb, view, cpu_s=timeout_s * self._limits.cpus_max), None
            act.sandbox_id = cell.id
            try:
                rest = cell.begin(start, texts[1])
                self._parking.look_after()
                act.given(texts[0], argv, given)  # while the guest wakes up
                if rest:
                    await cell.send(rest)
                claim = await self._converse(cell, on_note)
                ended = await (cell.end(kill=False, given=given) if claim is None else cell.finish(given))
            finally:
                asyncio.get_running_loop().call_soon(cell.abandon)  # it is killed: the reply need not wait for the rest
                act.ran(cell, self.tier, None if claim is None else claim.exit_code)
            if claim is None and ended.stopped_by == "killed" and cell.orphaned:
                raise HostError(
                    "sandbox.lost",
                    "The process that keeps the sandboxes ended, and this call's with it. Nothing of it is kept; another is started. Call again.",
                    retryable=True,
                )
            return await self._result(principal, cell, claim, ended)

    async def _converse(self, cell: Cell, on_note: Callable[[Note], None] | None) -> Claim | None:
        """Frames of a one-shot guest until END; None when it left without one (bash, an exit, a crash, a kill).

        Notes count as output.
        """
        notes = 0
        try:
            while frames := await cell.receive():
                for frame in frames:
                    if frame.type == END:
                        claim = Claim.of(frame.payload)
                        if claim is None:
                            cell.stop("killed")
                        return claim
                    if frame.type != NOTE:
                        cell.stop("killed")
                        return None
                    cell.count_output(HEADER.size + len(frame.payload))
                    notes += 1
                    if on_note is not None and notes <= NOTES_MAX and (note := noted(frame.payload)) is not None:
                        on_note(note)
        except GuestError:
            cell.stop("killed")
        return None

    async def _result(self, principal: str, cell: Cell, claim: Claim | None, ended: Ended) -> Result:
        if ended.stopped_by is not None:
            claim = None
        stdout, stderr = ended.stdout.text(), ended.stderr.text()
        long = [(name, text) for name, text in (("stdout", stdout), ("stderr", stderr)) if len(text) > KEPT_FROM_CHARS]
        kept: list[tuple[str, bytes, str]] = [(name, text.encode(), "text/plain") for name, text in long]
        kept += [(f"files/{quote(f.path)}", f.data, _mime(f.path)) for f in ended.files if f.data is not None]
        if kept:
            await self._store.write(lambda tx: self._keep(tx, principal, cell.id, kept))
        uris = {name: f"sandbox://{cell.id}/{name}" for name, _ in long}
        return Result(
            id=cell.id,
            exit_code=ended.exit_code if claim is None else claim.exit_code,
            stdout=stdout,
            stderr=stderr,
            value=claim.value if claim else None,
            error=claim.error if claim else None,
            outputs=tuple(
                Output(_mime(found.path), _uri_of(cell.id, found.path))
                for found in ended.files
                if found.data is not None and _mime(found.path).startswith("image/")
            ),
            files=tuple(_file_out(cell.id, found) for found in ended.files),
            stopped_by=ended.stopped_by,
            degraded=self.degraded,
            tier=self.tier,
            layers=cell.layers,
            usage=ended.usage,
            stdout_uri=uris.get("stdout"),
            stderr_uri=uris.get("stderr"),
        )

    def _keep(self, tx: Transaction, principal: str, sandbox: str, kept: list[tuple[str, bytes, str]]) -> None:
        for name, data, mime in kept:
            self._store.keep(tx, principal, f"sandbox://{sandbox}/{name}", data, mime)

    # --- held cells: programs

    async def launch(
        self,
        start: Mapping[str, Any],
        *,
        timeout_s: float | None,
        memory_mb: int,
        grants: Grants | None = None,
        principal: str = LOCAL,
        run_id: str | None = None,
        cpu_s: float | None = None,
    ) -> Cell:
        """A child that has its START; the caller talks to it and must `end` or `abandon` it."""
        origin = Origin(principal, run_id=run_id)
        act = self._audit.begin("program", origin, timeout_s=timeout_s, memory_mb=memory_mb, cpu_s_max=cpu_s)
        try:
            grants = grants or self._policy.grants
            Asked("python", timeout_s, memory_mb).check(self._limits, grants)
            act.given(str(start.get("program", "")).encode(errors="replace"), (), start.get("files") or ())
            cell = await self._cell(timeout_s, memory_mb, View(None, grants.paths), cpu_s=cpu_s, room=False)
        except BaseException as error:
            act.failed(error)
            raise
        act.sandbox_id = cell.id

        def closed() -> None:
            self._closed(cell)
            act.ran(cell, self.tier, None)
            act.leave()

        cell.on_close = closed
        try:
            rest = cell.begin(start)
            self._parking.look_after()
            if rest:
                await cell.send(rest)
        except BaseException:
            cell.abandon()
            raise
        return cell

    async def read(
        self, *, uri: str, offset: int = 0, limit: int | None = None, principal: str = LOCAL, client: str | None = None
    ) -> Content:
        with self._audit.begin("read", Origin(principal, client), uri_sha256=digest_of([uri])) as act:
            found = await self._store.artifact(principal, uri)
            if found is None:
                raise _nothing_at(uri)
            if offset < 0 or (limit is not None and limit < 0):
                raise ArgumentError("argument.invalid", f"offset {offset} and limit {limit} must not be negative.")
            end = None if limit is None else offset + limit
            data = found.data[offset:end]
            act.sandbox_id = uri.removeprefix("sandbox://").partition("/")[0]
            act.became(bytes_out=len(data))
        return Content(uri, found.mime, len(found.data), offset, data)

    async def export(
        self,
        files: Sequence[str | Leaving],
        to: str,
        *,
        overwrite: bool = False,
        grants: Grants | None = None,
        principal: str = LOCAL,
        client: str | None = None,
        run_id: str | None = None,
        step: int | None = None,
    ) -> list[Exported]:
        """Copy files, named by the uris that a result gave them, into a folder that is shared as `:rw` (base/export.py)."""
        grants = grants or self._policy.grants
        with self._audit.begin(
            "export",
            Origin(principal, client, run_id, step),
            uri_sha256=digest_of(file if isinstance(file, str) else file.name for file in files),
        ) as act:
            if not files:
                raise ArgumentError("argument.invalid", "No file is named. Give the uris that a result has in `files`.")
            leaving = [file if isinstance(file, Leaving) else await self._leaving(file, principal) for file in files]
            writing = partial(export, leaving, to, grants.folders, self._ports.entropy, overwrite=overwrite)
            done = await asyncio.to_thread(writing)
            act.became(files_out=len(done), bytes_out=sum(file.size_bytes for file in done))
        return done

    async def _leaving(self, uri: str, principal: str) -> Leaving:
        if not uri.startswith("sandbox://"):
            raise ArgumentError(
                "argument.invalid",
                f"{uri[:200]!r} is no uri of a file. Name files as a result does in `files`: sandbox://...",
            )
        found = await self._store.artifact(principal, uri)
        if found is None:
            raise _nothing_at(uri)
        return Leaving(unquote(uri.rpartition("/")[2]), found.data)

    # --- making cells

    async def _cell(
        self, timeout_s: float | None, memory_mb: int, view: View = NOTHING, *, cpu_s: float | None = None, room: bool = True
    ) -> Cell:  # fmt: skip
        """A locked child that waits for START and is held to its bounds. Without `room` it is none of `sandboxes_max`."""
        self.check_works()
        if room:
            await self._rooms.enter()
        try:
            cell = await self._parking.take(None if view == NOTHING else view)
            self._stir()
        except BaseException:
            if room:
                self._rooms.leave()
            raise
        assert isinstance(cell, Cell)
        self._cells.add(cell)
        if room:
            cell.reaped.add_done_callback(lambda _: self._rooms.leave())
        assert self._places is not None
        cell.arm(Bounds(memory_mb * MIB, self._limits.processes_max, self._places.nproc(), timeout_s, cpu_s))
        return cell

    async def _bear(self, kind: Hashable, *, rehearse: bool) -> Cell:
        """A locked child that waits for START."""
        assert kind is None or isinstance(kind, View)
        zygote = await self._living_zygote()
        sandbox = self._ports.new_id("sbx")
        assert self._places is not None
        place, request = await self._places.make(sandbox, kind or NOTHING)
        cell = Cell(
            sandbox,
            zygote=zygote,
            ports=self._ports,
            limits=self._limits,
            spawn=self._scheduler.spawn,
            watch=self._watch,
            place=place,
        )
        cell.on_close = partial(self._closed, cell)
        try:
            await cell.start({**request, "rehearse": rehearse})
        except Refused as refused:
            raise HostError(
                "sandbox.unavailable",
                f"The sandbox could not be built: {refused}. Nothing was run. `agent-kernel doctor` shows what this host allows.",
                retryable=not zygote.alive,
            ) from refused
        self._stir()
        return cell

    def _stir(self) -> None:
        if self._joining is not None:
            self._joining.stir()

    def _closed(self, cell: Cell) -> None:
        self._cells.discard(cell)
        if not cell.reaped.done():
            self._dying.add(cell.reaped)
            cell.reaped.add_done_callback(self._dying.discard)

    def check_works(self) -> None:
        """Raises `sandbox.unavailable` where no code is run."""
        if self.tier == "none":
            raise HostError(
                "sandbox.unavailable",
                f"No code is run on this host, since it cannot be isolated. {' '.join(self.refusals)}"
                " `agent-kernel doctor` shows each layer and the line that gets it.",
            )

    async def _living_zygote(self) -> Zygote:
        self.check_works()
        zygote = self._zygote
        if zygote is not None and zygote.alive and not zygote.worn:
            return zygote
        places = self._places
        assert places is not None
        async with self._restarting:
            if self._closing:
                raise HostError("sandbox.unavailable", "The kernel is closing. Nothing was run.", retryable=True)
            old = self._zygote
            if old is None or not old.alive or old.worn:
                self._zygote = await Zygote.start(places.interpreter, places.hello(), self._filters)
                if old is not None:
                    self._retired.append(old)
            for zygote in [one for one in self._retired if not one.alive or not one.children]:
                self._retired.remove(zygote)
                self._ending.add(ending := self._scheduler.spawn(zygote.close(), "a zygote ends"))
                ending.add_done_callback(self._ending.discard)
            assert self._zygote is not None
            return self._zygote

    # --- the tier

    async def _try_tier(self, tier: str) -> bool:
        """Run a throw-away sandbox in `tier`; only what has worked counts. Leaves the zygote running when it has."""
        try:
            places = self._places = await asyncio.to_thread(
                Places, tier, state=self._store.folder, ports=self._ports, limits=self._limits
            )
            self._zygote = await Zygote.start(places.interpreter, places.hello(), self._filters)
            self.python = self._zygote.python
            self.tier = tier
            cell = await self._cell(10.0, 256)
            try:
                cell.begin({"v": 1, "mode": "code", "language": "python", "code": "6 * 7", "argv": [], "files": {}})
                claim = await self._converse(cell, None)
                ended = await cell.end(kill=claim is not None)
            finally:
                cell.abandon()
            if claim is None or claim.value != "42":
                problem = f"a trial program failed: {ended.stderr.text()[-300:]}"
                raise HostError("sandbox.unavailable", problem)  # noqa: TRY301  it joins the refusals of this tier
        except HostError as error:
            self.tier = "none"
            self.refusals.append(f"Tier {tier}: {error.message}")
            if self._zygote is not None:
                await self._zygote.close()
                self._zygote = None
            if self._places is not None:
                await self._places.close()
                self._places = None
            return False
        self.layers = cell.layers
        return True


def _text_or_base64(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _nothing_at(uri: str) -> NotFound:
    return NotFound(
        "uri.unknown", f"There is nothing at {uri[:200]!r}, or it has expired. Use a uri that a reply named."
    )


def _file_out(sandbox: str, found: Found) -> FileOut:
    return FileOut(found.path, found.size_bytes, None if found.data is None else _uri_of(sandbox, found.path))


def _uri_of(sandbox: str, path: str) -> str:
    return f"sandbox://{sandbox}/files/{quote(path)}"


def _mime(path: str) -> str:
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


# --- what this host can do


def probe() -> Report:
    """Each layer tried by itself, then the tier found as a kernel would find it. Blocking; not from inside an event loop."""
    if not system.ISOLATES:
        return Report("none", (), (), (system.NO_SANDBOX,))
    found = probe_layers(interpreters()[0])
    tiers = asyncio.run(_trial())
    counted, lacks = tiers.group
    found.append(
        ("cgroup", bool(counted) and not lacks, "; ".join(filter(None, (counted.removeprefix("cgroup: "), lacks))))
    )
    layers = tuple(LayerReport(name, works, detail) for name, works, detail in found)
    missing = (
        [] if tiers.tier == "full" else [*tiers.refusals, *advice({layer.name for layer in layers if not layer.works})]
    )
    return Report(tiers.tier, layers, tiers.layers, tuple(missing))


async def _trial() -> Sandbox:
    """A sandbox opened and closed on a state folder of its own. There is no kernel here, so its tasks live in this group."""
    ports, limits = Ports.real(), Limits()
    above = Path(tempfile.gettempdir())
    for stale in abandoned(above, PROBE):
        clear(stale)
    own = Owned.make(above, PROBE, ports.entropy)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = _Tasks(lambda work, name: group.create_task(work, name=name))
            store = await Store.open(own.path / "state", ports=ports, limits=limits, migrations=(), spawn=tasks.spawn)
            try:
                audit = Audit(store, ports, limits)
                sandbox = await Sandbox.open(store=store, ports=ports, limits=limits, policy=Policy(), scheduler=tasks, audit=audit)  # fmt: skip
                await sandbox.close()
            finally:
                await store.close()
    finally:
        clear(own.path)
        own.release()
    return sandbox


@dataclass(frozen=True, slots=True)
class _Tasks:
    spawn: Spawn
