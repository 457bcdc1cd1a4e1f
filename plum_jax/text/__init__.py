"""The text side of a vocabulary: text into ids and back, by a model trained here or by another program's."""
