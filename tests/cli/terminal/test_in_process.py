"""The same conversation without a node: a real model in the program's own process."""

from pathlib import Path

import pytest

from tests.support.cli import free_port
from tests.support.terminal import terminal

LOCAL = "neuron.node_url.LOCAL_NODE"


@pytest.mark.real_model
def test_a_conversation_in_this_process_counts_stops_and_goes_on(tmp_path: Path, smollm2_gguf: Path) -> None:
    import sys

    code = (
        f"import sys, neuron.node_url; neuron.node_url.LOCAL_NODE = 'http://127.0.0.1:{free_port()}';"
        "from neuron.cli.main import main; main()"
    )
    with terminal(
        "chat",
        str(smollm2_gguf),
        "--temperature",
        "0",
        "--session",
        "s",
        state=tmp_path,
        program=(sys.executable, "-c", code),
    ) as screen:
        screen.until(lambda: screen.line.strip() == ">>>" and "/ 8,192" in screen.shown[-1], within_s=60)
        screen.ask("What is the capital of France?")
        screen.wait_for("The capital of France is Paris.", within_s=60)
        screen.wait_prompt()
        screen.ask("/tokens")
        screen.wait_for("of 8192 tokens")
        screen.wait_prompt()
        screen.ask("/model")
        screen.wait_for("* SmolLM2-135M")
        screen.wait_prompt()
        screen.ask("Write a very long story about a very old sea captain.")
        screen.until(lambda: len(screen.text.split("captain.")[-1]) > 60, within_s=60)
        screen.press("ctrl-c")
        screen.wait_for("[stopped]")
        screen.wait_prompt()
        screen.ask("/undo")
        screen.wait_for("taken back: Write a very long story")
        screen.wait_prompt()
        screen.press("ctrl-d")
        assert screen.wait_end() == 0
