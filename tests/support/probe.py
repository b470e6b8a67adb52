"""What every probe needs: try something, and print in one word what came of it."""

import ctypes
import errno
import json
import os
import socket
import sys
import time


def attempt(name, action):
    """Prints ``name: allowed``, or the name of the error with which it failed."""
    try:
        action()
    except OSError as fault:
        print(f"{name}: {errno.errorcode.get(fault.errno, type(fault).__name__)}", flush=True)
    except BaseException as fault:
        print(f"{name}: {type(fault).__name__}", flush=True)
    else:
        print(f"{name}: allowed", flush=True)


def say(name, value):
    """Prints ``name: value``."""
    print(f"{name}: {value}", flush=True)


def forked(action):
    """Runs ``action`` in a process of its own that outlives this one if it can; gives its id."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    return pid
