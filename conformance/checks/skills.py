"""Checks of skills, on the two folders that the suite puts into every state folder (suite.SKILLS)."""

import json

from ..driver import Driver
from ..registry import check, expect

TALLY = "conformance-tally"


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
