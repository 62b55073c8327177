"""Every failure that the program names: what happened, to what, and what to do next.

A class says *what* went wrong; what that means is decided at the edges, by two tables: HTTP status in
`neuron.daemon.errors`, exit code in `neuron.cli.exits`. A test finds every class in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class NeuronError(Exception):
    """The root of the tree. ``code`` is the word that goes on the wire, ``hint`` the next step for a person.

    ``details`` are numbers and names that the wire carries as sibling keys (``prompt_len=9000``).
    """

    code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, *, hint: str | None = None, param: str | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.details = details

    def __str__(self) -> str:
        return self.message


class Mistakes(Exception):
    """Failures that were found together, at least one; each is told."""

    def __init__(self, found: Sequence[NeuronError]) -> None:
        super().__init__(*found)
        self.found = tuple(found)


# ---- what a caller asked for ---------------------------------------------------------------------------------


class InvalidValue(NeuronError):
    """A parameter outside its range or of the wrong type; ``param`` names it."""

    code = "invalid_value"


class UnsupportedParameter(NeuronError):
    """A constraint that this build can't honour, so it refuses; ``param`` names it."""

    code = "unsupported_parameter"


class MalformedJson(NeuronError):
    """A body that is not a JSON object."""

    code = "malformed_json"


class UnsupportedMediaType(NeuronError):
    """A body that is not declared as ``application/json``."""

    code = "unsupported_media_type"


class RequestTooLarge(NeuronError):
    """A body over the limit."""

    code = "request_too_large"


class ForbiddenHost(NeuronError):
    """A ``Host`` or ``Origin`` that this node does not answer to (DNS rebinding, cross-site requests)."""

    code = "forbidden_host"


class InvalidApiKey(NeuronError):
    """No key, or one that this node does not know."""

    code = "invalid_api_key"


class InsufficientScope(NeuronError):
    """A key that does not grant what the route needs."""

    code = "insufficient_scope"


class InvalidReference(NeuronError):
    """A model reference that is not ``[scheme:]name[@revision]``, or a path outside every model root."""

    code = "invalid_reference"


class UsageError(NeuronError):
    """A command line that can't be taken as it stands."""

    code = "usage"


class ConfigError(NeuronError):
    """A configuration that can't be taken: unknown key, wrong type, bind without a key."""

    code = "config"


class ExposedSecret(NeuronError):
    """A file with secrets that others can read, or that is not for this user to read."""

    code = "exposed_secret"


class KeyNotFound(NeuronError):
    """No key in the file has this name."""

    code = "key_not_found"


# ---- models --------------------------------------------------------------------------------------------------


class ModelNotLoaded(NeuronError):
    """No loaded model has this id."""

    code = "model_not_found"


class AlreadyLoaded(NeuronError):
    """A load of a model that is there."""

    code = "already_loaded"


class LoadedDifferently(NeuronError):
    """A load of a model that is there, from other files, in another dtype or on another device."""

    code = "loaded_differently"


class UnknownHarness(NeuronError):
    """A harness name that this build does not know."""

    code = "unknown_harness"


class HarnessNotEnabled(NeuronError):
    """The harness exists and is switched off, or is not installed."""

    code = "harness_not_enabled"


class CudaUnavailable(NeuronError):
    """An NVIDIA stack that is there and can't be used."""

    code = "cuda_unavailable"


class PreflightError(NeuronError):
    """A load refused before the work; ``code`` is the ``kind`` of the wire contract."""

    code = "preflight_failed"


class RepoFetchFailed(PreflightError):
    """The model's files can't be had from where the reference points."""

    code = "repo_fetch_failed"


class FilesDiffer(RepoFetchFailed):
    """Files of a fetched model that are missing or not what was fetched; ``details``: ``files``."""

    code = "files_differ"


class NotFetched(PreflightError):
    """A model that is not in the cache of this machine, where only such a one will do."""

    code = "not_fetched"


class ModelInUse(NeuronError):
    """A fetched model that is loaded, and so is not removed."""

    code = "model_in_use"


class EmptyRepo(PreflightError):
    """A repository or folder without weights that this build loads."""

    code = "empty_repo"


class UnsafeWeights(PreflightError):
    """Only pickled weights (``.bin``, ``.pt``): never opened."""

    code = "unsafe_weights"


class UnsupportedArchitecture(PreflightError):
    """A model that this build does not compute: its family, activation, rope or quantisation."""

    code = "unsupported_architecture"


class QuantNotFound(PreflightError):
    """No file of the asked quantisation."""

    code = "quant_not_found"


class InsufficientMemory(PreflightError):
    """The weights would not fit; ``details`` carry ``required_mb`` and ``free_mb``."""

    code = "insufficient_memory"


class InvalidModelFile(NeuronError):
    """A model file that is damaged, truncated, or not what its name says."""

    code = "invalid_model_file"


class WeightMismatch(InvalidModelFile):
    """Tensors that the architecture lacks or does not know; the message holds the balance."""

    code = "weight_mismatch"


class WeightsChanged(InvalidModelFile):
    """A file that changed while it was read."""

    code = "weights_changed"


class ModelUnloading(NeuronError):
    """The model is on its way out."""

    code = "model_unloading"


# ---- generation ----------------------------------------------------------------------------------------------


class PromptTooLong(NeuronError):
    """The prompt does not fit the context; ``details``: ``prompt_len``, ``max``."""

    code = "context_length_exceeded"


class PromptNeverFits(NeuronError):
    """The cache this request needs is larger than the whole budget; ``details``: ``required_mb``, ``budget_mb``."""

    code = "prompt_too_long_for_vram"


class InsufficientCache(NeuronError):
    """No cache memory for this request now; ``details``: ``required_mb``, ``free_mb``, ``retry_after_s``."""

    code = "insufficient_vram"


class QueueFull(NeuronError):
    """The queue is full, or the request waited too long in it; ``details``: ``retry_after_s``."""

    code = "rate_limit_exceeded"


class OverShare(NeuronError):
    """One caller has as much running and waiting as it may; ``details``: ``retry_after_s``."""

    code = "rate_limit_exceeded"


class ShuttingDown(NeuronError):
    """The node takes no new work; ``details``: ``retry_after_s``."""

    code = "shutting_down"


class RequestNotFound(NeuronError):
    """No request that runs or is kept has this id."""

    code = "request_not_found"


class TemplateRenderFailed(NeuronError):
    """The model's chat template refused the conversation, or is broken."""

    code = "template_render_failed"


class ChainedConversationNotSupported(NeuronError):
    """``previous_response_id`` or ``store`` without a store."""

    code = "chained_conversation_not_supported"


class PreviousResponseNotFound(NeuronError):
    """A ``previous_response_id`` that the store does not have (any more)."""

    code = "previous_response_not_found"


class ResponseNotFound(NeuronError):
    """No stored response has this id."""

    code = "response_not_found"


class ResponseStoreFailed(NeuronError):
    """The file of stored responses can't be read or written."""

    code = "response_store_failed"


class NumericalError(NeuronError):
    """Logits that are not finite."""

    code = "numerical_error"


class DeviceFault(NeuronError):
    """The device or the decode loop failed under a request."""

    code = "device_fault"


# ---- the command line and the node it talks to ---------------------------------------------------------------


class NodeUnreachable(NeuronError):
    """Nobody answers at the node's address."""

    code = "node_unreachable"


class NodeAnsweredError(NeuronError):
    """The node answered with an error; ``details``: ``status``, ``remote_code``."""

    code = "node_error"


class StreamCut(NeuronError):
    """A stream that ended without its end."""

    code = "stream_cut"


class SessionBusy(NeuronError):
    """A saved chat that another process has open."""

    code = "session_busy"


class SessionUnreadable(NeuronError):
    """A saved chat that isn't there, or whose file is none of ours."""

    code = "session_unreadable"


class AnswerUnusable(NeuronError):
    """An answer without what was asked for: cut off, not the wanted form, no code block."""

    code = "answer_unusable"


class AddressInUse(NeuronError):
    """The listen address is taken."""

    code = "address_in_use"
