"""What people write after ``--host``."""

import pytest

from neuron.errors import UsageError
from neuron.node_url import is_loopback, node_url

GOOD = {
    "gpu1": "http://gpu1:13131",
    "gpu1:80": "http://gpu1:80",
    "GPU1.lan": "http://gpu1.lan:13131",
    "10.0.0.1": "http://10.0.0.1:13131",
    "::1": "http://[::1]:13131",
    "[::1]": "http://[::1]:13131",
    "[::1]:99": "http://[::1]:99",
    "http://gpu1": "http://gpu1",
    "http://gpu1:13131/": "http://gpu1:13131",
    "https://nodes.example/gpu1/": "https://nodes.example/gpu1",
    "unix:///run/neuron.sock": "unix:///run/neuron.sock",
}
BAD = [
    "",
    " ",
    "http://",
    "ftp://x",
    "a b",
    "x:abc",
    "x:99999",
    "x:0",
    "x?y=1",
    "x#y",
    "u:p@x",
    "http://x:-1",
    "\x1b",
    "[::1",
]


@pytest.mark.parametrize("text", GOOD)
def test_an_address_becomes_a_url(text: str) -> None:
    assert node_url(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not the address of a node"):
        node_url(text)


@pytest.mark.parametrize("text", ["unix://run/n.sock", "unix://", "unix:///a\nb"])
def test_a_unix_socket_needs_a_whole_path(text: str) -> None:
    with pytest.raises(UsageError, match="is not a Unix socket"):
        node_url(text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:1", True),
        ("http://localhost:1", True),
        ("unix:///run/neuron.sock", True),
        ("http://gpu1:1", False),
        ("http://10.0.0.1", False),
        ("http://localhost.example", False),
    ],
)
def test_loopback_is_told_from_other_hosts(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected
