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


def ask(request, address=("127.0.0.1", 3128), wait=10):
    """Sends bytes to the proxy of the job and gives all that comes back."""
    with socket.create_connection(address, wait) as end:
        end.sendall(request if isinstance(request, bytes) else request.encode())
        answer = b""
        try:
            while chunk := end.recv(65536):
                answer += chunk
                if b"200 Connection established" in answer: break
        except TimeoutError:
            return answer.decode("latin-1") or "silence"
        except OSError:
            pass
        return answer.decode("latin-1")


def verdict(answer):
    """The code of a refusal of the proxy, or the status line of anything else."""
    for line in answer.split("\r\n"):
        if line.startswith("X-ADE-Code: "): return line[12:]
    return answer.split("\r\n")[0]
