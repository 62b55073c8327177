"""Every class of errors has its row, and every row is what the contract says."""

from __future__ import annotations

from typing import Any

import pytest

from neuron import errors as e
from neuron.daemon import errors
from tests.support.fake_engine import Script
from tests.support.node_server import NodeServer

CHAT = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]}
INVALID = "invalid_request_error"

# error, status, type, error.code, siblings, retry-after
CONTRACT: list[tuple[e.NeuronError, int, str, str | None, dict[str, Any], str | None]] = [
    (e.ModelNotLoaded("model 'x' not loaded"), 404, INVALID, "model_not_found", {}, None),
    (
        e.PromptTooLong("maximum context length is 8 tokens", prompt_len=9, max=8),
        400,
        INVALID,
        "context_length_exceeded",
        {"code": "prompt_too_long", "prompt_len": 9, "max": 8},
        None,
    ),
    (
        e.InsufficientCache("no memory now", free_mb=1, required_mb=2),
        503,
        "api_error",
        "insufficient_vram",
        {"code": "insufficient_vram", "free_mb": 1, "required_mb": 2},
        "5",
    ),
    (
        e.PromptNeverFits("could never fit", required_mb=9, budget_mb=3),
        413,
        INVALID,
        "prompt_too_long_for_vram",
        {"required_mb": 9, "budget_mb": 3},
        None,
    ),
    (e.QueueFull("full", retry_after_s=500), 503, "rate_limit_error", "rate_limit_exceeded", {}, "60"),
    (e.QueueFull("full", retry_after_s=0), 503, "rate_limit_error", "rate_limit_exceeded", {}, "1"),
    (
        e.QueueFull("full", retry_after_s=float("nan")),
        503,
        "rate_limit_error",
        "rate_limit_exceeded",
        {},
        "5",
    ),
    (e.OverShare("yours", retry_after_s=3), 429, "rate_limit_error", "rate_limit_exceeded", {}, "3"),
    (e.ShuttingDown("bye"), 503, "api_error", "shutting_down", {}, "15"),
    (e.ModelUnloading("going"), 503, "api_error", "model_unloading", {}, "5"),
    (e.NumericalError("not finite"), 500, "server_error", "numerical_error", {}, None),
    (e.HarnessNotEnabled("off"), 503, "api_error", "harness_not_enabled", {}, None),
    (e.InvalidValue("bad", param="x"), 400, INVALID, "invalid_value", {}, None),
    (e.UnsupportedParameter("no", param="x"), 400, INVALID, "unsupported_parameter", {}, None),
    (e.TemplateRenderFailed("no tools"), 422, INVALID, "template_render_failed", {}, None),
    (e.DeviceFault("/dev/nvidia0 fell off"), 500, "server_error", None, {}, None),
    (e.NeuronError("/secret/path"), 500, "server_error", None, {}, None),
]


@pytest.mark.parametrize(("error", "status", "kind", "code", "siblings", "retry_after"), CONTRACT)
def test_a_refusal_is_answered_as_the_contract_says(
    node: NodeServer,
    error: e.NeuronError,
    status: int,
    kind: str,
    code: str | None,
    siblings: dict[str, Any],
    retry_after: str | None,
) -> None:
    node.engine.script = Script(refuse=error)
    for stream in (False, True):
        found, headers, body = node.post("/v1/chat/completions", {**CHAT, "stream": stream})
        assert found == status
        told = body.pop("error")
        assert (told["type"], told["code"], told["param"]) == (kind, code, error.param)
        assert body == siblings
        assert headers.get("retry-after") == retry_after


def every_class(root: type[e.NeuronError] = e.NeuronError) -> set[type[e.NeuronError]]:
    return {root}.union(*(every_class(child) for child in root.__subclasses__()))


def test_every_error_class_has_a_row() -> None:
    ours = {cls for cls in every_class() if cls.__module__ == e.__name__}
    assert set(errors.TABLE) == ours


@pytest.mark.parametrize("cls", sorted(errors.TABLE, key=lambda cls: cls.__name__))
def test_every_error_is_answered_in_both_shapes(cls: type[e.NeuronError]) -> None:
    error = cls("text", hint="do this", param="p")
    row, told = errors.row_of(error), errors.v1_body(error, "req_1")["error"]
    assert row.status in (400, 401, 403, 404, 413, 415, 422, 429, 500, 503)
    assert told.code == (None if row.secret else cls.code)
    assert ("req_1" in told.message) if row.secret else told.message.startswith("text")
    flat = errors.node_body(error, "req_1")
    preflight = issubclass(cls, e.PreflightError)
    assert ("code" in flat) is not (row.secret or preflight)
    assert isinstance(flat["error"], dict) is preflight


@pytest.mark.parametrize("cls", sorted(errors.TABLE, key=lambda cls: cls.__name__))
def test_a_5xx_says_when_to_retry_or_that_there_is_no_use(cls: type[e.NeuronError]) -> None:
    row = errors.row_of(cls("x"))
    if row.status >= 500:
        assert (row.retry_after_s is None) == (row.should_retry is False)


def test_a_subclass_without_a_row_takes_its_parents() -> None:
    class Odd(e.PromptTooLong):
        pass

    assert errors.row_of(Odd("x")) is errors.TABLE[e.PromptTooLong]


def test_a_bug_tells_a_request_id_and_nothing_else(
    node: NodeServer, caplog: pytest.LogCaptureFixture
) -> None:
    node.engine.on_submit = lambda generation: [][0]
    for path, body in (
        ("/v1/chat/completions", CHAT),
        ("/v1/responses", {"model": "org/tiny", "input": "x"}),
    ):
        status, headers, answer = node.post(path, body)
        assert (status, answer["error"]["code"], headers["x-should-retry"]) == (500, None, "false")
        assert headers["x-request-id"] in answer["error"]["message"]
        assert "IndexError" not in str(answer)
        assert "/" not in answer["error"]["message"]
    assert "IndexError" in caplog.text


def test_the_whole_cause_is_told_once_each() -> None:
    cause = OSError("disk on fire")
    cause.__cause__ = ValueError("on fire")
    error = e.InvalidModelFile("model.safetensors is damaged", hint="fetch it again")
    error.__cause__ = cause
    assert errors.whole_cause(error) == "model.safetensors is damaged: disk on fire; fetch it again"
