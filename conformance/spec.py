"""SPEC.md and the clauses say the same: each active clause stands there as one line, word for word.

The prose of SPEC.md is written by hand; its clause lines are `- **id** LEVEL, since: text`, and `drift` names every line that
is missing, changed or belongs to no clause.
"""

import re

from .registry import AREAS, CLAUSES, HERE, Clause

__all__ = ["clause_list", "drift", "line_of"]

_LINE = re.compile(r"^- \*\*([a-z0-9.-]+)\*\* .*$", re.MULTILINE)


def line_of(clause: Clause) -> str:
    unseen = f" (Not observed from outside: {clause.excluded})" if clause.excluded else ""
    return f"- **{clause.id}** {clause.level}, {clause.since}: {clause.text}{unseen}"


def clause_list() -> str:
    parts = []
    for area in AREAS:
        lines = [line_of(clause) for clause in CLAUSES.values() if clause.area == area and clause.status == "active"]
        parts.append(f"### {area}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def drift() -> list[str]:
    text = (HERE / "SPEC.md").read_text(encoding="utf8")
    written = {match[1]: match[0] for match in _LINE.finditer(text)}
    wanted = {clause.id: line_of(clause) for clause in CLAUSES.values() if clause.status == "active"}
    found = [f"SPEC.md lacks {id_}" for id_ in wanted if id_ not in written]
    found += [
        f"SPEC.md says otherwise: {written[id_]}" for id_ in wanted if written.get(id_, wanted[id_]) != wanted[id_]
    ]
    return found + [f"SPEC.md has a clause that is none: {id_}" for id_ in written if id_ not in wanted]
