"""The same conversation without a node: a real model in the program's own process."""

from pathlib import Path

import pytest

from tests.support.cli import free_port
from tests.support.terminal import terminal


@pytest.mark.real_model
def test_a_conversation_in_this_process_counts_stops_and_goes_on(tmp_path: Path, smollm2_gguf: Path) -> None:
    with terminal(
        "chat",
        str(smollm2_gguf),
        "--temperature",
        "0",
        "--session",
        "s",
        state=tmp_path,
        NEURON_PORT=str(free_port()),
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
