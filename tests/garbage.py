"""What a process that traces and compiles thousands of programs gathers."""

import gc


def leave_out_what_is_there() -> None:
    """Objects that are alive now (JAX's traces and programs, millions of them) are in no later collection: late in the
    suite those were a third of a process's time.
    """
    gc.collect()
    gc.freeze()
