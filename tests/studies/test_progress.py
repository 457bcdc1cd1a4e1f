import io
import json
import pathlib

import pytest
import stub_study

from plum_jax.studies.claims import Claims
from plum_jax.studies.progress import LiveTable, remaining_seconds, states, status_text


@pytest.fixture
def files(tmp_path):
    """Two budgets, two sizes: one cell finished in twice the time planned, one diverged, one running, two waiting."""

    def cell(budget, size, parameters, **more):
        figures = {"flops": budget, "predicted_seconds": budget / 1e10}
        return {"budget": budget, "size": size, "parameters": parameters, **figures, **more}

    cells = {
        "b01-large-s0": cell(4e12, "large", 900, held_out=True),
        "b00-large-s0": cell(1e12, "large", 900),
        "b00-small-s0": cell(1e12, "small", 30),
        "b00-small-s1": cell(1e12, "small", 30, seed=1),
        "b01-small-s0": cell(4e12, "small", 30),
    }
    files = stub_study.plan(tmp_path, 0, **cells)
    record(files, "b00-small-s0", "finished", wall_seconds=200.0)
    record(files, "b00-small-s1", "diverged", reason="the loss is nan", attempts=1)
    return files


def record(files, name, status, **facts):
    directory = files.cell(name)
    directory.mkdir(parents=True)
    row = {"name": name, "status": status, "reason": "", **facts}
    (directory / "record.json").write_text(json.dumps(row))


def test_the_table_has_a_sign_for_every_cell(files):
    claim = Claims(files.claims).take("b00-large-s0")
    lines = status_text(files).splitlines()
    claim.end("released")
    assert lines[0] == "stub: 2 of 5 cells done, 1 diverged, 1 running, 1 waiting, 1 held out"
    assert [line.split() for line in lines[1:4]] == [["small", "large"], ["1e+12", "+x", "~"], ["4e+12", ".", "*"]]
    assert "FLOPs: 1e+12 spent by finished cells, 9e+12 left" in lines
    assert lines[-1] == "b00-small-s1: diverged after 1 attempts: the loss is nan"


def test_remaining_time_follows_what_was_measured(files):
    """100 s were planned and 200 taken; 100 + 400 + 400 are left."""
    seconds, ratio = remaining_seconds(states(files))
    assert (seconds, ratio) == (1800.0, 2.0)
    claims = Claims(files.claims)
    held = [claims.take("b00-large-s0"), claims.take("b01-small-s0")]
    seconds, _ = remaining_seconds(states(files))
    assert seconds == pytest.approx(900.0, abs=1)  # two at a time
    held.append(claims.take("b01-large-s0"))
    seconds, _ = remaining_seconds(states(files))
    assert seconds == pytest.approx(800.0, abs=1)  # but not less than the longest one
    for claim in held:
        claim.end("released")
    assert "about 30 min 0 s left (cells took 2.00 times what was planned)" in status_text(files)


def test_a_study_of_which_nothing_has_run(tmp_path):
    files = stub_study.plan(tmp_path, 2)
    assert status_text(files).splitlines()[0] == "stub: 0 of 2 cells done, 2 waiting"


def test_looking_changes_nothing(files):
    path = files.cell("b00-small-s0") / "record.json"
    path.write_text("half a rec")
    before = sorted(pathlib.Path(files.directory).rglob("*"))
    assert status_text(files).startswith("stub: 1 of 5 cells done, 1 diverged, 3 waiting")
    assert sorted(pathlib.Path(files.directory).rglob("*")) == before and path.read_text() == "half a rec"


def test_on_a_terminal_the_table_stays_below_the_lines(files):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    table = LiveTable(files, stream)
    table.tick()
    height = stream.getvalue().count("\n")
    table.say("a cell began")
    assert stream.getvalue().endswith(f"\x1b[{height}F\x1b[Ja cell began\n")
    plain = io.StringIO()
    table = LiveTable(files, plain)
    table.tick()
    assert plain.getvalue() == ""
    table.cell_done()
    assert plain.getvalue().startswith("stub: 2 of 5")
