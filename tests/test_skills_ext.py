"""mcp_server/skills_ext.py, as a host sees it: the real server and the real client, in both eras of the protocol."""

import base64
import hashlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, Request, RequestParams
from pydantic import BaseModel, ConfigDict

sys.path.insert(0, str(Path(__file__).parent))
from test_server import ERAS, bounded, client, ok

IDENTIFIER = "io.modelcontextprotocol/skills"


class Params(RequestParams):
    model_config = ConfigDict(extra="allow")


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


async def asked(c, method, **params):
    answer = await c.session.send_request(Request(method=method, params=Params(**params)), Anything)
    return answer.model_dump()


async def refused(c, method, **params):
    with pytest.raises(MCPError) as caught:
        await asked(c, method, **params)
    assert caught.value.error.code == INVALID_PARAMS
    return str(caught.value)


async def all_of(c, method, field, **params):
    found, cursor, pages = [], {}, 0
    while True:
        answer = await asked(c, method, **params, **cursor)
        found += answer[field]
        pages += 1
        if answer.get("nextCursor") is None:
            return found, pages
        cursor = {"cursor": answer["nextCursor"]}


def write(folder, name=None, front="", **files):
    folder.mkdir(parents=True)
    about = f"name: {name or folder.name}\ndescription: Counts jars of marmalade.\n{front}"
    (folder / "SKILL.md").write_text(f"---\n{about}---\n\nCount.\n", encoding="utf8")
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def both(body):
    """Run `body(client, skills folder)` in each era, on a fresh state folder; the folder is filled before the server starts."""

    @pytest.mark.parametrize("mode", ERAS)
    def test(tmp_path, mode, request):
        skills = tmp_path / "state" / "skills"
        for prepare in getattr(body, "prepared", ()):
            prepare(skills)

        async def main():
            async with client(tmp_path / "state", mode=mode) as c:
                await body(c, skills)

        bounded(main())

    test.__name__ = body.__name__
    return test


def prepared(prepare):
    def mark(body):
        body.prepared = (prepare,)
        return body

    return mark


def two_kinds_of_files(skills):
    write(
        skills / "tally",
        front='license: Apache-2.0\nmetadata:\n  version: "1.10"\nallowed-tools: Read Bash\nours: [1, 2]\n',
        **{
            "scripts/tally.py": b"print(1)\r\n",
            "assets/jar.bin": bytes(range(256)),
            "a name with spaces.md": b"\xef\xbb\xbfx",
        },
    )


@both
@prepared(two_kinds_of_files)
async def test_an_entry_has_the_front_matter_as_it_stands_and_every_file_as_it_is_read(c, skills):
    assert c.server_capabilities.extensions[IDENTIFIER] == {"directoryRead": True}
    entries, _ = await all_of(c, "skills/list", "skills")
    entry = next(entry for entry in entries if entry["uri"] == "skill://user/tally/SKILL.md")
    text = (skills / "tally" / "SKILL.md").read_text()
    assert entry["frontmatter"] == yaml.safe_load(text.split("---")[1])
    paths = set()
    for file in entry["resources"]:
        [read] = (await c.read_resource(file["uri"])).contents
        data = read.text.encode() if hasattr(read, "text") else base64.b64decode(read.blob)
        assert (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)) == (file["digest"], file["size"])
        paths.add(file["uri"].removeprefix("skill://user/tally/"))
    assert paths == {"SKILL.md", "scripts/tally.py", "assets/jar.bin", "a%20name%20with%20spaces.md"}
    assert (await asked(c, "skills/get", uri=entry["uri"]))["skill"] == entry
    (skills / "tally" / "scripts" / "tally.py").write_bytes(b"print(2)\r\n")
    changed = (await asked(c, "skills/get", uri=entry["uri"]))["skill"]
    assert [old["uri"] for old, new in zip(entry["resources"], changed["resources"], strict=True) if old != new] == [
        "skill://user/tally/scripts/tally.py"
    ]


@both
@prepared(two_kinds_of_files)
async def test_folders_are_read_one_level_at_a_time(c, skills):
    children = (await asked(c, "resources/directory/read", uri="skill://user/tally"))["resources"]
    assert {child["name"]: child["mimeType"] for child in children} == {
        "a name with spaces.md": "text/markdown", "assets": "inode/directory", "scripts": "inode/directory", "tally": "text/markdown",
    }  # fmt: skip
    [script] = (await asked(c, "resources/directory/read", uri="skill://user/tally/scripts"))["resources"]
    assert (script["uri"], script["size"]) == ("skill://user/tally/scripts/tally.py", 10)
    for uri in (
        "skill://user/tally/SKILL.md",
        "skill://user/other",
        "skill://user",
        "skill://user/tally/scr",
        "run://x",
        "",
    ):
        assert "no folder" in await refused(c, "resources/directory/read", uri=uri)


@both
@prepared(two_kinds_of_files)
async def test_what_is_not_served_is_refused_as_invalid_params(c, skills):
    for uri in ("skill://user/other/SKILL.md", "skill://user/tally", "skill://user/tally/scripts/tally.py", "x"):
        assert "No skill is served" in await refused(c, "skills/get", uri=uri)
    for method in ("skills/list", "resources/list"):
        assert "cursor" in await refused(c, method, cursor="nonsense")


def more_than_a_page(skills):
    for n in range(205):
        write(skills / "many" / f"skill-{n:03}")
    write(skills / "large", **{f"files/{n}": b"" for n in range(500)})


@both
@prepared(more_than_a_page)
async def test_pages_hold_each_skill_once_and_in_the_same_order(c, skills):
    listed, pages = await all_of(c, "skills/list", "skills")
    uris = [entry["uri"] for entry in listed]
    assert (len(uris), pages) == (207, 3)
    assert uris == sorted(set(uris))
    assert len(next(entry for entry in listed if "/large/" in entry["uri"])["resources"]) == 501
    resources, _ = await all_of(c, "resources/list", "resources")
    assert [r["uri"] for r in resources if r["uri"].startswith("skill://")] == uris
    children, pages = await all_of(c, "resources/directory/read", "resources", uri="skill://user/large/files")
    assert (len({child["uri"] for child in children}), pages) == (500, 5)
    first = await asked(c, "skills/list")
    (skills / "many" / "skill-000" / "SKILL.md").unlink()
    write(skills / "many" / "skill-000a")
    second = await asked(c, "skills/list", cursor=first["nextCursor"])
    assert second["skills"][0]["uri"] > first["skills"][-1]["uri"]


def of_every_kind(skills):
    write(skills / "a" / "tally")
    write(skills / "b" / "tally")
    write(skills / "folder", name="other-name")
    write(skills / "Loud", name="Loud")
    write(skills / "lower")
    (skills / "lower" / "SKILL.md").rename(skills / "lower" / "skill.md")
    for name in ("colon", "nameless"):
        (skills / name).mkdir()
    (skills / "nameless" / "SKILL.md").write_text("---\ndescription: Has no name.\n---\n", encoding="utf8")
    (skills / "colon" / "SKILL.md").write_text(
        "---\nname: colon\ndescription: Use when: always\n---\n", encoding="utf8"
    )


@both
@prepared(of_every_kind)
async def test_only_what_the_standard_calls_a_skill_is_listed_and_the_rest_is_told(c, skills):
    listed, _ = await all_of(c, "skills/list", "skills")
    assert [entry["uri"] for entry in listed] == [
        "skill://kernel/durable-programs/SKILL.md", "skill://user/a/tally/SKILL.md", "skill://user/colon/SKILL.md",
        "skill://user/folder/other-name/SKILL.md",
    ]  # fmt: skip
    hidden = (await asked(c, "skills/get", uri="skill://user/b/tally/SKILL.md"))["skill"]
    assert hidden["frontmatter"]["name"] == "tally"
    [status] = (await c.read_resource("kernel://status")).contents
    told = {one["folder"].rpartition("/")[2]: one["problem"] for one in json.loads(status.text)["skills_not_served"]}
    assert set(told) == {"Loud", "lower", "nameless"}
    assert "lowercase" in told["Loud"]
    for name in ("Loud", "lower", "nameless"):
        assert (await ok(c, "skill_load", name=name))["name"] == name
