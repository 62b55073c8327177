"""One frozen `Settings`, resolved once: flags over environment over ``neuron.toml`` over defaults."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from neuron.errors import ConfigError, NeuronError, UsageError
from neuron.setting_kinds import (
    FILE,
    NEW_FILE,
    NEW_FOLDER,
    READ_LATER,
    About,
    Count,
    CountOrZero,
    Device,
    Dtype,
    Harness,
    LogFormat,
    LogLevel,
    Name,
    Port,
    Quant,
    Reference,
    Seconds,
    Url,
    key,
)
from neuron.toml_file import line_of, parsed

DEFAULT_PORT = 13131
ENV_PREFIX = "NEURON_"
OTHER_VARIABLES = frozenset(
    {
        "NEURON_API_KEY",
        "NEURON_CACHE",
        "NEURON_CONFIG",
        "NEURON_FAULT",
        "NEURON_HOST",
        "NEURON_NO_HISTORY",
        "NEURON_STATE",
        "NEURON_TESTING",
        "NEURON_TORCH_ONLY",
        "NEURON_TRACEBACK",
    }
)
"""Variables of this program that are no settings of a node."""
FOREIGN_PREFIXES = ("NEURON_RT_", "NEURON_CC_", "NEURON_PORT_", "NEURON_SERVICE_")
"""Names that an accelerator's tools, or a cluster with a service of this name, put into the environment."""


def cache_dir() -> Path:
    """Where fetched models live: ``$NEURON_CACHE``, else ``neuron`` in the user's cache folder (XDG)."""
    if own := os.environ.get("NEURON_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "neuron"


def state_dir() -> Path:
    """Where chats and keys are kept: ``$NEURON_STATE``, else what systemd gives a service, else the XDG folder."""
    if own := os.environ.get("NEURON_STATE") or os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "neuron"


def config_dir(env: Mapping[str, str] | None = None) -> Path:
    """Where a user's configuration lives: ``neuron`` in the configuration folder (XDG)."""
    home = (os.environ if env is None else env).get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "neuron"


OriginKind = Literal["default", "file", "environment", "flag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a node runs with. Sizes, counts and times carry their unit in their name.

    Each key is a flag of ``neuron serve``, a variable, and a line of the configuration file.
    """

    bind: Name = key("127.0.0.1", "Address to listen on.", "ADDRESS")
    port: Port = key(DEFAULT_PORT, "Port to listen on; 0 takes a free one.", "N")
    uds: Path | None = key(None, "Unix socket to listen on instead of an address.", "FILE", path=NEW_FILE)
    tls_cert: Path | None = key(
        None,
        "Certificate of the node and those between it and its authority, PEM.",
        "FILE",
        path=FILE,
        reloads=True,
    )
    tls_key: Path | None = key(
        None, "Key of the certificate, PEM, without a passphrase.", "FILE", path=FILE, reloads=True
    )
    insecure: bool = key(False, "Allow an address beyond loopback although no keys are configured.", "BOOL")
    keys_file: Path | None = key(
        None,
        "Who may use this node.",
        "FILE",
        unset="keys.toml in the state folder, if it exists",
        path=READ_LATER,
        reloads=True,
    )
    public_url: Url | None = key(None, "How others reach this node.", "URL", unset="http://localhost:PORT")
    allowed_hosts: tuple[Name, ...] = key(
        (), "A further name that requests may call this node; repeat it.", "NAME", flag="--allowed-host"
    )
    models: tuple[Reference, ...] = key((), "Models to load at start.", "MODEL", flag="MODEL")
    model_roots: tuple[Path, ...] = key(
        (),
        "Let paths in this folder be loaded over HTTP; repeat it.",
        "FOLDER",
        flag="--model-root",
        reloads=True,
    )
    harnesses: tuple[Harness, ...] = key(
        ("torch",),
        "What may run models; an empty list makes a node that loads none.",
        "NAME",
        flag="--harness",
    )
    device: Device = key("auto", "auto, cpu, cuda or cuda:N.", "DEVICE")
    dtype: Dtype = key("auto", "auto, float32, bfloat16 or float16.", "DTYPE")
    quant: Quant = key(
        "none", "none, int8 or int4: turn the matrices of decoders into narrower ones as they load.", "QUANT"
    )
    threads: Count | None = key(None, "Threads of the CPU kernels.", "N", unset="all cores")
    context: Count | None = key(
        None, "Upper bound on every model's context, in tokens.", "TOKENS", unset="the model's"
    )
    max_in_flight: Count = key(16, "Sequences decoded together, for each model.", "N", reloads=True)
    max_queue_depth: CountOrZero = key(
        64, "Requests that may wait for a place, for each model.", "N", reloads=True
    )
    queue_timeout_s: Seconds = key(120.0, "Longest wait in the queue.", "SECONDS", reloads=True)
    max_per_principal: Count | None = key(
        None, "Answers of one caller that may run and wait on one model.", "N", unset="no bound", reloads=True
    )
    prefill_chunk_tokens: Count = key(256, "Prompt tokens computed between two decode steps.", "TOKENS")
    kv_budget_mb: Count | None = key(
        None, "Cache memory for each model.", "MB", unset="80 % of what is free after loading"
    )
    memory_budget_mb: Count | None = key(
        None, "Memory for the weights and caches of all models together.", "MB", unset="all that is free"
    )
    ttl_s: Seconds | None = key(
        None, "Idle time after which a model is unloaded.", "SECONDS", unset="it stays loaded"
    )
    unload_when_short: bool = key(
        False, "Unload idle models, the least recently used first, where a load lacks memory.", "BOOL"
    )
    load_on_request: bool = key(
        False, "Load a model of models or models_on_request when it is asked for.", "BOOL"
    )
    models_on_request: tuple[Reference, ...] = key(
        (),
        "A model that is loaded when it is asked for first; repeat it.",
        "MODEL",
        flag="--model-on-request",
    )
    pinned: tuple[Name, ...] = key(
        (),
        "Id of a model that only an unload by its name takes out of memory; repeat it.",
        "ID",
        flag="--pin",
    )
    prefix_cache_mb: CountOrZero | None = key(
        None,
        "Memory for each model that keeps the cache of earlier prompts, for those that begin the same; 0: none.",
        "MB",
        unset="an eighth of the cache memory, at most 1,024",
    )
    speculation: bool = key(
        True, "Guess what repeats earlier text and check several tokens in a step; on a CPU.", "BOOL"
    )
    exact_prompts: bool = key(
        False,
        "Compute prompts of quantised models in float32 throughout, not in 16-bit integers; on a CPU.",
        "BOOL",
    )
    response_store: Path | None = key(
        None,
        "Folder in which /v1/responses are kept for previous_response_id; made if only its parent exists.",
        "FOLDER",
        unset="nothing is kept",
        path=NEW_FOLDER,
    )
    response_store_mb: Count = key(256, "Most that kept responses may take; the oldest go first.", "MB")
    response_store_days: Count = key(30, "How long a response is kept.", "DAYS")
    requests_kept: CountOrZero = key(1000, "Requests that ended and that are still told of.", "N")
    log_prompts: bool = key(
        False, "Keep the text of prompts and answers with them; it is never written to the log.", "BOOL"
    )
    drain_s: Seconds = key(
        25.0, "How long running answers may go on after a stop or an unload.", "SECONDS", reloads=True
    )
    hang_s: Seconds = key(120.0, "The process ends itself when nothing in it moved for so long.", "SECONDS")
    stall_s: Seconds = key(
        60.0, "A decode step older than this makes /health answer 503.", "SECONDS", reloads=True
    )
    max_body_bytes: Count = key(8 << 20, "Largest body of a generation request.", "BYTES", reloads=True)
    log_level: LogLevel = key("info", "debug, info, warning or error.", "LEVEL", reloads=True)
    log_format: LogFormat = key(
        "auto",
        "text, json, journal, or auto: text on a terminal, journal under systemd, else JSON.",
        "FORMAT",
    )
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each value that is no default was said: ``--port``, ``NEURON_PORT``, ``/etc/neuron.toml:3``."""

    def place(self, name: str) -> str:
        """How a message names a key: ``--port``, ``NEURON_PORT``, ``/etc/neuron.toml:3: port``, else ``port``."""
        return _place(name, self.origins.get(name))

    def kind(self, name: str) -> OriginKind:
        """Where the value of a key comes from."""
        return _kind(name, self.origins.get(name))

    def refusal(self, name: str, message: str, hint: str | None = None) -> NeuronError:
        """The error of a value that can't be taken: of usage if a flag said it, else of the configuration."""
        error = UsageError if self.kind(name) == "flag" else ConfigError
        return error(f"{self.place(name)}: {message}", hint=hint, param=name)


ABOUT: Mapping[str, About] = {f.name: f.metadata["about"] for f in fields(Settings) if f.name != "origins"}
"""Every key, in order, with what is said of it."""
KEYS = tuple(ABOUT)
HINTS: Mapping[str, Any] = get_type_hints(Settings, include_extras=True)


def flag_of(name: str) -> str:
    """How ``neuron serve`` spells a key: ``--max-in-flight``."""
    return ABOUT[name].flag or "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """How the environment spells a key: ``NEURON_MAX_IN_FLIGHT``."""
    return ENV_PREFIX + name.upper()


def is_list(name: str) -> bool:
    """Whether a key takes several values."""
    return get_origin(HINTS[name]) is tuple


def default_words(name: str) -> str:
    """What holds where nothing is said of a key, for people."""
    match getattr(Settings(), name):
        case None | ():
            return ABOUT[name].unset
        case bool(default):
            return "on" if default else "off"
        case tuple(default):
            return ", ".join(default)
        case float(default):
            return f"{default:g}"
        case default:
            return str(default)


def resolve(flags: Mapping[str, Any], env: Mapping[str, str], file: Path | None = None) -> Settings:
    """Every value from the strongest place that says it; None in ``flags`` means "not said".

    ``file`` is what ``--config`` names; without it ``$NEURON_CONFIG``, then ``neuron.toml`` in the user's
    configuration folder, if it exists.

    Raises:
        ConfigError: a file or variable with an unknown key, a wrong type or a value out of range.
        UsageError: the same of a flag.
    """
    settings, wrong = read(flags, env, file)
    if wrong:
        raise wrong[0]
    return settings


def read(
    flags: Mapping[str, Any], env: Mapping[str, str], file: Path | None = None
) -> tuple[Settings, list[NeuronError]]:
    """The same, with every mistake instead of the first. A value with a mistake is left out, and ``param`` of its
    error names the key; what is no value has none."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    wrong: list[NeuronError] = []
    for said in (*_from_file(config_file(env, file)), *_from_env(env), *_from_flags(flags)):
        try:
            if isinstance(said, NeuronError):
                raise said
            values[said.key], origins[said.key] = said.value(), said.origin
        except NeuronError as e:
            wrong.append(e)
    return Settings(**values, origins=origins), wrong


def config_file(env: Mapping[str, str], file: Path | None = None) -> Path | None:
    """The configuration file that counts; one that was named need not exist, the default one must."""
    if file is not None:
        return file
    if named := env.get("NEURON_CONFIG"):
        return Path(named).expanduser()
    default = config_dir(env) / "neuron.toml"
    return default if default.exists() else None


@dataclass(frozen=True, slots=True)
class _Said:
    """One value as some place says it."""

    key: str
    raw: Any
    origin: str
    error: type[NeuronError] = ConfigError
    base: Path = Path()
    """What a relative path is relative to."""
    from_text: bool = False
    """True where everything is text, as in the environment."""

    def value(self) -> Any:
        """The typed value; raises ``error`` naming the origin and what was expected."""
        raw = _split(self.raw) if self.from_text and is_list(self.key) else self.raw
        try:
            return msgspec.convert(raw, HINTS[self.key], strict=not self.from_text, dec_hook=self._path)
        except msgspec.ValidationError as e:
            expected = _expected(HINTS[self.key])
            raise self._refusal(f"{self.raw!r} is not {expected}") from e

    def _path(self, kind: type, raw: Any) -> Path:
        if not isinstance(raw, str | Path) or not str(raw):
            raise ValueError("expected a path")
        path, wanted = self.base / Path(raw).expanduser(), ABOUT[self.key].path
        try:
            there = wanted.there(path)
        except OSError as e:  # a folder that this user can't look into
            raise self._refusal(f"{path}: {e.strerror}") from e
        if not there:
            raise self._refusal(f"there is no {wanted.words} {path}", wanted.hint)
        return path

    def _refusal(self, message: str, hint: str | None = None) -> NeuronError:
        return self.error(f"{_place(self.key, self.origin)}: {message}", hint=hint, param=self.key)


def _kind(name: str, origin: str | None) -> OriginKind:
    said: dict[str | None, OriginKind] = {
        None: "default",
        flag_of(name): "flag",
        variable_of(name): "environment",
    }
    return said.get(origin, "file")


def _place(name: str, origin: str | None) -> str:
    match _kind(name, origin):
        case "default":
            return name
        case "file":
            return f"{origin}: {name}"
        case _:
            return str(origin)


def _split(raw: Any) -> Any:
    """The items of a list that is one text, as in the environment."""
    return [part.strip() for part in raw.split(",") if part.strip()] if isinstance(raw, str) else raw


def _expected(hint: Any) -> str:
    """What a value of this type is, in words: ``a port, 0 to 65535``."""
    if get_origin(hint) is tuple:
        return f"a list whose items are each {_expected(get_args(hint)[0])}"
    for part in (hint, *get_args(hint)):
        if get_origin(part) is Annotated:
            return next(str(m.description) for m in get_args(part) if isinstance(m, Meta))
    return {bool: "true or false", Path: "a path", Path | None: "a path"}.get(hint, "what this key takes")


def _from_flags(flags: Mapping[str, Any]) -> list[_Said]:
    said = ((k, v) for k, v in flags.items() if v is not None)
    return [_Said(k, v, flag_of(k), error=UsageError, from_text=True) for k, v in said]


def _from_env(env: Mapping[str, str]) -> list[_Said | NeuronError]:
    """``NEURON_<KEY>``, lists separated by commas.

    Other programs use the prefix too, so an unknown variable is an error only where it is nearly one of ours.
    """
    known = {variable_of(key): key for key in KEYS}
    strange = [
        _near_miss(name, [*known, *OTHER_VARIABLES])
        for name in env
        if name.startswith(ENV_PREFIX) and not name.startswith(FOREIGN_PREFIXES)
    ]
    said = [_Said(key, env[name], name, from_text=True) for name, key in known.items() if env.get(name)]
    return [*filter(None, strange), *said]


def _near_miss(name: str, known: list[str]) -> NeuronError | None:
    near = [] if name in known else difflib.get_close_matches(name, known, n=1, cutoff=0.9)
    if not near:
        return None
    return ConfigError(f"{name}: no such setting in the environment", hint=f"did you mean {near[0]}?")


def _from_file(path: Path | None) -> list[_Said | NeuronError]:
    if path is None:
        return []
    try:
        text = _read_config(path)
        return [_said_in_file(path, text, key, value) for key, value in parsed(path, text).items()]
    except ConfigError as e:
        return [e]


def _read_config(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not UTF-8: {e.reason}") from e
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}", hint="--config and NEURON_CONFIG name this file") from e


def _said_in_file(path: Path, text: str, key: str, value: Any) -> _Said | NeuronError:
    origin = f"{path}:{line_of(text, key)}"
    if key not in KEYS:
        table = ": there are no tables" if isinstance(value, dict) else ""
        near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.6 if table else 0.5)
        others = "write the keys without a header" if table else "the keys are " + ", ".join(KEYS)
        hint = f"did you mean {near[0]}?" if near else others
        return ConfigError(f"{origin}: unknown key {key!r}{table}", hint=hint)
    return _Said(key, value, origin, base=path.absolute().parent)
