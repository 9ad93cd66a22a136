"""Skills that agents write: drafts, versions, approvals, plain folders. Guarantees of base/drafts.py, approvals.py, lockfile.py."""

import asyncio
import contextlib
import hashlib
import json
import random
import sys
from pathlib import Path

import pytest
from agent_kernel.base import lockfile
from agent_kernel.base.errors import ArgumentError, CallerError, Conflict, LimitExceeded, NotFound
from agent_kernel.base.policy import Policy

sys.path.insert(0, str(Path(__file__).parent))
from skillsets import opened, sharing, write

MD = "---\nname: {0}\ndescription: {1}\n---\n\n{2}\n"


def with_skills(body):
    def test(tmp_path):
        async def run():
            async with opened(tmp_path) as s:
                await body(s, tmp_path / "state" / "skills")

        asyncio.run(run())

    test.__name__ = body.__name__
    return test


async def tree(s, asked, **options):
    """Path -> bytes of what is loaded."""
    loaded = await s.load(asked, **options)
    files = {}
    for file in loaded.files:
        one = await s.load(asked, file.path, **options)
        files[file.path] = one.text if one.text is not None else one.base64
    return files


async def passed(s, name):
    await s.tested(await s.test(name), passed=True)


@with_skills
async def test_a_draft_is_found_by_nobody_until_it_is_promoted(s, folder):
    saved = await s.save("tally", text=MD.format("tally", "Counts marmalade.", "Count."), reason="new", client="cursor")
    assert (saved.state, saved.errors, [f.path for f in saved.files]) == ("draft", (), ["SKILL.md"])
    assert await s.search("marmalade") == []
    assert [p.name for p in (await s.published())[0]] == ["durable-programs"]
    loaded = await s.load(saved.uri)
    assert (loaded.body, loaded.trust) == ("Count.", "agent")
    assert "draft" in loaded.warnings[0]
    managed = await s.manage("tally", "promote")
    assert (managed.state, managed.revision, managed.draft, managed.trust) == ("current", saved.revision, None, "agent")
    [found] = await s.search("marmalade")
    assert (found.uri, found.trust) == ("skill://agent/tally/SKILL.md", "agent")
    assert "tally" in [p.name for p in (await s.published())[0]]
    [_, one] = (await s.load("tally", view="history")).events
    assert (one.action, one.client, one.reason) == ("save", "cursor", "new")


@with_skills
async def test_an_edit_replaces_what_is_there_once_and_nothing_else(s, folder):
    await s.save("tally", text=MD.format("tally", "Counts.", "one two two"))
    await s.save("tally", text="one", old="one")
    await s.save("tally", "scripts/tally.py", "print(1)")
    for path, old in (("SKILL.md", "two"), ("SKILL.md", "three"), ("SKILL.md", ""), ("scripts/none.py", "x")):
        before = await tree(s, "skill://draft/tally")
        with pytest.raises(CallerError):
            await s.save("tally", path, "x", old)
        assert await tree(s, "skill://draft/tally") == before
    await s.save("tally", text="three", old="one two two")
    assert (await s.load("tally")).body == "three"
    for path in ("../x", "/etc/passwd", "a/../b", "SKILL.md/x"):
        with pytest.raises(ArgumentError, match=r"path\.outside"):
            await s.save("tally", path, "x")
    saved = await s.save("tally", "scripts/tally.py")
    assert [f.path for f in saved.files] == ["SKILL.md"]
    with pytest.raises(ArgumentError, match="text"):
        await s.save("tally")
    for name in ("Tally", "a/b", "..", "", "a--b", "x" * 65):
        with pytest.raises(ArgumentError, match="no name for a skill"):
            await s.save(name, text="x")


@with_skills
async def test_a_draft_of_a_skill_that_lies_in_a_folder_begins_as_that_and_never_takes_its_name(s, folder):
    write(folder / "tally", body="By the user.", scripts__tally_py="print(1)", logo=b"\x89PNG\0")
    saved = await s.save("tally", text="By an agent.", old="By the user.")
    assert [f.path for f in saved.files] == ["SKILL.md", "logo", "scripts/tally.py"]
    await s.manage("tally", "promote")
    assert (await s.load("tally")).body == "By the user."
    assert (await s.load("skill://agent/tally")).body == "By an agent."
    assert [p.problem for p in await s.shadows()] == [
        "The name 'tally' means skill://user/tally/SKILL.md; this one is skill://agent/tally/SKILL.md."
    ]
    assert (folder / "tally" / "SKILL.md").read_text().endswith("By the user.\n")


@with_skills
async def test_a_promotion_needs_a_valid_skill_and_its_test_passed_on_this_very_version(s, folder):
    await s.save("tally", "scripts/test.py", "assert True")
    with pytest.raises(Conflict, match=r"skill\.invalid: .*Missing required file"):
        await s.manage("tally", "promote")
    saved = await s.save("tally", text=MD.format("tally", "Counts.", "Count.") + "version: 1")
    assert saved.errors == ()
    await s.save("tally", text=MD.format("other", "Counts.", "Count."))
    with pytest.raises(Conflict, match=r"skill\.invalid: .*Directory name"):
        await s.manage("tally", "promote")
    await s.save("tally", text=MD.format("tally", "Counts.", "Count."))
    with pytest.raises(Conflict, match=r"skill\.untested: .*has not been run"):
        await s.manage("tally", "promote")
    invocation = await s.test("tally")
    assert (invocation.script, (invocation.skill_folder / "scripts/test.py").read_text()) == (
        "scripts/test.py",
        "assert True",
    )
    await s.tested(invocation, passed=False)
    with pytest.raises(Conflict, match=r"skill\.untested: .*failed"):
        await s.manage("tally", "promote")
    await passed(s, "tally")
    await s.save("tally", "more.md", "x")
    with pytest.raises(Conflict, match=r"skill\.untested"):
        await s.manage("tally", "promote")
    await passed(s, "tally")
    assert (await s.manage("tally", "promote")).state == "current"
    with pytest.raises(Conflict, match=r"skill\.no_draft"):
        await s.manage("tally", "promote")


@with_skills
async def test_what_was_rejected_or_deleted_comes_back(s, folder):
    first = MD.format("tally", "Counts.", "first")
    await s.save("tally", text=first)
    await s.manage("tally", "promote")
    rejected = (await s.save("tally", text="second", old="first")).revision
    assert (await s.manage("tally", "reject")).draft is None
    assert (await s.load("tally")).body == "first"
    assert (await s.manage("tally", "rollback", revision=rejected)).draft == rejected
    assert (await s.load("skill://draft/tally")).body == "second"
    assert (await s.load("tally")).body == "first"
    assert (await s.manage("tally", "delete", reason="no use")).state == "none"
    assert await s.search("counts") == []
    with pytest.raises(NotFound, match="history"):
        await s.load("tally")
    assert {v.revision for v in (await s.load("tally", view="history")).versions} >= {rejected}
    assert (await s.load("tally", revision=rejected)).body == "second"
    assert (await s.manage("tally", "rollback")).state == "current"
    assert (await s.load("tally")).body == "first"


@with_skills
async def test_rollback_goes_back_one_promotion_at_a_time(s, folder):
    for word in ("first", "second", "third"):
        await s.save("tally", text=MD.format("tally", "Counts.", word))
        await s.manage("tally", "promote")
    for word in ("second", "first"):
        await s.manage("tally", "rollback")
        assert (await s.load("tally")).body == word
    with pytest.raises(Conflict, match=r"skill\.no_earlier"):
        await s.manage("tally", "rollback")
    diff = (
        await s.load("tally", revision=(await s.load("tally", view="history")).versions[0].revision, view="diff")
    ).diff
    assert "-third\n+first" in diff
    with pytest.raises(NotFound, match="no one version"):
        await s.manage("tally", "rollback", revision="0" * 12)


def test_a_hundred_random_sequences_of_edits_restore_every_tree_byte_for_byte(tmp_path):
    async def run():
        async with opened(tmp_path) as s:
            for seed in range(100):
                await _random_edits(s, f"skill-{seed}", random.Random(seed))

    asyncio.run(run())


async def _random_edits(s, name, dice):
    """`mine` is what the next edit starts from, `trees` every version that there was."""
    mine = {"SKILL.md": MD.format(name, "Counts.", "begin")}
    trees = {(await s.save(name, text=mine["SKILL.md"])).revision: dict(mine)}
    for n in range(dice.randint(4, 10)):
        action = dice.choice(["put", "put", "replace", "remove", "promote", "rollback", "reject", "delete"])
        saved = None
        if action == "put" or not mine:
            path = dice.choice(["a.md", "b/c.py", "b/d.sh", "SKILL.md"])
            mine[path] = MD.format(name, "Counts.", n) if path == "SKILL.md" else f"{n} \r\n\u2028é{dice.random()}"
            saved = await s.save(name, path, mine[path])
        elif action == "replace" and "SKILL.md" in mine:
            mine["SKILL.md"] = mine["SKILL.md"].replace("Counts.", f"{n} Counts.")
            saved = await s.save(name, text=f"{n} Counts.", old="Counts.")
        elif action == "remove" and (others := sorted(mine.keys() - {"SKILL.md"})):
            path = dice.choice(others)
            del mine[path]
            saved = await s.save(name, path)
        elif action == "rollback":
            revision = dice.choice(list(trees))
            await s.manage(name, "rollback", revision=revision)
            assert revision in await _open(s, name)
        else:
            with contextlib.suppress(Conflict):  # nothing is open, or it cannot be promoted
                await s.manage(name, action if action in ("promote", "reject", "delete") else "reject")
        if saved is not None:
            trees[saved.revision] = dict(mine)
        draft, current = await _open(s, name)
        mine = dict(trees[draft or current]) if draft or current else {}
    for revision, files in trees.items():
        assert await tree(s, name, revision=revision) == files


async def _open(s, name):
    history = await s.load(name, view="history")
    current = next((v.revision for v in history.versions if v.current), None)
    return history.draft, current


def test_every_changed_byte_takes_the_approval_away(tmp_path):
    """Every file of twenty skills changed once, and one file more, one less."""
    shared = tmp_path / "work"
    dice = random.Random(7)
    for n in range(20):
        files = {f"f{i}": dice.randbytes(dice.randint(1, 200)) for i in range(dice.randint(1, 5))}
        write(shared / ".agents" / "skills" / f"skill-{n}", scripts__run_py="print(1)", **files)

    async def run():
        changed = 0
        async with opened(tmp_path) as s:
            grants = sharing(shared)

            async def trust(name):
                loaded = await s.load(name, grants=grants)
                [hit] = [hit for hit in await s.search(name, 100, grants=grants) if hit.name == name]
                assert hit.trust == loaded.trust
                return loaded.trust

            for n in range(20):
                name, folder = f"skill-{n}", shared / ".agents" / "skills" / f"skill-{n}"
                await s.approve(name, grants=grants)
                assert await trust(name) == "trusted"
                for path in [path for path in folder.rglob("*") if path.is_file()]:
                    data = path.read_bytes()
                    at = dice.randrange(len(data)) if path.name != "SKILL.md" else len(data) - 2
                    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
                    assert await trust(name) == "community"
                    path.write_bytes(data)
                    assert await trust(name) == "trusted"
                    changed += 1
                (folder / "more").write_text("")
                assert await trust(name) == "community"
                assert any("approval does not hold" in w for w in (await s.load(name, grants=grants)).warnings)
                (folder / "more").unlink()
                (folder / "f0").rename(folder / "g0")
                assert await trust(name) == "community"
        assert changed > 60

    asyncio.run(run())


@with_skills
async def test_an_approval_is_of_one_version_and_can_be_taken_back(s, folder):
    await s.save("tally", text=MD.format("tally", "Counts.", "first"))
    await s.manage("tally", "promote")
    assert (await s.approve("tally")).trust == "trusted"
    assert not (await s.approve("tally")).changed
    await s.save("tally", text="second", old="first")
    assert (await s.load("tally")).trust == "trusted"
    assert (await s.load("skill://draft/tally")).trust == "agent"
    await s.manage("tally", "promote")
    assert (await s.load("tally")).trust == "agent"
    await s.manage("tally", "rollback")
    assert (await s.load("tally")).trust == "trusted"
    assert [v.approved for v in (await s.load("tally", view="history")).versions if v.current] == [True]
    assert (await s.revoke("tally")).changed
    assert (await s.load("tally")).trust == "agent"
    write(folder / "mine")
    with pytest.raises(Conflict, match="from where it lies"):
        await s.approve("mine")


def test_an_operators_rule_trusts_by_uri(tmp_path):
    async def run():
        async with opened(tmp_path, Policy(trusted_skills=("skill://agent/tal*",))) as s:
            for name in ("tally", "other"):
                await s.save(name, text=MD.format(name, "Counts.", "x"))
                await s.manage(name, "promote")
            assert [(await s.load(name)).trust for name in ("tally", "other")] == ["trusted", "agent"]

    asyncio.run(run())


def test_what_agents_may_write_ends_somewhere_and_a_refusal_changes_nothing(tmp_path):
    async def run():
        async with opened(tmp_path, skills_made_max=1, skill_written_bytes_max=1000, skill_files_max=2) as s:
            await s.save("one", text=MD.format("one", "Counts.", "x"))
            for act in (
                s.save("two", text="x"),
                s.save("one", "big", "x" * 2000),
                s.save_tree("one", {f"f{n}": b"" for n in range(3)}),
            ):
                with pytest.raises(LimitExceeded):
                    await act
            assert [f.path for f in (await s.load("one")).files] == ["SKILL.md"]

    asyncio.run(run())


@with_skills
async def test_agents_of_one_principal_do_not_see_what_another_wrote(s, folder):
    await s.save("tally", text=MD.format("tally", "Counts.", "x"))
    await s.manage("tally", "promote")
    for act in (
        s.load("tally", principal="other"),
        s.load("skill://agent/tally", principal="other"),
        s.load("skill://draft/tally", principal="other"),
        s.manage("tally", "rollback", principal="other"),
    ):
        with pytest.raises(NotFound):
            await act
    assert await s.search("counts", principal="other") == []


# --- plain folders


@with_skills
async def test_a_skill_goes_into_a_plain_folder_and_comes_back_with_the_same_revision(s, folder):
    write(folder / "tally", scripts__tally_py="print(1)", logo=b"\x89PNG\0", LICENSE="x")
    before = await s.load("tally")
    to = folder.parent.parent / "out"
    assert await s.put("tally", to) == to / "tally"
    await s.put("durable-programs", to)
    lock = json.loads((to / "skills-lock.json").read_text())
    assert lock["version"] == 1
    assert list(lock["skills"]) == ["durable-programs", "tally"]
    digest = hashlib.sha256()
    for path in ("LICENSE", "logo", "scripts/tally.py", "SKILL.md"):  # the order of JavaScript's localeCompare
        digest.update(path.encode() + (folder / "tally" / path).read_bytes())
    assert lock["skills"]["tally"]["computedHash"] == digest.hexdigest()
    brought = await s.bring(to / "tally")
    assert (brought.revision, brought.uri, brought.trust) == (before.revision, "skill://agent/tally/SKILL.md", "agent")
    assert (await s.bring(to / "tally")).revision == before.revision
    assert await s.put("tally", to) == to / "tally"
    (to / "tally" / "LICENSE").write_text("changed")
    with pytest.raises(Conflict, match=r"skill\.exists"):
        await s.put("tally", to)
    with pytest.raises(Conflict, match=r"skill\.lock_mismatch"):
        await s.bring(to / "tally")
    (to / "skills-lock.json").write_text("[]")
    with pytest.raises(ArgumentError, match=r"skill\.lock_broken"):
        await s.bring(to / "tally")
    (to / "skills-lock.json").unlink()
    assert (await s.bring(to / "tally")).revision != before.revision


def test_paths_are_hashed_in_the_order_of_the_other_tool():
    words = [
        "a",
        "A",
        "a_b",
        "a-b",
        "a.b",
        "a/b",
        "ab",
        "aB",
        "Ab",
        "license.md",
        "LICENSE.txt",
        "scripts/a.py",
        "scripts/B.py",
        "Scripts/b.py",
        "SKILL.md",
        "x1",
        "x10",
        "x2",
    ]
    one = hashlib.sha256("".join(words).encode()).hexdigest()
    assert lockfile.computed_hash(dict.fromkeys(reversed(words), b"")) == one
