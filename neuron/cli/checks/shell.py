"""The shell: completion."""

from __future__ import annotations

from pathlib import Path

from neuron.cli.checks.finding import Finding, Where, ok, warning

PLACES = {
    "bash": (
        "~/.local/share/bash-completion/completions/neuron",
        "/etc/bash_completion.d/neuron.bash",
        "/usr/share/bash-completion/completions/neuron",
        "/usr/local/share/bash-completion/completions/neuron",
    ),
    "zsh": (
        "~/.zfunc/_neuron",
        "/usr/local/share/zsh/site-functions/_neuron",
        "/usr/share/zsh/site-functions/_neuron",
        "/usr/share/zsh/vendor-completions/_neuron",
    ),
    "fish": (
        "~/.config/fish/completions/neuron.fish",
        "/etc/fish/completions/neuron.fish",
        "/usr/share/fish/vendor_completions.d/neuron.fish",
    ),
}
"""Where a shell looks for the completions of ``neuron`` by itself; the first is the user's own."""


def completion(where: Where) -> Finding:
    """The completions of the user's shell are where it looks for them."""
    shell = Path(where.env.get("SHELL", "")).name
    if shell not in PLACES:
        return ok(f"not looked for: no completions for the shell {shell or 'that is not named (SHELL)'}")
    home = Path(where.env.get("HOME") or "~").expanduser()
    places = [Path(place.replace("~", str(home))) for place in PLACES[shell]]
    found = next((place for place in places if place.exists()), None)
    if found:
        return ok(f"{shell}: {found}")
    return warning(
        f"{shell} does not complete neuron's commands",
        f"mkdir -p {places[0].parent} && _NEURON_COMPLETE=source_{shell} neuron > {places[0]}",
    )
