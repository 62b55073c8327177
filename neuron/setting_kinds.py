"""What a key of the settings may hold, and how a key is declared: kinds of values, and what is said of a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

Port = Annotated[int, Meta(ge=0, le=65535, description="a port, 0 to 65535 (0 takes a free one)")]
Count = Annotated[int, Meta(ge=1, description="a whole number, 1 or more")]
CountOrZero = Annotated[int, Meta(ge=0, description="a whole number, 0 or more")]
Seconds = Annotated[float, Meta(gt=0, le=86400 * 365, description="a number of seconds above 0")]
Device = Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")]
Dtype = Annotated[
    str,
    Meta(pattern="^(auto|float32|bfloat16|float16)$", description="one of auto, float32, bfloat16, float16"),
]
Quant = Annotated[str, Meta(pattern="^(none|int8|int4)$", description="one of none, int8, int4")]
Harness = Annotated[str, Meta(pattern="^torch$", description="a harness of this build, which has: torch")]
Url = Annotated[
    str, Meta(pattern=r"^https?://[^\s/]+\S*$", description="a URL that begins http:// or https://")
]
LogLevel = Annotated[
    str, Meta(pattern="^(debug|info|warning|error)$", description="one of debug, info, warning, error")
]
LogFormat = Annotated[
    str, Meta(pattern="^(auto|text|json|journal)$", description="one of auto, text, json, journal")
]
Name = Annotated[str, Meta(pattern=r"^\S+$", description="a name without spaces")]
Reference = Annotated[str, Meta(min_length=1, description="a model reference")]


@dataclass(frozen=True, slots=True)
class PathKind:
    """What must be at a path before the node starts."""

    words: str
    there: Callable[[Path], bool]
    hint: str


def _new_folder(path: Path) -> bool:
    return path.is_dir() or (path.parent.is_dir() and not path.exists())


def _new_file(path: Path) -> bool:
    return path.parent.is_dir() and not path.is_dir()


FOLDER = PathKind("folder", Path.is_dir, "make it, or name another")
NEW_FOLDER = PathKind("folder", _new_folder, "make its parent folder first")
"""Made at the first use, where its parent exists."""
FILE = PathKind("file", Path.is_file, "make it, or name another")
NEW_FILE = PathKind("folder for", _new_file, "make the folder first, or name another")
"""Need not be there yet; its folder must."""
READ_LATER = PathKind("file", lambda path: True, "")
"""Who reads it says what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is said of a key wherever settings are shown."""

    help: str
    metavar: str
    unset: str = "none"
    """What holds where nothing is said, if the default is None or empty."""
    flag: str | None = None
    """The flag, if it is not spelt like the key."""
    path: PathKind = FOLDER
    reloads: bool = False
    """Whether SIGHUP puts a new value into force; otherwise it takes a restart."""


def key(default: Any, help: str, metavar: str = "", **more: Any) -> Any:
    """A field of the settings. ``help`` is a sentence; ``more`` are fields of `About`."""
    return field(default=default, metadata={"about": About(help=help, metavar=metavar, **more)})
