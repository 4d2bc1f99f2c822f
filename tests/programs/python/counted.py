"""Runs a workload under the counting allocator: counted.py DIRECTORY WORKLOAD.

DIRECTORY holds the `counting` module built for this interpreter. The line of
JSON on stdout says what was born and is live at each line of WORKLOAD.
"""

import sys
import threading

sys.path.insert(0, sys.argv[1])
import counting  # noqa: E402


def run_in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    thread.join()


path = sys.argv[2]
with open(path) as file:
    code = compile(file.read(), path, "exec")
names = {"__name__": "__main__", "run_in_thread": run_in_thread}
counting.start(code.co_filename)
exec(code, names)
counting.finish()
