"""Function tools and the choice among them: what a template shows, and what a generation is held to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron.engine.request import ToolCalls
from neuron.engine.status import ModelStatus
from neuron.errors import InvalidValue, TemplateRenderFailed, UnsupportedParameter

MAX_TOOLS = 128
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MODES = ("auto", "none", "required")

Tool = Mapping[str, Any]
"""``{"type": "function", "function": {"name", "description", "parameters", "strict"}}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """The tools of one request and how they may be used."""

    tools: Sequence[Tool] = ()
    """What the template shows; none where the choice is ``none``."""
    constraint: ToolCalls | None = None
    """Where a call is required."""
    parallel: bool = True
    """False: at most one call."""

    @property
    def parse(self) -> bool:
        """Whether calls are told from the answer."""
        return bool(self.tools)


def toolbox(tools: Sequence[Tool], choice: Any, parallel: bool | None, model: ModelStatus | None) -> Toolbox:
    """Tools that `function_tools` checked, under ``tool_choice`` and ``parallel_tool_calls``.

    Raises:
        InvalidValue: a choice that is none, or of a tool that is not there.
        TemplateRenderFailed: the model's template would not show the tools.
    """
    mode, names = _choice(choice, bool(tools))
    _check_names(names, tools)
    if mode == "none" or not tools:
        return Toolbox()
    if model is not None and model.state == "loaded" and not model.tool_call:
        raise TemplateRenderFailed(
            f"the chat template of '{model.id}' knows nothing of tools, so they would be ignored",
            hint="load a model that is trained on tool calls, or leave tools out",
            param="tools",
        )
    several = parallel is not False
    if mode == "auto":
        return Toolbox(tools=tools, parallel=several)
    wanted = [t for t in tools if t["function"]["name"] in names] if names else tools
    several = several and mode == "required"
    return Toolbox(tools=tools, parallel=several, constraint=ToolCalls(tools=wanted, parallel=several))


def idle_parallel(parallel: bool | None, tools: Sequence[Any] | None, choice: Any) -> bool:
    """Whether ``parallel_tool_calls`` says something of calls that nothing else speaks of.

    Under the choice ``none`` there are no calls, so it is kept as it stands.
    """
    return parallel is not None and not tools and choice != "none"


def _choice(raw: Any, tools: bool) -> tuple[str, tuple[str, ...]]:
    """The mode, ``named`` for one function, and the names that are chosen from (none: all)."""
    if raw is None:
        return "auto", ()
    if raw in MODES:
        if raw == "required" and not tools:
            raise InvalidValue("tool_choice 'required' needs tools", param="tool_choice")
        return raw, ()
    if isinstance(raw, dict) and raw.get("type") == "function":
        named = raw.get("function", raw)
        if isinstance(named, dict) and isinstance(name := named.get("name"), str):
            return "named", (name,)
    if isinstance(raw, dict) and raw.get("type") not in (None, "function"):
        raise UnsupportedParameter(
            f"this node does not support tool_choice of type {str(raw['type'])[:40]!r}", param="tool_choice"
        )
    raise InvalidValue(
        f"tool_choice must be one of {', '.join(MODES)}, or name a function", param="tool_choice"
    )


def _check_names(names: Sequence[str], tools: Sequence[Tool]) -> None:
    known = [tool["function"]["name"] for tool in tools]
    for name in names:
        if name not in known:
            there = ", ".join(known[:20]) or "none"
            raise InvalidValue(
                f"tool_choice names {name[:64]!r}, which is not among the tools: {there}", param="tool_choice"
            )


def function_tools(raw: Sequence[Any] | None) -> list[Tool]:
    """The tools of a chat request, checked. Raises `InvalidValue` with the path of the fault."""
    raw = raw or ()
    bounded(raw)
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(raw)]
    unique(tools)
    return tools


def bounded(raw: Sequence[Any]) -> None:
    """Raise for too many tools."""
    if len(raw) > MAX_TOOLS:
        raise InvalidValue(f"tools has {len(raw)} tools, at most {MAX_TOOLS}", param="tools")


def unique(tools: Sequence[Tool]) -> None:
    """Raise for two tools of one name, which no call could tell apart."""
    names: set[str] = set()
    for tool in tools:
        name = tool["function"]["name"]
        if name in names:
            raise InvalidValue(f"tools has two functions named {name!r}", param="tools")
        names.add(name)


def _tool(raw: Any, where: str) -> Tool:
    if not isinstance(raw, dict):
        raise InvalidValue(f"{where} must be an object", param=where)
    if raw.get("type") != "function":
        kind = str(raw.get("type"))[:40]
        raise UnsupportedParameter(
            f"{where}: tools of type {kind!r} are not supported", param=f"{where}.type"
        )
    return {"type": "function", "function": function(raw.get("function"), f"{where}.function")}


def function(raw: Any, where: str) -> dict[str, Any]:
    """A function's name, description and parameters, checked; ``parameters`` is always an object schema."""
    if not isinstance(raw, dict):
        raise InvalidValue(f"{where} must be an object", param=where)
    name, description = raw.get("name"), raw.get("description")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidValue(f"{where}.name must match {NAME.pattern}", param=f"{where}.name")
    if description is not None and not isinstance(description, str):
        raise InvalidValue(f"{where}.description must be a string", param=f"{where}.description")
    if not isinstance(raw.get("strict"), bool | None):
        raise InvalidValue(f"{where}.strict must be true or false", param=f"{where}.strict")
    told = {} if description is None else {"description": description}
    return {"name": name, **told, "parameters": _parameters(raw.get("parameters"), f"{where}.parameters")}


def _parameters(raw: Any, where: str) -> dict[str, Any]:
    """A schema of an object. One that says nothing of its type, or is left out, takes any object."""
    schema = {} if raw is None else raw
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise InvalidValue(f"{where} must be a schema of type object", param=where)
    return {"type": "object", "properties": {}, **schema}
