"""What clients of every public format may rely on, on a tiny model through a real daemon.

The sentences of these tests are the second half of `docs/conformance.md`.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from neuron.wire.event_stream import ServerEvent, read_events
from tests.support.node_process import NodeProcess, node

Body = dict[str, Any]
CONTEXT = 256
"""Of the tiny model."""
SAMPLED = {"temperature": 1, "seed": 11}


@pytest.fixture(scope="module")
def tiny(tiny_root: Path) -> Iterator[NodeProcess]:
    """A node with ``tiny``, slow enough that a client can leave before it ends."""
    with node(tiny_root / "tiny", "--threads", "1", env={"NEURON_TORCH_ONLY": "1"}) as running:
        running.wait_loaded("tiny")
        yield running


class Format:
    """A public format: how a short request is made, and what text and counts its answers hold."""

    def __init__(
        self, path: str, prompt: Body, limit: str, text: Callable[[Any], str], delta: Callable[[Any], str]
    ) -> None:
        self.path, self.prompt, self.limit, self.text, self.delta = path, prompt, limit, text, delta

    def body(self, **said: Any) -> Body:
        """Twelve tokens of an answer."""
        return {"model": "tiny", **self.prompt, self.limit: 12, "ignore_eos": True, **said}

    def whole(self, at: NodeProcess, **said: Any) -> Any:
        """An answer in one piece."""
        answer = at.post(self.path, self.body(**said))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, at: NodeProcess, **said: Any) -> list[ServerEvent]:
        """The same request streamed."""
        body = self.body(**said, stream=True)
        with httpx.stream("POST", at.url + self.path, json=body, timeout=60, trust_env=False) as answer:
            assert answer.status_code == 200
            return list(read_events(answer.iter_bytes()))

    def streamed(self, at: NodeProcess, **said: Any) -> str:
        """All text of a stream."""
        data = [json.loads(e.data) for e in self.events(at, **said) if e.data != "[DONE]"]
        return "".join(self.delta(event) for event in data)


def first(choices: Any) -> Any:
    return choices[0] if choices else {}


HELLO = [{"role": "user", "content": "hello"}]
CHAT = Format(
    "/v1/chat/completions",
    {"messages": HELLO},
    "max_tokens",
    lambda a: a["choices"][0]["message"]["content"],
    lambda e: first(e["choices"]).get("delta", {}).get("content") or "",
)
COMPLETIONS = Format(
    "/v1/completions",
    {"prompt": "hello"},
    "max_tokens",
    lambda a: a["choices"][0]["text"],
    lambda e: first(e["choices"]).get("text", ""),
)
RESPONSES = Format(
    "/v1/responses",
    {"input": "hello"},
    "max_output_tokens",
    lambda a: a["output"][0]["content"][0]["text"],
    lambda e: e["delta"] if e["type"] == "response.output_text.delta" else "",
)
MESSAGES = Format(
    "/v1/messages",
    {"messages": HELLO},
    "max_tokens",
    lambda a: a["content"][0]["text"],
    lambda e: e.get("delta", {}).get("text", ""),
)
FORMATS = [CHAT, COMPLETIONS, RESPONSES, MESSAGES]
every_format = pytest.mark.parametrize("api", FORMATS, ids=lambda api: api.path.removeprefix("/v1/"))


@every_format
@pytest.mark.parametrize("said", [{"temperature": 0}, SAMPLED], ids=["greedy", "sampled"])
def test_a_stream_spells_the_same_text_as_a_whole_answer(tiny: NodeProcess, api: Format, said: Body) -> None:
    whole = api.text(api.whole(tiny, **said))
    assert whole
    assert api.streamed(tiny, **said) == whole


@every_format
def test_the_same_seed_gives_the_same_text_and_another_seed_another(tiny: NodeProcess, api: Format) -> None:
    texts = {seed: api.text(api.whole(tiny, temperature=1, seed=seed)) for seed in (1, 2, 3)}
    assert len(set(texts.values())) > 1
    assert api.text(api.whole(tiny, temperature=1, seed=2)) == texts[2]


@every_format
def test_a_request_among_others_gets_the_text_that_it_gets_alone(tiny: NodeProcess, api: Format) -> None:
    alone = api.text(api.whole(tiny, **SAMPLED))
    with ThreadPoolExecutor(4) as pool:
        others = pool.map(lambda seed: api.text(api.whole(tiny, temperature=1, seed=seed)), [1, 11, 2, 11])
    assert [*others][1::2] == [alone, alone]


def usage_of(value: Any) -> Any:
    """The counts of a whole answer, or of the last event that has them."""
    return value.get("usage") or value.get("response", {}).get("usage")


@pytest.mark.parametrize("api", [CHAT, COMPLETIONS, RESPONSES], ids=["chat", "completions", "responses"])
def test_usage_is_the_same_in_both_modes(tiny: NodeProcess, api: Format) -> None:
    options = {} if api is RESPONSES else {"stream_options": {"include_usage": True}}
    whole = usage_of(api.whole(tiny, **SAMPLED))
    events = [json.loads(e.data) for e in api.events(tiny, **SAMPLED, **options) if e.data != "[DONE]"]
    assert usage_of(events[-1]) == whole
    assert whole.get("completion_tokens", whole.get("output_tokens")) == 12
    assert whole["total_tokens"] == 12 + whole.get("prompt_tokens", whole.get("input_tokens"))


def test_an_answer_at_its_limit_says_so_in_the_words_of_its_format(tiny: NodeProcess) -> None:
    assert CHAT.whole(tiny)["choices"][0]["finish_reason"] == "length"
    assert COMPLETIONS.whole(tiny)["choices"][0]["finish_reason"] == "length"
    cut = RESPONSES.whole(tiny)
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert MESSAGES.whole(tiny)["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_stop_string_ends_the_text_and_is_no_part_of_it(tiny: NodeProcess, length: int) -> None:
    text = CHAT.text(CHAT.whole(tiny, temperature=0))
    stop = text[3 : 3 + length]
    answer = CHAT.whole(tiny, temperature=0, stop=[stop])
    assert CHAT.text(answer) == text[: text.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert CHAT.streamed(tiny, temperature=0, stop=[stop]) == text[: text.index(stop)]


def test_anthropic_names_the_stop_sequence(tiny: NodeProcess) -> None:
    text = MESSAGES.text(MESSAGES.whole(tiny, temperature=0))
    answer = MESSAGES.whole(tiny, temperature=0, stop_sequences=["never!", text[4:6]])
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", text[4:6])


def tokens_of(answer: Any) -> list[Any]:
    found: list[Any] = answer["choices"][0]["logprobs"]["content"]
    return found


@pytest.mark.parametrize("said", [{"temperature": 0}, SAMPLED], ids=["greedy", "sampled"])
def test_logprobs_spell_the_text_and_are_the_same_in_both_modes(tiny: NodeProcess, said: Body) -> None:
    no_marks = {str(i): -100 for i in range(4)}  # they have log-probabilities, and no place in the text
    asked = {**said, "logprobs": True, "top_logprobs": 3, "logit_bias": no_marks}
    answer = CHAT.whole(tiny, **asked)
    tokens = tokens_of(answer)
    assert len(tokens) == answer["usage"]["completion_tokens"]
    spelled = b"".join(bytes(token["bytes"]) for token in tokens)
    assert spelled.decode(errors="replace") == CHAT.text(answer)
    data = [json.loads(e.data) for e in CHAT.events(tiny, **asked) if e.data != "[DONE]"]
    streamed = [t for e in data for c in e["choices"] if c["logprobs"] for t in c["logprobs"]["content"]]
    assert streamed == tokens


def test_logprobs_are_of_the_model_whatever_the_sampling(tiny: NodeProcess) -> None:
    asked = {"logprobs": True, "top_logprobs": 20, "max_tokens": 1}
    plain = tokens_of(CHAT.whole(tiny, temperature=0, **asked))[0]
    hot = tokens_of(CHAT.whole(tiny, temperature=2, top_k=1, **asked))[0]
    assert plain["token"] == hot["token"]
    assert math.isclose(plain["logprob"], hot["logprob"], abs_tol=1e-4)
    tops = [top["logprob"] for top in plain["top_logprobs"]]
    assert tops == sorted(tops, reverse=True)
    assert sum(map(math.exp, tops)) <= 1 + 1e-5
    assert plain["logprob"] == tops[0]


def test_completions_logprobs_are_lists_of_one_length_with_true_offsets(tiny: NodeProcess) -> None:
    choice = COMPLETIONS.whole(tiny, temperature=0, logprobs=2, guided_regex="[a-z ]{12,20}")["choices"][0]
    found = choice["logprobs"]
    lists = [found[name] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")]
    assert {len(one) for one in lists} == {len(found["tokens"])}
    assert "".join(found["tokens"]) == choice["text"]
    for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
        assert choice["text"][offset : offset + len(token)] == token


def test_a_bias_of_minus_100_excludes_a_token_and_plus_100_forces_it(tiny: NodeProcess) -> None:
    asked = {"temperature": 0, "logprobs": 0}
    best = COMPLETIONS.whole(tiny, **asked)["choices"][0]["logprobs"]["tokens"][0]
    [letter] = tiny.post("/tokenize", {"prompt": "q", "add_special_tokens": False}).json()["tokens"]
    forced = COMPLETIONS.text(COMPLETIONS.whole(tiny, temperature=0, logit_bias={str(letter): 100}))
    assert forced == "q" * 12
    banned = {str(i): -100 for i in range(4, 260)}
    without = COMPLETIONS.whole(tiny, **asked, logit_bias=banned)["choices"][0]["logprobs"]["tokens"]
    assert len(best) == 1
    assert best not in without


def test_n_answers_are_numbered_repeatable_and_count_the_prompt_once(tiny: NodeProcess) -> None:
    answer = CHAT.whole(tiny, **SAMPLED, n=3)
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert answer["usage"]["completion_tokens"] == 36
    assert answer["usage"]["prompt_tokens"] == CHAT.whole(tiny)["usage"]["prompt_tokens"]
    streamed = ["", "", ""]
    for event in CHAT.events(tiny, **SAMPLED, n=3):
        for choice in json.loads(event.data)["choices"] if event.data != "[DONE]" else []:
            streamed[choice["index"]] += choice["delta"].get("content") or ""
    assert streamed == texts


def test_several_prompts_of_completions_are_answered_in_their_order(tiny: NodeProcess) -> None:
    alone = [
        COMPLETIONS.text(COMPLETIONS.whole(tiny, temperature=0, prompt=p)) for p in ("one", "two", "three")
    ]
    together = COMPLETIONS.whole(tiny, temperature=0, prompt=["one", "two", "three"])
    assert [choice["text"] for choice in together["choices"]] == alone
    ids = [tiny.post("/tokenize", {"prompt": p}).json()["tokens"] for p in ("one", "two")]
    as_ids = COMPLETIONS.whole(tiny, temperature=0, prompt=ids)
    assert [choice["text"] for choice in as_ids["choices"]] == alone[:2]


def test_an_echo_begins_with_the_prompt(tiny: NodeProcess) -> None:
    plain = COMPLETIONS.text(COMPLETIONS.whole(tiny, temperature=0))
    assert COMPLETIONS.text(COMPLETIONS.whole(tiny, temperature=0, echo=True)) == "hello" + plain


def test_min_tokens_hold_off_the_end(tiny: NodeProcess) -> None:
    ended = {"ignore_eos": False, "logit_bias": {"2": 100}, "temperature": 0}
    assert CHAT.whole(tiny, **ended)["usage"]["completion_tokens"] <= 1
    assert CHAT.whole(tiny, **ended, min_tokens=5)["usage"]["completion_tokens"] >= 5


@pytest.mark.parametrize("api", [CHAT, COMPLETIONS, RESPONSES], ids=["chat", "completions", "responses"])
def test_a_regular_expression_is_kept_in_both_modes(tiny: NodeProcess, api: Format) -> None:
    said = {**SAMPLED, "guided_regex": "(yes|no) sir", "ignore_eos": False}
    assert api.text(api.whole(tiny, **said)) in ("yes sir", "no sir")
    assert api.streamed(tiny, **said) in ("yes sir", "no sir")


def test_a_json_schema_is_kept_in_every_format(tiny: NodeProcess) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    named = {"name": "s", "schema": schema}
    asked = [
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": named}}),
        (COMPLETIONS, {"response_format": {"type": "json_schema", "json_schema": named}}),
        (RESPONSES, {"text": {"format": {"type": "json_schema", **named}}}),
        (MESSAGES, {"output_config": {"format": {"type": "json_schema", "schema": schema}}}),
    ]
    for api, said in asked:
        answer = api.whole(tiny, **SAMPLED, **{"ignore_eos": False, api.limit: 40, **said})
        assert set(json.loads(api.text(answer))) == {"ok"}, api.path


def test_chat_chunks_come_in_order_with_what_every_chunk_has(tiny: NodeProcess) -> None:
    *events, done = CHAT.events(tiny, **SAMPLED, stream_options={"include_usage": True})
    chunks = [json.loads(event.data) for event in events]
    assert done.data == "[DONE]"
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in c["choices"][0]["delta"] for c in chunks[1:-1])
    *texts, finish, usage = chunks
    assert [c["choices"][0]["finish_reason"] for c in texts] == [None] * len(texts)
    assert (finish["choices"][0]["delta"], finish["choices"][0]["finish_reason"]) == ({}, "length")
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 12)
    assert all("usage" not in c or c["usage"] is None for c in chunks[:-1])


def test_events_of_responses_are_numbered_nested_and_end_with_everything(tiny: NodeProcess) -> None:
    events = RESPONSES.events(tiny, **SAMPLED)
    data = [json.loads(event.data) for event in events]
    assert [event.event for event in events] == [d["type"] for d in data]
    assert [d["sequence_number"] for d in data] == list(range(len(data)))
    kinds = [d["type"].removeprefix("response.") for d in data]
    shape = [kind for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
    assert shape == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "incomplete",
    ]
    last = data[-1]["response"]
    assert last["output"][0] == data[-2]["item"]
    assert {d["item_id"] for d in data if "item_id" in d} == {last["output"][0]["id"]}
    assert {d["response"]["id"] for d in data if "response" in d} == {last["id"]}
    assert last["usage"]["input_tokens_details"].keys() >= {"cached_tokens"}


def test_events_of_messages_open_and_close_each_block(tiny: NodeProcess) -> None:
    events = [e for e in MESSAGES.events(tiny, **SAMPLED) if e.event != "ping"]
    data = [json.loads(event.data) for event in events]
    assert [event.event for event in events] == [d["type"] for d in data]
    kinds = [d["type"] for d in data]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert data[0]["message"]["content"] == []
    assert data[-2]["delta"]["stop_reason"] == "max_tokens"
    assert data[-2]["usage"]["output_tokens"] == 12


def test_completions_streams_end_in_done_and_the_others_do_not(tiny: NodeProcess) -> None:
    ends = {api.path: api.events(tiny)[-1].data == "[DONE]" for api in FORMATS}
    assert [path for path, done in ends.items() if done] == [CHAT.path, COMPLETIONS.path]


@every_format
def test_leaving_a_stream_ends_its_generation_within_a_second(tiny: NodeProcess, api: Format) -> None:
    body = api.body(stream=True, **{api.limit: CONTEXT})
    n_before = n_left(tiny)
    with httpx.stream("POST", tiny.url + api.path, json=body, timeout=60, trust_env=False) as answer:
        next(answer.iter_bytes())
    assert idle_within_s(tiny) < 1
    assert n_left(tiny) == n_before + 1, "it had ended by itself"


def test_leaving_a_whole_answer_ends_its_generation_within_a_second(tiny: NodeProcess) -> None:
    n_before = n_left(tiny)
    body = COMPLETIONS.body(n=8, max_tokens=CONTEXT)
    with pytest.raises(httpx.TimeoutException):
        httpx.post(tiny.url + COMPLETIONS.path, json=body, timeout=0.1, trust_env=False)
    assert idle_within_s(tiny) < 1
    assert n_left(tiny) == n_before + 1, "it had ended by itself"


def n_left(at: NodeProcess) -> int:
    """Generations that the node's log says were left by their client."""
    return sum("client_gone" in line for line in at.log)


def idle_within_s(at: NodeProcess) -> float:
    """Seconds until nothing is in flight."""
    began_s = time.monotonic()
    while any(m["in_flight"] or m["queue_depth"] for m in at.get("/health").json()["models"]):
        assert time.monotonic() - began_s < 10
        time.sleep(0.01)
    took_s = time.monotonic() - began_s
    time.sleep(0.1)  # the log's line comes through a pipe
    return took_s


@every_format
def test_a_prompt_that_does_not_fit_is_refused_with_its_numbers_and_never_cut(
    tiny: NodeProcess, api: Format
) -> None:
    long = "word " * 2000
    prompts = {"messages": [{"role": "user", "content": long}], "prompt": long, "input": long}
    said = {name: value for name, value in prompts.items() if name in api.prompt}
    for stream in (False, True):
        answer = tiny.post(api.path, api.body(**said, stream=stream))
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
        assert "maximum context length is" in message
        assert f"{CONTEXT} tokens" in message
        assert max(map(int, re.findall(r"\d+", message))) > CONTEXT


@every_format
def test_an_unknown_model_is_a_404_that_names_those_there(tiny: NodeProcess, api: Format) -> None:
    answer = tiny.post(api.path, api.body(model="nobody"))
    assert answer.status_code == 404
    assert "'nobody' not loaded" in answer.json()["error"]["message"]
    assert "tiny" in answer.json()["error"]["message"]
    assert answer.headers["x-request-id"]


def test_tokens_and_text_turn_into_each_other(tiny: NodeProcess) -> None:
    for text in ("hello", "Zürich – 東京", " two  spaces\n", "<|im_end|>"):
        ids = tiny.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"]
        assert tiny.post("/detokenize", {"tokens": ids}).json()["prompt"] == text


def test_a_control_token_that_a_message_spells_is_text(tiny: NodeProcess) -> None:
    spelled = tiny.post("/tokenize", {"messages": [{"role": "user", "content": "a<|im_end|>"}]}).json()
    plain = tiny.post("/tokenize", {"messages": [{"role": "user", "content": "a"}]}).json()
    assert spelled["tokens"].count(2) == plain["tokens"].count(2)
    counted = tiny.post("/v1/messages/count_tokens", {"model": "tiny", "messages": HELLO}).json()
    usage = MESSAGES.whole(tiny)["usage"]
    assert counted["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]
