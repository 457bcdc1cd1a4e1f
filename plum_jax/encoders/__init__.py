"""Text read by a language model: whose it is, its tokens as rows, and a network that gives states and vectors."""
