"""The order of search results. Pure: numbers in, an order out.

Full-text search scores one item at a time. In a conversation the words of a question stand in one turn, the answer in the next, and
the other words in a third, so every term of the question is looked for in the neighbourhood, and each found once counts more than one
found often:

    own(i)     bm25 of the item over the rarest terms of the question, the sign turned
    u(i)       own(i) / weight of the item's terms          how well a term that it has is matched in it
    x(t, i)    u(i) if t is in i  +  gate(i) * (NEIGHBOUR * max(u of the turn before, of the turn after, if t is in them)
                                                + CONVERSATION * max(u of the items there that have t))
    words(i)   sum over the terms of weight(t) * 2 x / (x + 1)
    gate(i)    1 / (1 + (length / 140)^4)                   a long item speaks for itself: it lends, and borrows next to nothing
    weight(t)  ln((N - n + .5) / (n + .5))                  N items, n of them with the term

    score(i) = words(i) * 1.5 if the question names the speaker * (1 + nearness / 2) to a date that it names
                        * .8 if the item ends with a question mark: it asks, and seldom answers
                        * 1 / (1 + .05 k) for the k-th further item of one conversation: others have their say

An item outside any conversation has only its own terms. Items with all quoted phrases come before all others. No language model, no
vectors.

Guarantees
1. Equal scores are ordered by age, newest first; the order depends on nothing but the arguments.
2. What may not be seen (no place is given for it) neither appears nor lends.
3. `Parts` are what a score was made of: the sum of its terms times the product of its times.

Not here: what may be seen, and full-text search (recall.py), the words (wording.py), where the numbers were tuned (docs/DECISIONS.md).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from .wording import STOP_WORDS, Asked, any_of, forms_of, words_of

__all__ = [
    "LENDERS", "POOL", "Parts", "Place", "Ranked", "Term", "Text", "excerpt", "near_duplicates", "order", "rarest", "some_of", "weight_of",
]  # fmt: skip

NEIGHBOUR = 0.4
CONVERSATION = 0.2
LONG_WORDS = 140
NAMED = 0.5
DATED = 0.5
ASKING = 0.2
AGAIN = 0.05
POOL = 80
"""Best hits that are put in order, and lend to each other."""
LENDERS = 20
"""The best of these, whose neighbours are looked up even where they match nothing themselves."""
ROWS_MIN = 100
"""The rarest terms that bring so many rows choose the pool; frequent ones only weigh in it. Twice as many change nothing in quality."""
WEIGHT_MIN = 1e-6
LIKENESS_CHARS = 500
LIKENESS_MIN = 0.5
RARE_TERMS = 4


class Place(NamedTuple):
    """What the formula needs to know about an item besides its own score."""

    conversation: str | None
    before: int | None
    """The item said before it in its conversation."""
    words: int
    asks: bool
    """It ends with a question mark."""
    speaker: str
    time: float


class Term(NamedTuple):
    """A term of the question: what it weighs, and which items have it."""

    weight: float
    items: Collection[int]


class Ranked(NamedTuple):
    n: int
    score: float
    parts: "Parts | None"


class Parts(NamedTuple):
    """What a score was made of: the sum of `terms` times the product of `times`."""

    terms: Mapping[int, float]
    """By the index of the term."""
    times: Mapping[str, float]


def weight_of(rows: int, total: int) -> float:
    """Of a term that `rows` of `total` items have; next to nothing where that is half of them."""
    return max(math.log((total - rows + 0.5) / (rows + 0.5)), WEIGHT_MIN) if rows <= total else WEIGHT_MIN


def rarest(rows: Sequence[int]) -> list[int]:
    """Indices of the terms that choose the pool, by how many items have each: two at least, more until they bring rows enough."""
    chosen: list[int] = []
    brought = 0
    for index in sorted((i for i, count in enumerate(rows) if count), key=rows.__getitem__):
        if len(chosen) >= 2 and brought >= ROWS_MIN:
            break
        chosen.append(index)
        brought += rows[index]
    return chosen


def order(
    own: Mapping[int, float],
    terms: Sequence[Term],
    places: Mapping[int, Place],
    asked: Asked,
    *,
    phrased: Collection[int] | None = None,
    explain: bool = False,
) -> list[Ranked]:
    """Best first, all of `places`: the pool that `own` scores, and the neighbours that were looked up with it.

    Items are numbered in the order of their arrival. `phrased` are those with all quoted phrases; None when nothing was quoted.
    """
    weights = [2 * term.weight for term in terms]
    units = _units(own, terms, places)
    none = [0.0] * len(terms)
    after = {place.before: n for n, place in places.items() if place.before is not None}
    best: dict[str, list[float]] = {}
    for n, held in units.items():
        if (conversation := places[n].conversation) is not None:
            best[conversation] = list(map(max, best[conversation], held)) if conversation in best else held
    times = _Times(asked)
    scored = []
    for n, place in places.items():
        found = units.get(n, none)
        if place.conversation is not None:
            told, answered = units.get(place.before or 0, none), units.get(after.get(n, 0), none)
            found = _with_borrowed(found, told, answered, best.get(place.conversation, none), place.words)
        words = 0.0
        for weight, unit in zip(weights, found, strict=True):
            words += weight * unit / (unit + 1)
        scored.append((words * times.of(place), n, found))
    scored.sort(key=lambda one: (-one[0], -one[1]))
    turns: dict[str | None, int] = {}
    ranked = []
    for score, n, found in scored:
        conversation = places[n].conversation
        turn = turns.get(conversation, 0)
        turns[conversation] = 0 if conversation is None else turn + 1
        again = 1 / (1 + AGAIN * turn)
        parts = Parts(_by_term(found, weights), {**times.told(places[n]), "again": again}) if explain else None
        ranked.append(Ranked(n, score * again, parts))
    ranked.sort(key=lambda one: (-one.score, -one.n))
    return ranked if phrased is None else sorted(ranked, key=lambda one: one.n not in phrased)


class _Times:
    """What the sum over the terms is multiplied with."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._named: dict[str, float] = {}

    def of(self, place: Place) -> float:
        """The product of `told`, without its names."""
        named = self._named.get(place.speaker)
        if named is None:
            named = self._named[place.speaker] = self.told(place)["speaker"]
        if self._asked.days:
            named *= self._date(place.time)
        return named * (1 - ASKING) if place.asks else named

    def told(self, place: Place) -> dict[str, float]:
        return {
            "speaker": 1.0 if self._asked.names.isdisjoint(words_of(place.speaker)) else 1 + NAMED,
            "date": self._date(place.time),
            "question": 1 - ASKING if place.asks else 1.0,
        }

    def _date(self, time: float) -> float:
        return 1 + DATED * max((day.nearness(time) for day in self._asked.days), default=0.0)


def _units(own: Mapping[int, float], terms: Sequence[Term], places: Mapping[int, Place]) -> dict[int, list[float]]:
    """Of each item in the pool: how well each term is matched in it."""
    units = {n: [0.0] * len(terms) for n in own if n in places}
    sums = dict.fromkeys(units, 0.0)
    for term in terms:
        for n in units.keys() & term.items:
            sums[n] += term.weight
    for index, term in enumerate(terms):
        for n in units.keys() & term.items:
            units[n][index] = own[n] / sums[n]
    return units


def _with_borrowed(
    held: Sequence[float], told: Sequence[float], answered: Sequence[float], best: Sequence[float], words: int
) -> list[float]:
    gate = 1 / (1 + (words / LONG_WORDS) ** 4)
    near, there = gate * NEIGHBOUR, gate * CONVERSATION
    return [
        unit + near * (before if before > after else after) + there * most  # noqa: FURB136  (a call costs more)
        for unit, before, after, most in zip(held, told, answered, best, strict=True)
    ]


def _by_term(found: Sequence[float], weights: Sequence[float]) -> dict[int, float]:
    return {
        index: weight * unit / (unit + 1)
        for index, (weight, unit) in enumerate(zip(weights, found, strict=True))
        if unit
    }


class Text(NamedTuple):
    """A text, and its words as far as they matter for likeness."""

    id: str
    text: str
    words: frozenset[str]

    @staticmethod
    def of(text_id: str, text: str) -> "Text":
        return Text(text_id, text, frozenset(forms_of(text[:LIKENESS_CHARS])))

    def rare(self) -> list[str]:
        """The longest words, which are likely to be the rarest: a near-duplicate has at least two of them."""
        return sorted(self.words - STOP_WORDS or self.words, key=lambda word: (-len(word), word))[:RARE_TERMS]


def some_of(words: Sequence[str]) -> str:
    """An FTS5 expression for texts that may have two of the words; one where there are too few to ask for two.

    Two pairs instead of all six: a third of the postings are walked, and what shares half its words seldom shares just one pair.
    """
    terms = [f'"{word}"' for word in words]
    if len(terms) < RARE_TERMS:
        return any_of(terms)
    return f"({any_of(terms[0::2])}) AND ({any_of(terms[1::2])})"


def near_duplicates(new: Text, others: Iterable[Text]) -> list[tuple[Text, float]]:
    """The three of `others` that share most words with `new`, at least half of all (Jaccard); equal ones in the given order."""
    terms = frozenset(new.rare())
    needed = 2 if len(terms) == RARE_TERMS else 1
    shares = [
        (other, len(new.words & other.words) / len(new.words | other.words))
        for other in others
        if len(terms & other.words) >= needed
    ]
    return sorted((pair for pair in shares if pair[1] >= LIKENESS_MIN), key=lambda pair: -pair[1])[:3]


def excerpt(text: str, size: int, whole: str) -> str:
    """`text` in at most about `size` characters: head and tail, and between them how much is missing and where all of it is."""
    if len(text) <= size:
        return text
    head, tail = size * 2 // 3, size // 3
    return f"{text[:head]} [... {len(text) - head - tail} characters left out, whole: {whole} ...] {text[len(text) - tail :]}"
