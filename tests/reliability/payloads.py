"""Texts that act on a terminal or forge a line of a log, where they are shown as they are."""

from __future__ import annotations

from tests.cli.test_terminal_text import PAYLOADS as SEQUENCES

FORGED = "forged"
LINES = (
    f"\n{FORGED}",
    f"\r\n{FORGED}",
    f"\r{FORGED}",
    f"\x0b{FORGED}",
    f"\x0c{FORGED}",
    f"\x1c{FORGED}",
    f"\x1d{FORGED}",
    f"\x1e{FORGED}",
    f"\x85{FORGED}",
    f"\u2028{FORGED}",
    f"\u2029{FORGED}",
    f'\n{{"time": 1, "level": "error", "event": "{FORGED}"}}',
    f'"}}\n{{"event": "{FORGED}"}}',
    f'", "event": "{FORGED}", "x": "',
    f"\n12:00:00 error   {FORGED}",
    f'" level=error event={FORGED}',
    f"\n<2>{FORGED}",
    f"\n    {FORGED}",
    f"%0d%0a{FORGED}",
    f"%s%d%({FORGED})s{{0}}",
    f"\x1b[1A\x1b[2K{FORGED}",
    f"\x1b[8m{FORGED}\x1b[28m",
    f"[red]{FORGED}[/red][link=http://x]y[/link]",
    "\u202egnp.exe",
    "\u2067\u2066a\u2069b\u2069",
    "\u200f\u200e",
    "\x1b]52;c;" + "QUFB" * 2000 + "\x07",
    "\x1b[" + "1;" * 5000 + "m",
)
"""Forged lines in the forms of the log, and what gets by naive filters."""
PAYLOADS = tuple(
    dict.fromkeys(text for text in (*SEQUENCES, *LINES) if text.isascii() or "\ud800" not in text)
)
