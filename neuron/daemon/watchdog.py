"""Ends a process that hangs: a timer outside of the interpreter, which the event loop winds up again and again.

It works while native code holds the interpreter and no Python of this process can run. It writes where every thread
is; the exit code is `HUNG`, and what supervises the node starts it anew.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from collections.abc import Callable

HUNG = 1
"""What `faulthandler` exits with."""
WIND_S = 2.0
"""Longest time between two windings."""


async def watch(limit_s: float, wind: Callable[[float], None] | None = None) -> None:
    """Wind up the timer until cancelled; it ends the process when the event loop has not run for ``limit_s``."""
    wind = wind or _wind
    _pause_while_stopped()
    try:
        while True:
            wind(limit_s)
            await asyncio.sleep(min(WIND_S, limit_s / 4))
    finally:
        faulthandler.cancel_dump_traceback_later()


def _wind(limit_s: float) -> None:
    faulthandler.dump_traceback_later(limit_s, exit=True)


def _pause_while_stopped() -> None:
    """Ctrl-Z stops the process, not the clock: without this it would end when it is told to go on."""

    def stop() -> None:
        faulthandler.cancel_dump_traceback_later()
        os.kill(os.getpid(), signal.SIGSTOP)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTSTP, stop)
