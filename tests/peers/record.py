"""Writes what the references answer to the calls in calls.py, for tests/test_profiles.py to compare with.

npm i @modelcontextprotocol/server-memory && pip install anthropic, then:
python tests/peers/record.py NODE_MODULES [PYTHON_THAT_HAS_ANTHROPIC]
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from calls import FILE_CALLS, GRAPH_CALLS
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

HERE = Path(__file__).parent
HELPER = """
import json, sys, tempfile
from anthropic.lib.tools._beta_builtin_memory_tool import BetaLocalFilesystemMemoryTool, ToolError
tool = BetaLocalFilesystemMemoryTool(tempfile.mkdtemp())
def answer(call):
    try:
        return [tool.call(call), False]
    except ToolError as error:
        return [str(error), True]
print(json.dumps([answer(call) for call in json.load(sys.stdin)]))
"""


async def graph(node_modules):
    package = Path(node_modules) / "@modelcontextprotocol/server-memory"
    with tempfile.TemporaryDirectory() as folder:
        env = {"MEMORY_FILE_PATH": f"{folder}/graph.jsonl", "PATH": "/usr/bin:/bin"}
        server = StdioServerParameters(command="node", args=[str(package / "dist/index.js")], env=env)
        async with stdio_client(server) as streams, ClientSession(*streams) as session:
            await session.initialize()
            listed = [tool.model_dump(by_alias=True, exclude_none=True) for tool in (await session.list_tools()).tools]
            answers = []
            for name, arguments in GRAPH_CALLS:
                result = await session.call_tool(name, arguments)
                answers.append([result.content[0].text, result.structured_content, bool(result.is_error)])
    version = json.loads((package / "package.json").read_text(encoding="utf8"))["version"]
    shapes = {tool["name"]: shape(tool) for tool in listed}
    return {"version": version, "tools": shapes, "answers": answers}


def shape(tool):
    """Names and types without words."""
    hints = tool["annotations"]
    return {"input": bare(tool["inputSchema"]), "output": bare(tool["outputSchema"]), "hints": hints}


def bare(schema):
    if isinstance(schema, dict):
        inner = {k: bare(v) for k, v in schema.items() if k not in ("description", "$schema", "properties")}
        if "properties" in schema:
            inner["properties"] = {name: bare(value) for name, value in schema["properties"].items()}
        return inner
    return schema


def files(python):
    done = subprocess.run(
        [python, "-c", HELPER], input=json.dumps(FILE_CALLS), capture_output=True, text=True, check=True
    )
    version = subprocess.run(
        [python, "-c", "import anthropic; print(anthropic.__version__)"], capture_output=True, text=True, check=True
    )
    return {"version": version.stdout.strip(), "answers": json.loads(done.stdout)}


def main():
    for name, found in (
        ("graph", asyncio.run(graph(sys.argv[1]))),
        ("files", files(sys.argv[-1] if sys.argv[2:] else sys.executable)),
    ):
        (HERE / f"{name}.json").write_text(json.dumps(found, ensure_ascii=False, indent=0) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
