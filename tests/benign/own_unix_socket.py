# A local server on a Unix socket in its workspace.
# stdout: "b'pong'\n"
# price: confined: no loopback
import asyncio


async def main():
    async def answer(reader, writer):
        writer.write({b"ping": b"pong"}[await reader.readexactly(4)])
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, "socket"):
        reader, writer = await asyncio.open_unix_connection("socket")
        writer.write(b"ping")
        print(await reader.read())
        writer.close()


asyncio.run(main())
