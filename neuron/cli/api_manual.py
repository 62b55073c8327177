"""``neuron-api.7``: the HTTP interface as a manual page, from the daemon's tables. Imported only to generate it."""

from __future__ import annotations

from collections.abc import Iterator

from neuron.cli.manual import escape, section, tagged
from neuron.daemon.errors import TABLE
from neuron.daemon.openapi import HEADERS
from neuron.daemon.operations import OPERATIONS, Operation

ABOUT = (
    "A node answers over HTTP: endpoints of its own, and generation in the formats of OpenAI and Anthropic. "
    "Bodies are JSON; streams are server-sent events. GET /schema/openapi.json has every field."
)
KEYS = (
    "Where the operator has configured keys, a request carries one as Authorization: Bearer KEY or as x-api-key. "
    "The scope of an endpoint is what the key must grant."
)


def page() -> str:
    """The page."""
    titles = ['.TH NEURON\\-API 7 "" neuron "HTTP interface"']
    sections = [
        section("NAME", ["neuron\\-api \\- the HTTP interface of a neuron node"]),
        section("SYNOPSIS", [escape("http://HOST:13131/v1/chat/completions")]),
        section("DESCRIPTION", [escape(ABOUT), ".PP", escape(KEYS)]),
        section("ENDPOINTS", tagged(map(_endpoint, OPERATIONS), bold=True)),
        section("HEADERS", tagged((name, said["description"] + ".") for name, said in HEADERS.items())),
        section("ERRORS", [".nf", *_errors(), ".fi"]),
        section("SEE ALSO", [r"\fBneuron\fR(1), \fBneuron\-serve\fR(1)"]),
    ]
    return "\n".join([*titles, *sections]) + "\n"


def _endpoint(operation: Operation) -> tuple[str, str]:
    statuses = ", ".join(map(str, sorted({*operation.answers, *map(_status, operation.refusals)})))
    query = f" Query: {', '.join(operation.query)}." if operation.query else ""
    scope = operation.scope.word
    return (
        f"{operation.method} {operation.path}",
        f"{operation.summary}.{query} Scope: {scope}. Statuses of its own: {statuses}.",
    )


def _status(error: type) -> int:
    return next(TABLE[cls].status for cls in error.__mro__ if cls in TABLE)


def _errors() -> Iterator[str]:
    """Status and code of what a client may meet, by status."""
    rows = {(row.status, cls.code, row.type) for cls, row in TABLE.items() if not row.secret}
    for status, code, kind in sorted(rows):
        yield escape(f"{status}  {code:<36} {kind}")
