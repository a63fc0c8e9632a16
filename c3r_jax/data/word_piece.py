"""Learning a word-piece vocabulary, the same on every run.

The trainer of Hugging Face ``tokenizers`` breaks ties in the order of a randomly seeded hash map, so two runs over the
same texts learn different vocabularies; this one breaks ties by the pieces' spelling.
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
    """Joins the most frequent pair of pieces, over and over, until the vocabulary is full.

    Args:
      counts: how often each word occurs.
      size: the most pieces to return.
      min_count: pairs seen less often are not joined.

    Returns:
      The pieces: single characters in their order, then the joined ones as they were found.

    Raises:
      DataError: there is no word, or more characters than room.

    Example:
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
        if totals[pair] != -negative:  # counted anew since it was pushed
            continue
        if -negative < min_count:
            break
        if _join(pair) not in known:  # two ways of joining can spell one piece
            known.add(_join(pair))
            vocabulary.append(_join(pair))
        changed: set[Pair] = set()
        for number in sorted(places.pop(pair)):
            old, new = words[number], _merge(words[number], pair)
            words[number] = new
            for gone in zip(old, old[1:], strict=False):
                totals[gone] -= weights[number]
                places[gone].discard(number)
                changed.add(gone)
            for made in zip(new, new[1:], strict=False):
                totals[made] += weights[number]
                places[made].add(number)
                changed.add(made)
        for other in changed:
            if totals[other] > 0:
                heapq.heappush(heap, (-totals[other], other))
    return vocabulary
