"""Logging: one line an event with fields. Text on a terminal, JSON otherwise; never the text of a prompt.

event(log, "model loaded", id="smollm2", ms=812)
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from neuron.errors import ConfigError
from neuron.log_queue import QueuedHandler

MAX_FIELD_CHARS = 2048
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "text", "json", "journal")
PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
"""Syslog's, which a journal reads at the begin of a line."""
QUIET = ("uvicorn", "httpx", "httpcore", "asyncio", "huggingface_hub")
"""Loggers of libraries that say little unless everything is wanted."""
_FIELDS = "neuron_fields"


def event(
    log: logging.Logger,
    name: str,
    *,
    level: int = logging.INFO,
    fault: BaseException | None = None,
    **fields: Any,
) -> None:
    """Write one line: the event's name, and fields (None is left out); of a ``fault`` the traceback, too."""
    if log.isEnabledFor(level):
        said = {key: value for key, value in fields.items() if value is not None}
        log.log(level, "%s", name, exc_info=fault, extra={_FIELDS: said})


def setup(
    level: str = "info", form: str = "auto", stream: TextIO | None = None, *, queued: bool = False
) -> None:
    """Send every logger of the process to ``stream`` (stderr), in one form. Raises `ConfigError`.

    ``queued``: a thread writes, so that a stream which nobody reads holds up nothing but itself.
    """
    _one_of("log_format", form, FORMATS)
    stream = stream or sys.stderr
    handler = QueuedHandler(stream, _tell_loss) if queued else logging.StreamHandler(stream)
    handler.setFormatter(FORMATTERS[_fitting(stream) if form == "auto" else form]())
    logging.getLogger().handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """What is written from now on. Raises `ConfigError`."""
    _one_of("log_level", level, LEVELS)
    root = logging.getLogger()
    for handler in root.handlers:
        handler.setLevel(level.upper())
    root.setLevel(level.upper())
    # our own events reach every handler from info up: a node tells of them whatever its log shows
    logging.getLogger("neuron").setLevel(min(root.level, logging.INFO))
    quiet = logging.DEBUG if level == "debug" else logging.WARNING
    for name in QUIET:
        logging.getLogger(name).setLevel(quiet)


def flush() -> None:
    """Give lines that wait a moment to be written, before the process ends."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def n_dropped() -> int:
    """Lines that found no room, since the process began."""
    handlers = logging.getLogger().handlers
    return sum(handler.dropped for handler in handlers if isinstance(handler, QueuedHandler))


def _tell_loss(lines: int) -> None:
    event(logging.getLogger(__name__), "log lines dropped", level=logging.WARNING, lines=lines)


def _fitting(stream: TextIO) -> str:
    """Text for a terminal, priorities for a journal, JSON otherwise."""
    if stream.isatty():
        return "text"
    return "journal" if _is_journal(stream) else "json"


def _is_journal(stream: TextIO) -> bool:
    """``JOURNAL_STREAM`` names the device and the inode of what a service manager gave as stderr."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def silence() -> None:
    """For a command that says itself what matters: nothing of any library's log reaches the terminal."""
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


def _one_of(name: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}, known: {', '.join(known)}")


class JsonFormatter(logging.Formatter):
    """An object a line: ``time`` (seconds since the epoch), ``level``, ``event``, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; ASCII alone, so nothing in it can end it."""
        line = {**as_line(record), "logger": record.name}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)[-16_384:]
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """``time level event key=value …`` for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback follows on lines of its own, each indented."""
        clock = self.formatTime(record, "%H:%M:%S")
        line = text_line(clock, record.levelname.lower(), record.getMessage(), _fields(record))
        return line + self.trace(record)

    def trace(self, record: logging.LogRecord) -> str:
        """The lines of a traceback, if there is one."""
        if not record.exc_info:
            return ""
        return "".join(f"\n    {escaped(part)}" for part in self.formatException(record.exc_info).split("\n"))


class JournalFormatter(TextFormatter):
    """``<N>event key=value …``: a priority on every line, no clock, which a journal has itself."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and those of a traceback."""
        text = said(record.getMessage(), _fields(record)) + self.trace(record)
        priority = f"<{PRIORITIES[record.levelname]}>"
        return "\n".join(priority + line for line in text.split("\n"))


FORMATTERS: dict[str, type[logging.Formatter]] = {
    "text": TextFormatter,
    "json": JsonFormatter,
    "journal": JournalFormatter,
}


def as_line(record: logging.LogRecord) -> dict[str, Any]:
    """``time``, ``level``, ``event`` and the event's fields, bounded, as JSON has them."""
    return {
        "time": round(record.created, 3),
        "level": record.levelname.lower(),
        "event": _bounded(record.getMessage()),
        **{key: _json_value(value) for key, value in _fields(record).items()},
    }


def text_line(clock: str, level: str, name: str, fields: Mapping[str, Any]) -> str:
    """``time level event key=value …``, with nothing in it that could act on a terminal."""
    return f"{clock} {escaped(level):7} {said(name, fields)}"


def said(name: str, fields: Mapping[str, Any]) -> str:
    """``event key=value …`` in one line."""
    pairs = " ".join(f"{escaped(key)}={_text_value(value)}" for key, value in fields.items())
    return f"{escaped(_bounded(name))} {pairs}".rstrip()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, _FIELDS, {})


def _json_value(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    return value if isinstance(value, (int, bool)) else _bounded(str(value))


def _text_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    text = escaped(_bounded(str(value)))
    return text if text and " " not in text and "=" not in text else f'"{text}"'


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_FIELD_CHARS else f"{text[:MAX_FIELD_CHARS]}…"


def escaped(text: str) -> str:
    """``text`` with every character that could move a cursor or end a line spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
