"""Each protection switched off: its hostile file then gets through, or is stopped later by another.

The table is the proof that the tests of hostile files are able to fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from neuron import files
from neuron.errors import NeuronError
from neuron.files import ModelFolder
from neuron.gguf import GgufFile
from neuron.model import hf_config
from neuron.model.families import arch_config
from neuron.model.load import load_model
from neuron.model.safetensors_checkpoint import SafetensorsCheckpoint
from neuron.sources import local, manifest, reference, selection, wheel
from neuron.sources.fetch import fetch
from neuron.sources.local import check_model_root
from neuron.sources.reference import parse_reference
from neuron.text import budget, tokenizer, tokenizer_rules
from neuron.text.chat_template import ChatTemplate
from neuron.text.sandbox import Sandbox
from neuron.text.tokenizer import Tokenizer
from tests.reliability.hostile import configs, tokenizers, weights
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import Case as Model
from tests.support.wheels import make_wheel
from tests.test_gguf_hostile import HOSTILE

CPU = torch.device("cpu")
HUGE = 1 << 62
Off = Callable[[pytest.MonkeyPatch], object]
Attack = Callable[[Path], object]


class Row(NamedTuple):
    """A protection: how it is switched off, what it keeps out, its words; and what stops that without it."""

    off: Off
    attack: Attack
    words: str
    later: str | type[Exception] | None = None
    """Words of another refusal, or an exception that is nobody's plan; None: it gets through."""


def without(*names: str, value: Any) -> Off:
    """``module.attribute`` of the modules below, each set to another value."""

    def off(patch: pytest.MonkeyPatch) -> None:
        for name in names:
            patch.setattr(f"neuron.{name}", value)

    return off


def with_defaults(function: Any, *defaults: Any) -> Off:
    """A limit that is the default of a parameter."""
    return lambda patch: patch.setattr(function, "__defaults__", defaults)


def opened_gguf(name: str) -> Attack:
    """A file of the table of hostile GGUF headers, read whole."""

    def attack(folder: Path) -> None:
        path = folder / "x.gguf"
        path.write_bytes(HOSTILE[name][0])
        with GgufFile.open(path) as file:
            for tensor in file.tensors:
                file.read(tensor)

    return attack


def spoilt(case: Any, then: Callable[[ModelFolder], object]) -> Attack:
    """A case of the named hostile files, and what reads it."""
    return lambda folder: then(ModelFolder(case.spoil(folder) or folder))


def open_weights(folder: ModelFolder) -> None:
    SafetensorsCheckpoint(folder).close()


def load_weights(folder: ModelFolder) -> None:
    load_model(SafetensorsCheckpoint(folder), device=CPU, dtype=torch.float32, free=None)


def rendered(source: str) -> Attack:
    return lambda folder: ChatTemplate(source).render([{"role": "user", "content": "Hello"}])


def changing(change: Callable[[Path], object]) -> Attack:
    """The weights change after they were opened."""

    def attack(folder: Path) -> None:
        checkpoint = SafetensorsCheckpoint(ModelFolder(folder))
        change(folder / weights.WEIGHTS)
        checkpoint.close()

    return attack


def changing_gguf(folder: Path) -> None:
    (folder / "x.gguf").write_bytes(gguf_file())
    with GgufFile.open(folder / "x.gguf") as file:
        os.utime(folder / "x.gguf", ns=(1, 1))
        file.check_unchanged()


def gguf_file() -> bytes:
    from tests.test_gguf_hostile import SMALL

    return SMALL


def written_manifest(folder: Path) -> None:
    """What was written down of a fetch names a file outside."""
    file = manifest.File("../../precious", 0, "")
    manifest.record(parse_reference("hf:org/name"), revision="r", root=folder, entry=".", files=[file])
    if manifest.recorded(parse_reference("hf:org/name")) is None:
        raise NeuronError("it is not believed")


def bit_flipped(folder: Path) -> None:
    path = folder / weights.WEIGHTS
    file = manifest.File(path.name, path.stat().st_size, manifest_sha256(path))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    said = manifest.Manifest(
        source="x", revision="", root=str(folder), entry=".", files=(file,), fetched_at=0
    )
    manifest.verify(said)


manifest_sha256 = manifest.sha256


def link_in_root(folder: Path) -> None:
    (folder / "chat_template.jinja").symlink_to("/etc/passwd")
    check_model_root(folder, [folder])


def wheel_with(name: str, link: bool = False) -> Attack:
    def attack(folder: Path) -> None:
        path = make_wheel(folder / "index", "tiny", {name: b"x"}, links=[name] if link else [])
        with wheel.Wheel(path):
            pass

    return attack


def only_a_pickle(folder: Path) -> None:
    weights.CASES["weights: only a pickle"].spoil(folder)
    fetch(str(folder))


def parsed_tokenizer(folder: ModelFolder) -> None:
    Tokenizer.from_file(folder.path / "tokenizer.json")


def tokenizer_with(**parts: Any) -> Attack:
    def attack(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))
        Tokenizer.from_file(path)

    return attack


def read_config(folder: ModelFolder) -> None:
    arch_config(folder.json("config.json") or {})


def any_integer(self: hf_config.HfConfig, key: str, default: Any = None, **limits: Any) -> Any:
    """`HfConfig.integer` without its bounds."""
    return self.values.get(key, default)


def no_limit(*args: Any, **kwargs: Any) -> Any:
    return None


ANY = re.compile(r".*", re.DOTALL)
_TWENTY = {"type": "Sequence", "normalizers": [tokenizers.replaced("aa", text="a")] * 20}
_NEVER = tokenizers.replaced("x", regex=r"(.*)(.*)(.*)(.*)(.*)[^\s\S]")

PROTECTIONS: dict[str, Row] = {
    # ---- GGUF headers
    "names of tensors in GGUF": Row(
        without("gguf_header.TENSOR_NAME", value=ANY),
        opened_gguf("name with an escape sequence"),
        "plain name",
    ),
    "dimensions in GGUF": Row(
        without("gguf_header.MAX_DIMS", value=HUGE), opened_gguf("tensor with 5 dimensions"), "5 dimensions"
    ),
    "overlaps in GGUF": Row(
        without("gguf_header._check_overlap", value=no_limit), opened_gguf("tensors that overlap"), "overlap"
    ),
    "length of a string in GGUF": Row(
        without("gguf_header.MAX_STRING_BYTES", value=HUGE),
        opened_gguf("string of a huge length"),
        "reads at most",
        later="truncated",
    ),
    "number of tensors in GGUF": Row(
        without("gguf_header.MAX_TENSORS", value=HUGE << 2),
        opened_gguf("huge number of tensors"),
        "reads at most",
        later="truncated|header|plain name|beyond",
    ),
    "length of an array in GGUF": Row(
        without("gguf_header.MAX_ARRAY_ITEMS", value=HUGE << 2),
        opened_gguf("array of huge length"),
        "reads at most",
        later=struct.error,
    ),
    "alignment in GGUF": Row(
        without("gguf_header._alignment", value=lambda header, metadata: 24),
        opened_gguf("alignment 24"),
        "alignment",
    ),
    "a GGUF file that changes": Row(
        without("gguf._identity", value=lambda status: 0), changing_gguf, "changed while it was read"
    ),
    # ---- safetensors
    "length of a safetensors header": Row(
        without("model.safetensors_checkpoint.MAX_HEADER_BYTES", value=HUGE),
        spoilt(weights.CASES["weights: 250,000 tensors"], open_weights),
        "a header of",
        later="more than 200000 tensors",
    ),
    "number of tensors in safetensors": Row(
        without(*(f"model.safetensors_checkpoint.MAX_{x}" for x in ("TENSORS", "HEADER_BYTES")), value=HUGE),
        spoilt(weights.CASES["weights: 250,000 tensors"], open_weights),
        "a header of",
    ),
    "names of tensors in safetensors": Row(
        without("model.safetensors_checkpoint.NAME", value=ANY),
        spoilt(weights.CASES["weights: a name with an escape sequence"], open_weights),
        "is named",
    ),
    "names of files in an index": Row(
        without("model.safetensors_checkpoint.NAME", value=ANY),
        spoilt(weights.CASES["index: a file with a backslash"], open_weights),
        "is no file name",
        later=r"\.\. is no|missing|no file name",
    ),
    "number of files in an index": Row(
        without("model.safetensors_checkpoint.MAX_SHARDS", value=HUGE),
        spoilt(weights.CASES["index: 5,000 files"], open_weights),
        "more than 4096 files",
        later="5000 of 5000 weight files are missing",
    ),
    "weights replaced in mid-load": Row(
        without("model.safetensors_checkpoint._check_unchanged", value=no_limit),
        changing(lambda path: os.replace(shutil.copy(path, path.with_suffix(".new")), path)),
        "changed while it was read",
    ),
    "shapes against the architecture": Row(
        without("model.load.check_balance", value=no_limit),
        spoilt(weights.CASES["weights: a shape turned"], load_weights),
        "another shape",
    ),
    # ---- files
    "regular files alone": Row(
        lambda patch: patch.setattr(files.stat, "S_ISREG", lambda mode: True),
        spoilt(weights.CASES["FIFO: config.json"], read_config),
        "not a regular file",
        later="not valid JSON",
    ),
    "size of a JSON file": Row(
        with_defaults(files.read_bounded, HUGE),
        spoilt(configs.CASES["config: 65 MB"], read_config),
        "reads at most",
        later=MemoryError,
    ),
    "links out of a model root": Row(
        lambda patch: patch.setattr(local, "_targets", lambda folder, bounds: ()), link_in_root, "model root"
    ),
    "pickles told apart": Row(
        lambda patch: patch.setattr(selection, "PICKLES", ("none",)),
        only_a_pickle,
        "pickled",
        later="no weights",
    ),
    "bounds of configuration": Row(
        lambda patch: patch.setattr(hf_config.HfConfig, "integer", any_integer),
        spoilt(configs.CASES["config: vocab_size 1000000000"], load_weights),
        "vocab_size",
        later="another shape",
    ),
    # ---- templates
    "the sandbox of templates": Row(
        lambda patch: patch.setattr(Sandbox, "is_safe_attribute", lambda *args: True),
        rendered("{{ ''.__class__.__mro__[1].__subclasses__() | length }}"),
        "chat template",
    ),
    "characters of a template": Row(
        with_defaults(budget.Budget.__init__, HUGE, 60.0), rendered("{{ 'a' * 40000000 }}"), "characters"
    ),
    "time of a template": Row(
        with_defaults(budget.Budget.__init__, HUGE, 600.0),
        rendered(
            "{% for i in range(99999) %}{% for j in range(12) %}{% endfor %}{{ 'a' * 400 }}{% endfor %}"
        ),
        "takes more than|makes more than",
    ),
    "indents of a template": Row(
        without("text.growth.MAX_INDENT", value=HUGE),
        rendered("{{ messages | tojson(indent=9999) }}"),
        "indent",
    ),
    "integers of a template": Row(
        without("text.growth.MAX_INTEGER_BITS", value=HUGE), rendered("{{ (10 ** 4000) % 7 }}"), "integer"
    ),
    "size of a template": Row(
        without("text.chat_template.MAX_SOURCE_BYTES", value=HUGE), rendered("x" * 300_000), "larger than"
    ),
    "parts of a template": Row(
        without("text.chat_template.MAX_NODES", value=HUGE), rendered("{{ 1 }}" * 25_000), "parts"
    ),
    "lists of a template": Row(
        without("text.budget.MAX_ITEMS", value=HUGE), rendered("{{ ([1] * 30000) | length }}"), "a list of"
    ),
    # ---- tokenizers
    "what rules make of a text": Row(
        without("text.tokenizer_rules.MAX_GROWTH", value=HUGE),
        tokenizer_with(normalizer=_TWENTY),
        "blow up",
        later="makes 524288 tokens",
    ),
    "what rules make of a text, and the trial": Row(
        lambda patch: (
            patch.setattr(tokenizer_rules, "MAX_GROWTH", HUGE),
            patch.setattr(tokenizer.Tokenizer, "_smoke", no_limit),
        ),
        tokenizer_with(normalizer=_TWENTY),
        "blow up",
    ),
    "the trial of a tokenizer": Row(
        lambda patch: patch.setattr(tokenizer.Tokenizer, "_smoke", no_limit),
        tokenizer_with(normalizer=_NEVER),
        "can't encode plain text",
    ),
    "how often a template holds a text": Row(
        without("text.tokenizer_rules.MAX_REPEATS", value=HUGE),
        tokenizer_with(post_processor=tokenizers.template([tokenizers.TEXT] * 60)),
        "repeats a text",
        later="makes 60",
    ),
    # ---- sources
    "manifests that climb": Row(
        lambda patch: patch.setattr(manifest, "_lies_below", lambda name: True),
        written_manifest,
        "not believed",
    ),
    "hashes of a fetch": Row(
        lambda patch: patch.setattr(manifest, "_difference", no_limit), bit_flipped, "another SHA-256"
    ),
    "names in a wheel": Row(
        lambda patch: patch.setattr(wheel.Wheel, "_check_names", no_limit),
        wheel_with("tiny/../../../x"),
        "leads out of it",
    ),
    "links in a wheel": Row(
        lambda patch: patch.setattr(wheel.Wheel, "_check_names", no_limit),
        wheel_with("tiny/model.safetensors", link=True),
        "not a regular file",
    ),
    "ids of repositories": Row(
        lambda patch: patch.setattr(reference, "_is_repo_id", lambda repo: True),
        lambda folder: parse_reference("hf:org/a--b"),
        "not a repository id",
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    save_tiny_chat(folder, Model("tiny", "LlamaConfig", {"num_hidden_layers": 1}))
    return folder


@pytest.mark.parametrize("name", PROTECTIONS)
def test_without_it_the_hostile_file_gets_further(
    name: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = PROTECTIONS[name]
    monkeypatch.setenv("NEURON_CACHE", str(tmp_path / "cache"))
    with pytest.raises(NeuronError, match=row.words):
        row.attack(Path(shutil.copytree(good, tmp_path / "with")))
    row.off(monkeypatch)
    with stopped(row.later):
        row.attack(Path(shutil.copytree(good, tmp_path / "without")))


def stopped(later: str | type[Exception] | None) -> AbstractContextManager[object]:
    """What must happen without the protection."""
    if later is None:
        return nullcontext()
    return pytest.raises(NeuronError, match=later) if isinstance(later, str) else pytest.raises(later)


def test_a_panic_of_the_library_would_pass_an_ordinary_except(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "within", lambda limit_s, work, what, **more: work())
    monkeypatch.setattr(tokenizer, "contained", lambda error: nullcontext())
    attack = tokenizer_with(normalizer=tokenizers.charsmap(64, b"\xff\x7f\x3f\x1f" * 16 + b"x\0"))
    raised: BaseException | None = None
    try:
        attack(Path(shutil.copytree(good, tmp_path / "m")))
    except BaseException as e:
        raised = e
    assert raised is not None
    assert not isinstance(raised, NeuronError)
