"""What every route takes, answers and refuses, as data. `neuron.daemon.openapi` makes the document of it.

A new route gets one `Operation` here; a test compares this table with the routes of the application, both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from neuron import errors as e
from neuron.keys import Scope
from neuron.wire import chat, completions, embeddings, messages, models, node, responses, tokenize


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    summary: str
    scope: Scope
    """What the key of a caller must grant, where keys are configured."""
    body: type | None = None
    """Of the request; None takes none."""
    body_required: bool = True
    answers: Mapping[int, Any]
    """Status → type of the JSON body."""
    media: str = "application/json"
    """Of the answers."""
    events: tuple[type, ...] = ()
    """Types of the data of a streamed answer's events."""
    refusals: tuple[type[e.NeuronError], ...] = ()
    """Errors beyond those that every route can answer with."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    """Name → body."""
    links: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Id of an operation that takes something of the answer → its parameter → where that is."""
    framework: tuple[int, ...] = ()
    """Statuses that the framework answers before the route."""
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name → schema; none is required."""
    route: str | None = None
    """The framework's path, where that is another one than ``path``."""

    @property
    def id(self) -> str:
        """A name for generated clients."""
        words = self.path.replace("{", "").replace("}", "").replace("-", "_").replace("/", " ").split()
        return "_".join([self.method.lower(), *words])


MODEL = "Qwen/Qwen3-0.6B"
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
CHAT_EXAMPLES = {
    "plain": ASKED,
    "streamed": {**ASKED, "stream": True, "stream_options": {"include_usage": True}},
    "structured": {
        **ASKED,
        "temperature": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": {"type": "object", "properties": {"name": {}}}},
        },
    },
    "several": {**ASKED, "n": 2, "seed": 1, "logprobs": True, "top_logprobs": 2, "max_tokens": 16},
}
INPUT = {"model": MODEL, "input": "What is the capital of France?"}
MESSAGES = {**ASKED, "max_tokens": 64}
PROMPT = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 8}
KEPT = {"response_id": "$response.body#/id"}

ADMISSION = (
    e.ModelNotLoaded,
    e.ModelUnloading,
    e.HarnessNotEnabled,
    e.PromptTooLong,
    e.PromptNeverFits,
    e.InsufficientCache,
    e.QueueFull,
    e.OverShare,
    e.ShuttingDown,
    e.TemplateRenderFailed,
)
"""What the engine may refuse a prompt with."""
LOOKUP = (
    e.ModelNotLoaded,
    e.ModelUnloading,
    e.HarnessNotEnabled,
    e.ShuttingDown,
    e.TemplateRenderFailed,
)
"""What the engine may refuse with before any admission."""

NODE: Sequence[Operation] = (
    Operation(
        method="GET",
        path="/discovery",
        scope=Scope.INFER,
        summary="What is fixed since start",
        answers={200: node.DiscoveryResponse},
    ),
    Operation(
        method="GET",
        path="/health",
        scope=Scope.INFER,
        summary="What changes; 503 with the same body once the decode loop is stalled",
        answers={200: node.HealthResponse, 503: node.HealthResponse},
    ),
    Operation(
        method="GET",
        path="/version",
        scope=Scope.INFER,
        summary="What runs here",
        answers={200: node.VersionResponse},
    ),
    Operation(
        method="GET",
        path="/ready",
        scope=Scope.OPEN,
        summary="Whether new work is accepted",
        answers={200: node.ReadyResponse, 503: node.ReadyResponse},
    ),
    Operation(
        method="GET",
        path="/metrics",
        scope=Scope.INFER,
        summary="Counters, gauges and histograms in Prometheus' text format",
        answers={200: str},
        media="text/plain",
    ),
    Operation(
        method="POST",
        path="/drain",
        scope=Scope.MANAGE,
        summary="Take no new work, end what was admitted, then exit",
        body=node.DrainRequest,
        body_required=False,
        examples={"plain": {}, "within ten minutes": {"timeout_s": 600}},
        answers={202: node.DrainResponse},
    ),
    Operation(
        method="GET",
        path="/events",
        scope=Scope.MANAGE,
        summary="What the node does, as it happens, as events",
        answers={200: node.NodeEvent},
        media="text/event-stream",
        events=(node.NodeEvent,),
        query={
            "since": {"type": "integer", "minimum": 0},
            "follow": {"type": "string", "enum": ["true", "false"]},
        },
    ),
    Operation(
        method="GET",
        path="/requests",
        scope=Scope.MANAGE,
        summary="Requests for text and vectors that run or ended lately, newest first",
        answers={200: list[node.RequestInfo]},
        query={"limit": {"type": "integer", "minimum": 1, "maximum": 1000}},
    ),
    Operation(
        method="GET",
        path="/requests/{request_id}",
        scope=Scope.MANAGE,
        summary="One of these requests: its state, where its time went, its tokens",
        answers={200: node.RequestInfo},
        refusals=(e.RequestNotFound,),
        route="/requests/{request_id:str}",
    ),
    Operation(
        method="GET",
        path="/schema/openapi.json",
        scope=Scope.INFER,
        summary="This document",
        answers={200: dict[str, Any]},
    ),
)

MODELS: Sequence[Operation] = (
    Operation(
        method="GET",
        path="/models",
        scope=Scope.INFER,
        summary="Models that answer or will; with all=true also those that failed or leave",
        answers={200: list[node.ModelInfo]},
        query={"all": {"type": "string", "enum": ["true", "false"]}},
    ),
    Operation(
        method="GET",
        path="/models/{model_id}",
        scope=Scope.INFER,
        summary="One model in any state",
        answers={200: node.ModelInfo},
        refusals=(e.ModelNotLoaded,),
        framework=(405,),  # GET of /models/load
        route="/models/{rest:path}",
    ),
    Operation(
        method="GET",
        path="/models/{model_id}/endpoint",
        scope=Scope.INFER,
        summary="Where a loaded model answers",
        answers={200: node.EndpointResponse},
        refusals=(e.ModelNotLoaded,),
        route="/models/{rest:path}",
    ),
    Operation(
        method="POST",
        path="/models/load",
        scope=Scope.MANAGE,
        summary="Load a model, or change the ttl_s and pin of a loaded one; 202 with wait=false; progress as "
        "events with Accept: text/event-stream",
        body=node.ModelSpec,
        examples={"plain": {"model_id": MODEL}, "at once": {"model_id": MODEL, "wait": False}},
        answers={200: node.StatusResponse, 202: node.StatusResponse},
        events=(node.LoadProgress,),
        refusals=(
            e.AlreadyLoaded,
            e.LoadedDifferently,
            e.ModelUnloading,
            e.PreflightError,
            e.InvalidModelFile,
            e.CudaUnavailable,
            e.ShuttingDown,
        ),
    ),
    Operation(
        method="POST",
        path="/models/plan",
        scope=Scope.MANAGE,
        summary="What a load would take and whether it fits, from the headers of the files",
        body=node.PlanRequest,
        examples={"plain": {"model_id": MODEL}},
        answers={200: node.LoadPlan},
        refusals=(e.PreflightError, e.InvalidModelFile, e.CudaUnavailable),
    ),
    Operation(
        method="POST",
        path="/models/show",
        scope=Scope.MANAGE,
        summary="What a loaded or fetched model is, from its files",
        body=node.ShowRequest,
        examples={"plain": {"model_id": MODEL}},
        answers={200: node.ModelDescription},
        refusals=(e.PreflightError, e.InvalidModelFile),
    ),
    Operation(
        method="POST",
        path="/models/unload",
        scope=Scope.MANAGE,
        summary="Free a model once its running work has ended, or now; a load that runs is cancelled",
        body=node.UnloadRequest,
        examples={"plain": {"model_id": MODEL}},
        answers={200: node.StatusResponse},
        refusals=(e.ModelNotLoaded,),
    ),
    Operation(
        method="GET",
        path="/v1/models",
        scope=Scope.INFER,
        summary="What is loaded, in OpenAI's shape",
        answers={200: models.ModelList},
    ),
    Operation(
        method="GET",
        path="/v1/models/{model_id}",
        scope=Scope.INFER,
        summary="One loaded model",
        answers={200: models.Model},
        refusals=(e.ModelNotLoaded,),
        route="/v1/models/{rest:path}",
    ),
)

GENERATION: Sequence[Operation] = (
    Operation(
        method="POST",
        path="/v1/chat/completions",
        scope=Scope.INFER,
        summary="Answer a conversation",
        body=chat.ChatCompletionRequest,
        examples=CHAT_EXAMPLES,
        answers={200: chat.ChatCompletion},
        events=(chat.ChatCompletionChunk,),
        refusals=ADMISSION,
    ),
    Operation(
        method="POST",
        path="/v1/responses",
        scope=Scope.INFER,
        summary="Answer a conversation as items",
        body=responses.ResponsesRequest,
        examples={"plain": INPUT, "streamed": {**INPUT, "stream": True}},
        answers={200: responses.Response},
        links={
            "get_v1_responses_response_id": KEPT,
            "get_v1_responses_response_id_input_items": KEPT,
            "delete_v1_responses_response_id": KEPT,
        },
        events=get_args(responses.StreamEvent),
        refusals=(
            *ADMISSION,
            e.ChainedConversationNotSupported,
            e.PreviousResponseNotFound,
            e.ResponseStoreFailed,
        ),
    ),
    Operation(
        method="GET",
        path="/v1/responses/{response_id}",
        scope=Scope.INFER,
        summary="A kept response",
        answers={200: responses.Response},
        refusals=(e.ResponseNotFound, e.ResponseStoreFailed),
        query={"stream": {"type": "string", "enum": ["false"]}},
        route="/v1/responses/{response_id:str}",
    ),
    Operation(
        method="DELETE",
        path="/v1/responses/{response_id}",
        scope=Scope.INFER,
        summary="Forget a kept response",
        answers={200: responses.DeletedResponse},
        refusals=(e.ResponseNotFound, e.ResponseStoreFailed),
        route="/v1/responses/{response_id:str}",
    ),
    Operation(
        method="GET",
        path="/v1/responses/{response_id}/input_items",
        scope=Scope.INFER,
        summary="The items that a kept response answered, in pages",
        answers={200: responses.InputItemList},
        refusals=(e.ResponseNotFound, e.ResponseStoreFailed),
        query={
            "limit": {"type": "integer", "minimum": 1, "maximum": 100},
            "order": {"type": "string", "enum": ["asc", "desc"]},
            "after": {"type": "string"},
        },
        route="/v1/responses/{response_id:str}/input_items",
    ),
)

TOKENS: Sequence[Operation] = (
    Operation(
        method="POST",
        path="/v1/completions",
        scope=Scope.INFER,
        summary="Go on with texts as they are written; streamed where `stream` is true",
        body=completions.CompletionRequest,
        examples={"plain": PROMPT, "streamed": {**PROMPT, "stream": True, "logprobs": 1}},
        answers={200: completions.Completion},
        events=(completions.Completion,),
        refusals=ADMISSION,
    ),
    Operation(
        method="POST",
        path="/v1/messages",
        scope=Scope.INFER,
        summary="Answer a conversation in Anthropic's format; streamed where `stream` is true",
        body=messages.MessagesRequest,
        examples={"plain": MESSAGES, "streamed": {**MESSAGES, "stream": True}},
        answers={200: messages.Message},
        events=get_args(messages.StreamEvent),
        refusals=ADMISSION,
    ),
    Operation(
        method="POST",
        path="/v1/messages/count_tokens",
        scope=Scope.INFER,
        summary="Count the tokens of a conversation in Anthropic's format",
        body=messages.CountTokensRequest,
        examples={"plain": ASKED},
        answers={200: messages.TokenCount},
        refusals=LOOKUP,
    ),
    Operation(
        method="POST",
        path="/v1/embeddings",
        scope=Scope.INFER,
        summary="Turn texts into vectors",
        body=embeddings.EmbeddingsRequest,
        examples={"plain": INPUT, "base64": {**INPUT, "encoding_format": "base64"}},
        answers={200: embeddings.EmbeddingsResponse},
        refusals=ADMISSION,
    ),
    Operation(
        method="POST",
        path="/tokenize",
        scope=Scope.INFER,
        summary="Ids of a text or of a conversation",
        body=tokenize.TokenizeRequest,
        examples={"text": {"model": MODEL, "prompt": "Hello"}, "conversation": ASKED},
        answers={200: tokenize.TokenizeResponse},
        refusals=LOOKUP,
    ),
    Operation(
        method="POST",
        path="/detokenize",
        scope=Scope.INFER,
        summary="The text of ids",
        body=tokenize.DetokenizeRequest,
        examples={"plain": {"model": MODEL, "tokens": [1, 2, 3]}},
        answers={200: tokenize.DetokenizeResponse},
        refusals=LOOKUP,
    ),
    Operation(
        method="POST",
        path="/apply-template",
        scope=Scope.INFER,
        summary="A conversation in the model's chat template, as text",
        body=tokenize.ApplyTemplateRequest,
        examples={"plain": ASKED},
        answers={200: tokenize.ApplyTemplateResponse},
        refusals=LOOKUP,
    ),
)

OPERATIONS: Sequence[Operation] = (*NODE, *MODELS, *GENERATION, *TOKENS)
