"""Ends in the way asked for: ending.py WAY."""

import atexit
import os
import signal
import sys

way = sys.argv[1]
kept = [b"x" * 1000 + b"%d" % i for i in range(1000)]
atexit.register(print, "at exit")
print("kept", len(kept), flush=True)
print("to stderr", file=sys.stderr, flush=True)
if way == "exit":
    sys.exit(3)
if way == "raise":
    raise RuntimeError("as asked")
if way == "os._exit":
    os._exit(4)
if way == "abort":
    os.abort()
if way == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if way == "term":
    os.kill(os.getpid(), signal.SIGTERM)
if way == "interrupt":
    os.kill(os.getpid(), signal.SIGINT)
if way == "stdin":
    print("read", len(sys.stdin.read()))
