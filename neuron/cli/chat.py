"""``neuron chat``: talk to a model, on a node or in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from neuron.cli import completing
from neuron.cli.context import HostOption, JsonOption
from neuron.errors import UsageError

EXAMPLES = (
    "neuron chat smollm2",
    'neuron chat smollm2 "What is the capital of France?" --temperature 0',
    'git diff | neuron chat smollm2 "Say in a sentence what this changes:"',
    'neuron chat smollm2 "A shell loop over *.txt" -x',
    "cat letter.txt | neuron chat smollm2 --schema person.json",
    "neuron chat --continue",
    'neuron chat -c "And in one sentence?"',
    "neuron chat --host gpu1",
)

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "max_tokens",
    "seed",
    "stop",
    "reasoning_effort",
)
"""Parameters that go into the request as they are said."""


def run(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="The model; may be left out if a node has exactly one loaded, or a session says it.",
            show_default=False,
            autocompletion=completing.askable,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="What to ask; without it a conversation begins.", show_default=False
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system message before the conversation.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the session that was written to last.")
    ] = False,
    session: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on with that session, or begin it.")
    ] = None,
    show_sessions: Annotated[bool, typer.Option("--list", help="List the sessions and leave.")] = False,
    extract: Annotated[
        bool,
        typer.Option(
            "--extract", "-x", help="Print the first code block of the answer only; 1 if there is none."
        ),
    ] = False,
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Hold the answer to the JSON schema in FILE; 1 if it can't be or is cut off."
        ),
    ] = None,
    no_reasoning: Annotated[
        bool,
        typer.Option(
            "--no-reasoning", help="Have the model not think, where it can be told, and show no thoughts."
        ),
    ] = False,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="0 always takes the likeliest token.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(metavar="P", help="Choose among the likeliest tokens that sum up to P.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(metavar="K", help="Choose among the K likeliest tokens.")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(metavar="P", help="Leave out tokens less likely than P times the likeliest."),
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(metavar="R", help="Above 1: repeat less of what is there.")
    ] = None,
    presence_penalty: Annotated[
        float | None, typer.Option(metavar="P", help="Against tokens that the answer has.")
    ] = None,
    frequency_penalty: Annotated[
        float | None, typer.Option(metavar="P", help="The same, for each time it has them.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="At most N tokens in an answer.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="The same seed gives the same answer.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End the answer before this text; repeat it.")
    ] = None,
    reasoning_effort: Annotated[
        str | None,
        typer.Option(
            metavar="EFFORT", help="How much to think: none, minimal, low, medium, high, xhigh, max."
        ),
    ] = None,
    usage: Annotated[
        bool, typer.Option("--usage", "--stats", help="Show counts and speed after each answer, on stderr.")
    ] = False,
    no_markdown: Annotated[
        bool, typer.Option("--no-markdown", help="Show answers as they are written, also on a terminal.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Pass on control characters that the model writes; a terminal may act on them."
        ),
    ] = False,
    host: HostOption = None,
    json: JsonOption = False,
) -> None:
    """Ask a model once, or talk with it.

    What is piped in is the prompt; with PROMPT as well, it follows PROMPT after an empty line. On a terminal
    without PROMPT a conversation begins, which is kept as a session: Ctrl-C stops an answer, Ctrl-D leaves, /help
    lists the commands and keys.

    With --continue or --session, a text alone that names no model is the PROMPT, asked of the session's model.

    The model runs on the node that --host or NEURON_HOST names, else on this machine's node, and is loaded there
    if need be. If neither is named and no node runs here, it runs in this process.

    Where nothing is said, answers are drawn as the model's files recommend; where they recommend no temperature, at
    temperature 0.7 and top_p 0.95.
    """
    sampling = {name: value for name, value in locals().items() if name in SAMPLING and value is not None}
    if show_sessions:
        asked = {
            "MODEL": model,
            "PROMPT": prompt,
            "--system": system,
            "--continue": resume,
            "--session": session,
        }
        _refuse_with_list({**asked, "--extract": extract, "--schema": schema, **sampling})
        _list(json)
        return
    _refuse_together({"--extract": extract, "--schema": schema}, {"--extract": extract, "--json": json})
    _refuse_together({"--continue": resume, "--session": session})
    _refuse_together({"--no-reasoning": no_reasoning, "--reasoning-effort": reasoning_effort})
    name = _last_session() if resume else session
    model, prompt = _said(model, prompt, name, host)
    question = question_from(prompt, _piped())
    if question is None:
        _refuse_without_prompt({"--json": json, "--extract": extract, "--schema": schema})
    if no_reasoning:
        sampling["reasoning_effort"] = "none"
    display = {"markdown": not no_markdown, "usage": usage}
    _talk(
        model,
        question,
        host=host,
        name=name,
        said={"system": system, "sampling": sampling, "schema": None if schema is None else _schema(schema)},
        display={
            **{key: "on" if on else "off" for key, on in display.items()},
            "reasoning": "hide" if no_reasoning else "show",
        },
        form="json" if json else "block" if extract else "schema" if schema else "text",
        raw=raw,
    )


def _talk(
    model: str | None,
    question: str | None,
    *,
    host: str | None,
    name: str | None,
    said: dict[str, Any],
    display: dict[str, str],
    form: str,
    raw: bool,
) -> None:
    from neuron.cli.answer import AnswerPrinter
    from neuron.cli.chat_settings import Display
    from neuron.cli.conversation import Conversation
    from neuron.cli.once import FORMS
    from neuron.cli.repl import Repl
    from neuron.cli.talk import Talk, kept_session
    from neuron.cli.target import chat_target
    from neuron.cli.terminal import ended_in_order

    with (
        ended_in_order(),
        kept_session(name, question is None) as session,
        chat_target(host, model or session.model) as target,
    ):
        conversation = Conversation(target.node.chat, target.model_id, **said)
        talk = Talk(target, conversation, AnswerPrinter(Display(**display), raw=raw), session)
        if question is None:
            Repl(talk).run()
        else:
            FORMS[form](talk, question)


def _said(
    model: str | None, prompt: str | None, session: str | None, host: str | None
) -> tuple[str | None, str | None]:
    """MODEL and PROMPT. Of a session that knows its model, a text alone is the prompt, unless it names a model."""
    if model is None or prompt is not None:
        return model, prompt
    if session is not None and _is_follow_up(session, model, host):
        return None, model
    _refuse_prompt_as_model(model)
    return model, None


def _is_follow_up(session: str, text: str, host: str | None) -> bool:
    from neuron.cli.sessions import model_of
    from neuron.cli.target import names_model

    return model_of(session) is not None and not names_model(host, text)


def _last_session() -> str:
    from neuron.cli.sessions import last_name

    return last_name()


def _list(json: bool) -> None:
    """Every session, the newest first."""
    import time

    from neuron.cli.render import notice, show_json, show_table
    from neuron.cli.sessions import summaries

    found = summaries()
    if json:
        show_json([session._asdict() for session in found])
    elif found:
        rows = (
            (
                s.name,
                s.model or "-",
                s.messages,
                time.strftime("%F %R", time.localtime(s.changed_s)),
                s.begins[:50],
            )
            for s in found
        )
        show_table(("SESSION", "MODEL", "MESSAGES", "CHANGED", "BEGINS"), rows)
    else:
        notice("there are no sessions yet; neuron chat MODEL begins one")


def _schema(path: Path) -> dict[str, Any]:
    from neuron.cli.once import schema_from

    return schema_from(path)


def question_from(prompt: str | None, piped: str | None) -> str | None:
    """What to ask, None for a conversation: the prompt, what was piped in, or both with an empty line between.

    Raises:
        UsageError: all that was said is blank.
    """
    if prompt is None and piped is None:
        return None
    question = "\n\n".join(part for part in (prompt, (piped or "").strip("\n")) if part)
    if not question.strip():
        raise UsageError("the prompt is empty", hint='neuron chat MODEL "What is …?"')
    return question


def _piped() -> str | None:
    """What is piped in, whole; None on a terminal."""
    if sys.stdin.isatty():
        return None
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as e:
        raise UsageError(f"what is piped in is not text in {sys.stdin.encoding}: {e.reason}") from e


def _refuse_prompt_as_model(model: str) -> None:
    """A sentence in the place of the model is what people write when they forget the model."""
    if any(c.isspace() for c in model) and not model.startswith(("/", ".", "~")):
        raise UsageError(
            f"{model!r} is no model", hint=f'name the model first: neuron chat smollm2 "{model}"'
        )


def _refuse_together(*groups: dict[str, Any]) -> None:
    for group in groups:
        if all(group.values()):
            raise UsageError(f"{' and '.join(group)} exclude each other")


def _refuse_with_list(others: dict[str, Any]) -> None:
    for name, said in others.items():
        if said not in (None, False):
            flag = "--" + name.replace("_", "-") if name in SAMPLING else name
            raise UsageError(f"--list asks no model, so it takes no {flag}", hint="leave one of them out")


def _refuse_without_prompt(flags: dict[str, Any]) -> None:
    for flag, said in flags.items():
        if said:
            raise UsageError(f"{flag} needs a prompt", hint=f'neuron chat MODEL "…" {flag}')
