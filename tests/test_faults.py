"""Faults on purpose: read exactly, refused outside of tests, and free where there are none."""

from __future__ import annotations

import timeit
from collections.abc import Iterator

import pytest

from neuron import faults
from neuron.errors import ConfigError
from tests.support.node_process import cli


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Nothing stays planned for other tests."""
    yield
    faults.arm({})


def planned(text: str) -> dict[str, str]:
    return {faults.VARIABLE: text, faults.SWITCH: "1"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("step:nan@12", ("step", "nan", 0.0, 12)),
        ("step:hang=0.5@3", ("step", "hang", 0.5, 3)),
        ("load:oom", ("load", "oom", 0.0, 1)),
    ],
)
def test_a_fault_is_a_point_a_kind_and_a_pass(text: str, fault: tuple[object, ...]) -> None:
    assert faults.read(planned(text)) == (fault,)
    assert faults.read(planned(f"{text},log:enospc"))[1] == ("log", "enospc", 0.0, 1)


@pytest.mark.parametrize(
    "text", ["step", "step:", "steps:nan", "step:none", "step:nan@0", "step:nan@-1", "step:hang=x", "a:b c"]
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no fault"):
        faults.read(planned(text))


@pytest.mark.parametrize("switch", [{}, {faults.SWITCH: "0"}, {faults.SWITCH: "true"}])
def test_a_node_that_is_not_under_test_does_not_start(switch: dict[str, str]) -> None:
    done = cli("serve", "--port", "0", **{faults.VARIABLE: "step:nan"}, **switch)
    assert done.returncode == 78
    assert "NEURON_FAULT puts faults into a node" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_it_happens_at_its_pass_and_at_no_other() -> None:
    faults.arm(planned("step:nan@2,step:oom@3,prefill:bug"))
    assert [faults.at("step"), faults.at("step")] == [None, "nan"]
    with pytest.raises(MemoryError):
        faults.at("step")
    assert faults.at("step") is None
    with pytest.raises(RuntimeError, match="a mistake"):
        faults.at("prefill")


def test_a_lost_device_stays_lost_until_a_load() -> None:
    faults.arm(planned("step:lost"))
    for point in ("step", "probe", "prefill", "step"):
        with pytest.raises(faults.Lost):
            faults.at(point)
    faults.at("load")
    assert faults.at("step") is None


def test_without_faults_a_point_costs_nothing() -> None:
    faults.arm({})
    assert min(timeit.repeat(lambda: faults.at("step"), number=1000, repeat=20)) < 1e-3
