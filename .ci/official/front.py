"""Agent Kernel behind streamable HTTP, for the official suite alone: it speaks nothing else.

The same server object as on stdio, in the SDK's own HTTP application; what is tested of HTTP is therefore the SDK's. It prints the port
that it got and serves until it is ended.
"""

import asyncio
import socket
import sys
from pathlib import Path

import fixtures
import uvicorn
from agent_kernel import Kernel
from agent_kernel_mcp.server import build


async def serve(state: Path, *, with_fixtures: bool) -> None:
    async with Kernel.open(state) as kernel:
        server = build(kernel)
        if with_fixtures:
            fixtures.over(server)
        app = server.streamable_http_app(host="127.0.0.1")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            print(listening.getsockname()[1], flush=True)
            await uvicorn.Server(uvicorn.Config(app, log_level="error")).serve(sockets=[listening])


asyncio.run(serve(Path(sys.argv[1]), with_fixtures="--fixtures" in sys.argv))
