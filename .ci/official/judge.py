"""The official conformance suite of MCP against this server, and what counts as passed: every check of every scenario, as SUCCESS.

The suite itself calls a scenario passed when it skipped all of it, and takes warnings; here neither passes. What it cannot ask of a
version stands in `NOT_ASKED`.

    ./run official              all of it, on both versions of the protocol
    ./run official NAME...      these scenarios

node comes with the extra `official`, the suite by the lock file beside this one. Whatever cannot be had ends the run with its error.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
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
SCENARIOS = {
    "2025-11-25": (*SKILLS, *EVERYWHERE, "server-initialize", "server-session-lifecycle", "ping"),
    "2026-07-28": (*SKILLS, *EVERYWHERE, "caching", "http-header-validation", "sep-2164-resource-not-found"),
}
"""The others call tools, prompts and resources of fixed names, which only a server made for them has."""

NOT_ASKED = {
    ("2025-11-25", "sep-2640-skills-list-cache-attributes"): "ttlMs and cacheScope are not in this version",
    ("2025-11-25", "sep-2640-skills-get-cache-attributes"): "ttlMs and cacheScope are not in this version",
}


def main(wanted: list[str]) -> int:
    cli = [node(), str(installed() / "node_modules/@modelcontextprotocol/conformance/dist/index.js")]
    bad = []
    for version, scenarios in SCENARIOS.items():
        with tempfile.TemporaryDirectory() as folder:
            front = subprocess.Popen(
                [sys.executable, str(HERE / "front.py"), f"{folder}/state"], stdout=subprocess.PIPE, text=True
            )
            try:
                assert front.stdout is not None
                url = f"http://127.0.0.1:{int(front.stdout.readline())}/mcp"
                for scenario in (name for name in scenarios if not wanted or name in wanted):
                    bad += judged(cli, url, version, scenario, Path(folder) / scenario)
            finally:
                front.terminate()
                front.wait()
    print("\n".join(["", "NOT PASSED", *bad]) if bad else "\nEvery check is SUCCESS.")
    return bool(bad)


def judged(cli: list[str], url: str, version: str, scenario: str, out: Path) -> list[str]:
    """Lines about what did not pass."""
    asked = ["--url", url, "--scenario", scenario, "--spec-version", version, "--force", "--output-dir", str(out)]
    done = subprocess.run([*cli, "server", *asked], capture_output=True, text=True, timeout=120, check=False)
    checks = [check for path in out.glob("*/checks.json") for check in json.loads(path.read_text())]
    if not checks:
        return [f"{version} {scenario}: it made no check.\n{done.stdout[-2000:]}{done.stderr[-2000:]}"]
    left = [check for check in checks if check["status"] not in ("SUCCESS", "INFO")]
    bad = [check for check in left if check["status"] != "SKIPPED" or (version, check["id"]) not in NOT_ASKED]
    passed = sum(check["status"] == "SUCCESS" for check in checks)
    print(f"{version}  {scenario}: {passed} of {len(checks)}{'' if not bad else '   NOT PASSED'}", flush=True)
    for check in left:
        if check not in bad:
            print(f"            not asked: {check['id']} ({NOT_ASKED[version, check['id']]})")
    return [f"{version} {scenario} {check['id']}: {check['status']} {check.get('errorMessage', '')}" for check in bad]


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
    sys.exit(main(sys.argv[1:]))
