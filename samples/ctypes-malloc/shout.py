"""Calls a C library through ctypes and never releases what it returns."""

import ctypes
import os

directory = os.environ.get("SAMPLES_BUILD", "../../target/samples")
library = ctypes.CDLL(os.path.join(directory, "libshout.so"))
library.shout.argtypes = [ctypes.c_char_p]
library.shout.restype = ctypes.c_char_p  # a copy; the original's address is lost


def greet(number):
    return library.shout(b"hello %04d, " % number * 50)


def main():
    print("greeted", sum(len(greet(number)) for number in range(2000)), "bytes")


main()
