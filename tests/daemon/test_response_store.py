"""Kept responses: continued, fetched, listed, forgotten; bounded; a broken file costs the store alone."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from neuron.daemon.store import FILE, ResponseStore, Stored
from neuron.engine.request import Generation
from neuron.errors import ResponseStoreFailed
from neuron.settings import Settings, resolve
from tests.support.callers import OPERATOR_SECRET, READER_SECRET, RING, bearer
from tests.support.fake_engine import Call, FakeEngine, Script, Think
from tests.support.node_server import NodeServer, node_server

DAY_S = 86400.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def running_node(folder: Path) -> Iterator[NodeServer]:
    with node_server(FakeEngine(), Settings(port=0, response_store=folder)) as node:
        yield node


@pytest.fixture
def client(node: NodeServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{node.url}/v1", api_key="none", max_retries=0, timeout=10, _strict_response_validation=True
    ) as client:
        yield client


def create(client: openai.OpenAI, text: Any, **said: Any) -> Any:
    return client.responses.create(**{"model": "org/tiny", "input": text, **said})


def last_messages(node: NodeServer) -> Callable[[], list[tuple[str, Any]]]:
    """Roles and texts of the newest prompt."""
    got: list[Generation] = []
    node.engine.on_submit = got.append
    return lambda: [(m["role"], m["content"]) for m in got[-1].prompt.messages]  # type: ignore[union-attr]


def test_a_conversation_goes_on_without_its_instructions(node: NodeServer, client: openai.OpenAI) -> None:
    said = last_messages(node)
    node.engine.script = Script(texts=["one"])
    first = create(client, "1?", instructions="count")
    second = create(client, "2?", previous_response_id=first.id)
    assert said() == [("user", "1?"), ("assistant", "one"), ("user", "2?")]
    assert (second.previous_response_id, second.store, second.instructions) == (first.id, True, None)
    create(client, "3?", previous_response_id=second.id)
    assert len(said()) == 5


def test_a_streamed_response_is_kept_before_its_end_is_told(node: NodeServer, client: openai.OpenAI) -> None:
    said = last_messages(node)
    *_, last = create(client, "hi", stream=True)
    create(client, "and?", previous_response_id=last.response.id, stream=False)
    assert said()[1] == ("assistant", "Hello wörld")


def test_a_tools_loop_by_reference(node: NodeServer, client: openai.OpenAI) -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
    node.engine.script = Script(texts=[Think("hm"), Call(name="f"), Call("{}")])
    first = create(client, "hi", tools=[tool])
    call = first.output[1]
    said = last_messages(node)
    node.engine.script = Script(texts=["done"])
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
    answer = create(client, [output], tools=[tool], previous_response_id=first.id)
    assert answer.output_text == "done"
    assert said() == [("user", "hi"), ("assistant", None), ("tool", "42")]


def test_it_goes_on_although_what_it_continued_is_gone(node: NodeServer, client: openai.OpenAI) -> None:
    first = create(client, "1?")
    second = create(client, "2?", previous_response_id=first.id)
    client.responses.delete(first.id)
    said = last_messages(node)
    create(client, "3?", previous_response_id=second.id)
    assert len(said()) == 5


def test_a_response_is_fetched_as_it_was_answered(node: NodeServer, client: openai.OpenAI) -> None:
    answer = create(client, "hi", metadata={"a": "b"})
    assert client.responses.retrieve(answer.id).model_dump() == answer.model_dump()


def test_a_deleted_response_is_gone(client: openai.OpenAI) -> None:
    answer = create(client, "hi")
    client.responses.delete(answer.id)
    for call in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError) as caught:
            call(answer.id)
        assert caught.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, "hi", previous_response_id=answer.id)
    assert refused.value.code == "previous_response_not_found"
    assert refused.value.param == "previous_response_id"
    assert refused.value.response.json()["code"] == "previous_response_not_found"


def test_input_items_come_in_pages_newest_first(client: openai.OpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": f"{i}"} for i in range(5)]
    items[1:1] = [
        {"role": "assistant", "content": "yes"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "out"},
    ]
    answer = create(client, items)
    page = client.responses.input_items.list(answer.id, limit=2)
    assert [len(page.data), page.has_more] == [2, True]
    texts = [item.type for item in client.responses.input_items.list(answer.id, limit=2, order="asc")]
    kinds = ["message", "message", "reasoning", "function_call", "function_call_output", *["message"] * 4]
    assert texts == kinds
    assert page.data[0].content[0].text == "4"  # type: ignore[union-attr]
    with pytest.raises(openai.BadRequestError):
        client.responses.input_items.list(answer.id, limit=101)
    with pytest.raises(openai.BadRequestError):
        client.responses.input_items.list(answer.id, order="up")  # type: ignore[arg-type]


def test_what_is_not_to_be_kept_is_not(node: NodeServer, client: openai.OpenAI) -> None:
    answer = create(client, "hi", store=False)
    assert answer.store is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_a_kept_response_is_not_streamed_again(client: openai.OpenAI) -> None:
    answer = create(client, "hi")
    with pytest.raises(openai.BadRequestError) as caught:
        list(client.responses.retrieve(answer.id, stream=True))
    assert caught.value.param == "stream"


def test_the_file_is_this_users_alone(client: openai.OpenAI, folder: Path) -> None:
    create(client, "hi")
    assert (folder / FILE).stat().st_mode & 0o077 == 0


def test_a_folder_that_is_not_there_is_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    settings = resolve({"port": 0, "response_store": folder}, {"XDG_CONFIG_HOME": str(tmp_path)})
    with node_server(FakeEngine(), settings) as node:
        assert node.post("/v1/responses", {"model": "org/tiny", "input": "x"})[2]["store"] is True
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_response_is_found_by_the_key_that_made_it_alone(tmp_path: Path) -> None:
    settings = Settings(port=0, response_store=tmp_path)
    with node_server(FakeEngine(), settings, keys=RING) as node:
        for mine, others in ((READER_SECRET, OPERATOR_SECRET), (OPERATOR_SECRET, READER_SECRET)):
            asked = {"model": "org/tiny", "input": "x"}
            path = f"/v1/responses/{node.post('/v1/responses', asked, **bearer(mine))[2]['id']}"
            for place in (path, f"{path}/input_items"):
                status, _, body = node.get(place, **bearer(others))
                assert (status, body["error"]["code"]) == (404, "response_not_found")
            assert node.request("DELETE", path, b"", bearer(others))[0] == 404
            goes_on = {**asked, "previous_response_id": path.rpartition("/")[2]}
            status, _, body = node.post("/v1/responses", goes_on, **bearer(others))
            assert (status, body["code"]) == (400, "previous_response_not_found")
            assert node.get(path, **bearer(mine))[0] == 200
            assert node.post("/v1/responses", goes_on, **bearer(mine))[0] == 200
            assert node.request("DELETE", path, b"", bearer(mine))[0] == 200


@pytest.mark.parametrize("path", ["/v1/responses/x", "/v1/responses/x/input_items"])
def test_a_node_without_a_store_has_no_responses(path: str) -> None:
    with node_server(FakeEngine()) as node:
        assert node.get(path)[0] == 404
        for said in ({"store": True}, {"previous_response_id": "resp_1"}):
            status, _, body = node.post("/v1/responses", {"model": "org/tiny", "input": "x", **said})
            assert (status, body["code"]) == (400, "chained_conversation_not_supported")
            assert body["error"]["param"] in said
        status, _, body = node.post("/v1/responses", {"model": "org/tiny", "input": "x"})
        assert (status, body["store"]) == (200, False)


def test_a_damaged_file_costs_the_store_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database at all" * 100)
    with node_server(FakeEngine(), Settings(port=0, response_store=tmp_path)) as node:
        status, _, body = node.post("/v1/responses", {"model": "org/tiny", "input": "x"})
        assert (status, body["status"], body["store"]) == (200, "completed", False)
        status, headers, body = node.get(f"/v1/responses/{body['id']}")
        assert (status, body["error"]["code"]) == (503, "response_store_failed")
        assert headers["x-should-retry"] == "false"
        assert str(tmp_path) not in str(body)
    assert "response store failed" in caplog.text


# ---- the store itself ----------------------------------------------------------------------------------------


class Clock:
    """Seconds that a test moves."""

    now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[ResponseStore]:
    store = ResponseStore(tmp_path, max_bytes=20_000, max_age_s=DAY_S, clock=clock)
    yield store
    await store.close()


def stored(name: str, n_bytes: int = 1000) -> Stored:
    return Stored(response={"id": name, "text": "x" * n_bytes}, input=[{"id": "i"}], earlier=[{"id": "e"}])


async def test_what_is_put_is_got(store: ResponseStore, clock: Clock, tmp_path: Path) -> None:
    assert await store.put(stored("a"))
    assert await store.get("a") == stored("a")
    again = ResponseStore(tmp_path, max_bytes=20_000, max_age_s=DAY_S, clock=clock)
    assert await again.get("a") == stored("a")
    await again.close()


async def test_the_oldest_go_when_it_is_full(store: ResponseStore, clock: Clock) -> None:
    for i in range(40):
        clock.now_s += 1
        assert await store.put(stored(f"r{i}"))
    kept = [i for i in range(40) if await store.get(f"r{i}")]
    assert kept == list(range(kept[0], 40))
    assert 14 <= len(kept) <= 19


async def test_what_is_old_is_gone_and_leaves_the_file(
    store: ResponseStore, clock: Clock, tmp_path: Path
) -> None:
    await store.put(stored("old"))
    clock.now_s += DAY_S + 1
    assert await store.get("old") is None
    await store.put(stored("new"))
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT id FROM responses").fetchall() == [("new",)]
    database.close()


async def test_one_larger_than_the_store_is_not_kept(
    store: ResponseStore, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put(stored("small"))
    assert not await store.put(stored("large", 30_000))
    assert await store.get("small") is not None
    assert "too large" in caplog.text


async def test_a_full_disk_is_told_and_the_next_one_is_kept(
    store: ResponseStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    await store.put(stored("before"))
    await store._do(lambda database: database.execute("PRAGMA max_page_count = 5").fetchone())
    assert not await store.put(stored("a", 15_000))
    await store._do(lambda database: database.execute("PRAGMA max_page_count = 1000").fetchone())
    assert await store.put(stored("b"))
    assert await store.get("before") is not None
    assert await store.get("a") is None
    assert "response store failed" in caplog.text


async def test_a_damaged_row_is_an_error_of_the_store(store: ResponseStore) -> None:
    await store.put(stored("a"))
    await store._do(lambda database: database.execute("UPDATE responses SET input = x'7b'").rowcount)
    with pytest.raises(ResponseStoreFailed):
        await store.get("a")


async def test_a_file_of_the_first_version_is_read_and_is_no_keys(tmp_path: Path, clock: Clock) -> None:
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute(
            "CREATE TABLE responses (id TEXT PRIMARY KEY, created_s REAL NOT NULL, n_bytes INTEGER NOT NULL,"
            " response BLOB NOT NULL, input BLOB NOT NULL, earlier BLOB NOT NULL)"
        )
        database.execute(
            "INSERT INTO responses VALUES ('old', ?, 9, x'7b7d', x'5b5d', x'5b5d')", (clock.now_s,)
        )
        database.execute("PRAGMA user_version = 1")
    database.close()
    for _ in range(2):
        store = ResponseStore(tmp_path, max_bytes=20_000, max_age_s=DAY_S, clock=clock)
        assert await store.get("old") is not None
        assert await store.of("a-key").get("old") is None
        await store.close()


async def test_a_file_of_another_version_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    store = ResponseStore(tmp_path, max_bytes=20_000, max_age_s=DAY_S, clock=clock)
    with pytest.raises(ResponseStoreFailed):
        await store.get("a")
    assert not await store.put(stored("a"))
    await store.close()


async def test_a_folder_that_cannot_be_written_is_an_error_of_the_store(tmp_path: Path, clock: Clock) -> None:
    store = ResponseStore(tmp_path / "gone" / "kept", max_bytes=20_000, max_age_s=DAY_S, clock=clock)
    with pytest.raises(ResponseStoreFailed):
        await store.get("a")
    await store.close()
