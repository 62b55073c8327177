"""Where every thread is, in the log, when SIGUSR1 asks; also while the event loop hangs."""

from __future__ import annotations

import faulthandler
import logging
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType

from neuron.log import event

log = logging.getLogger(__name__)

ASKED = {signal.SIGUSR1}


def show_on_signal() -> None:
    """To be called before there are other threads: SIGUSR1 goes to one that only waits for it.

    `faulthandler` could write from the signal handler itself, but reads frames of threads that run meanwhile, and a
    node at work dies of that. It serves for signals that end the process anyway, as a watchdog's SIGABRT.
    """
    faulthandler.enable()
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
    threading.Thread(target=_wait, name="neuron-stacks", daemon=True).start()


def _wait() -> None:
    while True:
        signal.sigwait(ASKED)
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            thread = names.get(ident, str(ident))
            event(log, "stack", level=logging.ERROR, thread=thread, frames=" < ".join(_places(frame)))


def _places(frame: FrameType) -> list[str]:
    """``file:line function``, innermost first."""
    return [
        f"{Path(f.f_code.co_filename).name}:{n} {f.f_code.co_name}" for f, n in traceback.walk_stack(frame)
    ]
