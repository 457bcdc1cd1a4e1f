import multiprocessing
import os
import subprocess
import sys
import tempfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax.studies import claims as module
from plum_jax.studies.claims import Claims, machine_identity, process_identity


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves; heartbeats, which have threads of their own, stay off with a long lease."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(module, "boot_clock", lambda: Clock.now)
    return Clock


def elsewhere(monkeypatch) -> None:
    """As if the claims from here on were looked at from another machine."""
    monkeypatch.setattr(module, "machine_identity", lambda: "another boot")


def test_one_holder_at_a_time(tmp_path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    claim = first.take("a")
    assert claim is not None and second.take("a") is None and not second.is_free("a") and second.is_free("b")
    claim.end("released")
    assert second.is_free("a")
    again = second.take("a")
    assert again.number == 2
    again.end("finished")
    assert [link.outcome for link in first.chain("a")] == ["released", "finished"]


def test_a_lease_runs_out_only_for_who_has_watched_it_so_long(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(module, "holder_is_dead", lambda facts: False)
    holder = Claims(tmp_path, lease=100).take("a")
    clock.now += 1e6  # a holder whose clock, or whose last heartbeat, lies far back: nobody has seen it yet
    other = Claims(tmp_path, lease=1)
    assert not other.is_free("a")
    clock.now += 99  # the lease that counts is the holder's
    assert not other.is_free("a")
    holder._write()  # a heartbeat
    clock.now += 2
    assert not other.is_free("a")
    clock.now += 101
    assert other.is_free("a")
    assert holder.lost  # by its own clock, though nobody has taken it
    taken = other.take("a")
    assert taken.number == 2
    holder.end("finished")
    assert Claims(tmp_path).take("a") is None  # what the late one wrote changes nothing
    taken.end("finished")


def test_a_holder_notices_that_it_was_superseded(tmp_path):
    claim = Claims(tmp_path, lease=1000).take("a")
    assert not claim.lost
    (tmp_path / "a.2.json").touch()
    assert claim.lost
    claim.end("released")
    assert claim.lost


def test_heartbeats_keep_a_claim(tmp_path):
    claim = Claims(tmp_path, lease=0.4).take("a")
    other = Claims(tmp_path, lease=0.4)
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        assert not other.is_free("a") and not claim.lost
        time.sleep(0.05)
    claim.end("finished")


def test_the_claim_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path, monkeypatch):
    code = f"import os; from plum_jax.studies.claims import Claims; Claims({str(tmp_path)!r}).take('a'); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert Claims(tmp_path).is_free("a")
    elsewhere(monkeypatch)
    assert not Claims(tmp_path).is_free("a")  # from there, only the lease tells


@pytest.mark.parametrize("content", [b"", b'{"owner": "x", "lea', b"[]", b'{"lease": "long"}', b"\xff\xfe"])
def test_an_unreadable_claim_counts_until_its_lease_is_over(tmp_path, clock, content):
    (tmp_path / "a.1.json").write_bytes(content)
    claims = Claims(tmp_path, lease=100)
    assert claims.take("a") is None
    clock.now += 99
    assert claims.take("a") is None
    clock.now += 2
    claim = claims.take("a")
    assert claim.number == 2
    claim.end("finished")


@pytest.mark.parametrize("reason", ["x" * 9999, '"\\' * 999, "größer 大 " * 99, "two\nlines\0"])
def test_any_reason_fits_into_a_claim(tmp_path, reason):
    claims = Claims(tmp_path)
    claims.take("a").end(f"failed: {reason}")
    (link,) = claims.chain("a")
    assert link.outcome.startswith("failed: ") and len(link.content) == module.LINK_BYTES and claims.is_free("a")


def test_names_that_begin_alike_are_different_cells(tmp_path):
    claims = Claims(tmp_path)
    claim = claims.take("b00.1")
    assert claims.is_free("b00") and claims.is_free("b00x1") and not claims.is_free("b00.1")
    claim.end("released")


def test_object_stores_are_refused():
    with pytest.raises(ValueError, match=r"local or NFS directory, got gs://bucket/claims"):
        Claims("gs://bucket/claims")


def take_all(directory: str, barrier, cells: int, results) -> None:
    claims = Claims(directory, lease=1000)
    barrier.wait()
    results.put([c for c in range(cells) if (claim := claims.take(f"c{c}")) and claim.note(mine=c) is None])
    barrier.wait()  # nobody dies before all have tried
    os._exit(0)


@pytest.mark.parametrize("expired", [False, True])
def test_of_many_processes_at_once_exactly_one_has_each_cell(tmp_path, expired):
    """New cells, and cells whose claim all see as run out at the same moment."""
    cells, processes = 40, 4
    if expired:
        code = (
            "import os; from plum_jax.studies.claims import Claims\n"
            f"claims = Claims({str(tmp_path)!r})\nfor c in range({cells}): claims.take(f'c{{c}}')\nos._exit(0)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    workers = [
        context.Process(target=take_all, args=(str(tmp_path), barrier, cells, results)) for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    taken = [cell for _ in workers for cell in results.get()]
    for worker in workers:
        worker.join()
    assert sorted(taken) == list(range(cells))


steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "beat", "end", "wait", "look"]), st.integers(0, 2), st.sampled_from([30, 80, 130])
    ),
    max_size=40,
)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_at_most_one_holder_believes_in_its_claim(steps):
    """Three workers take, write heartbeats or stay silent, let go, look and wait, in any order."""
    now = [0.0]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr(module, "boot_clock", lambda: now[0])
        patch.setattr(module, "holder_is_dead", lambda facts: False)
        patch.setattr(module.Claim, "_beat_on", lambda self: None)
        workers = [Claims(directory, lease=100) for _ in range(3)]
        held = [None, None, None]
        for what, who, seconds in steps:
            if what == "take" and held[who] is None:
                held[who] = workers[who].take("a")
            elif what == "beat" and held[who] is not None and not held[who].lost:
                held[who]._write()
            elif what == "end" and held[who] is not None:
                held[who].end("released")
                held[who] = None
            elif what == "look":
                workers[who].is_free("a")
            elif what == "wait":
                now[0] += seconds
            assert sum(claim is not None and not claim.lost for claim in held) <= 1
        for claim in held:
            if claim is not None:
                claim.end("released")
        assert [link.number for link in workers[0].chain("a")] == list(range(1, len(workers[0].chain("a")) + 1))


def test_processes_are_told_apart():
    assert process_identity(os.getpid()) == process_identity(os.getpid()) is not None
    child = subprocess.Popen([sys.executable, "-c", ""])
    identity = process_identity(child.pid)
    assert identity != process_identity(os.getpid())
    while process_identity(child.pid) is not None:  # a zombie until it is waited for
        time.sleep(0.01)
    child.wait()
    assert machine_identity() is not None
