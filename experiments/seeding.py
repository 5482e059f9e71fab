"""Randomness as an argument: every random stream has a name, and depends only on the seed and that name."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called ``names``, independent of every other stream of the same ``seed``."""
    digest = hashlib.sha256("\x1f".join([str(seed), *map(str, names)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A generator for the stream called ``names``."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, *names)))


def unit_hash(seed: int, text: str) -> float:
    """A number in [0, 1) that depends on ``seed`` and ``text`` only: the split a text belongs to."""
    return derive_seed(seed, "split", text) / 2**63


def presentation_order(seed: int, name: str, num_items: int, start: int, count: int) -> list[int]:
    """Presentations `start` to `start + count` of `num_items` items, in epochs that are each shuffled anew.

    It depends on the position alone, so that training can resume at any position.
    """
    order: list[int] = []
    for number in range(start // num_items, (start + count - 1) // num_items + 1):
        order += numpy_generator(seed, name, number).permutation(num_items).tolist()
    offset = start % num_items
    return order[offset : offset + count]
