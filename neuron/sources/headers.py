"""What a model's files say of themselves, with as little fetched as can be: for a plan before a load."""

from __future__ import annotations

from pathlib import Path

from neuron.errors import NeuronError, RepoFetchFailed
from neuron.files import Headers, read_json_object
from neuron.progress import ignore
from neuron.sources import fetch
from neuron.sources.aliases import alternatives
from neuron.sources.hub_errors import failure, hub_exceptions
from neuron.sources.reference import Reference, parse_reference
from neuron.sources.selection import CONFIG


def find(text: str) -> Path | Headers:
    """The files where they are on this machine, else ``config.json`` and the safetensors headers on the hub.

    Raises:
        InvalidReference: ``text`` is not a reference.
        RepoFetchFailed: it was not fetched, and is not of a kind whose headers can be read from afar.
        PreflightError: as `neuron.sources.fetch.fetch` raises.
    """
    if fetch.is_cached(text):
        return fetch.fetch(text, ignore)
    failed: NeuronError | None = None
    for reference in map(parse_reference, alternatives(text)):
        try:
            return _from_hub(reference)
        except RepoFetchFailed as e:
            failed = failed or e
    assert failed is not None
    raise failed


def _from_hub(reference: Reference) -> Headers:
    if reference.scheme != "hf" or reference.file:
        raise must_be_fetched(reference.text)
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        NotASafetensorsRepoError,
        RemoteEntryNotFoundError,
        SafetensorsParsingError,
    )

    try:
        api = HfApi(endpoint=constants.ENDPOINT)
        # asked once, and first: a download of a file tries for half a minute where no hub answers
        timeout_s = constants.HF_HUB_ETAG_TIMEOUT
        commit = api.model_info(reference.name, revision=reference.revision, timeout=timeout_s).sha
        config = api.hf_hub_download(
            reference.name, CONFIG, revision=commit, cache_dir=constants.HF_HUB_CACHE
        )
        found = api.get_safetensors_metadata(reference.name, revision=commit)
    except (NotASafetensorsRepoError, RemoteEntryNotFoundError, SafetensorsParsingError) as e:
        raise must_be_fetched(reference.text) from e
    except hub_exceptions() as e:
        raise failure(reference.text, e) from e
    tensors = {
        name: (tuple(tensor.shape), str(tensor.dtype))
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    }
    return Headers(read_json_object(Path(config)), tensors)


def must_be_fetched(text: str) -> RepoFetchFailed:
    """The refusal of what can't be looked at from afar."""
    return RepoFetchFailed(
        f"{text}: not on this machine, and only safetensors on the hub can be looked at from afar",
        hint=f"fetch it there first: neuron pull {text}",
    )
