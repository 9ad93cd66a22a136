"""Shapes of concurrent programs. Each one's output depends on the order in which its tasks went on: a replay in another order is seen.

`get` fails by chance with a typed error; `pick` answers a random number. The `out` lists are built in completion order.
"""

HEAD = """
import asyncio, random, time

async def get(tag, **more):
    return await kernel.tool("get", tag=tag, **more)

async def safe(tag, **more):
    try:
        return await get(tag, **more)
    except kernel.Error as error:
        return error.code
"""

BODIES = {
    "sequential": """
async def main(input):
    out = []
    for i in range(6):
        out.append(await safe(i, seen=len(out), r=random.random()))
    return out
""",
    "gather": """
async def main(input):
    return await asyncio.gather(*[get(i) for i in range(6)], return_exceptions=False) if input.get("hard") else \\
        await asyncio.gather(*[safe(i) for i in range(6)])
""",
    "semaphore": """
async def main(input):
    gate, out = asyncio.Semaphore(2), []
    async def one(i):
        async with gate:
            out.append([i, await safe(i, before=len(out))])
    await asyncio.gather(*[one(i) for i in range(6)])
    return out
""",
    "chains": """
async def main(input):
    out = []
    async def chain(i):
        for j in range(3):
            out.append([i, j, await safe([i, j], before=len(out))])
    await asyncio.gather(*[chain(i) for i in range(4)])
    return out
""",
    "nested_taskgroup": """
async def main(input):
    out = []
    async def leaf(i, j):
        out.append([i, j, await safe([i, j])])
        out.append(await safe(len(out)))
    async def branch(i):
        async with asyncio.TaskGroup() as group:
            for j in range(2):
                group.create_task(leaf(i, j))
        out.append(i)
    async with asyncio.TaskGroup() as group:
        for i in range(3):
            group.create_task(branch(i))
    return out
""",
    "reverse_await": """
async def main(input):
    out = []
    async def two(i):
        a = await safe(i)
        out.append(i)
        return [a, await safe([i, len(out)])]
    tasks = [asyncio.create_task(two(i)) for i in range(4)]
    return [[await task for task in reversed(tasks)], out]
""",
    "async_generators": """
async def main(input):
    out = []
    async def numbers(i):
        for j in range(3):
            yield await safe([i, j], before=len(out))
    async def eat(i):
        async for value in numbers(i):
            out.append([i, value])
            if len(out) > 7:
                break
    await asyncio.gather(*[eat(i) for i in range(3)])
    return out
""",
    "as_completed_follow_up": """
async def main(input):
    out = []
    for done in asyncio.as_completed([safe(i) for i in range(5)]):
        value = await done
        out.append([value, await safe(["then", value, len(out)])])
    return out
""",
    "as_completed_spawns": """
async def main(input):
    out, more = [], []
    for done in asyncio.as_completed([safe(i) for i in range(4)]):
        value = await done
        out.append(value)
        more.append(asyncio.create_task(safe(["more", value, len(out)])))
    return [out, [await task for task in more]]
""",
    "wait_first": """
async def main(input):
    out, left = [], {asyncio.create_task(safe(i)) for i in range(4)}
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            out.append(task.result())
            if len(out) < 5:
                left.add(asyncio.create_task(safe(["added", len(out)])))
    return out
""",
    "queue_workers": """
async def main(input):
    queue, out = asyncio.Queue(), []
    for i in range(8):
        queue.put_nowait(i)
    async def worker(w):
        while not queue.empty():
            i = await queue.get()
            out.append([w, i, await safe([w, i])])
            if i == 3:
                queue.put_nowait(99)
    await asyncio.gather(*[worker(w) for w in range(3)])
    return out
""",
    "pipeline": """
async def main(input):
    first, second, out = asyncio.Queue(2), asyncio.Queue(1), []
    async def produce():
        for i in range(5):
            await first.put(await safe(i))
        await first.put(None)
    async def turn():
        while (value := await first.get()) is not None:
            await second.put(await safe(["turn", value]))
        await second.put(None)
    async def consume():
        while (value := await second.get()) is not None:
            out.append(await safe(["eat", value, len(out)]))
    await asyncio.gather(produce(), turn(), consume())
    return out
""",
    "timeout_retry": """
async def main(input):
    async def stubborn(i):
        for attempt in range(4):
            try:
                async with asyncio.timeout(0.05 * (attempt + 1)):
                    return [i, attempt, await get([i, attempt])]
            except TimeoutError:
                await asyncio.sleep(0.1 * 2 ** attempt)
            except kernel.Error as error:
                await asyncio.sleep(random.random())
        return [i, "never", time.time()]
    return await asyncio.gather(*[stubborn(i) for i in range(3)])
""",
    "race_cleanup": """
async def main(input):
    out = []
    async def runner(i):
        try:
            return await safe(i)
        except asyncio.CancelledError:
            out.append([i, await safe(["undo", i, len(out)])])
            raise
    tasks = {asyncio.create_task(runner(i)) for i in range(4)}
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return [sorted(str(t.result()) for t in done), out]
""",
    "taskgroup_failing": """
async def main(input):
    out = []
    async def work(i):
        try:
            for j in range(3):
                out.append([i, await get([i, j])])
        except asyncio.CancelledError:
            out.append(["undo", i, await safe(["undo", i])])
            raise
    try:
        async with asyncio.TaskGroup() as group:
            for i in range(4):
                group.create_task(work(i))
    except* kernel.Error as errors:
        out.append(len(errors.exceptions))
    return out
""",
    "lock_counter": """
async def main(input):
    lock, count, out = asyncio.Lock(), 0, []
    async def add(i):
        nonlocal count
        for _ in range(2):
            async with lock:
                seen = count
                await safe([i, seen])
                count = seen + 1
            out.append([i, await safe(["free", i, count])])
    await asyncio.gather(*[add(i) for i in range(3)])
    return [count, out]
""",
    "shared_generator": """
async def main(input):
    out, lock = [], asyncio.Lock()
    async def numbers():
        for i in range(7):
            yield await safe(["n", i])
    source = numbers()
    async def eat(i):
        while True:
            async with lock:
                value = await anext(source, None)
            if value is None:
                return
            out.append([i, value, await safe([i, value])])
    await asyncio.gather(*[eat(i) for i in range(3)])
    return out
""",
    "typed_retries": """
async def main(input):
    async def stubborn(i):
        tries = 0
        while True:
            try:
                return [i, tries, await get([i, tries])]
            except kernel.Error as error:
                tries += 1
                if not error.retryable or tries > 4:
                    return [i, error.code]
    return await asyncio.gather(*[stubborn(i) for i in range(5)])
""",
    "call_later": """
async def main(input):
    loop, out, tasks = asyncio.get_running_loop(), [], []
    async def one(i):
        out.append([i, loop.time(), await safe(i)])
    for i in range(5):
        loop.call_later(1 + i % 2, lambda i=i: tasks.append(asyncio.create_task(one(i))))
    await asyncio.sleep(1.5)
    out.append(await safe("between"))
    await asyncio.sleep(1)
    await asyncio.gather(*tasks)
    return out
""",
    "shield_timeout": """
async def main(input):
    out = []
    async def slow(i):
        for j in range(3):
            out.append([i, j, await safe([i, j])])
    async def guarded(i):
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.create_task(slow(i))), 0.2)
        except TimeoutError:
            out.append(["late", i])
    await asyncio.gather(*[guarded(i) for i in range(3)])
    out.append(await safe("last"))
    return out
""",
    "condition_and_event": """
async def main(input):
    ready, condition, out = asyncio.Event(), asyncio.Condition(), []
    async def waiter(i):
        await ready.wait()
        async with condition:
            await condition.wait_for(lambda: len(out) > i)
            out.append([i, await safe(i)])
            condition.notify_all()
    async def starter():
        await safe("start")
        ready.set()
        async with condition:
            out.append(await safe("first"))
            condition.notify_all()
    await asyncio.gather(*[waiter(i) for i in range(3)], starter())
    return out
""",
    "map_and_race": """
async def main(input):
    out = []
    async def one(i):
        out.append(i)
        return await safe([i, len(out)])
    mapped = await kernel.map(one, range(6), limit=3)
    async def runner(i):
        try:
            return await get(["race", i])
        finally:
            out.append(i)
    try:
        won = await kernel.race(*[runner(i) for i in range(3)], kernel.sleep(0.4))
    except kernel.Error as error:
        won = error.code
    return [mapped, won, out]
""",
    "steps_with_files": """
import os
async def main(input):
    out = []
    def write(i):
        with open(f"f{i}.txt", "w") as file:
            file.write(str(i))
        if os.path.exists("shared.txt"):
            os.unlink("shared.txt")
        else:
            open("shared.txt", "w").write("x")
        if i == 2:
            raise ValueError("two")
        return [i, sorted(n for n in os.listdir(".") if n.startswith("f"))[:0]]
    async def one(i):
        try:
            value = await kernel.step("write", write, i)
        except kernel.Error as error:
            value = error.code
        out.append([i, value, sorted(os.listdir("."))])
        out.append(await safe([i, sorted(os.listdir("."))]))
    await asyncio.gather(*[one(i) for i in range(4)])
    return out
""",
    "steps_dropped": """
async def main(input):
    async def one(i):
        try:
            async with asyncio.timeout(0.3):
                return await kernel.step("work", lambda: i * 2)
        except TimeoutError:
            return await safe(["late", i])
    return await kernel.map(one, range(5))
""",
    "background_left_over": """
async def main(input):
    out = []
    async def forever(i):
        try:
            while True:
                out.append(await safe([i, len(out)]))
        finally:
            await safe(["bye", i, len(out)])
    tasks = [asyncio.create_task(forever(i)) for i in range(3)]
    await asyncio.sleep(0.5)
    return out
""",
    "to_thread": """
async def main(input):
    out = []
    def blocking(i):
        time.sleep(0.1 * i)
        try:
            value = kernel.tool("get", tag=["thread", i, len(out)])
        except kernel.Error as error:
            value = error.code
        out.append([i, value])
    await asyncio.gather(*[asyncio.to_thread(blocking, i) for i in range(4)], safe("beside"))
    return out
""",
    "time_sleep_in_coroutine": """
async def main(input):
    out = []
    async def one(i):
        out.append([i, await safe(i)])
        time.sleep(0.2)
        out.append([i, await safe(["after", i, len(out)])])
    await asyncio.gather(*[one(i) for i in range(3)])
    return [out, time.time() - kernel.now() < 1]
""",
    "cleanup_calls_on_failure": """
async def main(input):
    out = []
    async def one(i):
        try:
            out.append(await get(i))
            await asyncio.sleep(0.1 * i)
            out.append(await get([i, len(out)]))
        finally:
            await safe(["close", i, len(out)])
    await asyncio.gather(*[one(i) for i in range(4)])
    return out
""",
    "compensation": """
async def main(input):
    for i in range(4):
        await kernel.step(f"book {i}", lambda: i, compensate=lambda booked: booked + 100)
        await get(i)
    return "booked"
""",
}

BLOCKING = {
    "blocking_sequential": """
import random, time
def main(input):
    out = []
    for i in range(5):
        try:
            out.append(kernel.tool("get", tag=i, seen=len(out), r=random.random()))
        except kernel.Error as error:
            out.append(error.code)
            time.sleep(1)
    return [out, time.time()]
""",
    "blocking_map": """
import time
def main(input):
    out = []
    def one(i):
        time.sleep(0.1 * (i % 3))
        try:
            value = kernel.tool("get", tag=[i, len(out)])
        except kernel.Error as error:
            value = kernel.step("mend", lambda: i)
        out.append([i, value])
        return kernel.tool("get", tag=["again", i, len(out)]) if value else None
    try:
        mapped = kernel.map(one, range(7), limit=3)
    except kernel.Error as error:
        mapped = error.code
    return [mapped, out]
""",
    "blocking_race": """
def main(input):
    out = []
    def one(i):
        try:
            return kernel.tool("get", tag=i)
        finally:
            out.append(i)
            try:
                kernel.tool("get", tag=["close", i])
            except kernel.Error:
                out.append("failed")
    try:
        return [kernel.race(*[lambda i=i: one(i) for i in range(3)]), out]
    except kernel.Error as error:
        return [error.code, out]
""",
    "blocking_nested_map": """
def main(input):
    out = []
    def leaf(i):
        out.append(i)
        try:
            return kernel.tool("get", tag=[i, len(out)])
        except kernel.Error as error:
            return error.code
    return [kernel.map(lambda i: kernel.map(leaf, range(i, i + 3)), range(3), limit=2), out]
""",
}

SHAPES = {name: HEAD + body for name, body in BODIES.items()} | BLOCKING


def by_chance(method, arguments, rng):
    """Answers of a world that fails one time in six."""
    if rng.random() < 1 / 6:
        retryable = rng.random() < 0.7
        return {"error": {"code": "tool.failed", "message": "by chance", "fault": "host", "retryable": retryable}}
    return {"ok": rng.randrange(1000)}
