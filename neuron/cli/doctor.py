"""``neuron doctor``: what is wrong with this machine, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from neuron.cli.context import JsonOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neuron.cli.checks.finding import Finding, Where

EXAMPLES = ("neuron doctor", "neuron doctor --json")


def run(json: JsonOption = False) -> None:
    """Look for what is wrong here: driver, torch, memory, disk, port, configuration, hub and more.

    Every finding that is not ok has a next step. Fails (1) if something does not work; a warning is no failure.
    """
    from neuron.cli.checks.finding import Where
    from neuron.cli.render import show_json

    found = []
    for finding in findings(Where()):
        found.append(finding)
        if not json:
            _show(finding)
    if json:
        show_json(found)
    if any(finding.state == "failure" for finding in found):
        raise typer.Exit(1)


def checks() -> tuple[Callable[[Where], Finding], ...]:
    """Every check, in the order in which they are shown."""
    from neuron.cli.checks import machine, network, node, shell

    return (
        machine.python,
        machine.torch,
        machine.driver,
        machine.memory,
        machine.cache,
        machine.state,
        machine.open_files,
        node.configuration,
        node.secrets,
        node.port,
        node.version,
        node.environment,
        network.hub,
        network.clock,
        network.package_index,
        shell.completion,
    )


def findings(where: Where) -> Iterator[Finding]:
    """What each check finds; what can't be looked at is a finding too."""
    from neuron.cli.checks.finding import failure

    for check in checks():
        try:
            finding = check(where)
        except OSError as e:
            finding = failure(f"can't be looked at: {e}", "see that this user may read it")
        finding.check = check.__name__.replace("_", " ")
        yield finding


def _show(finding: Finding) -> None:
    from neuron.cli.terminal_text import one_line

    print(f"{finding.state:<8} {finding.check:<14} {one_line(finding.says)}", flush=True)
    if finding.next_step:
        print(f"{'':<8} {'':<14} → {one_line(finding.next_step)}", flush=True)
