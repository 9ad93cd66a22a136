"""Guarantees of skills.py and of the folders beneath it."""

import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agent_kernel import skills
from agent_kernel.base import roots, skillsearch
from agent_kernel.base.catalogue import Place
from agent_kernel.base.errors import ArgumentError, LimitExceeded, NotFound
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import Folder, Grants, Policy
from agent_kernel.base.shelves import Shelf, Shelves

sys.path.insert(0, str(Path(__file__).parent))
from skillsets import opened, sharing, write


def with_skills(body):
    def test(tmp_path):
        async def run():
            async with opened(tmp_path) as s:
                await body(s, tmp_path / "state" / "skills")

        asyncio.run(run())

    test.__name__ = body.__name__
    return test


@with_skills
async def test_a_skill_is_found_by_other_forms_of_its_words_and_loaded_with_its_files(s, folder):
    write(folder / "tally", scripts__tally_py="print(1)", references__units_md="One jar.")
    [found] = await s.search("how do I count the jar?")
    assert (found.name, found.uri, found.trust, found.score) == ("tally", "skill://user/tally/SKILL.md", "user", 1.0)
    for asked in ("tally", found.uri, "skill://user/tally", "skill://user/tally/"):
        loaded = await s.load(asked)
        assert loaded.body == "Run scripts/tally.py."
        assert [file.path for file in loaded.files] == ["SKILL.md", "references/units.md", "scripts/tally.py"]
        assert loaded.warnings == ()
    for one in (await s.load("tally", "references/units.md"), await s.load("skill://user/tally/references/units.md")):
        assert (one.text, one.body, one.files) == ("One jar.", None, ())


@with_skills
async def test_the_built_in_guide_is_there_and_trusted_as_ours(s, folder):
    [found, *_] = await s.search("durable programs")
    assert (found.name, found.trust) == ("durable-programs", "bundled")
    assert (await s.load("durable-programs")).body


@with_skills
async def test_changes_of_a_folder_are_seen_by_the_next_question(s, folder):
    assert await s.search("marmalade") == []
    write(folder / "tally")
    assert len(await s.search("marmalade")) == 1
    write(folder / "tally", description="Weighs anchors.")
    assert await s.search("marmalade") == []
    assert len(await s.search("anchors")) == 1
    write(folder / "deep" / "er" / "more")
    assert [f.uri for f in await s.search("marmalade")] == ["skill://user/deep/er/more/SKILL.md"]
    (folder / "tally" / "SKILL.md").unlink()
    assert await s.search("anchors") == []


@with_skills
async def test_a_broken_folder_hides_no_other_and_says_why(s, folder):
    write(folder / "tally")
    (folder / "broken").mkdir()
    (folder / "broken" / "SKILL.md").write_text("---\nname: broken\n---\n", encoding="utf8")
    (folder / "latin").mkdir()
    (folder / "latin" / "SKILL.md").write_bytes(b"---\nname: \xe9\n---\n")
    (folder / "odd" / "SKILL.md").mkdir(parents=True)
    assert [found.name for found in await s.search("marmalade broken")] == ["tally"]
    problems = {p.folder.rpartition("/")[2]: p.problem for p in await s.problems()}
    assert problems == {
        "broken": "The front matter has no description.", "latin": "SKILL.md is not UTF-8 (byte 10)", "odd": "SKILL.md is not a file",
    }  # fmt: skip
    with pytest.raises(NotFound, match=r"has no description\. Mend it; `agent-kernel skill validate /"):
        await s.load("broken")


@with_skills
async def test_unknown_names_are_answered_with_the_nearest(s, folder):
    write(folder / "tally")
    for asked, words in (
        ("taly", "Did you mean 'tally'"),
        ("skill://user/other/SKILL.md", "no skill"),
        ("", "no skill"),
    ):
        with pytest.raises(NotFound, match=words):
            await s.load(asked)
    for asked, words in (("scripts/taly.py", "has no file"), ("scripts", "has no file")):
        with pytest.raises(NotFound, match=words):
            await s.load("tally", asked)
    with pytest.raises(ArgumentError, match="view"):
        await s.load("tally", view="other")


@with_skills
async def test_no_path_leads_out_of_a_skill(s, folder):
    secret = folder.parent / "secret.py"
    write(folder / "tally", scripts__tally_py="print(1)")
    secret.write_text("secret", encoding="utf8")
    for path in (
        "../../secret.py",
        "/etc/passwd",
        str(secret),
        "scripts/../../../secret.py",
        "a\0b",
        "scripts\\x",
        "..",
        ".",
        "scripts//tally.py",
    ):
        for act in (s.load("tally", path), s.script("tally", path), s.load(f"skill://user/tally/{path}")):
            with pytest.raises((ArgumentError, NotFound)) as refused:
                await act
            assert refused.value.code in ("path.outside", "skill.file_unknown", "skill.unknown")
    with pytest.raises(ArgumentError, match=r"path\.outside"):
        await s.load("tally", "../../secret.py")


@with_skills
async def test_links_that_lead_out_are_not_followed(s, folder):
    outside = write(folder.parent / "outside" / "evil", scripts__x_py="secret")
    write(folder / "tally", scripts__tally_py="print(1)")
    (folder / "tally" / "scripts" / "out.py").symlink_to(outside / "scripts" / "x.py")
    (folder / "tally" / "scripts" / "in.py").symlink_to("tally.py")
    (folder / "tally" / "dir").symlink_to(outside)
    (folder / "evil").symlink_to(outside)
    (folder / "half").mkdir()
    (folder / "half" / "SKILL.md").symlink_to(outside / "SKILL.md")
    assert [found.name for found in await s.search("marmalade", limit=9)] == ["tally"]
    assert [problem.folder for problem in await s.problems()] == [str(folder / "half")]
    loaded = await s.load("tally")
    assert [file.path for file in loaded.files] == ["SKILL.md", "scripts/in.py", "scripts/tally.py"]
    assert len(loaded.warnings) == 2
    assert (await s.load("tally", "scripts/in.py")).text == "print(1)"


def test_roots_have_trust_and_precedence(tmp_path):
    shared, operators = tmp_path / "work", tmp_path / "ops"
    for place, words in (
        (tmp_path / "state" / "skills", "user"),
        (operators, "operator"),
        (shared / ".agents" / "skills", "project"),
        (shared / ".claude" / "skills", "claude"),
    ):
        write(place / "tally", description=f"Marmalade of the {words}.")
    write(shared / ".claude" / "skills" / "mine", description="Marmalade too.")
    (tmp_path / "state").chmod(0o700)
    policy = Policy(grants=Grants(folders=(Folder(shared),)), skills=(operators,))

    async def run():
        async with opened(tmp_path, policy) as s:
            found = {f.uri: f.trust for f in await s.search("marmalade", limit=9)}
            assert found == {
                "skill://user/tally/SKILL.md": "user", "skill://config/tally/SKILL.md": "trusted",
                "skill://project/work/tally/SKILL.md": "community", "skill://project/work/mine/SKILL.md": "community",
                "skill://project/work~2/tally/SKILL.md": "community",
            }  # fmt: skip
            loaded = await s.load("tally")
            assert loaded.description == "Marmalade of the user."
            assert "Another skill has this name: skill://config/tally/SKILL.md" in loaded.warnings
            assert (await s.load("skill://config/tally")).description == "Marmalade of the operator."

    asyncio.run(run())


@with_skills
async def test_a_version_that_was_used_can_be_read_and_run_after_the_folder_changed(s, folder):
    write(folder / "tally", body="first", scripts__tally_py="print(1)")
    first = await s.load("tally")
    write(folder / "tally", body="second", scripts__tally_py="print(2)")
    second = await s.load("tally")
    assert (first.body, second.body) == ("first", "second")
    history = (await s.load("tally", view="history")).versions
    assert {(v.revision, v.current, v.files) for v in history} == {
        (first.revision, False, 2),
        (second.revision, True, 2),
    }
    assert (await s.load("tally", revision=first.revision)).body == "first"
    assert (await s.load("tally", "scripts/tally.py", first.revision)).text == "print(1)"
    old, new = await s.script("tally", revision=first.revision), await s.script("tally")
    assert [(i.skill_folder / i.script).read_text() for i in (old, new)] == ["print(1)", "print(2)"]
    for wrong in ("0" * 12, first.revision[:4], ""):
        with pytest.raises(NotFound, match="view='history'"):
            await s.load("tally", revision=wrong)
    with pytest.raises(NotFound, match="no one version"):
        await s.load("tally", revision=first.revision, principal="other")


@with_skills
async def test_an_invocation_runs_the_script_with_its_arguments(s, folder):
    write(
        folder / "tally",
        scripts__tally_py="import helper, sys\nif __name__ == '__main__':\n    print(sys.argv[1:], helper.X, __file__)\n",
        scripts__helper_py="X = 7\n",
        scripts__say_sh='echo "$0 says $1"\n',
        **{"scripts__it's {x}_sh": 'echo "odd $1"\n'},
    )
    for script, said in (
        ("scripts/tally.py", "['a b'] 7 {skill}/scripts/tally.py"),
        ("scripts/say.sh", "{skill}/scripts/say.sh says a b"),
        ("scripts/it's {x}.sh", "odd a b"),
    ):
        i = await s.script("tally", script)
        run = ["python3", "-c"] if i.language == "python" else ["bash", "-c"]
        argv = [*run, i.code, *(["x"] if i.language == "bash" else []), "a b"]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=60, env={**os.environ, "SKILL": str(i.skill_folder)}
        )
        assert done.stdout.strip() == said.format(skill=i.skill_folder), done.stderr
    with pytest.raises(ArgumentError, match=r"Say which: scripts/helper\.py, "):
        await s.script("tally")
    with pytest.raises(ArgumentError, match=r"skill\.language"):
        await s.script("tally", "SKILL.md")


@with_skills
async def test_the_copy_that_runs_is_checked_byte_for_byte(s, folder):
    write(folder / "tally", scripts__tally_py="print(1)")
    copy = (await s.script("tally")).skill_folder
    path = copy / "scripts" / "tally.py"
    assert path.stat().st_mode & 0o777 == 0o444
    assert copy.stat().st_mode & 0o777 == 0o755
    for spoil in (
        lambda: (path.chmod(0o644), path.write_text("print('evil')")),
        lambda: (copy / "scripts" / "sitecustomize.py").write_text("evil"),
        path.unlink,
        lambda: (path.unlink(), path.symlink_to("/etc/passwd")),
    ):
        spoil()
        again = (await s.script("tally")).skill_folder
        assert again == copy
        assert sorted(p.name for p in copy.rglob("*") if p.is_file()) == ["SKILL.md", "tally.py"]
        assert path.read_text() == "print(1)"


@with_skills
async def test_a_file_that_is_not_text_comes_as_base64(s, folder):
    write(folder / "tally", logo=b"\x89PNG\0")
    one = await s.load("tally", "logo")
    assert (one.text, one.base64) == (None, "iVBORwA=")


def test_a_skill_beyond_the_limits_is_refused_when_it_is_asked_for(tmp_path):
    async def run():
        async with opened(tmp_path, skill_files_max=3, skill_bytes_max=1000) as s:
            many = write(tmp_path / "state" / "skills" / "many", **{f"f{n}": "x" for n in range(3)})
            write(tmp_path / "state" / "skills" / "big", blob=b"x" * 1000)
            write(tmp_path / "state" / "skills" / "fine")
            for name in ("many", "big"):
                with pytest.raises(LimitExceeded, match=r"skill\.too_large"):
                    await s.load(name)
            assert (await s.load("fine")).body
            assert not skills.validate(many, Limits(skill_files_max=3))["publishable"]

    asyncio.run(run())


def test_a_look_at_what_has_not_changed_reads_nothing(tmp_path):
    write(tmp_path / "a" / "tally")
    root = roots.Root(tmp_path)
    changed = (tmp_path / "a" / "tally" / "SKILL.md").stat().st_mtime_ns
    first = roots.look(root, changed + 1)  # so soon after the change, another one may bear the same time
    assert not root.settled
    assert roots.look(root, changed + 10**10) is first
    assert root.settled
    seen = root.skills
    assert roots.look(root, changed + 10**10) is first
    assert root.skills is seen
    (tmp_path / "a" / "tally" / "SKILL.md").write_text("changed", encoding="utf8")
    assert roots.look(root, changed + 10**11).skills[0].text == "changed"


def test_a_search_goes_four_deep_not_into_skills_and_stops_at_a_number_of_folders(tmp_path, monkeypatch):
    write(tmp_path / "1" / "2" / "3" / "4" / "deep")
    write(tmp_path / "1" / "2" / "3" / "there")
    write(tmp_path / "1" / "2" / "3" / "there" / "nested")
    write(tmp_path / ".git" / "hidden")
    view = roots.look(roots.Root(tmp_path), 0)
    assert [found.folder.name for found in view.skills] == ["there"]
    assert view.left_out == ()
    monkeypatch.setattr(roots, "FOLDERS_MAX", 3)
    view = roots.look(roots.Root(tmp_path), 0)
    assert view.skills == ()
    assert "more than 3 folders" in view.left_out[0]


def test_validate_tells_the_standards_verdict_and_the_hosts_apart(tmp_path):
    good = write(tmp_path / "tally")
    assert skills.validate(good, Limits()) == {
        "path": str(good), "strict": {"valid": True, "errors": []}, "loads": True, "publishable": True, "warnings": [],
    }  # fmt: skip
    odd = write(tmp_path / "odd", name="other", description="x: y")
    verdict = skills.validate(odd, Limits())
    assert (verdict["strict"]["valid"], verdict["loads"], verdict["publishable"]) == (False, True, True)
    assert verdict["strict"]["errors"][0].startswith("Invalid YAML in frontmatter:")
    assert len(verdict["warnings"]) == 2
    for path, error in (
        (tmp_path / "none", f"Path does not exist: {tmp_path / 'none'}"),
        (good / "SKILL.md", f"Not a directory: {good / 'SKILL.md'}"),
        (tmp_path, "Missing required file: SKILL.md"),
    ):
        verdict = skills.validate(path, Limits())
        assert verdict["strict"] == {"valid": False, "errors": [error]}
        assert (verdict["loads"], verdict["publishable"]) == (False, False)
    (odd / "SKILL.md").write_bytes(b"---\nname: \xff\n---\n")
    assert not skills.validate(odd, Limits())["loads"]


# --- as files with digests


@with_skills
async def test_a_published_skill_has_every_file_with_its_digest_and_the_file_has_those_bytes(s, folder):
    write(folder / "tally", scripts__tally_py="print(1)", logo=b"\x89PNG\0")
    [one] = [p for p in (await s.published())[0] if p.name == "tally"]
    assert (one.uri, one.frontmatter["name"]) == ("skill://user/tally/SKILL.md", "tally")
    assert [file.path for file in one.files] == ["SKILL.md", "logo", "scripts/tally.py"]
    for file in one.files:
        read = await s.file(f"skill://user/tally/{file.path}")
        assert hashlib.sha256(read.data).hexdigest() == file.digest == read.file.digest
        assert (len(read.data), read.uri) == (file.size_bytes, f"skill://user/tally/{file.path}")
    assert (await s.file("skill://user/tally/logo")).data == b"\x89PNG\0"
    assert await s.publication(one.uri) == one
    for wrong in ("skill://user/tally/scripts", "skill://user/tally/../../x", "skill://user/none/SKILL.md"):
        with pytest.raises((NotFound, ArgumentError)):
            await s.file(wrong)


@with_skills
async def test_a_digest_changes_with_its_file_and_only_then(s, folder):
    write(folder / "tally", scripts__tally_py="print(1)")
    uri = "skill://user/tally/SKILL.md"
    before = await s.publication(uri)
    (folder / "tally" / "scripts" / "tally.py").write_text("print(2)")
    changed = await s.publication(uri)
    assert [old.digest == new.digest for old, new in zip(before.files, changed.files, strict=True)] == [True, False]
    (folder / "tally" / "scripts" / "more.py").write_text("")
    assert len((await s.publication(uri)).files) == 3


@with_skills
async def test_a_skill_that_is_not_called_as_its_folder_has_both_names_in_its_uri(s, folder):
    write(folder / "folder", name="other-name")
    write(folder / "Upper", name="Upper Case")
    served, more = await s.published()
    names = {p.name: p.uri for p in served}
    assert (names["other-name"], more) == ("skill://user/folder/other-name/SKILL.md", False)
    assert "Upper Case" not in names
    assert [p.folder for p in await s.unpublished()] == [str(folder / "Upper")]
    assert (await s.load("Upper Case")).uri == "skill://user/Upper/SKILL.md"
    assert (await s.file(names["other-name"])).data.startswith(b"---\nname: other-name")


def test_what_another_connection_shares_is_not_seen(tmp_path):
    mine, theirs = tmp_path / "a" / "work", tmp_path / "b" / "work"
    write(mine / ".agents" / "skills" / "tally", description="Marmalade of mine.")
    write(theirs / ".agents" / "skills" / "tally", description="Marmalade of theirs.")
    write(theirs / ".agents" / "skills" / "secret", description="Marmalade secret.")

    async def run():
        async with opened(tmp_path) as s:
            for shared, words, names in (
                ((mine,), "Marmalade of mine.", {"tally"}),
                ((theirs,), "Marmalade of theirs.", {"tally", "secret"}),
                ((mine,), "Marmalade of mine.", {"tally"}),
            ):
                found = await s.search("marmalade", grants=sharing(*shared))
                assert {one.name for one in found} == names
                loaded = await s.load("tally", grants=sharing(*shared))
                assert (loaded.description, loaded.warnings[:-1]) == (words, ())
                assert len((await s.load("tally", view="history", grants=sharing(*shared))).versions) == 1
            with pytest.raises(NotFound):
                await s.load("secret", grants=sharing(mine))
            assert await s.search("marmalade") == []
            found = await s.search("marmalade", grants=sharing(mine, theirs))
            assert len({one.uri for one in found}) == 3

    asyncio.run(run())


# --- search


@with_skills
async def test_a_skill_that_is_used_stands_before_one_that_fits_as_well_but_not_before_one_that_fits_better(s, folder):
    for name in ("jar-a", "jar-b", "jar-c"):
        write(folder / name, description="Counts jars of marmalade.")
    write(folder / "jam", description="Marmalade: boils marmalade.")
    [before, *_] = [f.name for f in await s.search("jars")]
    used = "jar-c" if before != "jar-c" else "jar-a"
    for _ in range(5):
        await s.load(used)
    assert (await s.search("jars"))[0].name == used
    assert (await s.search("boil marmalade"))[0].name == "jam"


def test_what_is_in_every_skill_does_not_decide_and_a_reply_is_as_long_with_many_as_with_few(tmp_path, monkeypatch):
    monkeypatch.setattr(skillsearch, "RANKED_MAX", 20)
    folder = tmp_path / "state" / "skills"
    for n in range(60):
        write(
            folder / f"skill-{n}",
            description=f"Use it for files {'that somebody has ' * 40}{'rare' if n == 41 else 'usual'}.",
        )
    (tmp_path / "state").chmod(0o700)

    async def run():
        async with opened(tmp_path) as s:
            assert [f.name for f in await s.search("rare files", 1)] == ["skill-41"]
            found = await s.search("rare files")
            assert (found[0].name, len(found)) == ("skill-41", 5)
            assert len(await s.search("files", 50)) == 50
            assert await s.search("nowhere") == []
            assert all(len(one.description) < 400 for one in found)

    asyncio.run(run())


class Hand:
    """A clock that stands still until it is moved."""

    t = 1e9

    def now(self):
        return self.t

    monotonic = now


def test_a_look_that_is_slow_rests_a_second_at_most(tmp_path):
    clock, root = Hand(), roots.Root(tmp_path)
    shelves = Shelves([Shelf(root, Place("user", "user"))], clock)

    def names():
        return [skill.name for skill in shelves.look("me", (), ()).skills]

    assert names() == []
    root.cost_s = 60.0
    write(tmp_path / "tally")
    assert names() == []
    clock.t += 1.0
    assert names() == ["tally"]
