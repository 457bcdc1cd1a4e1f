"""Where a corpus comes from; each source is a frozen dataclass with `read() -> Corpus`."""
