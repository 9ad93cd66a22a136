"""`agent-kernel skill`: what a person does about skills, from a terminal. Trust is given here and by no tool of a model.

    validate DIR...                                        are they valid, do they load, may they be published
    list                                                   every skill with its origin and trust, drafts, what is not served and why
    approve NAME | URI [--revision R] [--yes]              trust these bytes; what they are, and what changed since, is shown first
    revoke NAME | URI                                      trust no version of it any more
    history NAME | URI                                     versions, and what was done to them
    promote, reject, rollback, delete NAME                 as the tool skill_manage does
    import DIR                                             a plain folder becomes a version, as the lock beside it has it
    export NAME | URI DIR [--revision R]                   a version becomes a plain folder DIR/NAME, with a lock

Where a kernel runs on the state folder it is asked through its control socket; else its skills alone are opened for as long as it takes.
Skills of a folder that a host shares are named with `--folder DIR`. Exit status: 0 done, 1 failed, 2 wrong usage.

Guarantees
1. What is approved is what was shown: the decision names the revision.
2. What a skill says of itself cannot move the cursor of the person who decides on it.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent_kernel import open_skills
from agent_kernel.base.errors import ArgumentError
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import Folder, Grants
from agent_kernel.skills import Skills, validate

from . import control
from .places import printable, state_folder
from .values import wire

__all__ = ["OPERATIONS", "answer", "main"]

OPERATIONS = (
    "skill_list",
    "skill_load",
    "skill_approve",
    "skill_revoke",
    "skill_manage",
    "skill_import",
    "skill_export",
)
MANAGED = {
    "promote": "make the draft the current version", "reject": "close the draft", "rollback": "make an earlier version current",
    "delete": "let no version be current",
}  # fmt: skip
FILES_SHOWN = 40

Ask = Callable[..., Any]


async def answer(skills: Skills, op: str, request: Mapping[str, Any]) -> Any:
    """One request of a person, by the control socket or with the skills opened for it."""
    folders = request.get("folders")
    grants = None if not folders else Grants(folders=tuple(Folder.parse(str(path)) for path in folders))
    name, revision = str(request.get("skill")), request.get("revision")
    match op:
        case "skill_list":
            return {
                "skills": wire(await skills.inventory(grants=grants)),
                "problems": wire(await skills.problems(grants=grants)),
                "shadows": wire(await skills.shadows(grants=grants)),
            }
        case "skill_load":
            return wire(await skills.load(name, revision=revision, view=request.get("view", "content"), grants=grants))
        case "skill_approve":
            return wire(await skills.approve(name, revision, note=request.get("note"), grants=grants))
        case "skill_revoke":
            return wire(await skills.revoke(name, grants=grants))
        case "skill_manage":
            action, reason = str(request.get("action")), request.get("reason")
            return wire(await skills.manage(name, action, revision=revision, reason=reason))
        case "skill_import":
            return wire(await skills.bring(Path(str(request.get("folder")))))
        case "skill_export":
            return {"folder": str(await skills.put(name, Path(str(request.get("to"))), revision, grants=grants))}
    raise ArgumentError("control.protocol", f"There is no operation {op!r}. Use the agent-kernel of the same version.")


def main(argv: Sequence[str]) -> int:
    asked = _parser().parse_args(argv)
    if asked.act is _validate:
        return _validate(asked)
    with _asking(state_folder(asked.state)) as ask:
        folders = [str(Path(folder).absolute()) for folder in asked.folder]
        return int(asked.act(asked, lambda op, **fields: ask(op, folders=folders, **fields)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agent-kernel skill", description="Work on skills.", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state", metavar="DIR", help="state folder, as for `agent-kernel mcp`")
    common.add_argument(
        "--folder", action="append", default=[], metavar="DIR", help="a shared folder with skills (repeat)"
    )
    common.add_argument("--json", action="store_true", help="one JSON object on stdout")
    check = verbs.add_parser("validate", help="are they valid, do they load, may they be published")
    check.add_argument("folders", nargs="+", metavar="DIR")
    check.add_argument("--json", action="store_true", help="one JSON object a line")
    check.set_defaults(act=_validate)
    verbs.add_parser("list", parents=[common], help="every skill, and what is not served").set_defaults(act=_list)
    skill = argparse.ArgumentParser(add_help=False, parents=[common])
    skill.add_argument("skill", metavar="NAME", help="its name, or its uri")
    version = argparse.ArgumentParser(add_help=False)
    version.add_argument("--revision", metavar="R", help="a version, as `history` shows it (default: the present one)")
    approve = verbs.add_parser("approve", parents=[skill, version], help="trust these bytes")
    approve.add_argument("--note", help="kept with the approval")
    approve.add_argument("--yes", action="store_true", help="do not ask again at a terminal")
    approve.set_defaults(act=_approve)
    verbs.add_parser("revoke", parents=[skill], help="trust no version any more").set_defaults(act=_revoke)
    verbs.add_parser("history", parents=[skill], help="versions, and what was done").set_defaults(act=_history)
    for name, words in MANAGED.items():
        manage = verbs.add_parser(name, parents=[skill, version] if name == "rollback" else [skill], help=words)
        manage.add_argument("--reason", help="kept in the history")
        manage.set_defaults(act=_manage)
    bring = verbs.add_parser("import", parents=[common], help="take a plain folder over")
    bring.add_argument("source", metavar="DIR", help="the folder with the SKILL.md")
    bring.set_defaults(act=_import)
    out = verbs.add_parser("export", parents=[skill, version], help="write a version into a plain folder")
    out.add_argument("to", metavar="DIR", help="where its folder is made")
    out.set_defaults(act=_export)
    return parser


@contextlib.contextmanager
def _asking(folder: Path) -> Iterator[Ask]:
    if control.ask(folder, "status") is not None:
        yield lambda op, **fields: control.ask(folder, op, **fields)
        return
    with asyncio.Runner() as runner:
        opening = open_skills(folder)
        skills = runner.run(opening.__aenter__())
        try:
            yield lambda op, **fields: runner.run(answer(skills, op, fields))
        finally:
            runner.run(opening.__aexit__(None, None, None))


# --- the verbs


def _validate(asked: argparse.Namespace) -> int:
    fine = True
    for folder in asked.folders:
        verdict = validate(Path(folder), Limits())
        fine = fine and bool(verdict["strict"]["valid"])
        print(json.dumps(verdict) if asked.json else _verdict_text(verdict))
    return 0 if fine else 1


def _verdict_text(verdict: Mapping[str, Any]) -> str:
    words = [
        "valid" if verdict["strict"]["valid"] else "not valid",
        "loads" if verdict["loads"] else "does not load",
        "may be published" if verdict["publishable"] else "may not be published",
    ]
    lines = [f"{verdict['path']}: {', '.join(words)}"]
    lines += [f"    error: {error}" for error in verdict["strict"]["errors"]]
    lines += [f"    warning: {warning}" for warning in verdict["warnings"]]
    return "\n".join(map(printable, lines))


def _list(asked: argparse.Namespace, ask: Ask) -> int:
    found = ask("skill_list")
    if asked.json:
        print(json.dumps(found))
        return 0
    for row in found["skills"]:
        print(
            printable(
                f"{row['name']:<32} {row['trust']:<10} {'draft  ' if row['state'] == 'draft' else ''}{row['uri']}"
            )
        )
    for kind in ("problems", "shadows"):
        for row in found[kind]:
            print(printable(f"{kind[:-1]}: {row['folder']}: {row['problem']}"))
    return 0


def _approve(asked: argparse.Namespace, ask: Ask) -> int:
    loaded = ask("skill_load", skill=asked.skill, revision=asked.revision)
    shown = {"skill": loaded["uri"], "revision": loaded["revision"]}
    if not asked.json:
        _show(loaded)
        approved = [
            v["revision"]
            for v in ask("skill_load", skill=loaded["uri"], view="history").get("versions", ())
            if v["approved"]
        ]
        if approved and loaded["revision"] not in approved and asked.revision is None:
            diff = ask("skill_load", skill=loaded["uri"], view="diff", revision=approved[0])["diff"]
            print(f"Since the version that was approved, {approved[0]}:")
            print("\n".join(printable(line) for line in diff.split("\n")))
        if not asked.yes and sys.stdin.isatty() and input("Trust these bytes? [y/N] ").lower() != "y":
            print("Nothing was approved.")
            return 1
    done = ask("skill_approve", note=asked.note, **shown)
    words = "is trusted" if done["changed"] else "was approved already"
    print(
        json.dumps(done)
        if asked.json
        else printable(f"{done['uri']} {done['revision']} {words}. Any changed byte takes that away.")
    )
    return 0


def _show(loaded: Mapping[str, Any]) -> None:
    files = loaded.get("files", [])
    print(printable(f"{loaded['name']}  {loaded['uri']}  {loaded['revision']}  trust {loaded['trust']}"))
    print(printable(f"    {loaded.get('description', '')}"))
    for file in files[:FILES_SHOWN]:
        print(printable(f"    {file['size_bytes']:>9}  {file['path']}"))
    if len(files) > FILES_SHOWN:
        print(f"    and {len(files) - FILES_SHOWN} more files")
    for warning in loaded.get("warnings", ()):
        print(printable(f"    warning: {warning}"))


def _revoke(asked: argparse.Namespace, ask: Ask) -> int:
    done = ask("skill_revoke", skill=asked.skill)
    words = "is no longer approved" if done["changed"] else "was not approved"
    print(json.dumps(done) if asked.json else printable(f"{done['uri']} {words}: trust {done['trust']}."))
    return 0


def _history(asked: argparse.Namespace, ask: Ask) -> int:
    found = ask("skill_load", skill=asked.skill, view="history")
    if asked.json:
        print(json.dumps(found))
        return 0
    for one in found.get("versions", ()):
        marks = [name for name in ("current", "approved") if one[name]] + (
            ["draft"] if one["revision"] == found.get("draft") else []
        )
        print(f"{one['revision']}  {one['recorded_at']}  {one['files']} files  {' '.join(marks)}".rstrip())
    for event in found.get("events", ()):
        known = [event[name] for name in ("outcome", "revision", "client", "run_id", "reason") if name in event]
        print(printable(f"{event['at']}  {event['action']:<8}  {'  '.join(known)}"))
    return 0


def _manage(asked: argparse.Namespace, ask: Ask) -> int:
    done = ask(
        "skill_manage",
        skill=asked.skill,
        action=asked.verb,
        revision=getattr(asked, "revision", None),
        reason=asked.reason,
    )
    return _said(asked, done)


def _import(asked: argparse.Namespace, ask: Ask) -> int:
    return _said(asked, ask("skill_import", folder=str(Path(asked.source).absolute())))


def _said(asked: argparse.Namespace, done: Mapping[str, Any]) -> int:
    words = {
        "current": f"current is {done.get('revision')}",
        "draft": f"the draft is {done.get('draft')}",
        "none": "no version is current",
    }
    print(
        json.dumps(done) if asked.json else printable(f"{done['uri']}: {words[done['state']]}, trust {done['trust']}.")
    )
    return 0


def _export(asked: argparse.Namespace, ask: Ask) -> int:
    done = ask("skill_export", skill=asked.skill, to=str(Path(asked.to).absolute()), revision=asked.revision)
    print(json.dumps(done) if asked.json else printable(f"Written to {done['folder']}."))
    return 0
