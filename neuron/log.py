"""Logging: one line an event with fields. Text on a terminal, JSON otherwise; never the text of a prompt.

event(log, "model loaded", id="smollm2", ms=812)
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from neuron.errors import ConfigError

MAX_FIELD_CHARS = 2048
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "text", "json")
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


def setup(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Send every logger of the process to ``stream`` (stderr), in one form. Raises `ConfigError`."""
    _one_of("log_level", level, LEVELS)
    _one_of("log_format", form, FORMATS)
    stream = stream or sys.stderr
    as_text = form == "text" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setLevel(level.upper())
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # our own events reach every handler from info up: a node tells of them whatever its log shows
    logging.getLogger("neuron").setLevel(min(root.level, logging.INFO))
    quiet = logging.DEBUG if level == "debug" else logging.WARNING
    for name in ("uvicorn", "httpx", "httpcore", "asyncio", "huggingface_hub"):
        logging.getLogger(name).setLevel(quiet)


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
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {escaped(part)}" for part in trace.split("\n"))
        return line


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
    said = " ".join(f"{escaped(key)}={_text_value(value)}" for key, value in fields.items())
    return f"{clock} {level:7} {escaped(_bounded(name))} {said}".rstrip()


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
