"""Scaling studies: what is trained (grid), what it will cost (plan), one run of it (cell), and who runs it."""
