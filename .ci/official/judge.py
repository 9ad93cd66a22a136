"""The official conformance suite of MCP against this server, and what counts as passed: every check of every scenario, as SUCCESS.

    the server as it is        the skills extension, and whatever needs no tool, prompt or resource of a fixed name
    the same with fixtures     all that the suite has for a version of the protocol (fixtures.py)

The suite itself calls a scenario passed when it skipped all of it, and takes warnings; here neither passes. What it cannot ask of a
version stands in `NOT_ASKED`, what this server does not claim in `LEFT_OUT`; a scenario that was not run fails the judgement.

    ./run official

node comes with the extra `official`, the suite by the lock file beside this one. Whatever cannot be had ends the run with its error.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent

SKILLS = ("sep-2640-skills-enumeration", "sep-2640-skills-manifest", "sep-2640-skills-directory")
EVERYWHERE = (
    "completion-complete",
    "tools-list",
    "resources-list",
    "prompts-list",
    "dns-rebinding-protection",
    "server-sse-multiple-streams",
)
AS_IT_IS = {
    "2025-11-25": (*SKILLS, *EVERYWHERE, "server-initialize", "server-session-lifecycle", "ping"),
    "2026-07-28": (*SKILLS, *EVERYWHERE, "caching", "http-header-validation", "sep-2164-resource-not-found"),
}
NOT_ASKED = {
    ("2025-11-25", "sep-2640-skills-list-cache-attributes"): "ttlMs and cacheScope are not in this version",
    ("2025-11-25", "sep-2640-skills-get-cache-attributes"): "ttlMs and cacheScope are not in this version",
}
LEFT_OUT = {
    "server-sse-polling": "a broken SSE stream is not taken up again; the suite itself holds this scenario back as pending"
}


def main() -> int:
    cli = [node(), str(installed() / "node_modules/@modelcontextprotocol/conformance/dist/index.js")]
    bad = []
    for version, scenarios in AS_IT_IS.items():
        print(f"\n{version}, the server as it is", flush=True)
        with served() as (url, out):
            for scenario in scenarios:
                one = [*cli, "server", "--url", url, "--scenario", scenario, "--force"]
                bad += judged(one, version, out / scenario, {scenario})
        print(f"\n{version}, with the suite's fixtures", flush=True)
        with served("--fixtures") as (url, out):
            every = [*cli, "server", "--url", url, "--suite", "all"]
            bad += judged(every, version, out, of_version(cli, version))
    print("\n".join(["", "NOT PASSED", *bad]) if bad else "\nEvery check is SUCCESS.")
    return bool(bad)


@contextmanager
def served(*options: str) -> Iterator[tuple[str, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, str(HERE / "front.py"), f"{folder}/state", *options]
        front = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        try:
            assert front.stdout is not None
            yield f"http://127.0.0.1:{int(front.stdout.readline())}/mcp", Path(folder) / "out"
        finally:
            front.terminate()
            front.wait()


def of_version(cli: list[str], version: str) -> set[str]:
    """The scenarios that the suite has for this version, but for those left out."""
    asked = [*cli, "list", "--server", "--spec-version", version]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r"^ +- (\S+)", told, re.MULTILINE))
    for name in sorted(names & LEFT_OUT.keys()):
        print(f"  left out: {name} ({LEFT_OUT[name]})")
    return names - LEFT_OUT.keys()


def judged(command: list[str], version: str, out: Path, wanted: set[str]) -> list[str]:
    """Lines about what did not pass."""
    asked = [*command, "--spec-version", version, "--output-dir", str(out)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=600, check=False)
    bad = []
    seen = {path.parent.name: json.loads(path.read_text()) for path in sorted(out.glob("*/checks.json"))}
    seen = {re.sub(r"^server-(.*)-\d{4}-\d\d-\d\dT[\dZ-]+$", r"\1", name): checks for name, checks in seen.items()}
    for scenario in sorted(wanted):
        checks = seen.get(scenario)
        if not checks:
            bad.append(f"{version} {scenario}: it made no check.\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            continue
        left = [check for check in checks if check["status"] not in ("SUCCESS", "INFO")]
        missed = [check for check in left if check["status"] != "SKIPPED" or (version, check["id"]) not in NOT_ASKED]
        passed = sum(check["status"] == "SUCCESS" for check in checks)
        print(f"  {scenario}: {passed} of {len(checks)}{'   NOT PASSED' if missed else ''}", flush=True)
        for check in left:
            if check in missed:
                bad.append(f"{version} {scenario} {check['id']}: {check['status']} {check.get('errorMessage', '')}")
            else:
                print(f"    not asked: {check['id']} ({NOT_ASKED[version, check['id']]})")
    return bad


def node() -> str:
    """The node of the extra `official`; another one only if it is new enough."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = shutil.which("node", path=path)
    if found is None:
        raise SystemExit("There is no node. `./run official` installs it.")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(told.removeprefix("v").split(".")[0]) < 22:
        raise SystemExit(f"{found} is {told}; the suite needs 22 or newer. `./run official` installs one.")
    os.environ["PATH"] = os.pathsep.join([str(Path(found).parent), os.environ["PATH"]])
    return found


def installed() -> Path:
    """The folder with exactly the packages of the lock file."""
    folder = Path(sys.prefix) / "official-conformance"
    folder.mkdir(exist_ok=True)
    lock = (HERE / "package-lock.json").read_text()
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
        stamp.write_text(lock)
    return folder


if __name__ == "__main__":
    sys.exit(main())
