"""Vectors of texts on the device thread, in bounded pieces of work between which generations go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from neuron import faults
from neuron.engine.device_errors import as_error
from neuron.errors import NeuronError, NumericalError
from neuron.model.decoder import Decoder, make_batch
from neuron.model.encoder import Encoder
from neuron.model.pooling import Pool, Pooling

log = logging.getLogger("neuron.engine")

Vectors = dict[int, tuple[float, ...]]
"""By the number of the input."""


class Embedder:
    """A model with its pooling. Used on the device thread."""

    def __init__(self, model: Decoder | Encoder, pooling: Pooling, chunk_tokens: int) -> None:
        self.model, self.pooling, self.chunk_tokens = model, pooling, chunk_tokens

    def pieces(self, inputs: Sequence[Sequence[int]]) -> Iterator[Vectors]:
        """What each piece of work brought; nothing in the middle of a long input.

        Raises:
            NumericalError: a vector is not finite.
        """
        if isinstance(self.model, Encoder):
            return self._encode(self.model, inputs)
        return self._decode(self.model, inputs)

    @staticmethod
    def advance(pieces: Iterator[Vectors]) -> Vectors | NeuronError:
        """The next piece; an error instead of a raise, since the device thread goes on."""
        try:
            faults.at("embed")
            return next(pieces)
        except NeuronError as e:
            return e
        except Exception as e:
            log.error("embedding failed", exc_info=e)
            return as_error(e, "the embedding")

    def _encode(self, encoder: Encoder, inputs: Sequence[Sequence[int]]) -> Iterator[Vectors]:
        """Whole inputs, those of like length together."""
        for group in _groups(inputs, self.chunk_tokens):
            lengths = [len(inputs[i]) for i in group]
            states = encoder.states([inputs[i] for i in group])  # [T, C]
            yield {
                i: self._vector(i, part) for i, part in zip(group, torch.split(states, lengths), strict=True)
            }

    def _decode(self, decoder: Decoder, inputs: Sequence[Sequence[int]]) -> Iterator[Vectors]:
        """One input after the other, so that no more than one cache is taken."""
        for i, ids in enumerate(inputs):
            cache, pool = decoder.new_cache(len(ids)), Pool(self.pooling)
            for start in range(0, len(ids), self.chunk_tokens):
                if start:
                    yield {}
                chunk = ids[start : start + self.chunk_tokens]
                pool.add(decoder.states(make_batch([(cache, chunk, len(chunk))], decoder.device)))
            yield {i: _finite(i, pool.vector())}

    def _vector(self, i: int, states: Tensor) -> tuple[float, ...]:
        pool = Pool(self.pooling)
        pool.add(states)
        return _finite(i, pool.vector())


def _groups(inputs: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
    """Numbers of inputs, shortest first, up to ``max_tokens`` together but at least one."""
    group: list[int] = []
    n_tokens = 0
    for i in sorted(range(len(inputs)), key=lambda i: len(inputs[i])):
        if group and n_tokens + len(inputs[i]) > max_tokens:
            yield group
            group, n_tokens = [], 0
        group.append(i)
        n_tokens += len(inputs[i])
    if group:
        yield group


def _finite(i: int, vector: Tensor) -> tuple[float, ...]:
    if not vector.isfinite().all():
        raise NumericalError(f"the model computed a vector for input {i} that is not finite")
    return tuple(vector.tolist())
