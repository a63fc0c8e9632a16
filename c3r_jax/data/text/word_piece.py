"""Learns a word-piece vocabulary, deterministically.

The trainer of Hugging Face ``tokenizers`` breaks ties in the order of a randomly seeded hash map, so two runs over the
same texts learn different vocabularies; this one breaks ties alphabetically.
"""

import collections
import heapq
from collections.abc import Mapping

from c3r_jax.errors import DataError

CONTINUE = "##"  # marks a piece that does not begin a word
Pair = tuple[str, str]


def _join(pair: Pair) -> str:
    return pair[0] + pair[1].removeprefix(CONTINUE)


def _merge(word: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    position = 0
    while position < len(word):
        if tuple(word[position : position + 2]) == pair:
            merged.append(_join(pair))
            position += 2
        else:
            merged.append(word[position])
            position += 1
    return merged


def word_piece_vocabulary(counts: Mapping[str, int], *, size: int, min_count: int = 2) -> list[str]:
    """Joins the most frequent pair of pieces repeatedly until the vocabulary is full.

    Args:
      counts: how often each word occurs.
      size: largest number of pieces.
      min_count: less frequent pairs are not joined.

    Returns:
      The pieces: single characters in sorted order, then joined pieces in the order of joining.

    Raises:
      DataError: there is no word, or more characters than room.

    Examples:
      >>> word_piece_vocabulary({"ab": 2}, size=3)
      ['##b', 'a', 'ab']
    """
    spelled = sorted(counts)
    words = [[word[0], *(CONTINUE + letter for letter in word[1:])] for word in spelled]
    weights = [counts[word] for word in spelled]
    vocabulary = sorted({piece for word in words for piece in word})
    if not vocabulary or len(vocabulary) > size:
        raise DataError(
            f"The texts have {len(vocabulary)} different characters, expected 1 to {size} (vocab_size less padding and "
            "mask): give training texts and a vocab_size with room for them."
        )
    totals: collections.Counter[Pair] = collections.Counter()
    places: dict[Pair, set[int]] = collections.defaultdict(set)
    for number, word in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            totals[pair] += weights[number]
            places[pair].add(number)
    heap = [(-count, pair) for pair, count in totals.items()]
    heapq.heapify(heap)
    known = set(vocabulary)
    while heap and len(vocabulary) < size:
        negative, pair = heapq.heappop(heap)
        if totals[pair] != -negative:  # its count has changed since it was pushed
            continue
        if -negative < min_count:
            break
        if _join(pair) not in known:  # different pairs can spell the same piece
            known.add(_join(pair))
            vocabulary.append(_join(pair))
        for changed in _join_everywhere(pair, words, weights, totals, places):
            if totals[changed] > 0:
                heapq.heappush(heap, (-totals[changed], changed))
    return vocabulary


def _join_everywhere(
    pair: Pair,
    words: list[list[str]],
    weights: list[int],
    totals: collections.Counter[Pair],
    places: dict[Pair, set[int]],
) -> set[Pair]:
    """Joins a pair in all words, updates totals and places of pairs, and returns the pairs whose totals changed."""
    changed: set[Pair] = set()
    for number in sorted(places.pop(pair)):
        old, new = words[number], _merge(words[number], pair)
        words[number] = new
        for removed in zip(old, old[1:], strict=False):
            totals[removed] -= weights[number]
            places[removed].discard(number)
            changed.add(removed)
        for added in zip(new, new[1:], strict=False):
            totals[added] += weights[number]
            places[added].add(number)
            changed.add(added)
    return changed
