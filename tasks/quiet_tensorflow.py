"""Imports TensorFlow without the lines that its C++ side writes to stderr whatever the log level is.

Import this module before `tensorflow` or `seqio`. A message about oneDNN and missing CUDA drivers says nothing to
somebody who trains with JAX; if the import itself fails, all that was written is shown.
"""

from __future__ import annotations

import os
import sys
import tempfile

STDERR = 2


def _import_quietly() -> None:
    sys.stderr.flush()
    kept = os.dup(STDERR)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), STDERR)
        try:
            import tensorflow  # noqa: F401
        except ImportError:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)


if "tensorflow" not in sys.modules:
    _import_quietly()
