"""mcp_server/profiles.py: a client of Anthropic's memory tool or of server-memory, driven through the real server.

What the references answer to the same calls is in tests/peers, written by tests/peers/record.py.
"""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import pytest
from agent_kernel import Grants, Kernel
from agent_kernel.base.errors import HostError
from agent_kernel.base.policy import load_policy
from agent_kernel_mcp.profiles import tools_of
from agent_kernel_mcp.server import build
from mcp import Client, StdioServerParameters

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
from calls import FILE_CALLS, GRAPH_CALLS  # noqa: E402
from record import bare  # noqa: E402

GRAPH, FILES = (json.loads((HERE / "peers" / name).read_text(encoding="utf8")) for name in ("graph.json", "files.json"))


@contextlib.asynccontextmanager
async def served(state, *profiles):
    options = [part for name in profiles for part in ("--memory-profile", name)]
    arguments = ["-m", "agent_kernel_mcp", "mcp", "--standalone", "--state", str(state), *options]
    server = StdioServerParameters(command=sys.executable, args=arguments)
    async with Client(server, mode="auto", cache=None, read_timeout_seconds=60) as connected:
        yield connected


@contextlib.asynccontextmanager
async def in_process(state, *profiles):
    async with Kernel.open(state) as kernel, Client(build(kernel, profiles), cache=None) as connected:
        yield connected


def with_client(*profiles, opened=in_process):
    def bind(body):
        def test(tmp_path):
            async def run():
                async with opened(tmp_path / "state", *profiles) as c:
                    await body(c)

            asyncio.run(asyncio.wait_for(run(), 120))

        test.__name__ = body.__name__
        return test

    return bind


async def said(c, command, **arguments):
    result = await c.call_tool("memory", {"command": command, **arguments})
    return result.content[0].text, bool(result.is_error)


async def graph(c, tool, **arguments):
    result = await c.call_tool(tool, arguments)
    assert not result.is_error, result.content[0].text
    return result


async def hits(c, **arguments):
    return (await c.call_tool("memory_search", arguments)).structured_content.get("hits", [])


# --- opt-in


@with_client()
async def test_without_the_option_there_is_no_tool_of_a_profile(c):
    names = {tool.name for tool in (await c.list_tools()).tools}
    assert not names & {"memory", "create_entities", "read_graph"}
    for name in ("memory", "read_graph"):
        result = await c.call_tool(name, {})
        assert result.structured_content["error"]["code"] == "tool.unknown"


def test_config_toml_opts_in_too_and_an_unknown_profile_refuses_the_start(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "config.toml").write_text('[memory]\nprofiles = ["anthropic"]\n')

    async def listed():
        async with served(state) as c:
            return {tool.name for tool in (await c.list_tools()).tools}

    assert "memory" in asyncio.run(asyncio.wait_for(listed(), 60))
    (state / "config.toml").write_text('[memory]\nprofiles = ["antropic"]\n')
    with pytest.raises(HostError, match=r"'antropic'.*anthropic, server-memory"):
        load_policy(state / "config.toml")


@pytest.mark.parametrize("profile", ["anthropic", "server-memory"])
def test_with_a_profile_the_tools_stay_below_two_and_a_half_thousand_tokens(profile):
    tools = tools_of([profile], Grants())
    seen = [{"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema} for tool in tools]
    assert len(json.dumps(seen, separators=(",", ":"))) / 3.9 < 2500


# --- the operator's rules


def with_rules(tmp_path, rules, body):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "config.toml").write_text(f"[memory]\n{rules}\n", encoding="utf8")

    async def run():
        async with in_process(state, "anthropic", "server-memory") as c:
            await body(c)

    asyncio.run(asyncio.wait_for(run(), 60))


ENTITY = {"name": "Anna", "entityType": "person", "observations": ["uses AKIAIOSFODNN7EXAMPLE"]}


def test_a_file_or_a_graph_that_would_wait_for_a_person_is_refused_as_a_whole(tmp_path):
    async def body(c):
        text, refused = await said(c, "create", path="/memories/a", file_text="x")
        assert refused
        assert "memory.quarantine" in text
        done = await c.call_tool("create_entities", {"entities": [{**ENTITY, "observations": []}]})
        assert done.is_error
        assert "Nothing was stored" in done.content[0].text
        stats = json.loads((await c.read_resource("memory://stats")).contents[0].text)
        assert (stats["live"], stats["quarantined"]) == (0, 0)

    with_rules(tmp_path, 'quarantine = ["agent"]', body)


def test_a_secret_that_was_left_out_of_a_file_or_a_graph_is_named(tmp_path):
    async def body(c):
        told = "Left out of what was stored: AWS access key at characters 5 to 25 of a text."
        create = {"command": "create", "path": "/memories/a", "file_text": ENTITY["observations"][0]}
        for tool, arguments in (("memory", create), ("create_entities", {"entities": [ENTITY]})):
            done = await c.call_tool(tool, arguments)
            assert (bool(done.is_error), done.content[-1].text) == (False, told)

    with_rules(tmp_path, 'secrets = "mask"', body)


# --- anthropic


def documented(answer):
    """What the documentation says where the helper of the SDK says it otherwise."""
    text, refused = answer
    if not refused:
        return [text.replace("excluding hidden items:", "excluding hidden items and node_modules:"), False]
    head, tail = "Invalid `insert_line` parameter", "It should be within the range "
    if text.startswith(head):
        text = text.rstrip(".").replace(tail, f"{tail}of lines of the file: ")
    return [text, True]


@with_client("anthropic", opened=served)
async def test_the_memory_tool_answers_as_the_sdks_helper_does_in_the_words_of_the_documentation(c):
    for call, expected in zip(FILE_CALLS, FILES["answers"], strict=True):
        text, refused = await said(c, **call)
        wanted, wanted_refused = documented(expected)
        assert refused == wanted_refused, (call, text)
        if (
            call["command"] == "view" and "4K\t" in wanted
        ):  # a directory's own size: a block there, its files' bytes here
            assert text.replace("0B\t", "4K\t") == wanted
        elif refused and call["command"] == "insert" and "does not exist" in wanted:
            assert text == f"Error: The path {call['path']} does not exist"
        elif refused:
            assert text in (wanted, f"Error: {wanted}"), call
        else:
            assert text == wanted, call


@with_client("anthropic")
async def test_a_directory_lists_two_levels_with_sizes_and_without_what_is_hidden(c):
    for path, text in (
        ("b.md", "x" * 1536), ("a/one", "1"), ("a/deep/two", "22"), (".git/x", "h"), ("node_modules/y", "n"), ("a.txt", ""),
    ):  # fmt: skip
        assert not (await said(c, "create", path=f"/memories/{path}", file_text=text))[1]
    listing, _ = await said(c, "view", path="/memories/")
    assert listing == (
        "Here're the files and directories up to 2 levels deep in /memories, excluding hidden items and node_modules:\n"
        "1.5K\t/memories\n3B\t/memories/a/\n2B\t/memories/a/deep/\n1B\t/memories/a/one\n0B\t/memories/a.txt\n1.5K\t/memories/b.md"
    )
    listing, _ = await said(c, "view", path="/memories/a")
    assert listing.endswith(":\n3B\t/memories/a\n2B\t/memories/a/deep/\n2B\t/memories/a/deep/two\n1B\t/memories/a/one")


@with_client("anthropic")
async def test_no_spelling_of_a_path_leads_out_of_memories(c):
    for path in (
        "/memories/../x", "/memories/a/../../x", "/memories/..", "/memories/%2e%2e/x", "/memories/%2E%2E%2fx", "/memories/..\\x",
        "/memories/a\\..\\..\\x", "/memoriesx", "/etc/passwd", "memories/a", "", "../memories", "/memories/a\0b", "/memories/a\nb",
    ):  # fmt: skip
        for call in (
            {"command": "view", "path": path},
            {"command": "create", "path": path, "file_text": "x"},
            {"command": "delete", "path": path},
            {"command": "rename", "old_path": "/memories/a", "new_path": path},
        ):
            text, refused = await said(c, **call)
            assert refused
            assert "Path" in text or "argument" in text, (path, text)
    assert (await said(c, "view", path="/memories"))[0].endswith(":\n0B\t/memories")


@with_client("anthropic")
async def test_files_are_found_by_memory_search_and_their_old_versions_are_history(c):
    await said(c, "create", path="/memories/trip.md", file_text="Anna sails to Bornholm\n")
    await said(c, "str_replace", path="/memories/trip.md", old_str="Bornholm", new_str="Gotland")
    [hit] = await hits(c, query="sailing")
    assert (hit["key"], hit["text"], hit["trust"]) == ("/memories/trip.md", "Anna sails to Gotland\n", "agent")
    await said(c, "rename", old_path="/memories/trip.md", new_path="/memories/old/trip.md")
    assert [hit["key"] for hit in await hits(c, query="sailing")] == ["/memories/old/trip.md"]
    await said(c, "delete", path="/memories/old")
    assert await hits(c, query="sailing") == []
    history = await hits(c, query="sailing", include_retired=True)
    assert {hit["text"] for hit in history} == {"Anna sails to Bornholm\n", "Anna sails to Gotland\n"}
    assert sorted(hit["retired"].split()[0] for hit in history) == ["retracted:", "superseded", "superseded"]


@with_client("anthropic")
async def test_a_view_is_bounded_and_says_how_to_see_the_rest(c):
    lines = [f"line {number} with some words" for number in range(3000)]
    await said(c, "create", path="/memories/long", file_text="\n".join(lines))
    seen, first = [], 1
    while True:
        text, refused = await said(c, "view", path="/memories/long", view_range=[first, -1])
        assert not refused
        assert len(text.encode()) < 16 << 10
        body = text.split("\n")[1:]
        rest = body.pop() if body[-1].startswith("[") else None
        seen += [line.split("\t", 1)[1] for line in body]
        if rest is None:
            break
        first = int(rest.split()[1])
        assert rest == f"[Lines {first} to 3000 are not shown; view_range shows them]"
    assert seen == lines
    await said(c, "create", path="/memories/wide", file_text="w" * 100_000)
    text, _ = await said(c, "view", path="/memories/wide")
    assert len(text.encode()) < 16 << 10
    uri = text.rsplit(" ", 1)[1].rstrip("]")
    assert (await c.read_resource(uri)).contents[0].text == "w" * 100_000


@with_client("anthropic")
async def test_too_much_is_refused_and_nothing_is_lost(c):
    await said(c, "create", path="/memories/a", file_text="kept")
    for call in (
        {"command": "create", "path": "/memories/big", "file_text": "x" * (256 * 1024 + 1)},
        {"command": "insert", "path": "/memories/a", "insert_line": 0, "insert_text": "x" * (256 * 1024)},
        {"command": "create", "path": "/memories/" + "n" * 300, "file_text": "x"},
        {"command": "create", "path": "/memories/a/below", "file_text": "x"},
        {"command": "rename", "old_path": "/memories/a", "new_path": "/memories/a/b"},
        {"command": "create", "path": "/memories/b"},
        {"command": "shred", "path": "/memories/a"},
    ):
        assert (await said(c, **call))[1], call
    assert (await said(c, "view", path="/memories/a"))[0].endswith("\n     1\tkept")
    assert (await said(c, "view", path="/memories"))[0].endswith("\n4B\t/memories/a")


# --- server-memory


@with_client("server-memory", opened=served)
async def test_the_graph_tools_give_the_answers_of_server_memory(c):
    for (name, arguments), (text, structured, refused) in zip(GRAPH_CALLS, GRAPH["answers"], strict=True):
        result = await c.call_tool(name, arguments)
        if name == "search_nodes" and structured == {"entities": [], "relations": []}:
            continue  # searched for word by word here, on purpose
        seen = [result.content[0].text, result.structured_content, bool(result.is_error)]
        assert seen == [text, structured, refused], (name, arguments)
        assert len(result.content) == 1


def test_the_graph_tools_have_the_shapes_and_hints_of_server_memory():
    tools = {tool.name: tool for tool in tools_of(["server-memory"], Grants())}
    for name, shape in GRAPH["tools"].items():
        tool = tools[name]
        assert json.loads(json.dumps(bare(tool.input_schema))) == shape["input"]
        assert json.loads(json.dumps(bare(tool.output_schema))) == shape["output"]
        hints = {
            "readOnlyHint": tool.reads, "destructiveHint": tool.destroys, "idempotentHint": tool.idempotent,
            "openWorldHint": tool.open_world,
        }  # fmt: skip
        assert hints == shape["hints"]


ANNA = {"name": "Anna", "entityType": "person", "observations": ["prefers sailing at night", "lives in Graz"]}


@with_client("server-memory")
async def test_a_query_that_is_nowhere_as_a_whole_is_searched_for_word_by_word(c):
    await graph(
        c, "create_entities", entities=[ANNA, {"name": "Bob", "entityType": "person", "observations": ["cooks"]}]
    )
    await graph(c, "create_relations", relations=[{"from": "Bob", "to": "Anna", "relationType": "knows"}])
    found = (await graph(c, "search_nodes", query="who sails when it is night?")).structured_content
    assert [node["name"] for node in found["entities"]] == ["Anna"]
    assert len(found["relations"]) == 1


@with_client("server-memory")
async def test_the_graph_is_found_by_memory_search_and_what_is_deleted_is_history(c):
    await graph(c, "create_entities", entities=[ANNA])
    hit = (await hits(c, query="sails", kind="observation"))[0]
    assert (hit["text"], hit["speaker"], hit["conversation"]) == ("prefers sailing at night", "Anna", "entity/Anna")
    await graph(c, "delete_entities", entityNames=["Anna"])
    assert await hits(c, query="sails") == []
    assert (await hits(c, query="sails", include_retired=True))[0]["retired"] == "retracted: deleted from the graph"
    await graph(c, "create_entities", entities=[{**ANNA, "observations": []}])
    assert (await graph(c, "read_graph")).structured_content["entities"][0]["observations"] == []


@with_client("server-memory")
async def test_calls_at_the_same_time_lose_nothing_and_a_failing_one_stores_nothing(c):
    await graph(c, "create_entities", entities=[{**ANNA, "observations": []}])

    def add(number, *more):
        observation = {"entityName": "Anna", "contents": [f"seen {number}.{part}" for part in range(5)]}
        return c.call_tool("add_observations", {"observations": [observation, *more]})

    await asyncio.gather(
        *(add(number) for number in range(20)),
        *(add(-number, {"entityName": "X", "contents": []}) for number in range(1, 6)),
    )
    [anna] = (await graph(c, "open_nodes", names=["Anna"])).structured_content["entities"]
    assert sorted(anna["observations"]) == sorted(f"seen {number}.{part}" for number in range(20) for part in range(5))


@with_client("server-memory")
async def test_a_large_graph_is_shown_in_part_and_read_whole_as_a_resource(c):
    entities = [{"name": f"node {n}", "entityType": "thing", "observations": [f"word {n} " * 20]} for n in range(200)]
    made = await graph(c, "create_entities", entities=entities)
    assert "Done for all 200" in made.content[1].text
    edges = [{"from": f"node {n}", "to": f"node {n + 1}", "relationType": "next"} for n in range(199)]
    await graph(c, "create_relations", relations=edges)
    read = await graph(c, "read_graph")
    shown = read.structured_content
    assert json.loads(read.content[0].text) == shown
    assert shown["entities"] == entities[: len(shown["entities"])]
    assert 10 < len(shown["entities"]) < 200
    assert shown["relations"] == edges[: len(shown["relations"])]
    assert len(read.content[0].text.encode()) < 16 << 10
    assert f"{len(shown['entities'])} of 200 entities" in read.content[1].text
    whole = json.loads((await c.read_resource("memory://knowledge-graph")).contents[0].text)
    assert (whole["entities"], whole["relations"]) == (entities, edges)
    long = {"name": "long", "entityType": "", "observations": [f"{n} {'x' * 1000}" for n in range(50)]}
    await graph(c, "create_entities", entities=[long])
    [part] = (await graph(c, "open_nodes", names=["long"])).structured_content["entities"]
    assert part["observations"] == long["observations"][: len(part["observations"])]
    assert part["observations"]


@with_client("server-memory")
async def test_what_is_named_twice_in_one_call_is_stored_once(c):
    twice = {"name": "Bob", "entityType": "t", "observations": ["a", "a"]}
    made = (await graph(c, "create_entities", entities=[twice, twice])).structured_content
    assert made["entities"] == [{**twice, "observations": ["a"]}]
    added = await graph(c, "add_observations", observations=[{"entityName": "Bob", "contents": ["b", "b"]}] * 2)
    assert [result["addedObservations"] for result in added.structured_content["results"]] == [["b"], []]


@with_client("server-memory")
async def test_a_refusal_of_a_graph_tool_is_text_alone(c):
    """Clients check structuredContent against the output schema, in refusals too."""
    for tool, arguments, words in (
        ("add_observations", {"observations": [{"entityName": "Z", "contents": []}]}, "Entity with name Z not found"),
        ("create_entities", {"entities": [{"name": "x" * 241, "entityType": "t", "observations": []}]}, "at most 240"),
        ("create_entities", {"entities": "no"}, "entities must be an array"),
        ("open_nodes", {}, "'names'"),
    ):
        result = await c.call_tool(tool, arguments)
        assert result.is_error
        assert words in result.content[0].text
        assert result.structured_content is None
