import subprocess
import sys

import pytest

from plum_jax.studies.outcomes import LONGEST_REASON, classify, memory_kills

NONE = {"/proc/vmstat": 3}


def test_a_kill_counts_as_memory_only_with_evidence():
    killed = classify(-9, "step 5\n", NONE, {"/proc/vmstat": 4})
    assert (killed.status, killed.may_retry) == ("out_of_memory", False)
    assert "/proc/vmstat: oom_kill 3 -> 4" in killed.reason
    for code in (-9, 137):  # 137: by a shell in between
        killed = classify(code, "step 5\n", NONE, NONE)
        assert (killed.status, killed.may_retry) == ("failed", True) and "SIGKILL" in killed.reason
    # A count that was not there before is no evidence.
    assert classify(-9, "", {}, {"/proc/vmstat": 4}).status == "failed"
    assert classify(-15, "", NONE, {"/proc/vmstat": 4}).status == "failed"


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ("jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes", "out_of_memory"),
        ("MemoryError", "out_of_memory"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7 TiB", "out_of_memory"),
        ("FloatingPointError: step 3 of runs/x: the loss is inf", "diverged"),
        ("plum: step 3 of runs/x: the loss is 2.1, the norm of its gradient nan: lower", "diverged"),
        ("plum: the loss is 2.1, the norm of its gradient 3.4", "failed"),
        ("KeyError: 'loss'", "failed"),
    ],
)
def test_the_log_s_tail_tells(last, status):
    outcome = classify(1, f"Traceback (most recent call last):\n  File x\n{last}\n", NONE, NONE)
    assert outcome.status == status and last in outcome.reason


def test_the_reason_is_the_last_error_line_and_not_what_follows_it():
    log = "ValueError: the first\nduring handling...\nOSError: the last\n  warning at exit\n"
    assert classify(1, log, NONE, NONE).reason == "exit status 1: OSError: the last"
    assert classify(2, "words\nlast words\n\n", NONE, NONE).reason == "exit status 2: last words"
    assert classify(1, "", NONE, NONE).reason == "exit status 1: no output"
    assert len(classify(1, f"ValueError: {'x' * 9999}", NONE, NONE).reason) <= LONGEST_REASON


def test_a_memory_error_of_python_is_told_from_its_log():
    code = "x = bytearray(1 << 62)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert classify(done.returncode, done.stderr, NONE, NONE).status == "out_of_memory"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_kernel_s_counts_are_read():
    assert all(name.startswith(("/proc/", "/sys/")) and count >= 0 for name, count in memory_kills().items())
