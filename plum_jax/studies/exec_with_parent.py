"""Becomes another program, which the kernel kills when the process that started it dies; started as a script.

  python -I -S exec_with_parent.py <pid of the parent> <cores, e.g. 0,1, or -> <program> <arguments...>

A worker that is killed with SIGKILL cannot stop its cell. On Linux the kernel does it (PR_SET_PDEATHSIG); elsewhere the
lock on the cell's directory keeps a second process out. This is a program of its own because code that runs between
fork and exec (`preexec_fn`) can hang in a process with threads, and a worker has some.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, cores, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if cores != "-":
            os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    if os.getppid() != int(parent):
        sys.exit("the worker died while it started this cell")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"OSError: cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
