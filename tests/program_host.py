"""A kernel small enough to hold in the head, for tests of the guest runtime: no sandbox, no store, answers by chance or by script.

A template process imports `cell` once, with PYTHONHASHSEED=0, and forks one guest per life. `Run` plays the kernel's side of the
protocol for one program: it records deliveries in order, holds calls back while recorded ones remain, kills the guest where it is told
to and starts it again with what was recorded. `GUEST_PYTHON` in the environment names another interpreter for the guests.
"""

import base64
import contextlib
import json
import math
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from agent_kernel.cell import frames

WAIT_S = 30
SEED = "5e" * 32
EPOCH = 1_800_000_000
LIMITS = {"cancel_grace_s": 10, "calls_max": 10_000, "calls_open_max": 256, "value_bytes_max": 1 << 21}

TEMPLATE = """
import email.utils, gc, importlib.util, json, os, random, signal, socket, sys
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location("cell", folder + "/__init__.py", submodule_search_locations=[folder])
cell = importlib.util.module_from_spec(spec)
sys.modules["cell"] = cell
spec.loader.exec_module(cell)
from cell import frames, turns
control = socket.socket(fileno=0)
for _ in range(100):
    email.utils.localtime()  # code of the library that has seen the system's clock, as in a zygote
gc.disable()
gc.freeze()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    folder, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
    if not folder:
        os._exit(0)
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(str(pid).encode())
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    os.open('/dev/null', os.O_RDONLY)
    assert descriptors == [3, 4], descriptors
    os.dup2(4, 1)
    os.dup2(4, 2)
    os.close(4)
    # Another heap in each life, as after a restart of the kernel: what depends on addresses shows.
    random.seed(int(folder.decode().partition(":")[0]))
    junk = [bytes(random.randrange(16, 480)) for _ in range(2000)]
    random.shuffle(junk)
    del junk[:1000]
    os.chdir(folder.decode().partition(":")[2])
    sock = socket.socket(fileno=3)
    start = json.loads(frames.receive_start(sock)[0].payload)
    turns.run(sock, start)
    os._exit(0)
"""


class Template:
    _one = None

    def __init__(self):
        ours, theirs = socket.socketpair()
        python = os.environ.get("GUEST_PYTHON", sys.executable)
        self.process = subprocess.Popen(
            [python, "-S", "-s", "-P", "-B", "-c", TEMPLATE, str(Path(frames.__file__).parent)],
            stdin=theirs,
            env={"PYTHONHASHSEED": "0"},
        )
        theirs.close()
        self.control = ours
        self.forks = 0
        self.control.settimeout(WAIT_S)

    @classmethod
    def one(cls):
        if cls._one is None:
            cls._one = cls()
        return cls._one

    @classmethod
    def close(cls):
        if cls._one is not None:
            cls._one.control.close()
            cls._one.process.wait(WAIT_S)
            cls._one = None

    def fork(self, folder, sock, out):
        self.forks += 1
        socket.send_fds(self.control, [f"{self.forks}:{folder}".encode()], [sock.fileno(), out])
        return int(self.control.recv(64))


class Gone(Exception):
    """The guest closed its socket."""


class Life:
    """One guest process and our end of its socket."""

    def __init__(self, start):
        self.folder = tempfile.mkdtemp(prefix="guest-")
        self.sock, theirs = socket.socketpair()
        read, write = os.pipe()
        self.pid = Template.one().fork(self.folder, theirs, write)
        theirs.close()
        os.close(write)
        self._output = read
        self.stdout = b""
        self._reader = frames.Reader(1 << 23)
        self._frames = []
        self.send(frames.encode(frames.START, 0, json.dumps(start).encode()))

    def send(self, data):
        view = memoryview(data)
        while view:
            readable, writable, _ = select.select([self.sock, self._output], [self.sock], [], WAIT_S)
            if not readable and not writable:
                raise TimeoutError("the guest does not read")
            if self._output in readable:
                self._drain()
            if self.sock in readable:
                self._fill()
            if writable:
                try:
                    view = view[self.sock.send(view, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    return

    def receive(self):
        while not self._frames:
            readable, _, _ = select.select([self.sock, self._output], [], [], WAIT_S)
            if not readable:
                raise TimeoutError("the guest says nothing")
            if self._output in readable:
                self._drain()
            if self.sock in readable and not self._fill():
                raise Gone
        return self._frames.pop(0)

    def _fill(self):
        try:
            data = self.sock.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        self._frames += self._reader.feed(data)
        return bool(data)

    def _drain(self):
        data = os.read(self._output, 1 << 16)
        self.stdout += data
        return bool(data)

    def until_all_left(self):
        """Each process of the guest holds the pipe of its output: it ends when the last one has left."""
        while select.select([self._output], [], [], WAIT_S)[0]:
            if not self._drain():
                return
        raise TimeoutError("a process of the guest stays")

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.close()

    def close(self):
        self.sock.close()
        self.until_all_left()
        os.close(self._output)
        shutil.rmtree(self.folder, ignore_errors=True)


class Diverged(AssertionError):
    pass


class Run:
    """A program and its history. `live` goes on from what is recorded, `replay` only repeats it."""

    def __init__(self, program, *, answer=None, input=None, files=None, seed=0, limits=None):  # noqa: A002
        self.program = program
        self.input = {} if input is None else input
        self.files = files or {}
        self.answer = answer or (lambda method, arguments, _: {"ok": arguments.get("name", method)})
        self.rng = random.Random(seed)
        self.limits = {**LIMITS, **(limits or {})}
        self.deliveries = []  # (kind, T, ordinal, value)
        self.recorded_calls = {}  # ordinal -> (method, effect, arguments), of those that have an answer
        self.executed = []  # ordinals, in the order of execution
        self.lives = 0
        self.rested = -1  # the most deliveries with which a life was idle
        self.notes = []
        self.stdout = b""
        self.at = 0.0
        self.payload = None
        self.calls = []
        self.drops = []

    def _start(self):
        answered = sorted(d[2] for d in self.deliveries if d[0] in ("ok", "error"))
        start = {
            "v": 1, "mode": "program", "run_id": "run_test", "program": self.program, "input": self.input, "seed": SEED,
            "epoch": EPOCH, "recorded": max(self.rested, 0), "rested": self.rested >= 0, "answered_steps": [[n, n] for n in answered],
            "files": self.files, "limits": self.limits,
        }  # fmt: skip
        self.lives += 1
        self.life = Life(start)
        self.calls, self.drops, self.open, self.results = [], [], {}, {}
        self.sent = self.consumed = 0
        self.timer = None
        self.payload = None
        # Framing must not matter: the prefix goes out in pieces of random size.
        data = b"".join(self._frame(i) for i in range(len(self.deliveries)))
        self.sent = len(self.deliveries)
        self.life.send(data)

    def _frame(self, number):
        kind, at, ordinal, value = self.deliveries[number]
        head = frames.DELIVER_HEAD.pack(frames.KINDS.index(kind), at, ordinal)
        return frames.encode(frames.DELIVER, number, head + value)

    def _take(self):
        """One frame of the guest. True at an IDLE with everything consumed, and at END."""
        frame = self.life.receive()
        if frame.type == frames.CALL:
            method, effect, path_bytes = frames.CALL_HEAD.unpack_from(frame.payload)
            body = frame.payload[frames.CALL_HEAD.size :]
            call = (frames.METHODS[method], effect, body[path_bytes:])
            assert frame.number == len(self.calls), "ordinals are dense"
            recorded = self.recorded_calls.get(frame.number)
            if recorded is not None and recorded != call:
                raise Diverged(f"call {frame.number}: recorded {recorded}, now {call}")
            self.calls.append((*call, body[:path_bytes].decode()))
            if recorded is None:
                self.open[frame.number] = call
        elif frame.type == frames.DROP:
            self.drops.append(frame.number)
            self.open.pop(frame.number, None)
            self.results.pop(frame.number, None)
        elif frame.type == frames.RESULT:
            self.results[frame.number] = json.loads(frame.payload)
        elif frame.type == frames.NOTE:
            self.notes.append(json.loads(frame.payload))
        elif frame.type in (frames.IDLE, frames.END):
            assert self.consumed <= frame.number <= self.sent
            late = self.deliveries[self.consumed : frame.number]
            missing = [d[2] for d in late if d[0] in ("ok", "error") and d[2] >= len(self.calls)]
            if missing:
                raise Diverged(f"call {missing[0]} was recorded and is not made")
            self.consumed = frame.number
            if frame.type == frames.END:
                self.payload = json.loads(frame.payload)
                return True
            (timer,) = frames.IDLE_BODY.unpack(frame.payload)
            self.timer = None if math.isnan(timer) else timer
            self.rested = max(self.rested, frame.number)
            return frame.number == self.sent
        else:
            raise AssertionError(f"frame {frame}")
        return False

    def until_idle(self):
        while not self._take():
            pass
        return self.payload is not None

    def record(self, kind, ordinal=0, value=b"", at=None):
        self.at = max(self.at, self.at if at is None else at)
        self.deliveries.append((kind, self.at, ordinal, value))
        if kind in ("ok", "error"):
            self.recorded_calls[ordinal] = self.open.pop(ordinal)

    def deliver(self):
        """Send what is recorded and not sent."""
        data = b"".join(self._frame(i) for i in range(self.sent, len(self.deliveries)))
        self.sent = len(self.deliveries)
        self.life.send(data)

    def execute(self, ordinal):
        """Answer an open call: run a step in the guest, ask `answer` for the others. Records, does not deliver."""
        method, _, arguments = self.open[ordinal]
        arguments = json.loads(arguments)
        self.executed.append(ordinal)
        at = None
        if method == "step":
            if ordinal not in self.results:
                self.life.send(frames.encode(frames.RUN, ordinal))
                while ordinal not in self.results:
                    self._take()
            outcome = self.results.pop(ordinal)
            if "ok" in outcome:
                outcome = {"ok": {"value": outcome["ok"], "files": outcome["files"]}}
        elif method == "sleep":
            outcome, at = {"ok": None}, self.at + arguments["seconds"]
        else:
            outcome = self.answer(method, arguments, self.rng)
        kind = "ok" if "ok" in outcome else "error"
        self.record(kind, ordinal, json.dumps(outcome[kind]).encode(), at)

    def error(self, code="tool.failed", *, retryable=True):
        return {"error": {"code": code, "message": "by chance", "fault": "host", "retryable": retryable}}

    def live(self, *, crash=0.0, cancel_at=None, deliveries_max=5000):
        """Drive the program to its end, answering in random order; with `crash`, kill the guest at that rate."""
        self._start()
        while True:
            try:
                if self.until_idle():
                    self.life.close()
                    self.stdout += self.life.stdout
                    return self.payload
            except BaseException:
                self.life.kill()
                raise
            if len(self.deliveries) > deliveries_max:
                self.life.kill()
                raise AssertionError("the program does not end")
            if self.rng.random() < crash:  # before any effect
                self._crash()
                continue
            if cancel_at is not None and len(self.deliveries) >= cancel_at:
                self.record("cancel")
                cancel_at = None
            else:
                self._something()
                if self.rng.random() < crash:  # between record and delivery
                    self._crash()
                    continue
            self.deliver()
            if self.rng.random() < crash / 2:  # while the guest works
                self._crash()

    def _something(self):
        """One to three answers, or a tick: by chance, as the world has it."""
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            choices = sorted(self.open)
            if self.timer is not None and (not choices or self.rng.random() < 0.25):
                self.record("tick", at=self.timer)
                return
            if not choices:
                return
            self.at += self.rng.choice((0.0, 0.01, 0.3))
            self.execute(self.rng.choice(choices))

    def _crash(self):
        self.life.kill()
        self.stdout += self.life.stdout
        self._start()

    def replay(self):
        """A life with the whole history: (calls, drops, payload). Nothing may be executed."""
        executed = list(self.executed)
        self._start()
        try:
            while self.payload is None:
                assert not self.until_idle() or self.payload is not None, "idle before its recorded end"
                assert self.payload is not None, f"idle at {self.consumed} of {self.sent}, before its recorded end"
        finally:
            self.life.kill()
        assert self.executed == executed
        return self.calls, self.drops, self.payload


def check(program, *, seed, answer=None, input=None, crash=0.15, cancel_at=None, files=None):  # noqa: A002
    """Live through crashes, then replay the finished run: same calls, same drops, same outcome. The finished run."""
    run = Run(program, answer=answer, input=input, seed=seed, files=files)
    payload = run.live(crash=crash, cancel_at=cancel_at)
    calls, drops = run.calls, run.drops
    recorded = [d[2] for d in run.deliveries if d[0] in ("ok", "error")]
    assert len(recorded) == len(set(recorded)), "an answer was recorded twice"
    again = run.replay()
    assert again == (calls, drops, payload)
    return run


def outcome(program, **options):
    """The END payload of a program that is never disturbed."""
    return Run(program, **options).live()


def decoded(files):
    return {path: base64.b64decode(data).decode() for path, data in files.items()}
