"""Checks of skills, on the two folders that the suite puts into every state folder (suite.SKILLS)."""

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from ..driver import Driver
from ..registry import check, expect

TALLY = "conformance-tally"
INVALID_PARAMS = -32602


@check("skills.search.finds")
async def search_finds(c: Driver) -> None:
    skills = (await c.ok("skill_search", query="count marmalade jars")).get("skills") or []
    mine = [skill for skill in skills if skill.get("name") == TALLY]
    expect(mine, f"not found: {[skill.get('name') for skill in skills]}")
    expect("marmalade" in mine[0].get("description", ""), f"without its description: {mine[0]}")
    expect(mine[0].get("uri"), f"without a uri: {mine[0]}")


@check("skills.load.brings-body-and-files")
async def load_brings_body_and_files(c: Driver) -> None:
    loaded = await c.ok("skill_load", name=TALLY)
    expect("it prints their sum" in loaded.get("body", ""), f"the body is not there: {loaded}")
    paths = {file.get("path") for file in loaded.get("files") or []}
    expect({"scripts/tally.py", "references/units.md"} <= paths, f"the list of files is {sorted(map(str, paths))}")


@check("skills.load.brings-one-file")
async def load_brings_one_file(c: Driver) -> None:
    loaded = json.dumps(await c.ok("skill_load", name=TALLY, path="references/units.md"))
    expect("One jar is one unit of marmalade." in loaded, f"the file is {loaded[:300]}")
    expect("it prints their sum" not in loaded, f"the body came instead of the file alone: {loaded[:300]}")


@check("skills.load.stays-inside")
async def load_stays_inside(c: Driver) -> None:
    secret = c.place.secret_file
    for path in ("../../../home/.ssh/id_canary", str(secret), "scripts/../../conformance-broken/SKILL.md"):
        for reply in (
            await c.call("skill_load", name=TALLY, path=path),
            await c.call("skill_run", name=TALLY, script=path),
        ):
            expect(c.place.canary not in reply.text, f"{path!r} brought the canary")
            expect(reply.refused, f"{path!r} was taken: {reply.text[:200]}")


def lay(c: Driver, body: str, script: str = "") -> tuple[str, Path]:
    """A skill folder of this check's own; whoever calls removes it."""
    name = f"conformance-{c.token}"
    folder = c.place.state / "skills" / name
    (folder / "scripts").mkdir(parents=True, exist_ok=True)
    (folder / "SKILL.md").write_text(f"---\nname: {name}\ndescription: Of one check.\n---\n{body}\n", encoding="utf8")
    if script:
        (folder / "scripts" / "run.py").write_text(script, encoding="utf8")
    return name, folder


@check("skills.load.keeps-versions")
async def load_keeps_versions(c: Driver) -> None:
    name, folder = lay(c, "The first words.")
    try:
        first = await c.ok("skill_load", name=name)
        lay(c, "Quite other words.")
        second = await c.ok("skill_load", name=name)
        expect(first.get("revision") != second.get("revision"), f"one revision for two texts: {second.get('revision')}")
        again = await c.ok("skill_load", name=name, revision=first.get("revision"))
        expect("The first words." in again.get("body", ""), f"the first version is {again.get('body')!r}")
        listed = {
            v.get("revision") for v in (await c.ok("skill_load", name=name, view="history")).get("versions") or []
        }
        expect({first.get("revision"), second.get("revision")} <= listed, f"the history has {listed}")
    finally:
        shutil.rmtree(folder)


@check("skills.load.shows-differences")
async def load_shows_differences(c: Driver) -> None:
    name, folder = lay(c, "Stays.\nThe first words.")
    try:
        first = await c.ok("skill_load", name=name)
        lay(c, "Stays.\nQuite other words.")
        diff = (await c.ok("skill_load", name=name, view="diff", revision=first.get("revision"))).get("diff", "")
        lines = diff.split("\n")
        expect("-The first words." in lines and "+Quite other words." in lines, f"the difference is {diff!r}")
    finally:
        shutil.rmtree(folder)


@check("skills.run.gives-input-takes-output")
async def run_gives_input_takes_output(c: Driver) -> None:
    script = "import json, os, sys\nopen(os.path.join(os.environ['OUTPUT'], 'out.txt'), 'w').write(json.load(sys.stdin)['word'])\n"
    name, folder = lay(c, "Run it.", script)
    try:
        result = await c.ok("skill_run", name=name, script="scripts/run.py", input={"word": c.token})
        expect(result.get("exit_code") == 0, f"the script failed: {result}")
        files = [file for file in result.get("files") or [] if str(file.get("path")).endswith("out.txt")]
        expect(files and files[0].get("uri"), f"what was put into $OUTPUT is not in files: {result.get('files')}")
        read = await c.ok("sandbox_read", uri=files[0]["uri"])
        expect(read.get("text") == c.token, f"the file holds {read.get('text')!r}")
    finally:
        shutil.rmtree(folder)


@check("skills.broken.hides-no-other")
async def broken_hides_no_other(c: Driver) -> None:
    skills = (await c.ok("skill_search", query="conformance", limit=20)).get("skills") or []
    names = [skill.get("name") for skill in skills]
    expect(TALLY in names, f"the sound skill beside the broken one is not found: {names}")
    expect("conformance-broken" not in names, f"the broken one is served: {names}")
    await c.ok("skill_load", name=TALLY)


@check("skills.run.runs-a-script")
async def run_runs_a_script(c: Driver) -> None:
    result = await c.ok("skill_run", name=TALLY, script="scripts/tally.py", args=["19", "20", "3"])
    expect(result.get("exit_code") == 0, f"the script failed: {result}")
    expect(result.get("stdout", "").startswith("42\n"), f"stdout is {result.get('stdout')!r}")


@check("skills.run.skill-is-read-only")
async def run_leaves_the_skill_as_it_is(c: Driver) -> None:
    result = await c.ok("skill_run", name=TALLY, script="scripts/tally.py")
    stdout = result.get("stdout", "")
    refused = "refused SKILL.md" in stdout and "refused planted.txt" in stdout
    expect(refused, f"a script wrote into its skill: {stdout!r}, {result.get('stderr', '')[:200]}")
    loaded = json.dumps(await c.ok("skill_load", name=TALLY))
    expect("planted.txt" not in loaded and "changed" not in loaded, f"the skill was changed: {loaded[:300]}")


@check("skills.run.unknown-script-is-refused")
async def unknown_script_is_refused(c: Driver) -> None:
    reply = await c.call("skill_run", name=TALLY, script="scripts/telly.py")
    expect(reply.refused, f"a script that is not there ran: {reply.text[:200]}")
    expect("telly.py" in reply.text, f"the script is not named: {reply.text[:200]}")


@check("skills.programs.guide-is-there")
async def guide_is_there(c: Driver) -> None:
    loaded = json.dumps(await c.ok("skill_load", name="durable-programs"))
    for word in ("kernel.step", "kernel.sleep", "kernel.approve"):
        expect(word in loaded, f"the guide does not tell of {word}")


@check("skills.programs.run-scripts")
async def programs_run_scripts(c: Driver) -> None:
    program = (
        "async def main(input):\n"
        f"    result = await kernel.skill('{TALLY}', 'scripts/tally.py', marker='{c.token}')\n"
        "    return [result.exit_code, result.stdout]\n"
    )
    output = await c.output(program)
    expect(isinstance(output, list) and len(output) == 2, f"the program returned {output!r}")
    expect(output[0] == 0 and str(output[1]).startswith("0\n"), f"the script's result in the program: {output}")


# --- the extension io.modelcontextprotocol/skills


async def listed(c: Driver, method: str, field: str, **params: Any) -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    for _ in range(100):
        message = await c.subject.ask_raw(method, {**params, **cursor})
        page = message.get("result", {}).get(field)
        expect(isinstance(page, list), f"{method}: no {field} in {str(message)[:300]}")
        found += page
        cursor = {"cursor": message["result"].get("nextCursor")}
        if cursor["cursor"] is None:
            return found
    raise AssertionError(f"{method} does not come to an end")


async def tally_entry(c: Driver) -> dict[str, Any]:
    mine = [
        entry
        for entry in await listed(c, "skills/list", "skills")
        if (entry.get("frontmatter") or {}).get("name") == TALLY
    ]
    expect(len(mine) == 1, f"{len(mine)} entries of {TALLY}")
    return mine[0]


async def refused_as_invalid(c: Driver, method: str, uri: str) -> None:
    message = await c.subject.ask_raw(method, {"uri": uri})
    code = message.get("error", {}).get("code")
    expect(code == INVALID_PARAMS, f"{method} of {uri} is answered with {str(message)[:300]}")


@check("skills.extension.lists-with-digests")
async def extension_lists_with_digests(c: Driver) -> None:
    entry = await tally_entry(c)
    description = "Counts the marmalade jars that a list of numbers stands for."
    expect(entry["frontmatter"] == {"name": TALLY, "description": description}, f"the front matter is {entry}")
    expect(entry["uri"].endswith(f"/{TALLY}/SKILL.md"), f"the uri is {entry['uri']}")
    base = entry["uri"].removesuffix("SKILL.md")
    paths = {file["uri"].removeprefix(base) for file in entry["resources"]}
    expect(paths == {"SKILL.md", "scripts/tally.py", "references/units.md"}, f"the files are {sorted(paths)}")
    for file in entry["resources"]:
        message = await c.subject.ask_raw("resources/read", {"uri": file["uri"]})
        contents = message.get("result", {}).get("contents") or [{}]
        data = base64.b64decode(contents[0]["blob"]) if "blob" in contents[0] else contents[0].get("text", "").encode()
        told = (file.get("digest"), file.get("size"))
        expect(told == (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)), f"{file} is not what was read")


@check("skills.extension.gets-one")
async def extension_gets_one(c: Driver) -> None:
    entry = await tally_entry(c)
    message = await c.subject.ask_raw("skills/get", {"uri": entry["uri"]})
    expect(message.get("result", {}).get("skill") == entry, f"another entry than the listed one: {str(message)[:300]}")
    for uri in (entry["resources"][-1]["uri"], f"skill://{c.token}/SKILL.md"):
        await refused_as_invalid(c, "skills/get", uri)


@check("skills.extension.reads-folders")
async def extension_reads_folders(c: Driver) -> None:
    folder = (await tally_entry(c))["uri"].removesuffix("/SKILL.md")
    children = await listed(c, "resources/directory/read", "resources", uri=folder)
    kinds = {child["uri"].removeprefix(f"{folder}/"): child.get("mimeType") == "inode/directory" for child in children}
    expect(kinds == {"SKILL.md": False, "scripts": True, "references": True}, f"the folder has {kinds}")
    inside = await listed(c, "resources/directory/read", "resources", uri=f"{folder}/scripts")
    expect([child["uri"] for child in inside] == [f"{folder}/scripts/tally.py"], f"scripts has {inside}")
    for uri in (f"{folder}/SKILL.md", f"{folder}/{c.token}", f"skill://{c.token}"):
        await refused_as_invalid(c, "resources/directory/read", uri)


@check("skills.extension.follows-the-files")
async def extension_follows_the_files(c: Driver) -> None:
    path = c.place.state / "skills" / TALLY / "references" / "units.md"
    before = path.read_bytes()
    first = {file["uri"]: file["digest"] for file in (await tally_entry(c))["resources"]}
    path.write_bytes(before + c.token.encode())
    try:
        second = {file["uri"]: file["digest"] for file in (await tally_entry(c))["resources"]}
    finally:
        path.write_bytes(before)
    changed = [uri.rpartition("/")[2] for uri in first if first[uri] != second.get(uri)]
    expect(changed == ["units.md"], f"other digests after units.md was changed: {changed}")
