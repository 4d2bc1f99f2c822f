"""Children by every way Python has: children.py fork|spawn|forkserver|os.fork|
subprocess. Each child keeps 500 + 100 * number blocks, says so, and ends."""

import multiprocessing
import os
import subprocess
import sys

head, tail = b"h" * 700, b"t"
kept = []


def in_child(number):
    for _ in range(500 + 100 * number):
        kept.append(head + tail)  # LINE in_child
    line = b'{"pid": %d, "number": %d, "blocks": %d}\n' % (
        os.getpid(),
        number,
        len(kept),
    )
    os.write(1, line)
    os._exit(number)


def main(way):
    if way == "child":
        in_child(int(sys.argv[2]))
    statuses = []
    for number in range(4):
        if way == "os.fork":
            pid = os.fork()
            if pid == 0:
                in_child(number)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        elif way == "subprocess":
            command = [sys.executable, __file__, "child", str(number)]
            statuses.append(subprocess.run(command).returncode)
        else:
            context = multiprocessing.get_context(way)
            process = context.Process(target=in_child, args=(number,))
            process.start()
            process.join()
            statuses.append(process.exitcode)
    os.write(1, b'{"statuses": %s}\n' % str(statuses).encode())


if __name__ == "__main__":
    main(sys.argv[1])
