"""Settings: who wins, what is refused, and where each value came from."""

from dataclasses import replace
from pathlib import Path

import pytest

from neuron.cli.app import program
from neuron.engine.harness import HARNESSES
from neuron.errors import ConfigError, UsageError
from neuron.setting_kinds import FILE
from neuron.settings import ABOUT, KEYS, Settings, default_words, flag_of, read, resolve

NO_FILE = {"XDG_CONFIG_HOME": "/nonexistent"}


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "neuron.toml"
    path.write_text(text)
    return path


def test_without_anything_said_the_defaults_hold() -> None:
    settings = resolve({}, NO_FILE)
    assert settings == Settings()
    assert not settings.origins


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = config(tmp_path, "# a node\nport = 1\nthreads = 1\ncontext = 1\n")
    settings = resolve({"port": 3, "bind": None}, {"NEURON_PORT": "2", "NEURON_THREADS": "2"}, file)
    assert (settings.port, settings.threads, settings.context) == (3, 2, 1)
    assert settings.origins == {"port": "--port", "threads": "NEURON_THREADS", "context": f"{file}:4"}


def test_the_file_is_found_by_variable_and_by_its_usual_place(tmp_path: Path) -> None:
    file = config(tmp_path, "port = 5")
    assert resolve({}, {**NO_FILE, "NEURON_CONFIG": str(file)}).port == 5
    (tmp_path / "neuron").mkdir()
    (tmp_path / "neuron" / "neuron.toml").write_text("port = 6")
    assert resolve({}, {"XDG_CONFIG_HOME": str(tmp_path)}).port == 6
    assert resolve({}, {"XDG_CONFIG_HOME": str(tmp_path)}, file).port == 5


@pytest.mark.parametrize(
    ("name", "text", "key", "expected"),
    [
        ("NEURON_INSECURE", "true", "insecure", True),
        ("NEURON_INSECURE", "0", "insecure", False),
        ("NEURON_DRAIN_S", "2.5", "drain_s", 2.5),
        ("NEURON_MODELS", "a/b, c", "models", ("a/b", "c")),
        ("NEURON_MODEL_ROOTS", "/tmp", "model_roots", (Path("/tmp"),)),
        ("NEURON_PORT", "", "port", 13131),
        ("NEURON_DEVICE", "cuda:1", "device", "cuda:1"),
        ("NEURON_HARNESSES", ",", "harnesses", ()),
    ],
)
def test_the_environment_is_typed(name: str, text: str, key: str, expected: object) -> None:
    assert getattr(resolve({}, {**NO_FILE, name: text}), key) == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("port = '80'", "a port, 0 to 65535"),
        ("port = 65536", "a port, 0 to 65535"),
        ("port = -1", "a port, 0 to 65535"),
        ("port = true", "a port, 0 to 65535"),
        ("insecure = 1", "true or false"),
        ("threads = 0", "a whole number, 1 or more"),
        ("threads = 1.5", "a whole number, 1 or more"),
        ("drain_s = nan", "a number of seconds above 0"),
        ("drain_s = inf", "a number of seconds above 0"),
        ("stall_s = 0", "a number of seconds above 0"),
        ("dtype = 'int8'", "one of auto, float32, bfloat16, float16"),
        ("device = 'tpu'", "auto, cpu, cuda or cuda:N"),
        ("log_level = 'loud'", "one of debug, info"),
        ("models = 'smollm2'", "a list whose items are each a model reference"),
        ("models = [1]", "a list whose items are each a model reference"),
        ("model_roots = ['/nonexistent']", "there is no folder /nonexistent"),
        ("response_store = '/nonexistent/a'", "there is no folder /nonexistent/a"),
        ("response_store = 'neuron.toml'", "there is no folder"),
        ("public_url = 'gpu1'", "a URL that begins http:// or https://"),
        ("bind = ''", "a name without spaces"),
        ("harnesses = ['vllm']", "a harness of this build, which has: torch"),
    ],
)
def test_a_bad_value_is_refused_by_file_line_and_key(tmp_path: Path, line: str, says: str) -> None:
    file = config(tmp_path, f"\n# comment\n{line}\n")
    with pytest.raises(ConfigError) as refused:
        resolve({}, {}, file)
    key = line.split()[0]
    assert refused.value.message.startswith(f"{file}:3: {key}: ")
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("text", "line", "near"),
    [("prot = 1", 1, "port"), ("port = 1\nthread = 2", 2, "threads"), ("\n[model]\na = 1", 2, "models")],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(
    tmp_path: Path, text: str, line: int, near: str
) -> None:
    file = config(tmp_path, text)
    with pytest.raises(ConfigError, match="unknown key") as refused:
        resolve({}, {}, file)
    assert refused.value.message.startswith(f"{file}:{line}:")
    assert refused.value.hint == f"did you mean {near}?"


def test_a_file_that_is_no_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    file = config(tmp_path, "port = 1\nwhat is this\n")
    with pytest.raises(ConfigError, match=f"{file}:2: not valid TOML"):
        resolve({}, {}, file)


def test_a_named_file_must_be_there_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        resolve({}, {}, tmp_path / "missing.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        resolve({}, {}, binary)


def test_a_relative_model_root_is_relative_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    file = config(tmp_path, "model_roots = ['models']")
    assert resolve({}, {}, file).model_roots == (tmp_path / "models",)


def test_a_misspelt_variable_is_refused_and_a_stranger_is_not() -> None:
    with pytest.raises(ConfigError) as refused:
        resolve({}, {**NO_FILE, "NEURON_THREAD": "2"})
    assert refused.value.hint == "did you mean NEURON_THREADS?"
    strangers = {"NEURON_RT_LOG_LEVEL": "1", "NEURON_SERVICE_HOST": "x", "NEURON_PORT_13131_TCP": "x"}
    assert resolve({}, {**NO_FILE, **strangers}) == Settings()


def test_a_bad_flag_is_an_error_of_usage() -> None:
    with pytest.raises(UsageError, match=r"^--port: 99999 is not a port"):
        resolve({"port": 99999}, NO_FILE)


def test_every_key_can_be_said_in_the_environment_and_in_the_file(tmp_path: Path) -> None:
    plain = {key: getattr(Settings(), key) for key in KEYS}
    said = {k: v for k, v in plain.items() if isinstance(v, str | int | float) and not isinstance(v, bool)}
    resolve({}, {**NO_FILE, **{f"NEURON_{k.upper()}": str(v) for k, v in said.items()}})
    lines = [f"{k} = {v!r}" for k, v in said.items()]
    assert set(resolve({}, {}, config(tmp_path, "\n".join(lines))).origins) == set(said)


def test_every_key_is_an_option_of_serve_with_its_words_and_its_default() -> None:
    context = program().commands["serve"].make_context("serve", [])
    taken = {param.name: param for param in context.command.params}
    assert set(taken) == {*KEYS, "config"}
    for key in KEYS:
        record = " ".join(taken[key].get_help_record(context))
        assert ABOUT[key].help.rstrip(".") in record
        assert flag_of(key) in record
        assert key == "models" or f"[{default_words(key)}]" in record


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_described_in_a_sentence(key: str) -> None:
    about = ABOUT[key]
    assert about.help.endswith(".")
    assert about.metavar.isupper()
    assert default_words(key)


@pytest.mark.parametrize(
    ("args", "key", "expected"),
    [
        (["--max-in-flight", "4"], "max_in_flight", 4),
        (["--drain-s", "2.5"], "drain_s", 2.5),
        (["--insecure"], "insecure", True),
        (["--no-insecure"], "insecure", False),
        (["--harness", "torch", "--harness", "torch"], "harnesses", ("torch", "torch")),
        (["--pin", "a", "--pin", "b"], "pinned", ("a", "b")),
        (["a,b", "c"], "models", ("a,b", "c")),
    ],
)
def test_a_flag_has_the_type_of_its_key(args: list[str], key: str, expected: object) -> None:
    said = program().commands["serve"].make_context("serve", args).params
    settings = resolve({k: v for k, v in said.items() if k in KEYS and v not in (None, [], ())}, NO_FILE)
    assert getattr(settings, key) == expected
    assert settings.origins == {key: flag_of(key)}


def test_every_mistake_is_found_and_the_rest_holds(tmp_path: Path) -> None:
    file = config(tmp_path, "prot = 1\nthreads = 0\ncontext = 9\n")
    settings, wrong = read({"port": "x"}, {"NEURON_THREAD": "1", "NEURON_DTYPE": "int8"}, file)
    assert [error.message.partition(" ")[0] for error in wrong] == [
        f"{file}:1:",
        f"{file}:2:",
        "NEURON_THREAD:",
        "NEURON_DTYPE:",
        "--port:",
    ]
    assert [error.param for error in wrong] == [None, "threads", None, "dtype", "port"]
    assert settings == Settings(context=9)
    assert settings.origins == {"context": f"{file}:3"}


def test_every_value_has_a_kind_of_origin_and_a_place(tmp_path: Path) -> None:
    file = config(tmp_path, "context = 9\n")
    settings = resolve({"port": 3}, {"NEURON_THREADS": "1"}, file)
    kinds = [settings.kind(key) for key in ("port", "threads", "context", "bind")]
    assert kinds == ["flag", "environment", "file", "default"]
    places = [settings.place(key) for key in ("port", "threads", "context", "bind")]
    assert places == ["--port", "NEURON_THREADS", f"{file}:1: context", "bind"]


def test_a_folder_that_may_not_be_looked_into_is_an_error_of_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setitem(ABOUT, "tls_key", replace(ABOUT["tls_key"], path=replace(FILE, there=refuses)))
    with pytest.raises(ConfigError, match=r"^NEURON_TLS_KEY: /secret/key: Permission denied$"):
        resolve({}, {**NO_FILE, "NEURON_TLS_KEY": "/secret/key"})


def test_the_harnesses_that_settings_take_are_those_of_the_engine() -> None:
    for name in HARNESSES:
        assert resolve({"harnesses": [name]}, NO_FILE).harnesses == (name,)


def test_a_flag_wins_over_a_variable_that_says_the_contrary() -> None:
    assert resolve({"insecure": False}, {**NO_FILE, "NEURON_INSECURE": "true"}).insecure is False


def test_a_flag_of_the_wrong_type_says_what_it_takes() -> None:
    with pytest.raises(UsageError, match=r"^--drain-s: 'soon' is not a number of seconds above 0"):
        resolve({"drain_s": "soon"}, NO_FILE)
