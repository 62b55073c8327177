"""Keys for tests, and the headers that show them."""

from __future__ import annotations

from neuron import keys
from neuron.keys import Keyring, Scope

READER, READER_SECRET = keys.make("reader", Scope.INFER)
OPERATOR, OPERATOR_SECRET = keys.make("operator", Scope.MANAGE)
LIMITED, LIMITED_SECRET = keys.make("limited", Scope.INFER, max_in_flight=3)
RING = Keyring((READER, OPERATOR, LIMITED))


def bearer(secret: str) -> dict[str, str]:
    """The header that shows it."""
    return {"authorization": f"Bearer {secret}"}
