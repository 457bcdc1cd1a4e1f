"""Which part of shared work is whose, outside `jax.distributed` (inside: test_multi_process)."""

import pytest

from plum_jax.training import processes


def test_one_process_has_all_and_variables_divide(monkeypatch):
    monkeypatch.delenv("PROCESS_INDEX", raising=False)
    monkeypatch.delenv("PROCESS_COUNT", raising=False)
    assert processes.share() == (0, 1)
    monkeypatch.setenv("PROCESS_INDEX", "2")
    with pytest.raises(ValueError, match="got '2' of None"):
        processes.share()
    monkeypatch.setenv("PROCESS_COUNT", "4")
    assert processes.share() == (2, 4)
    for count in ("2", "two"):
        monkeypatch.setenv("PROCESS_COUNT", count)
        with pytest.raises(
            ValueError, match=f"expected PROCESS_INDEX from 0 to PROCESS_COUNT - 1, got '2' of '{count}'"
        ):
            processes.share()
