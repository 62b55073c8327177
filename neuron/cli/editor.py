"""The user's own editor, on a file that lives as long as it runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from neuron.errors import UsageError


def edited(text: str) -> str:
    """``text`` after it went through ``$VISUAL``, else ``$EDITOR``, else ``vi``.

    Raises:
        UsageError: the editor can't be started, or failed; what was written is not text.
    """
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="neuron-") as folder:
        path = Path(folder, "message.md")
        path.write_text(text, encoding="utf-8")
        try:
            code = subprocess.run([*command, str(path)]).returncode
            written = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise UsageError(
                f"{command[0]}: {e}", hint="VISUAL or EDITOR in the environment names the editor"
            ) from e
    if code != 0:
        raise UsageError(f"{command[0]} ended with code {code}; the text is as it was")
    return written.removesuffix("\n")
