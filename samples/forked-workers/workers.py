"""A master and four workers. Worker 3 keeps every job that it has done."""

import os
import sys

JOBS = 1000
HEAD, TAIL = b"h" * 2000, b"t"
done = []


def load(job):
    return HEAD + TAIL


def work(number):
    for job in range(JOBS):
        result = load(job)
        if number == 3:
            done.append(result)


def main():
    for number in range(1, 5):
        pid = os.fork()
        if pid == 0:
            work(number)
            os._exit(0)
        if os.waitpid(pid, 0)[1] != 0:
            sys.exit(1)
    print("jobs done:", 4 * JOBS)


main()
