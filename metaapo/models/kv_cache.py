"""A key-value cache with room to grow: a step writes its tokens in place instead of copying everything before them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

SPARE = 64  # tokens of room at the start, beside the prompt; most short answers need no second allocation


class GrowingLayer(DynamicLayer):
    """The keys and values of one layer, (rows, heads, tokens, head size), at the front of larger buffers."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers; called by transformers with the first keys and values."""
        super().lazy_initialization(key_states, value_states)
        self.length = 0
        self._buffers = [_with_room(states[:, :, :0], states.shape[2] + SPARE) for states in (key_states, value_states)]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values, (rows, heads, new tokens, head size); returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self._buffers[0].shape[2]:  # by half, so that a token is copied two or three times in all
            self._buffers = [_with_room(buffer[:, :, : self.length], end * 3 // 2) for buffer in self._buffers]
        for buffer, states in zip(self._buffers, (key_states, value_states)):
            buffer[:, :, self.length : end] = states
        self.length = end
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        self._buffers = [_with_room(buffer[indices, :, : self.length], buffer.shape[2]) for buffer in self._buffers]
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self._buffers)


class GrowingCache(Cache):
    """A cache of growing layers, for models whose layers all attend to everything before."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[GrowingLayer() for _ in range(layers)])


def _with_room(states: Tensor, tokens: int) -> Tensor:
    """A buffer for so many tokens that begins with these."""
    rows, heads, length, size = states.shape
    buffer = states.new_empty(rows, heads, tokens, size)
    buffer[:, :, :length] = states
    return buffer
