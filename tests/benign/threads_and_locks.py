# A pool of threads, a lock, an event, a barrier and thread-local values.
# stdout: '4950 100 ok\n'
import threading
from concurrent.futures import ThreadPoolExecutor

lock, count = threading.Lock(), 0


def add(n):
    global count
    with lock:
        count += 1
    return n


with ThreadPoolExecutor(16) as pool:
    total = sum(pool.map(add, range(100)))
event = threading.Event()
threading.Timer(0.01, event.set).start()
print(total, count, "ok" if event.wait(10) else "late")
