"""`agent-kernel memory import`: what comes from elsewhere is stored once, and what cannot be is named."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agent_kernel import open_memory
from agent_kernel_mcp.__main__ import main
from agent_kernel_mcp.memory_graph import graph_of
from mcp import Client, StdioServerParameters

COMMAND = [sys.executable, "-m", "agent_kernel_mcp"]


@pytest.fixture
def imported(tmp_path, capsys):
    def run(path, *options, status=0):
        found = main(["memory", "import", str(path), "--state", str(tmp_path / "state"), "--json", *options])
        told = capsys.readouterr()
        assert found == status, told
        return json.loads(told.out)

    return run


def looked_at(tmp_path, look):
    async def run():
        async with open_memory(tmp_path / "state") as (store, memory, _):
            return await store.read(lambda db: look(memory, db))

    return asyncio.run(asyncio.wait_for(run(), 60))


def facts(tmp_path, **asked):
    return looked_at(tmp_path, lambda memory, db: memory.search_in(db, limit=100, **asked).hits)


def wrongs(done):
    return [(Path(p["file"]).name, p["line"], p["what"]) for p in done["problems"]]


# --- formats


GRAPH = [
    {"type": "entity", "name": "Anna", "entityType": "person", "observations": ["sails", "lives in Graz"]},
    {"type": "relation", "from": "Anna", "to": "Acme", "relationType": "works_at"},
    {"type": "entity", "name": "Acme", "entityType": "company", "observations": []},
]


def test_the_file_of_server_memory_becomes_the_same_graph_and_twice_adds_nothing(tmp_path, imported):
    file = tmp_path / "memory.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in GRAPH))
    assert imported(file) == {
        "files": 1,
        "added": 5,
        "known": 0,
        "skipped": 0,
        "dry_run": False,
        "problems": [],
        "problems_more": 0,
    }
    graph = looked_at(tmp_path, lambda memory, db: graph_of(memory, db).wire())
    assert graph["entities"] == [{k: v for k, v in GRAPH[i].items() if k != "type"} for i in (0, 2)]
    assert graph["relations"] == [{k: v for k, v in GRAPH[1].items() if k != "type"}]
    assert (imported(file)["added"], imported(file)["known"]) == (0, 5)
    [hit] = facts(tmp_path, query="sailing")[:1]
    assert (hit.text, hit.source, hit.trust) == ("sails", str(file), "agent")


def test_what_a_graph_has_already_stays_and_the_rest_is_added(tmp_path, imported):
    file = tmp_path / "memory.jsonl"
    file.write_text(json.dumps(GRAPH[0]))
    imported(file)
    file.write_text(json.dumps({**GRAPH[0], "entityType": "sailor", "observations": ["sails", "speaks Danish"]}))
    done = imported(file, status=1)
    assert (done["added"], done["known"]) == (1, 2)
    assert wrongs(done) == [("memory.jsonl", 1, "the entity is here as 'person'; the type 'sailor' is left")]


def test_entries_of_hermes_and_a_folder_of_markdown_are_facts_with_source_and_time(tmp_path, imported):
    notes = tmp_path / "notes"
    (notes / "sub").mkdir(parents=True)
    (notes / "MEMORY.md").write_text("Project uses uv\n§\nUser prefers short answers\nin German\n")
    (notes / "sub/coffee.md").write_text(
        "---\ntitle: Coffee\ntags: [taste]\ndate: 2024-02-15\n---\n## Methods\n- Pour over is clear\n"
    )
    os.utime(notes / "MEMORY.md", (1_700_000_000, 1_700_000_000))
    (notes / "picture.png").write_bytes(b"\x89PNG")
    done = imported(notes)
    assert (done["files"], done["added"], done["skipped"]) == (2, 3, 1)
    coffee, *hermes = sorted(facts(tmp_path), key=lambda hit: hit.source, reverse=True)
    assert (coffee.text, coffee.speaker, coffee.tags) == ("Pour over is clear", "Coffee > Methods", ("taste",))
    assert (coffee.time, coffee.source) == ("2024-02-15T00:00:00.000Z", str(notes / "sub/coffee.md"))
    assert {hit.text for hit in hermes} == {"Project uses uv", "User prefers short answers\nin German"}
    assert {hit.time for hit in hermes} == {"2023-11-14T22:13:20.000Z"}
    again = imported(notes)
    assert (again["added"], again["known"]) == (0, 3)


def test_lines_as_memory_add_takes_them_are_taken_with_all_their_fields(tmp_path, imported):
    file = tmp_path / "facts.jsonl"
    file.write_text(
        '\ufeff{"text": "lives in Graz", "key": "home", "time": "2024-01-01", "tags": ["a"]}\n\n{"text": "x", "txt": 1}\n'
    )
    done = imported(file, status=1)
    assert done["added"] == 1
    assert wrongs(done)[0][1] == 3
    [hit] = facts(tmp_path)
    assert (hit.key, hit.time, hit.tags) == ("home", "2024-01-01T00:00:00.000Z", ("a",))


def test_a_dry_run_counts_and_stores_nothing(tmp_path, imported):
    file = tmp_path / "memory.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in GRAPH))
    assert imported(file, "--dry-run")["added"] == 5
    assert facts(tmp_path) == ()
    assert imported(file)["added"] == 5


def test_trust_is_what_the_person_says(tmp_path, imported):
    file = tmp_path / "facts.jsonl"
    file.write_text('{"text": "from a page"}\n')
    imported(file, "--trust", "web")
    assert [hit.trust for hit in facts(tmp_path)] == ["web"]


# --- hostile files


def test_broken_lines_are_named_by_number_and_the_others_stored(tmp_path, imported):
    lines = [
        '{"text": "one"}', "{broken", '{"text": NaN}', "[1]", '{"text": "\\ud800"}', '{"text": "a", "text": "b"}', '{"text": ' + "[" * 100_000,
        '{"text": "' + "x" * (3 << 20) + '"}', '{"text": "' + "y" * (300 << 10) + '"}', '{"text": "key ghp_' + "abcdefghijklmnopqrstuvwxyz0123456789" + '"}',
        '{"text": 9' + "9" * 5000 + "}", '{"text": "two"}',
    ]  # fmt: skip
    file = tmp_path / "facts.jsonl"
    file.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n{"text": "three"}')
    done = imported(file, status=1)
    assert sorted(line for _, line, _ in wrongs(done)) == [2, 3, 4, 5, 6, 7, 8, 9, 11, 13]
    assert {hit.text for hit in facts(tmp_path)} == {"one", "key [GitHub token removed]", "two", "three"}
    assert "ghp_abcd" not in json.dumps(done)


def test_a_number_without_bounds_is_one_refused_line(tmp_path, imported):
    file = tmp_path / "notes.jsonl"
    file.write_text(f'{{"text": "a", "time": 1{"0" * 400}}}\n{{"text": "b"}}\n')
    done = imported(file, status=1)
    assert [line for _, line, _ in wrongs(done)] == [1]
    assert [hit.text for hit in facts(tmp_path)] == ["b"]


def test_an_export_goes_through_a_pipe_into_another_memory(tmp_path):
    async def fill():
        async with open_memory(tmp_path / "from") as (_, memory, _):
            await memory.add([{"text": "one", "key": "k"}, {"text": "two", "key": "k"}])

    asyncio.run(fill())

    def run(*words, **options):
        return subprocess.run([*COMMAND, "memory", *words], capture_output=True, timeout=60, check=True, **options)

    lines = run("export", "--state", str(tmp_path / "from")).stdout
    run("import", "-", "--state", str(tmp_path / "state"), input=lines)
    assert run("export", "--state", str(tmp_path / "state")).stdout == lines


def test_links_fifos_and_other_things_are_named_and_never_opened(tmp_path, imported):
    secret = tmp_path / "secret.md"
    secret.write_text("the canary")
    notes = tmp_path / "notes"
    deep = notes
    notes.mkdir()
    (notes / "link.md").symlink_to(secret)
    (notes / "folder").symlink_to(tmp_path)
    os.mkfifo(notes / "fifo.md")
    (notes / "latin.md").write_bytes(b"caf\xe9")
    (notes / "large.md").write_bytes(b"x" * (9 << 20))
    (notes / ".hidden.md").write_text("hidden")
    for _ in range(40):
        deep = deep / "d"
        deep.mkdir()
    (deep / "deep.md").write_text("too deep")
    (notes / "good.md").write_text("good")
    done = imported(notes, status=1)
    assert [(name, what.split(";")[0].split(" (")[0]) for name, _, what in sorted(wrongs(done))] == [
        ("d", "is more than 32 folders deep"), ("fifo.md", "is no regular file"), ("folder", "is a link"),
        ("large.md", "has more than 8388608 bytes"), ("latin.md", "is no UTF-8"), ("link.md", "is a link"),
    ]  # fmt: skip
    assert [hit.text for hit in facts(tmp_path)] == ["good"]
    assert done["skipped"] == 1


def test_what_is_no_memory_at_all_is_refused_as_a_whole(tmp_path, imported, capsys):
    file = tmp_path / "x"
    file.write_bytes(os.urandom(1000) + b"\n")
    assert "--format" in imported(file, status=1)["problems"][0]["what"]
    assert main(["memory", "import", str(tmp_path / "none"), "--state", str(tmp_path / "state")]) == 1
    assert "import.missing" in capsys.readouterr().err
    assert main(["memory", "import", str(tmp_path), "--format", "jsonl", "--state", str(tmp_path / "state")]) == 1
    assert "import.folder" in capsys.readouterr().err


def test_a_hostile_name_cannot_move_the_cursor(tmp_path, capsys):
    (tmp_path / "a\x1b[2J.md").write_bytes(b"\xff")
    assert main(["memory", "import", str(tmp_path), "--state", str(tmp_path / "state")]) == 1
    assert "\x1b" not in capsys.readouterr().err


# --- beside a running kernel


def test_an_import_beside_a_client_that_writes_loses_nothing_of_either(tmp_path):
    file = tmp_path / "memory.jsonl"
    lines = [
        {"type": "entity", "name": f"node {n}", "entityType": "t", "observations": [f"imported {n}"]}
        for n in range(300)
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    state = str(tmp_path / "state")
    arguments = [*COMMAND[1:], "mcp", "--standalone", "--state", state, "--memory-profile", "server-memory"]

    async def run():
        async with Client(StdioServerParameters(command=COMMAND[0], args=arguments), cache=None) as client:
            bringing = await asyncio.create_subprocess_exec(
                *COMMAND, "memory", "import", str(file), "--state", state, "--json", stdout=subprocess.PIPE
            )
            told = asyncio.ensure_future(bringing.communicate())
            count = 0
            while not told.done() or count < 50:
                name = f"node {count % 300}"
                entity = {"name": name, "entityType": "t", "observations": []}
                await client.call_tool("create_entities", {"entities": [entity]})
                await client.call_tool(
                    "add_observations", {"observations": [{"entityName": name, "contents": [f"said {count}"]}]}
                )
                count += 1
            assert bringing.returncode == 0
            assert json.loads((await told)[0])["problems"] == []
            whole = json.loads((await client.read_resource("memory://knowledge-graph")).contents[0].text)
            return count, whole["entities"]

    count, entities = asyncio.run(asyncio.wait_for(run(), 120))
    assert len(entities) == 300
    assert {text for node in entities for text in node["observations"]} == {
        *(f"imported {n}" for n in range(300)), *(f"said {n}" for n in range(count))
    }  # fmt: skip
