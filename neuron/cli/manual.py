"""Manual pages in roff's ``man`` macros, from the commands, their options and their help."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from neuron.cli.app import EXAMPLES, GROUPS, commands, program
from neuron.cli.exits import MEANINGS

ENVIRONMENT = {
    "NEURON_HOST": "The node that commands speak to, as --host.",
    "NEURON_<KEY>": "A setting of neuron serve, as NEURON_PORT.",
    "NEURON_CONFIG": "The configuration file of neuron serve, as --config.",
    "NEURON_CACHE": "Where fetched models are kept, instead of ~/.cache/neuron.",
    "NEURON_STATE": "Where chats and keys are kept, instead of ~/.local/state/neuron.",
    "NEURON_API_KEY": "The key that commands show to a node which demands one.",
    "OPENAI_API_KEY": "The key that neuron bench shows to a server which --url names.",
    "NEURON_NO_HISTORY": "If set, neither what is typed in a chat nor a session without a name is kept.",
    "NEURON_TORCH_ONLY": "If set, torch computes, without the compiled kernels of the processor.",
    "NEURON_FAULT": "Faults on purpose, for tests; refused unless NEURON_TESTING is 1.",
    "NEURON_TRACEBACK": "If set, a fault of the program shows where it happened.",
    "HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE": "As huggingface_hub knows them.",
    "NO_COLOR": "If set, no colours.",
}
FILES = {
    "~/.config/neuron/neuron.toml": "Settings of neuron serve, one key a line.",
    "~/.config/neuron/nodes.toml": "Nodes by name, for --host, with their keys.",
    "~/.cache/neuron": "Fetched models.",
    "~/.local/state/neuron/keys.toml": "Keys that neuron serve takes, where none are said elsewhere.",
    "~/.local/state/neuron": "Chats.",
}


def pages() -> Iterator[tuple[str, str]]:
    """File name and text of every page: the program's, then one a command and one a group of commands."""
    from typer import Context

    group = program()
    top = Context(group, info_name="neuron", help_option_names=["-h", "--help"])
    yield "neuron.1", _page("neuron", group, top, EXAMPLES, list(_program_sections(group)))
    for words, module in commands():
        command, context = group, top
        for word in words:
            command = command.commands[word]
            context = Context(command, info_name=word, parent=context)
        name = "-".join(("neuron", *words))
        see_also = section("SEE ALSO", [r"\fBneuron\fR(1)"])
        yield f"{name}.1", _page(name, command, context, module.EXAMPLES, [see_also])
    for group_name, (_, modules) in GROUPS.items():
        context = Context(group.commands[group_name], info_name=group_name, parent=top)
        examples = [module.EXAMPLES[0] for module in modules]
        more = list(_group_sections(group, group_name))
        yield (
            f"neuron-{group_name}.1",
            _page(f"neuron-{group_name}", context.command, context, examples, more),
        )


def escape(text: str) -> str:
    """Text as roff prints it: backslashes, hyphens, and the signs that begin a macro."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"(?m)^\.", "\\\\&.", text)


def _page(name: str, command: Any, context: Any, examples: Sequence[str], more: list[str]) -> str:
    summary, rest = _paragraphs(command.help)
    title = f'.TH {escape(name).upper()} 1 "" neuron "User Commands"'
    sections = [
        section("NAME", [f"{escape(name)} \\- {escape(summary.rstrip('.'))}"]),
        section("SYNOPSIS", [_synopsis(command, context)]),
        section("DESCRIPTION", [escape(summary), *rest]),
        *_parameters(command, context),
        section("EXAMPLES", [".nf", *map(escape, examples), ".fi"]),
        *more,
    ]
    return "\n".join([title, *sections]) + "\n"


def section(title: str, lines: Sequence[str]) -> str:
    """A heading and what is below it."""
    return "\n".join([f'.SH "{title}"', *lines])


def _paragraphs(text: str) -> tuple[str, list[str]]:
    """The first paragraph on one line, and the lines of the others."""
    first, *others = (" ".join(part.split()) for part in text.strip().split("\n\n"))
    return first, [line for other in others for line in (".PP", escape(other))]


def _synopsis(command: Any, context: Any) -> str:
    pieces = re.sub("[{}]", "", " ".join(command.collect_usage_pieces(context)))
    return f"\\fB{escape(context.command_path)}\\fR {escape(pieces)}"


def _parameters(command: Any, context: Any) -> Iterator[str]:
    """A section for the arguments, if there are any, and one for the options."""
    for title, kind in (("ARGUMENTS", "argument"), ("OPTIONS", "option")):
        records = [
            p.get_help_record(context) for p in command.get_params(context) if p.param_type_name == kind
        ]
        if records:
            yield section(title, tagged((r for r in records if r), bold=True))


def _program_sections(group: Any) -> Iterator[str]:
    yield section("COMMANDS", tagged(_summaries(group, _words(commands())), bold=True))
    yield section("EXIT STATUS", tagged((str(code.value), text) for code, text in MEANINGS.items()))
    yield section("ENVIRONMENT", tagged(ENVIRONMENT.items()))
    yield section("FILES", tagged(FILES.items()))
    others = [_reference(words) for words in (*((name,) for name in GROUPS), *_words(commands()))]
    yield section("SEE ALSO", [", ".join([*others, r"\fBneuron.toml\fR(5)", r"\fBneuron\-api\fR(7)"])])


def _group_sections(group: Any, name: str) -> Iterator[str]:
    """What the page of ``neuron keys`` has beyond its own help."""
    inside = [words for words in _words(commands()) if words[0] == name]
    yield section("COMMANDS", tagged(_summaries(group, inside), bold=True))
    yield section("SEE ALSO", [", ".join([r"\fBneuron\fR(1)", *map(_reference, inside)])])


def _words(found: Iterable[tuple[tuple[str, ...], object]]) -> list[tuple[str, ...]]:
    return [words for words, _ in found]


def _reference(words: tuple[str, ...]) -> str:
    return rf"\fB{escape('-'.join(('neuron', *words)))}\fR(1)"


def _summaries(group: Any, of: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Each command with the first sentence of its help."""
    for words in of:
        command = group
        for word in words:
            command = command.commands[word]
        yield " ".join(("neuron", *words)), command.get_short_help_str(200)


def tagged(records: Any, bold: bool = False) -> list[str]:
    """Tagged paragraphs, ``term`` and text."""
    lines: list[str] = []
    for term, text in records:
        name = escape(term.replace(" <str>", "").replace(" <list[str]>", ""))
        lines += [".TP", f"\\fB{name}\\fR" if bold else name, escape(" ".join(text.split()))]
    return lines
