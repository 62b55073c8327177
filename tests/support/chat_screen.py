"""A screen of ``neuron chat``, made by the program itself on a terminal."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from tests.support.fake_engine import FakeEngine, Script, Think
from tests.support.node_server import node_server
from tests.support.terminal import terminal

MODEL = "smollm2"
ANSWER = """# Words in a file

Two ways, **both** short:

- `wc -w` counts them
- in Python:

```python
def words(path):
    # split() takes any run of blanks
    return len(open(path).read().split())
```

| way | reads the file |
|:----|---------------:|
| `wc` | in pieces |
| Python | whole |
"""


def chat_screen() -> str:
    """A conversation with Markdown, folded reasoning, a stopped answer and the status line."""
    engine = FakeEngine(
        Script(
            texts=[
                *map(Think, ("Two ", "ways, ", "both ", "short.")),
                *re.findall(r".{1,4}", ANSWER, re.DOTALL),
            ]
        ),
        [MODEL],
    )
    with node_server(engine) as node, tempfile.TemporaryDirectory() as state:
        args = ("chat", MODEL, "--host", node.url, "--session", "words")
        with terminal(*args, state=Path(state), columns=72, lines=40) as screen:
            screen.wait_prompt()
            screen.ask("/set reasoning fold")
            screen.wait_prompt()
            screen.ask("How do I count the words of a file?")
            screen.wait_for("whole")
            screen.wait_prompt()
            engine.script = Script(texts=["Once", " upon", " a", " time", *[" there was"] * 99], step_s=0.1)
            screen.ask("And now a story.")
            screen.wait_for("Once upon a time")
            screen.press("ctrl-c")
            screen.wait_for("[stopped]")
            screen.wait_prompt()
            screen.ask("/undo")
            screen.wait_for("taken back")
            screen.wait_prompt()
            screen.ask("/tokens")
            screen.wait_for(" left")
            screen.wait_prompt()
            return without_times(screen.text)


def without_times(text: str) -> str:
    """The screen with what differs from run to run made equal."""
    lines = [line.rstrip() for line in text.split("\n")]
    text = "\n".join(lines)
    text = re.sub(r"thought for [\d.]+ s", "thought for … s", text)
    text = re.sub(r"[\d,.]+ tok/s", "… tok/s", text)
    text = re.sub(r"(Once upon a time)( there| was)*", r"\1", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"
