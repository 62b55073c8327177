"""One frozen `Settings`, resolved once: flags over environment over ``neuron.toml`` over defaults."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from neuron.errors import ConfigError, NeuronError, UsageError

DEFAULT_PORT = 13131
ENV_PREFIX = "NEURON_"
OTHER_VARIABLES = frozenset(
    {
        "NEURON_API_KEY",
        "NEURON_CACHE",
        "NEURON_CONFIG",
        "NEURON_HOST",
        "NEURON_NO_HISTORY",
        "NEURON_STATE",
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


Port = Annotated[int, Meta(ge=0, le=65535, description="a port, 0 to 65535 (0 takes a free one)")]
Count = Annotated[int, Meta(ge=1, description="a whole number, 1 or more")]
CountOrZero = Annotated[int, Meta(ge=0, description="a whole number, 0 or more")]
Seconds = Annotated[float, Meta(gt=0, le=86400 * 365, description="a number of seconds above 0")]
Device = Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")]
Dtype = Annotated[
    str,
    Meta(pattern="^(auto|float32|bfloat16|float16)$", description="one of auto, float32, bfloat16, float16"),
]
Url = Annotated[
    str, Meta(pattern=r"^https?://[^\s/]+\S*$", description="a URL that begins http:// or https://")
]
LogLevel = Annotated[
    str, Meta(pattern="^(debug|info|warning|error)$", description="one of debug, info, warning, error")
]
LogFormat = Annotated[str, Meta(pattern="^(auto|text|json)$", description="one of auto, text, json")]
Name = Annotated[str, Meta(pattern=r"^\S+$", description="a name without spaces")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a node runs with. Sizes, counts and times carry their unit in their name."""

    bind: Name = "127.0.0.1"
    port: Port = DEFAULT_PORT
    insecure: bool = False
    """Allow a bind beyond loopback although there are no keys; keys that are configured stay asked for."""
    keys_file: Path | None = None
    """Who may use this node; None: ``keys.toml`` in the state folder, if it exists."""
    public_url: Url | None = None
    """What ``/models/{id}/endpoint`` answers; None: ``http://localhost:PORT``."""
    allowed_hosts: tuple[Name, ...] = ()
    """Names beyond loopback and this host's own that a ``Host`` header may carry."""
    models: tuple[Annotated[str, Meta(min_length=1, description="a model reference")], ...] = ()
    """References to load at start."""
    model_roots: tuple[Path, ...] = ()
    """Folders under which a path may be loaded over HTTP."""
    harnesses: tuple[Name, ...] = ("torch",)
    device: Device = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N``."""
    dtype: Dtype = "auto"
    """``auto``, ``float32``, ``bfloat16``, ``float16``."""
    threads: Count | None = None
    """Threads of the CPU kernels; None: one for each core the process may use."""
    context: Count | None = None
    """Upper bound on every model's context, in tokens; None: the model's own."""
    max_in_flight: Count = 16
    """Sequences decoded together, for each model."""
    max_queue_depth: CountOrZero = 64
    queue_timeout_s: Seconds = 120.0
    max_per_principal: Count | None = None
    """Answers of one caller that may run and wait on one model; None: no bound."""
    prefill_chunk_tokens: Count = 256
    """Prompt tokens computed between two decode steps."""
    kv_budget_mb: Count | None = None
    """Cache memory for each model; None: what is free after loading, less a reserve."""
    response_store: Path | None = None
    """Folder in which `/v1/responses` are kept for ``previous_response_id``; None: nothing is kept."""
    response_store_mb: Count = 256
    """The oldest responses go when they take more than this, or are older than `response_store_days`."""
    response_store_days: Count = 30
    requests_kept: CountOrZero = 1000
    """Requests that ended and that ``GET /requests`` still tells of."""
    log_prompts: bool = False
    """Keep the text of prompts and answers with them; it is never written to the log."""
    drain_s: Seconds = 25.0
    stall_s: Seconds = 60.0
    """A decode step older than this makes ``/health`` 503."""
    max_body_bytes: Count = 8 << 20
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    """``text``, ``json``, or ``auto``: text on a terminal, JSON otherwise."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each value that is no default was said: ``--port``, ``NEURON_PORT``, ``/etc/neuron.toml:3``."""


KEYS = tuple(f.name for f in fields(Settings) if f.name != "origins")
MADE = frozenset({"response_store"})
"""Folders that the node makes at the first use, where their parent exists."""
FILES = frozenset({"keys_file"})
"""Paths of files; who reads them says what is wrong with them."""
FLAGS = {"models": "MODEL", "model_roots": "--model-root"}
"""Flags that are not spelled like their key."""


def resolve(flags: Mapping[str, Any], env: Mapping[str, str], file: Path | None = None) -> Settings:
    """Every value from the strongest place that says it; None in ``flags`` means "not said".

    ``file`` is what ``--config`` names; without it ``$NEURON_CONFIG``, then ``neuron.toml`` in the user's
    configuration folder, if it exists.

    Raises:
        ConfigError: a file or variable with an unknown key, a wrong type or a value out of range.
        UsageError: the same of a flag.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for said in (*_from_file(config_file(env, file)), *_from_env(env), *_from_flags(flags)):
        values[said.key] = said.value()
        origins[said.key] = said.origin
    return Settings(**values, origins=origins)


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
        hint = _HINTS[self.key]
        raw = _split(self.raw) if self.from_text and _is_list(hint) else self.raw
        try:
            return msgspec.convert(raw, hint, strict=not self.from_text, dec_hook=self._path)
        except msgspec.ValidationError as e:
            raise self.error(f"{self.origin}: {self.key}: {self.raw!r} is not {_expected(hint)}") from e

    def _path(self, kind: type, raw: Any) -> Path:
        if not isinstance(raw, str | Path) or not str(raw):
            raise ValueError("expected a path")
        path = self.base / Path(raw).expanduser()
        if self.key in FILES:
            return path
        if not (path.is_dir() or (self.key in MADE and path.parent.is_dir() and not path.exists())):
            hint = "make its parent folder first" if self.key in MADE else "make it, or name another"
            raise self.error(f"{self.origin}: {self.key}: there is no folder {path}", hint=hint)
        return path


_HINTS: dict[str, Any] = get_type_hints(Settings, include_extras=True)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_list(hint: Any) -> bool:
    return get_origin(hint) is tuple


def _expected(hint: Any) -> str:
    """What a value of this type is, in words: ``a port, 0 to 65535``."""
    if _is_list(hint):
        return f"a list whose items are each {_expected(get_args(hint)[0])}"
    for part in (hint, *get_args(hint)):
        if get_origin(part) is Annotated:
            return next(str(m.description) for m in get_args(part) if isinstance(m, Meta))
    return {bool: "true or false", Path: "a folder", Path | None: "a path"}.get(hint, "what this key takes")


def _from_flags(flags: Mapping[str, Any]) -> list[_Said]:
    def flag(key: str) -> str:
        return FLAGS.get(key, "--" + key.replace("_", "-"))

    return [_Said(k, v, flag(k), error=UsageError) for k, v in flags.items() if v is not None]


def _from_env(env: Mapping[str, str]) -> list[_Said]:
    """``NEURON_<KEY>``, lists separated by commas.

    Other programs use the prefix too, so an unknown variable is an error only where it is nearly one of ours.
    """
    known = {ENV_PREFIX + key.upper(): key for key in KEYS}
    for name in env:
        ours = name.startswith(ENV_PREFIX) and not name.startswith(FOREIGN_PREFIXES)
        if ours and name not in known and name not in OTHER_VARIABLES:
            _refuse_near_miss(name, [*known, *OTHER_VARIABLES])
    return [_Said(key, env[name], name, from_text=True) for name, key in known.items() if env.get(name)]


def _refuse_near_miss(name: str, known: list[str]) -> None:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
    if near:
        raise ConfigError(f"{name}: no such setting in the environment", hint=f"did you mean {near[0]}?")


def _from_file(path: Path | None) -> list[_Said]:
    if path is None:
        return []
    text = _read_config(path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{path}{_toml_line(str(e))}: not valid TOML: {e}") from e
    return [_said_in_file(path, text, key, value) for key, value in table.items()]


def _read_config(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not UTF-8: {e.reason}") from e
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}", hint="--config and NEURON_CONFIG name this file") from e


def _toml_line(message: str) -> str:
    found = re.search(r"at line (\d+)", message)
    return f":{found[1]}" if found else ""


def _said_in_file(path: Path, text: str, key: str, value: Any) -> _Said:
    origin = f"{path}:{_line_of(text, key)}"
    if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "the keys are " + ", ".join(KEYS)
        raise ConfigError(f"{origin}: unknown key {key!r}", hint=hint)
    return _Said(key, value, origin, base=path.absolute().parent)


def _line_of(text: str, key: str) -> int:
    """Number of the line where a key or table of that name begins; 1 where no plain line does."""
    named = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[\].=]""")
    return next((n for n, line in enumerate(text.splitlines(), 1) if named.match(line)), 1)
