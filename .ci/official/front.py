"""Agent Kernel behind streamable HTTP, for the official suite alone: it speaks nothing else.

The same server object as on stdio, in the SDK's own HTTP application; what is tested of HTTP is therefore the SDK's. It prints the port
that it got and serves until it is ended.
"""

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn
from agent_kernel import Kernel
from agent_kernel_mcp.server import build


async def serve(state: Path) -> None:
    async with Kernel.open(state) as kernel:
        app = build(kernel).streamable_http_app(host="127.0.0.1")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            print(listening.getsockname()[1], flush=True)
            await uvicorn.Server(uvicorn.Config(app, log_level="error")).serve(sockets=[listening])


asyncio.run(serve(Path(sys.argv[1])))
