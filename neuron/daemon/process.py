"""The life of the server process: answer at once, load in the background, drain on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator

import uvicorn
from litestar import Litestar

from neuron import hardware
from neuron.daemon.access import Access
from neuron.daemon.app import create_app
from neuron.daemon.node import Node
from neuron.daemon.projection.load import activations, on_request
from neuron.daemon.protocol import DeadlineProtocol
from neuron.daemon.server import url_of
from neuron.engine.api import EngineApi
from neuron.keys import Keyring
from neuron.log import event
from neuron.settings import Settings

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
KEEP_ALIVE_S = 30
LAST_BYTES_S = 3
"""For the ends of streams to reach their clients, after the drain."""
CLOSE_S = 10.0
OK = 0
INTERNAL = 70


class Server(uvicorn.Server):
    """uvicorn without its own signal handling, which would end streams without an error event."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `run`."""
        yield

    async def until_started(self, task: asyncio.Task[None]) -> None:
        """Return when requests are answered, or when ``task``, which serves, ended without that."""
        while not self.started and not task.done():
            await asyncio.sleep(0.01)


async def run(
    settings: Settings,
    sock: socket.socket,
    keys: Keyring | None,
    engine: EngineApi | None,
    on_listening: Callable[[str], None],
) -> int:
    """Serve on ``sock`` until a signal; the exit code."""
    offered = on_request(settings)
    stop = _stop_on_signal()
    engine = engine or _real_engine(settings)
    host = await asyncio.to_thread(hardware.discover)
    access = Access(settings, keys)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, access.reload, settings)
    app = create_app(engine, settings, host=host, port=sock.getsockname()[1], access=access)
    server = Server(config_of(app))
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    await server.until_started(serving)
    event(log, "listening", url=url_of(sock))
    _say_if_open(settings, keys)
    on_listening(url_of(sock))
    await engine.start()
    engine.offer(offered)
    engine.activate(activations(settings.models))
    node: Node = app.state.node
    stopped = await _until_stopped((stop, node.drain.asked), serving)
    if node.drain.asked.is_set() and not stop.is_set():
        await _drain_as_asked(engine, node.drain.timeout_s, stop)
    if stop.is_set() or not stopped:
        event(log, "draining", drain_s=settings.drain_s)
    await _drain(engine, settings.drain_s)
    node.events.end()
    server.should_exit = True
    await serving
    event(log, "stopped")
    return OK if stopped else INTERNAL


def _say_if_open(settings: Settings, keys: Keyring | None) -> None:
    """An operator who lets everybody in is told so once."""
    if settings.insecure and keys is None:
        event(log, "insecure: whoever reaches this node may use and manage it", level=logging.WARNING)


def _real_engine(settings: Settings) -> EngineApi:
    from neuron.engine.engine import Engine

    return Engine(settings)


def config_of(app: Litestar) -> uvicorn.Config:
    """uvicorn's configuration. The protocol is pinned: ``auto`` changes what is accepted with what is installed."""
    return uvicorn.Config(
        app,
        http=DeadlineProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_BYTES_S,
    )


def _stop_on_signal() -> asyncio.Event:
    """Set by the first signal. The second ends the process at once, whatever hangs."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(OK)
        stop.set()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


async def _until_stopped(asked: Iterable[asyncio.Event], serving: asyncio.Task[None]) -> bool:
    """True when asked to stop in any way; False when the server ended by itself."""
    waiting = {asyncio.create_task(one.wait()) for one in asked}
    await asyncio.wait({*waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    return any(one.is_set() for one in asked)


async def _drain_as_asked(engine: EngineApi, timeout_s: float, stop: asyncio.Event) -> None:
    """What was asked for over HTTP: what waits for a place runs, too. A signal ends the patience."""
    event(log, "draining", drain_s=timeout_s)
    work = asyncio.create_task(engine.drain(timeout_s, finish_queued=True))
    await _until_stopped((stop,), work)
    work.cancel()
    await asyncio.wait({work})


async def _drain(engine: EngineApi, drain_s: float) -> None:
    """Refuse new work, let running streams end, free the models; bounded, since an exit must come."""
    try:
        async with asyncio.timeout(drain_s + LAST_BYTES_S):
            await engine.drain(drain_s)
        async with asyncio.timeout(CLOSE_S):
            await engine.close()
    except TimeoutError:
        event(log, "drain took too long", level=logging.ERROR)
