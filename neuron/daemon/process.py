"""The life of the server process: answer at once, load in the background, drain on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import uvicorn
from litestar import Litestar

from neuron import hardware
from neuron.daemon.access import Access
from neuron.daemon.app import create_app
from neuron.daemon.listen import BACKLOG, local_name, url_of, wildcard
from neuron.daemon.node import Node
from neuron.daemon.notify import Notify
from neuron.daemon.projection.load import activations, on_request
from neuron.daemon.protocol import DeadlineProtocol
from neuron.daemon.reload import Listener, Reload, Take, takes
from neuron.daemon.supervision import Supervision
from neuron.daemon.watchdog import watch
from neuron.engine.api import EngineApi
from neuron.errors import ConfigError
from neuron.keys import Keyring
from neuron.log import event, set_level
from neuron.settings import Settings
from neuron.tls import server_context, take_files

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TAKEN_AT_ONCE = 1
"""Connections for each look at a socket: out of descriptors, the loop fails, and complains, as often as this."""
KEEP_ALIVE_S = 30
LAST_BYTES_S = 3
"""For the ends of streams to reach their clients, after the drain."""
CLOSE_S = 10.0
OK = 0
INTERNAL = 70
DEVICE = 71


class Server(uvicorn.Server):
    """uvicorn without its own signal handling, which would end streams without an error event."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer. To the loop, as many connections may wait in the system as it takes at once; here more may."""
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(BACKLOG)

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
    socks: Sequence[socket.socket],
    *,
    keys: Keyring | None,
    engine: EngineApi | None,
    tls: ssl.SSLContext | None,
    read_again: Callable[[], Settings],
    notify: Notify,
    on_listening: Callable[[str], None],
) -> int:
    """Serve on the sockets until a signal; the exit code."""
    offered = on_request(settings)
    asyncio.get_running_loop().set_exception_handler(_tell)
    stop = _stop_on_signal()
    engine = engine or _real_engine(settings)
    host = await asyncio.to_thread(hardware.discover)
    access, reload = Access(settings, keys), Reload(settings, read_again)
    urls = [url_of(sock, "https" if tls else "http") for sock in socks]
    app = create_app(engine, settings, host=host, url=local_name(urls[0]), access=access)
    node: Node = app.state.node
    reload.listeners += listeners(access, node, tls)
    supervision = Supervision(notify, engine.status)
    _reload_on_signal(node, reload, notify, supervision)
    server = Server(config_of(app, tls))
    serving = asyncio.create_task(server.serve(sockets=list(socks)))
    await server.until_started(serving)
    for url, sock in zip(urls, socks, strict=True):
        event(log, "listening", url=url, address=wildcard(sock))
    _say_if_open(settings, keys)
    notify.say(READY=1)
    on_listening(urls[0])
    await engine.start()
    engine.offer(offered)
    engine.activate(activations(settings.models))
    watching = asyncio.gather(supervision.run(), watch(settings.hang_s))
    stopped = await _until_stopped((stop, node.drain.asked, engine.broken), serving)
    supervision.drain()
    if node.drain.asked.is_set() and not stop.is_set():
        await _drain_as_asked(engine, node.drain.timeout_s, stop)
    if stop.is_set() or not stopped:
        event(log, "draining", drain_s=node.settings.drain_s)
    await _drain(engine, node.settings.drain_s)
    node.events.end()
    if settings.uds is not None:
        settings.uds.unlink(missing_ok=True)  # while it is still this node's
    server.should_exit = True
    await serving
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    event(log, "stopped")
    if engine.broken.is_set():
        return DEVICE
    return OK if stopped else INTERNAL


def listeners(access: Access, node: Node, tls: ssl.SSLContext | None) -> list[Listener]:
    """Who is told of new settings. Each reads first; only when all could does any of them change."""
    return [
        access.reload,
        tls_listener(tls),
        takes(node.take),
        takes(lambda settings: set_level(settings.log_level)),
    ]


def tls_listener(context: ssl.SSLContext | None) -> Listener:
    """Has new connections use the certificate as it is now."""

    def read(settings: Settings) -> Take:
        if (server_context(settings) is None) is not (context is None):
            raise ConfigError("TLS can't be switched on or off while the node runs", hint="restart it")
        return (lambda: None) if context is None else (lambda: take_files(context, settings))

    return read


def _reload_on_signal(node: Node, reload: Reload, notify: Notify, supervision: Supervision) -> None:
    async def again() -> None:
        notify.reloading()
        await reload()
        notify.say(READY=1)

    def on_signal() -> None:
        if not supervision.draining:
            node.spawn(again())

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_signal)


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A line for a connection that the system can't give us, which the loop tries again in a second."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        event(log, "connection not taken", level=logging.ERROR, cause=error.strerror)
    else:
        loop.default_exception_handler(context)


def _say_if_open(settings: Settings, keys: Keyring | None) -> None:
    """An operator who lets everybody in is told so once."""
    if settings.insecure and keys is None:
        event(log, "insecure: whoever reaches this node may use and manage it", level=logging.WARNING)


def _real_engine(settings: Settings) -> EngineApi:
    from neuron.engine.engine import Engine

    return Engine(settings)


def config_of(app: Litestar, tls: ssl.SSLContext | None = None) -> uvicorn.Config:
    """uvicorn's configuration. The protocol is pinned: ``auto`` changes what is accepted with what is installed."""
    config = uvicorn.Config(
        app,
        http=DeadlineProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        backlog=TAKEN_AT_ONCE,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_BYTES_S,
    )
    config.load()
    config.ssl = tls
    return config


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
