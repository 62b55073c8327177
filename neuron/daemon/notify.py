"""What a service manager is told, in systemd's protocol: datagrams of ``KEY=value`` lines."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping


class Notify:
    """The channel; says nothing where nobody asked to be told."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s
        """How long the manager waits for a sign of progress; None: it does not watch."""

    @classmethod
    def from_env(cls, env: MutableMapping[str, str] = os.environ) -> Notify:
        """As ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` say, which are taken out: they are for no child process."""
        address, usec, pid = (
            env.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        )
        watched = address and usec.isdecimal() and int(usec) and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / 1e6 if watched else None)

    @property
    def listens(self) -> bool:
        """Whether anybody is told."""
        return bool(self._address)

    def say(self, **fields: object) -> None:
        """Send one datagram. A manager that does not read loses it; nothing waits."""
        if not self._address:
            return
        message = "\n".join(f"{key}={value}" for key, value in fields.items())
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock,
        ):
            sock.connect(self._address)
            sock.send(message.encode())

    def reloading(self) -> None:
        """The settings are being read again; `say` READY afterwards."""
        self.say(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
