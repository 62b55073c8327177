"""Chat without a terminal: prompts, pipes, JSON, and where the model runs."""

import json
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from neuron.cli.chat import question_from
from neuron.engine.request import ChatPrompt, Sampling
from neuron.errors import DeviceFault, QueueFull, UnsupportedParameter, UsageError
from tests.support.cli import PROGRAM, environment, free_port, neuron
from tests.support.fake_engine import Script, Think
from tests.support.node_server import NodeServer, eventually


def messages(node: NodeServer) -> list[dict[str, object]]:
    prompt = node.engine.streams[-1].generation.prompt
    assert isinstance(prompt, ChatPrompt)
    return [dict(message) for message in prompt.messages]


def test_a_prompt_is_answered_on_stdout_and_nothing_else_is_there(node: NodeServer) -> None:
    done = neuron("chat", "org/tiny", "Hi", "--host", node.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello wörld\n", "")
    assert messages(node) == [{"role": "user", "content": "Hi"}]


def test_the_only_loaded_model_needs_no_name(node: NodeServer) -> None:
    assert neuron("chat", "--host", node.url, stdin="Hi\n").stdout == "Hello wörld\n"
    node.engine.models["org/other"] = node.engine.loaded("org/other")
    done = neuron("chat", "--host", node.url, stdin="Hi\n")
    assert done.returncode == 64
    assert "org/tiny" in done.stderr
    assert "org/other" in done.stderr


@pytest.mark.parametrize("go_on", [("-c",), ("--session", "s")])
def test_a_text_alone_goes_on_with_a_session_and_its_model(
    node: NodeServer, tmp_path: Path, go_on: tuple[str, ...]
) -> None:
    def chat(*args: str, stdin: str = "") -> str:
        done = neuron("chat", *args, "--host", node.url, env={"NEURON_STATE": str(tmp_path)}, stdin=stdin)
        assert (done.returncode, done.stdout) == (0, "Hello wörld\n"), done.stderr
        return str(messages(node)[-1]["content"])

    for model in ("other", "one"):
        node.engine.models[model] = node.engine.loaded(model)
    chat("one", "Hi", "--session", "s")
    assert chat(*go_on, "again") == "again"
    assert len(messages(node)) == 3
    assert chat(*go_on, "and again?", stdin="b\n") == "and again?\n\nb"
    assert node.engine.streams[-1].generation.model_id == "one"
    assert chat(*go_on, "other", "once more") == "once more"
    assert node.engine.streams[-1].generation.model_id == "other"
    assert chat(*go_on, "one", stdin="piped") == "piped"
    assert node.engine.streams[-1].generation.model_id == "one"


def test_a_text_in_the_form_of_a_repository_is_a_model_and_that_is_told(
    node: NodeServer, tmp_path: Path
) -> None:
    env = {"NEURON_STATE": str(tmp_path)}
    node.engine.models["one"] = node.engine.loaded("one")
    assert neuron("chat", "one", "Hi", "--session", "s", "--host", node.url, env=env).returncode == 0
    done = neuron("chat", "-c", "and/or", "--host", node.url, env=env)
    assert "and/or is taken for a model; to ask it, name the model first" in done.stderr
    said = neuron("chat", "-c", "one", "and/or", "--host", node.url, env=env)
    assert (messages(node)[-1]["content"], said.stderr) == ("and/or", "")
    quiet = neuron("chat", "-c", "org/tiny", "--host", node.url, env=env, stdin="Hi")
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_a_text_alone_is_no_prompt_where_no_session_says_the_model(node: NodeServer, tmp_path: Path) -> None:
    env = {"NEURON_STATE": str(tmp_path)}
    done = neuron("chat", "--session", "new", "Why is it so?", "--host", node.url, env=env)
    assert (done.returncode, done.stdout) == (64, "")
    assert "name the model first" in done.stderr


def test_what_is_piped_follows_the_prompt(node: NodeServer) -> None:
    neuron("chat", "org/tiny", "Summarise:", "--host", node.url, stdin="line 1\nline 2\n")
    assert messages(node)[-1]["content"] == "Summarise:\n\nline 1\nline 2"


@pytest.mark.parametrize(
    ("prompt", "piped", "expected"),
    [(None, None, None), ("a", None, "a"), (None, "b\n", "b"), ("a", "", "a"), ("a", "b", "a\n\nb")],
)
def test_prompt_and_pipe_make_one_question(
    prompt: str | None, piped: str | None, expected: str | None
) -> None:
    assert question_from(prompt, piped) == expected


@pytest.mark.parametrize(("prompt", "piped"), [("", None), (None, ""), (None, "\n \n"), ("", "")])
def test_an_empty_question_is_refused(prompt: str | None, piped: str | None) -> None:
    with pytest.raises(UsageError):
        question_from(prompt, piped)


def test_sampling_and_system_reach_the_engine(node: NodeServer) -> None:
    flags = "--temperature 0.5 --top-p 0.9 --top-k 5 --min-p 0.1 --max-tokens 7 --seed 3 --stop X --stop Y"
    neuron("chat", "org/tiny", "Hi", *flags.split(), "--system", "Be", "--host", node.url)
    asked = node.engine.streams[-1].generation
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 5, 0.1)
    assert (sampling.seed, asked.max_tokens, asked.stop) == (3, 7, ("X", "Y"))
    assert messages(node)[0] == {"role": "system", "content": "Be"}


def test_a_value_out_of_range_is_refused_by_name(node: NodeServer) -> None:
    done = neuron("chat", "org/tiny", "Hi", "--temperature", "-1", "--host", node.url)
    assert (done.returncode, done.stdout) == (64, "")
    assert "temperature" in done.stderr


def test_json_is_one_object_with_the_usage(node: NodeServer) -> None:
    shown = json.loads(neuron("chat", "org/tiny", "Hi", "--json", "--host", node.url).stdout)
    assert (shown["model"], shown["content"], shown["finish_reason"]) == ("org/tiny", "Hello wörld", "stop")
    assert shown["usage"]["completion_tokens"] == 3


def test_a_limit_of_tokens_and_the_counts_are_told_on_stderr(node: NodeServer) -> None:
    node.engine.script = Script(reason="length")
    done = neuron("chat", "org/tiny", "Hi", "--stats", "--host", node.url)
    assert done.stdout == "Hello wörld\n"
    assert "limit of tokens" in done.stderr
    assert "3 answer tokens" in done.stderr


def test_a_model_that_is_not_loaded_is_loaded_first_and_that_is_said(node: NodeServer) -> None:
    done = neuron("chat", "org/new", "Hi", "--host", node.url)
    assert (done.returncode, done.stdout) == (0, "Hello wörld\n")
    assert "loading it there" in done.stderr
    assert node.engine.loads[-1][0].model_id == "org/new"


def test_a_named_node_that_is_not_there_is_never_replaced() -> None:
    done = neuron("chat", "org/tiny", "Hi", "--host", f"127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (69, "")
    assert "no node answers" in done.stderr


def test_control_sequences_of_a_model_are_taken_out_unless_raw(node: NodeServer) -> None:
    node.engine.script = Script(texts=["a\x1b]52;c;", "QUJD\x07b\x1b", "[31mc\r\x9b2Jd"])
    assert neuron("chat", "org/tiny", "Hi", "--host", node.url).stdout == "abcd\n"
    raw = neuron("chat", "org/tiny", "Hi", "--raw", "--host", node.url).stdout
    assert raw == "a\x1b]52;c;QUJD\x07b\x1b[31mc\r\x9b2Jd\n"


def test_a_failure_keeps_what_was_shown_and_says_so(node: NodeServer) -> None:
    node.engine.script = Script(fail=DeviceFault("boom"))
    done = neuron("chat", "org/tiny", "Hi", "--host", node.url)
    assert (done.returncode, done.stdout) == (1, "Hello wörld\n")
    assert done.stderr.startswith("neuron: ")
    node.engine.script = Script(refuse=QueueFull("the queue is full"))
    done = neuron("chat", "org/tiny", "Hi", "--host", node.url)
    assert (done.returncode, done.stdout) == (75, "")


def test_a_pipe_that_closes_stops_the_answer_quietly(node: NodeServer) -> None:
    node.engine.script = Script(texts=["line\n"] * 500, step_s=0.01)
    chat = subprocess.Popen(
        [*PROGRAM, "chat", "org/tiny", "Hi", "--host", node.url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert chat.stdout is not None
    assert chat.stderr is not None
    assert chat.stdout.readline() == b"line\n"
    chat.stdout.close()
    assert chat.wait(10) == 141
    assert chat.stderr.read() == b""
    chat.stderr.close()
    eventually(node.engine.streams[-1].left.is_set)


def test_a_pipe_that_is_not_text_is_refused(node: NodeServer) -> None:
    done = neuron(
        "chat",
        "org/tiny",
        "--host",
        node.url,
        stdin=b"\xff\xfe\x00",
        env={"PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 64
    assert "not text" in done.stderr


def test_the_first_block_of_code_is_extracted(node: NodeServer) -> None:
    node.engine.script = Script(texts=["Here:\n```", "sh\nls -l\n", "# ok\n```\n", "and\n```\nmore\n```\n"])
    done = neuron("chat", "org/tiny", "Hi", "-x", "--host", node.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ls -l\n# ok\n", "")


@pytest.mark.parametrize(
    ("texts", "says"), [(["no code"], "has no code block"), (["```sh\nls"], "code block was cut off")]
)
def test_no_whole_block_of_code_is_exit_1_and_no_output(
    node: NodeServer, texts: list[str], says: str
) -> None:
    node.engine.script = Script(texts=texts, reason="length")
    done = neuron("chat", "org/tiny", "Hi", "--extract", "--host", node.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def test_a_schema_goes_into_the_request_and_the_answer_comes_out(node: NodeServer, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    node.engine.script = Script(texts=['{"a"', ": 1}"])
    done = neuron("chat", "org/tiny", "--schema", "s.json", "--host", node.url, stdin="Hi", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {"a": 1}, "")
    constraint = node.engine.streams[-1].generation.constraint
    assert constraint is not None
    assert str(SCHEMA) in str(constraint)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (Script(texts=['{"a"'], reason="length"), "was cut off"),
        (Script(texts=["no JSON"]), "is not JSON"),
        (
            Script(refuse=UnsupportedParameter("no grammar here", param="response_format")),
            "can't be held to this schema",
        ),
    ],
)
def test_an_answer_that_does_not_fit_the_schema_is_exit_1_and_no_output(
    node: NodeServer, tmp_path: Path, script: Script, says: str
) -> None:
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    node.engine.script = script
    done = neuron("chat", "org/tiny", "Hi", "--schema", "s.json", "--host", node.url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--schema", "missing.json"], "missing.json: No such file"),
        (["--schema", "bad.json"], "not valid JSON"),
        (["-x", "--json"], "--extract and --json exclude each other"),
        (["-c", "--session", "s"], "--continue and --session exclude each other"),
        (["--session", "../s"], "no name for a session"),
        (["--list"], "--list asks no model, so it takes no MODEL"),
    ],
)
def test_what_can_not_be_meant_is_exit_64(tmp_path: Path, args: list[str], says: str) -> None:
    (tmp_path / "bad.json").write_text("{")
    done = neuron("chat", "m", "Hi", *args, cwd=tmp_path, env={"NEURON_STATE": str(tmp_path)})
    assert (done.returncode, done.stdout) == (64, "")
    assert says in done.stderr


def test_reasoning_goes_to_stderr_to_json_or_nowhere(node: NodeServer) -> None:
    node.engine.script = Script(texts=[Think("hm"), "yes"])
    done = neuron("chat", "org/tiny", "Hi", "--host", node.url)
    assert (done.stdout, done.stderr) == ("yes\n", "hm\n")
    shown = json.loads(neuron("chat", "org/tiny", "Hi", "--json", "--host", node.url).stdout)
    assert (shown["content"], shown["reasoning"]) == ("yes", "hm")
    done = neuron("chat", "org/tiny", "Hi", "--no-reasoning", "--host", node.url)
    assert (done.stdout, done.stderr) == ("yes\n", "")
    prompt = node.engine.streams[-1].generation.prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.template_kwargs == {"enable_thinking": False}


def test_a_single_question_goes_on_with_a_session_that_is_named(node: NodeServer, tmp_path: Path) -> None:
    for question in ("one", "two"):
        args = ("chat", "org/tiny", question, "--session", "s", "--host", node.url)
        assert neuron(*args, env={"NEURON_STATE": str(tmp_path)}).returncode == 0
    assert [m["content"] for m in messages(node)] == ["one", "Hello wörld", "two"]
    neuron("chat", "-c", "--host", node.url, stdin="three", env={"NEURON_STATE": str(tmp_path)})
    assert [m["content"] for m in messages(node)][-1] == "three"
    assert len(messages(node)) == 5


def test_usage_is_one_line_on_stderr_by_either_name(node: NodeServer) -> None:
    for flag in ("--usage", "--stats"):
        done = neuron("chat", "org/tiny", "Hi", flag, "--host", node.url)
        assert done.stdout == "Hello wörld\n"
        assert done.stderr.count("\n") == 1
        assert "7 prompt tokens" in done.stderr


def test_penalties_reach_the_engine(node: NodeServer) -> None:
    flags = "--repetition-penalty 1.5 --presence-penalty 0.5 --frequency-penalty -0.5"
    neuron("chat", "org/tiny", "Hi", *flags.split(), "--host", node.url)
    sampling = node.engine.streams[-1].generation.sampling
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (
        1.5,
        0.5,
        -0.5,
    )


@pytest.mark.parametrize("more", [["-c"], ["--system", "x"], ["--top-p", "0.5"], ["-x"], ["--session", "s"]])
def test_a_list_takes_nothing_that_is_asked(tmp_path: Path, more: list[str]) -> None:
    done = neuron("chat", "--list", *more, env={"NEURON_STATE": str(tmp_path), "NEURON_HOST": "gpu1"})
    assert (done.returncode, done.stdout) == (64, "")
    assert "--list asks no model" in done.stderr
    assert (
        neuron("chat", "--list", env={"NEURON_STATE": str(tmp_path), "NEURON_HOST": "gpu1"}).returncode == 0
    )


def test_the_line_of_usage_goes_to_stderr_beside_json_too(node: NodeServer) -> None:
    done = neuron("chat", "org/tiny", "Hi", "--json", "--usage", "--host", node.url)
    assert json.loads(done.stdout)["usage"]["completion_tokens"] == 3
    assert done.stderr.count("\n") == 1
    assert "3 answer tokens" in done.stderr


@pytest.mark.parametrize(
    ("recommended", "flags", "sent"),
    [
        (Sampling(), [], (0.7, 0.95)),
        (Sampling(top_p=0.8), [], (0.7, None)),
        (Sampling(temperature=0.6), [], (None, None)),
        (Sampling(), ["--temperature", "1"], (1, 0.95)),
        (Sampling(temperature=0.6), ["--top-p", "0.5"], (None, 0.5)),
        (None, [], (None, None)),
    ],
)
def test_where_the_model_recommends_no_temperature_a_chat_takes_a_moderate_one(
    node: NodeServer, recommended: Sampling | None, flags: list[str], sent: tuple[float | None, float | None]
) -> None:
    model = replace(node.engine.models["org/tiny"], sampling=recommended)
    node.engine.models["org/tiny"] = model
    neuron("chat", "org/tiny", "Hi", *flags, "--host", node.url)
    sampling = node.engine.streams[-1].generation.sampling
    assert (sampling.temperature, sampling.top_p) == sent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_chat_keeps_the_part_that_was_shown(
    node: NodeServer, tmp_path: Path, number: signal.Signals
) -> None:
    node.engine.script = Script(texts=["part "] * 500, step_s=0.02)
    chat = subprocess.Popen(
        [*PROGRAM, "chat", "org/tiny", "Hi", "--session", "s", "--host", node.url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment(NEURON_STATE=str(tmp_path)),
    )
    assert chat.stdout is not None
    assert chat.stdout.read(10) == b"part part "
    chat.send_signal(number)
    assert chat.wait(10) == -number
    chat.stdout.close()
    last = json.loads((tmp_path / "sessions" / "s.jsonl").read_text().splitlines()[-1])
    assert last["stopped"] is True
    assert last["content"].startswith("part part ")
    eventually(node.engine.streams[-1].left.is_set)
