"""Twins of skills: each loses, invents or bends one thing between the folder and the reply."""

from typing import Any

from .twin import Answer, Call, alters, drops, rewrites, twin


def no_uri(_: Call, data: dict[str, Any]) -> None:
    for skill in data.get("skills") or []:
        skill.pop("uri", None)


alters("skills.search.finds", "names skills without a uri", ("skill_search",), no_uri)


def no_files(_: Call, data: dict[str, Any]) -> None:
    data.pop("files", None)


alters("skills.load.brings-body-and-files", "does not list a skill's files", ("skill_load",), no_files)
drops("skills.load.brings-one-file", "brings the body whatever is asked", "skill_load", "path")


@twin("skills.load.stays-inside", "takes a path outside for the skill itself")
async def bends(call: Call) -> Answer:
    if call.tool == "skill_load" and ".." in str(call.arguments.get("path")):
        call.arguments["path"] = "SKILL.md"
    return await call.serve()


drops("skills.load.keeps-versions", "brings the present version whatever is asked", "skill_load", "revision")


def one_sided(_: Call, data: dict[str, Any]) -> None:
    if "diff" in data:
        data["diff"] = "\n".join(line for line in str(data["diff"]).split("\n") if not line.startswith("-"))


alters("skills.load.shows-differences", "shows only what came, not what went", ("skill_load",), one_sided)


def no_output(_: Call, data: dict[str, Any]) -> None:
    data.pop("files", None)


alters("skills.run.gives-input-takes-output", "keeps what a script has put into its output", ("skill_run",), no_output)


@twin("skills.broken.hides-no-other", "lists a folder whose frontmatter it could not read")
async def lists_broken(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "skill_search" and not answer.refused:
        broken = {"name": "conformance-broken", "description": "", "uri": "skill://conformance-broken"}
        return answer.say({"skills": [*(answer.data.get("skills") or []), broken]})
    return answer


drops("skills.run.runs-a-script", "does not hand args on", "skill_run", "args")


def writable(_: Call, data: dict[str, Any]) -> None:
    data["stdout"] = str(data.get("stdout", "")).replace("refused", "wrote")


alters("skills.run.skill-is-read-only", "lets a script write into its skill", ("skill_run",), writable)


@twin("skills.run.unknown-script-is-refused", "runs the script with the nearest name")
async def nearest(call: Call) -> Answer:
    if call.tool == "skill_run" and "telly" in str(call.arguments.get("script")):
        call.arguments["script"] = "scripts/tally.py"
    return await call.serve()


@twin("skills.programs.guide-is-there", "has a guide that does not know approvals")
async def old_guide(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "skill_load" and call.arguments.get("name") == "durable-programs" and not answer.refused:
        data = {n: v.replace("kernel.approve", "-") if isinstance(v, str) else v for n, v in answer.data.items()}
        return answer.say(data)
    return answer


rewrites("skills.programs.run-scripts", "does not find scripts from a program", "scripts/tally.py", "scripts/none.py")


@twin("skills.extension.lists-with-digests", "gives digests of nothing")
async def empty_digests(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "skills/list":
        for file in (file for skill in answer.result.get("skills") or [] for file in skill["resources"]):
            file["digest"] = "sha256:" + "0" * 64
    return answer


@twin("skills.extension.gets-one", "takes any uri for the skill that it lies in")
async def nearest_skill(call: Call) -> Answer:
    if call.method == "skills/get" and not str(call.params.get("uri")).endswith("/SKILL.md"):
        call.params["uri"] = (
            str(call.params.get("uri")).partition("/references/")[0].partition("/scripts/")[0] + "/SKILL.md"
        )
    return await call.serve()


@twin("skills.extension.reads-folders", "shows folders as files")
async def no_folders(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "resources/directory/read":
        for child in answer.result.get("resources") or []:
            child["mimeType"] = "text/plain"
    return answer


_first_listing: dict[str, Any] = {}


@twin("skills.extension.follows-the-files", "lists what it saw the first time")
async def old_listing(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "skills/list":
        answer.message["result"] = _first_listing.setdefault(str(call.params.get("cursor")), answer.result)
    return answer
