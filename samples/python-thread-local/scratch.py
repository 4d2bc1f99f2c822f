"""Long-lived workers gather scratch space in a thread-local and never let go."""

import queue
import threading

WORKERS = 4
local = threading.local()
jobs = queue.Queue()
HEAD, TAIL = b"h" * 3000, b"t"


def scratch():
    return HEAD + TAIL


def process(job):
    if not hasattr(local, "used"):
        local.used = []
    local.used.append(scratch())


def worker():
    while True:
        process(jobs.get())
        jobs.task_done()


def main():
    for _ in range(WORKERS):
        threading.Thread(target=worker, daemon=True).start()
    for job in range(2000):
        jobs.put(job)
    jobs.join()
    print("jobs done: 2000")


main()
