"""A decoder that is trained on from day to day, and what it is compared with."""
