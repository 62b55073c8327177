"""The manual page ``neuron.toml(5)``, from the settings."""

from __future__ import annotations

from collections.abc import Iterator

from neuron.cli.config_file import assignment
from neuron.cli.manual import escape, section, tagged
from neuron.settings import ABOUT, ENV_PREFIX, default_words, flag_of

FORM = (
    "One key a line, in TOML. A flag of neuron serve wins over a variable of the environment, a variable over "
    "this file, the file over the default. A key that is not known, or a value that it does not take, keeps the "
    "node from starting: exit status 78, with file, line and the nearest key.",
    "Paths are relative to the folder of the file. In the environment the items of a list are separated by commas. "
    "The file is the one of --config, else of NEURON_CONFIG, else neuron.toml in ~/.config/neuron.",
    "On SIGHUP a running node reads the file again, and takes over the keys that say so here; the others wait "
    "for a restart. If anything in it is wrong, nothing changes and the log says why.",
)
EXAMPLE = ('models = ["smollm2"]', "threads = 2", "max_in_flight = 8", 'log_level = "warning"')


def page() -> tuple[str, str]:
    """File name and text."""
    sections = [
        '.TH NEURON.TOML 5 "" neuron "File Formats"',
        section("NAME", ["neuron.toml \\- settings of a node"]),
        section("SYNOPSIS", ["~/.config/neuron/neuron.toml"]),
        section("DESCRIPTION", [line for text in FORM for line in (".PP", escape(text))][1:]),
        section("KEYS", tagged(_keys(), bold=True)),
        section("EXAMPLE", [".nf", *map(escape, EXAMPLE), ".fi"]),
        section("SEE ALSO", [r"\fBneuron\-serve\fR(1), \fBneuron\-config\-check\fR(1)"]),
    ]
    return "neuron.toml.5", "\n".join(sections) + "\n"


def _keys() -> Iterator[tuple[str, str]]:
    for key, about in ABOUT.items():
        said = f"Also {flag_of(key)} and {ENV_PREFIX}{key.upper()}."
        reloads = " SIGHUP takes it over." if about.reloads else ""
        yield assignment(key), f"{about.help} Default: {default_words(key)}. {said}{reloads}"
