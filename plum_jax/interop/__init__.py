"""Weights of other programs: published language models in, Hugging Face directories out, dense into experts."""


class InteropError(ValueError):
    """A file of another program, or a model of ours, that has no counterpart on the other side."""
