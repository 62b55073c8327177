"""A real router in front of two real nodes: requests are spread, one node drains, and no request is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.node_process import NodeProcess, clean_env, node

N_REQUESTS, AT_ONCE = 90, 6

LEAVE: dict[str, Callable[[NodeProcess], object]] = {
    "POST /drain": lambda leaving: leaving.post("/drain", {}),
    "SIGTERM": lambda leaving: leaving.process.send_signal(signal.SIGTERM),
}


@pytest.mark.parametrize("how", LEAVE)
def test_a_node_drains_behind_a_router_and_no_request_is_lost(how: str, tiny_root: Path) -> None:
    args = (tiny_root / "tiny", "--threads", "1")
    with node(*args) as staying, node(*args) as leaving:
        for one in (staying, leaving):
            one.wait_loaded("tiny")
        command = [
            sys.executable,
            "-m",
            "tests.support.litellm_router",
            str(N_REQUESTS),
            str(AT_ONCE),
            "tiny",
        ]
        router = subprocess.Popen(
            [*command, staying.url, leaving.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=clean_env({"PYTHONWARNINGS": "ignore"}),
        )  # fmt: skip
        assert router.stdout is not None
        assert router.stdout.readline() == "third\n", router.communicate()[1]
        spread = [answered(one) for one in (staying, leaving)]
        LEAVE[how](leaving)
        out, err = router.communicate(timeout=60)
        assert leaving.process.wait(30) == 0
        answers = json.loads(out.splitlines()[-1])
        assert len(answers) == N_REQUESTS, err
        assert [answer for answer in answers if answer.get("end") != "length"] == []
        assert {answer.get("tokens", 12) for answer in answers} == {12}
        assert min(spread) >= N_REQUESTS // 3 // 5, spread
        assert answered(staying) > N_REQUESTS // 2
        assert staying.get("/ready").status_code == 200


def answered(running: NodeProcess) -> int:
    """Requests that ended well on a node, or run there."""
    found = running.get("/requests?limit=1000").json()
    return sum(request["state"] in ("finished", "running", "decode", "prefill") for request in found)
