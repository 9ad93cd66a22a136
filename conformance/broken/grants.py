"""Twins of grants and of what replies carry: pictures, paths, progress."""

import base64
from typing import Any

from .twin import Answer, Call, alters, drops, on_host, rewrites, twin

NO_PICTURE = {"type": "image", "data": base64.b64encode(b"no picture at all").decode(), "mimeType": "image/png"}


@twin("protocol.result.pictures-are-blocks", "adds structuredContent to pictures")
async def structured_beside_pictures(call: Call) -> Answer:
    answer = await call.serve()
    meta = answer.result.get("_meta") or {}
    if call.tool == "sandbox_run" and "result" in meta:
        answer.result["structuredContent"] = meta["result"]
    return answer


@twin("protocol.result.pictures-are-few-and-small", "shows every picture")
async def all_pictures(call: Call) -> Answer:
    answer = await call.serve()
    blocks = answer.result.get("content") or []
    if call.tool == "sandbox_run" and len(blocks) == 5:
        blocks.append(blocks[-1])
    return answer


@twin("protocol.result.broken-pictures-are-not-shown", "shows what it did not look into")
async def undecoded(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "sandbox_run" and "no picture at all" in call.text:
        answer.result["content"].append(NO_PICTURE)
    return answer


def no_paths(_: Call, data: dict[str, Any]) -> None:
    data["files"] = [{k: v for k, v in file.items() if k != "local_path"} for file in data.get("files") or []]


alters("protocol.result.files-have-a-local-path", "names no path of a file", ("sandbox_run",), no_paths)


@twin("protocol.progress.comes-every-five-seconds", "is silent until it is done")
async def silent(call: Call) -> Answer:
    call.params.get("_meta", {}).pop("progressToken", None)
    return await call.serve()


@twin("protocol.argument.null-is-absent", "takes null for a wrong type")
async def minds_null(call: Call) -> Answer:
    answer = await call.serve()
    if any(value is None for value in call.arguments.values()):
        return answer.refuse("argument.wrong_type", "stdin is null.")
    return answer


drops("sandbox.grants.hosts-are-denied", "does not hear which hosts are asked for", "sandbox_run", "allow_hosts")
drops("sandbox.grants.packages-are-denied", "does not hear which packages are asked for", "sandbox_run", "packages")


@twin("protocol.server.instructions-name-what-is-shared", "does not say what is shared", at="handshake")
async def names_no_folder(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "initialize":
        answer.result["instructions"] = answer.result["instructions"].replace("/shared", "")
    return answer


on_host("sandbox.shared.is-seen-read-only", "lets guests write into shared folders", "-seen.txt")


@twin("sandbox.export.copies-into-a-shared-folder", "says that it copied")
async def copies_nothing(call: Call) -> Answer:
    if call.tool == "sandbox_export":
        path = f"{call.arguments['to']}{call.arguments['from'][0].rpartition('/')[2]}"
        return Answer({}).say({"files": [{"path": path, "size_bytes": 8}]})
    return await call.serve()


@twin("sandbox.export.stays-inside", "nods at exports to anywhere")
async def exports_anywhere(call: Call) -> Answer:
    answer = await call.serve()
    return answer.say({"files": []}) if call.tool == "sandbox_export" and answer.refused else answer


@twin("sandbox.export.keeps-what-is-there", "replaces what is there")
async def replaces(call: Call) -> Answer:
    if call.tool == "sandbox_export":
        call.arguments["overwrite"] = True
    return await call.serve()


rewrites(
    "sandbox.export.in-programs", "exports nothing from programs",
    "await kernel.sandbox.export(made.files, input['to'])", "{'files': made.files}",
)  # fmt: skip
