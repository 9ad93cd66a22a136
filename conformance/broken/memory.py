"""Twins of memory: deaf to an argument, forgetful at a restart, or silent about what they did."""

from typing import Any

from .twin import Answer, Call, alters, drops, twin

FOUND = ("memory_search",)


def hits(data: dict[str, Any]) -> list[dict[str, Any]]:
    return data.get("hits") or []


def no_score(_: Call, data: dict[str, Any]) -> None:
    for hit in hits(data):
        hit.pop("score", None)


alters("memory.add.can-be-found", "finds without a score", FOUND, no_score)


def never_duplicate(_: Call, data: dict[str, Any]) -> None:
    for item in data.get("items") or []:
        item["duplicate"] = False


alters("memory.add.duplicate-returns-the-old-id", "calls nothing a duplicate", ("memory_add",), never_duplicate)


@twin("memory.add.refuses-whole", "stores the items before the bad one")
async def half(call: Call) -> Answer:
    if call.tool == "memory_add" and isinstance(call.arguments.get("items"), list):
        for item in call.arguments["items"]:
            if "text" not in item:
                break
            if len(call.arguments["items"]) == 2:
                await call.other("memory_add", items=[item])
    return await call.serve()


@twin("memory.add.outlives-the-server", "loses at a restart what was added before")
async def loses(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "memory_search" and not answer.refused:
        kept = [hit for hit in hits(answer.data) if call.notes.facts.get(hit["id"]) in (None, call.notes.starts)]
        return answer.say({"hits": kept, "more": False})
    return answer


def trusts_all(_: Call, data: dict[str, Any]) -> None:
    for hit in hits(data):
        hit["trust"] = "user"


alters("memory.add.trust-is-the-channels", "trusts every writer like the user", FOUND, trusts_all)


@twin("memory.add.secrets-are-kept-out", "repeats in its reply what it leaves out")
async def repeats(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "memory_add" and not answer.refused:
        return answer.say({**answer.data, "warning": f"This looks like a key: {call.arguments.get('items')}."})
    return answer


@twin("memory.key.supersedes", "keeps the old value of a key beside the new one")
async def keeps_both(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "memory_add" and not answer.refused:
        return answer.say({"items": [{**item, "superseded": []} for item in answer.data.get("items") or []]})
    return answer


@twin("memory.search.stems-and-ignores-stop-words", "takes words by their letters")
async def letters_only(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "memory_search" and str(call.arguments.get("query")).startswith("what is it"):
        return answer.say({"hits": hits(answer.data)[::-1][:1], "more": False})
    return answer


@twin("memory.search.scripts-without-blanks", "takes a sentence without blanks for one word")
async def one_word(call: Call) -> Answer:
    answer = await call.serve()
    query = str(call.arguments.get("query"))
    if call.tool == "memory_search" and not query.isascii():
        return answer.say({"hits": [hit for hit in hits(answer.data) if hit["text"] == query], "more": False})
    return answer


@twin("memory.search.quoted-words-first", "takes quoted words for words")
async def no_phrases(call: Call) -> Answer:
    if call.tool == "memory_search" and "query" in call.arguments:
        call.arguments["query"] = str(call.arguments["query"]).replace('"', " ")
    return await call.serve()


drops("memory.search.explains", "does not hear explain", "memory_search", "explain")
drops("memory.search.narrows", "does not hear tags and until", "memory_search", "tags", "until")
drops("memory.search.pages", "begins every page at the first hit", "memory_search", "cursor")
drops("memory.search.as-of", "does not hear as_of", "memory_search", "as_of")


drops("memory.search.known-at", "does not hear known_at", "memory_search", "known_at")
drops("memory.search.min-trust", "does not hear min_trust", "memory_search", "min_trust")


@twin("memory.search.odd-queries-are-harmless", "hands the query to its store as it is")
async def raw_query(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "memory_search" and '"' in str(call.arguments.get("query")):
        return answer.refuse("kernel.fault", "OperationalError: fts5: syntax error near.")
    return answer


@twin("memory.forget.retract-hides", "only promises to retract")
async def promises(call: Call) -> Answer:
    if call.tool == "memory_forget" and "ids" in call.arguments and "mode" not in call.arguments:
        call.arguments["expect_count"] = 10**6
        return (await call.serve()).say({"count": 1, "mode": "retract"})
    return await call.serve()


@twin("memory.forget.erase-leaves-no-bytes", "retracts where it should erase")
async def retracts(call: Call) -> Answer:
    if call.tool == "memory_forget" and call.arguments.get("mode") == "erase":
        call.arguments["mode"] = "retract"
        answer = await call.serve()
        return answer.say(answer.data | {"mode": "erase", "proof": {"scanned": True}})
    return await call.serve()


@twin("memory.forget.erase-reaches-the-steps", "erases what is remembered and leaves its copies in the steps of runs")
async def leaves_copies(call: Call) -> Answer:
    if call.tool == "memory_forget" and call.arguments.get("mode") == "erase":
        del call.arguments["mode"]
        answer = await call.serve()
        return answer.say(answer.data | {"mode": "erase", "proof": {"clean": True}})
    return await call.serve()


@twin("memory.forget.takes-a-whole-source", "forgets everything, whatever its source")
async def forgets_all(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "memory_forget" and call.arguments.get("reason") == "it lied":
        found = await call.other("memory_search", query=str(call.arguments.get("source")).split()[-1])
        await call.other("memory_forget", ids=[hit["id"] for hit in hits(found.data)], reason="all of it")
    return answer


drops("memory.forget.expect-count-guards", "does not count before it forgets", "memory_forget", "expect_count")


def version_one(_: Call, data: dict[str, Any]) -> None:
    for block in data.get("blocks") or []:
        block["version"] = 1


alters("memory.blocks.are-written-and-read", "never counts a version on", ("memory_blocks",), version_one)
drops("memory.blocks.stale-version-is-a-conflict", "writes over a newer version", "memory_edit", "if_version")


@twin("memory.blocks.old-must-be-there-once", "writes the whole note when old is not there")
async def overwrites(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "memory_edit" and answer.refused and "old" in call.arguments:
        del call.arguments["old"]
        return await call.serve()
    return answer


@twin("memory.blocks.are-bounded", "cuts a note that is too long")
async def cuts(call: Call) -> Answer:
    if call.tool == "memory_edit":
        call.arguments["text"] = str(call.arguments.get("text"))[:1000]
    return await call.serve()
