"""The door to the server process: from listening sockets to an exit code."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from neuron.allocator import share_arenas
from neuron.settings import Settings

if TYPE_CHECKING:
    from neuron.engine.api import EngineApi
    from neuron.keys import Keyring


def serve(
    settings: Settings,
    socks: Sequence[socket.socket],
    *,
    keys: Keyring | None = None,
    engine: EngineApi | None = None,
    read_again: Callable[[], Settings] | None = None,
    on_listening: Callable[[str], None] = lambda url: None,
) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code. Runs its own event loop in the main thread.

    Without ``keys`` no key is asked for. ``read_again`` says on SIGHUP what holds now, or raises `Mistakes`.
    ``on_listening`` gets the URL once requests are answered; models may still be loading then.

    Raises:
        ConfigError: the TLS files, or the faults of a test, can't be taken.
    """
    signal.signal(signal.SIGTERM, _leave)  # while the imports below run
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the settings were read just now
    share_arenas()
    import asyncio
    import os

    from neuron import faults, log, tls
    from neuron.daemon import stacks
    from neuron.daemon.notify import Notify
    from neuron.daemon.process import run

    stacks.show_on_signal()
    context = tls.server_context(settings)
    log.setup(settings.log_level, settings.log_format, queued=True)
    faults.arm(os.environ)
    try:
        return asyncio.run(
            run(
                settings,
                socks,
                keys=keys,
                engine=engine,
                tls=context,
                read_again=read_again or (lambda: settings),
                notify=Notify.from_env(),
                on_listening=on_listening,
            )
        )
    finally:
        log.flush()


def _leave(number: int, frame: object) -> None:
    sys.exit(0)
