# Workers on a queue, a time-out, a task group and a subprocess of asyncio.
# stdout: '[0, 1, 4, 9, 16]\ntimed out\nhello\n'
import asyncio


async def main():
    queue, done = asyncio.Queue(), []
    for n in range(5):
        queue.put_nowait(n)

    async def worker():
        while not queue.empty():
            n = queue.get_nowait()
            await asyncio.sleep(0)
            done.append(n * n)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(worker())
    print(sorted(done))
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)
    except TimeoutError:
        print("timed out")
    process = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
    print((await process.communicate())[0].decode().strip())


asyncio.run(main())
