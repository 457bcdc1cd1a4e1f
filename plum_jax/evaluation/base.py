"""Which row of a comparison each is compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def require_base(base: Mapping[str, str], names: Collection[str], error: type[ValueError] = ValueError) -> None:
    """Refuses comparisons (name of a row -> that of the one it is compared with) of rows that there are not."""
    for name in (*base, *base.values()):
        if name not in names:
            raise error(f"BASE names {name!r}, expected names among {', '.join(names)}")
