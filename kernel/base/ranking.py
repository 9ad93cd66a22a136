"""The order of search results, and the words it is made of. Pure: text and numbers in, an order out.

Full-text search scores one item at a time. In a conversation the words of a question often stand in one turn and the answer in the
next, so a hit lends part of its score to its neighbourhood:

    score(i) = own(i) + gate(words(i)) * (NEIGHBOUR * (own(i-1) + own(i+1)) + CONVERSATION * sum of the best three own scores there)
    gate(w)  = 1 / (1 + (w / 140)^4)        a long item speaks for itself: it lends, and borrows next to nothing

i-1 and i+1 are the live items said before and after in the same conversation; an item outside any conversation has its own score.
`own` is FTS5's bm25 with the sign turned, over `porter unicode61`. No language model, no vectors.

Guarantees
1. `any_of` gives a valid FTS5 expression, or none, for every string there is: operators, quotes, NUL and lone surrogates of the
   text are never syntax.
2. Stop words are dropped from a question unless nothing else is in it.
3. Equal scores are ordered by age, newest first; the order depends on nothing but the arguments.

Not here: what may be seen (memory.py), where the numbers were tuned (docs/DECISIONS.md).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

__all__ = [
    "POOL", "Place", "Text", "any_of", "excerpt", "near_duplicates", "order", "search_terms", "some_of", "words_of",
]  # fmt: skip

NEIGHBOUR = 0.3
CONVERSATION = 0.2
CONVERSATION_HITS = 3
LONG_WORDS = 140
POOL = 100
"""Best hits whose neighbourhood is looked at. Twice or half as many change recall by less than .005."""
TERMS_MAX = 48
"""Of one question. Each term costs a walk through its list of occurrences; longer questions are pasted documents."""
LIKENESS_CHARS = 500
LIKENESS_MIN = 0.5
RARE_TERMS = 4

WORD = re.compile(r"[^\W_]+")
STOP_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but
    by can could d did didn do does doesn doing don down during each few for from further had has have having he her
    here hers herself him himself his how i if in into is it its itself just let ll m me more most my myself no nor
    not now of off on once only or other our ours out over own re s same she should so some such t than that the
    their theirs them then there these they this those through to too under until up us ve very was we were what
    when where which while who whom why will with would you your yours
    """.split()  # noqa: SIM905  (a list of 120 quoted words is not read)
)


class Place(NamedTuple):
    """Where an item stands: what the formula needs to know about it besides its own score."""

    conversation: str | None
    before: int | None
    words: int


def words_of(text: str) -> list[str]:
    """Lower-case words in order of their first appearance, about as FTS5's unicode61 cuts them."""
    return list(dict.fromkeys(WORD.findall(text.lower())))


def search_terms(question: str) -> list[str]:
    words = words_of(question)
    return ([word for word in words if word not in STOP_WORDS] or words)[:TERMS_MAX]


def any_of(terms: Iterable[str]) -> str:
    """An FTS5 expression that matches any of the terms; empty when there is none. Quoted terms are never operators."""
    return " OR ".join(f'"{term}"' for term in terms)


def order(own: Mapping[int, float], places: Mapping[int, Place]) -> list[tuple[int, float]]:
    """(item, score), best first, of all `places`: the hits and the neighbours that were looked up with them.

    Items are numbered in the order of their arrival; `own` may name items that are not in `places` (no longer to be seen): they
    neither appear nor lend.
    """
    after = {place.before: n for n, place in places.items() if place.before is not None}
    heard: dict[str, list[float]] = {}
    for n, place in places.items():
        if place.conversation is not None and n in own:
            heard.setdefault(place.conversation, []).append(own[n])
    mood = {name: sum(sorted(scores, reverse=True)[:CONVERSATION_HITS]) for name, scores in heard.items()}
    scored = []
    for n, place in places.items():
        score = own.get(n, 0.0)
        if place.conversation is not None:
            beside = sum(own.get(m, 0.0) for m in (place.before, after.get(n)) if m is not None and m in places)
            gate = 1 / (1 + (place.words / LONG_WORDS) ** 4)
            score += gate * (NEIGHBOUR * beside + CONVERSATION * mood.get(place.conversation, 0.0))
        scored.append((n, score))
    scored.sort(key=lambda item: (-item[1], -item[0]))
    return scored


class Text(NamedTuple):
    """A text, and its words as far as they matter for likeness."""

    id: str
    text: str
    words: frozenset[str]

    @staticmethod
    def of(text_id: str, text: str) -> "Text":
        return Text(text_id, text, frozenset(WORD.findall(text[:LIKENESS_CHARS].lower())))

    def rare(self) -> list[str]:
        """The longest words, which are likely to be the rarest: a near-duplicate has at least two of them."""
        return sorted(self.words - STOP_WORDS or self.words, key=lambda word: (-len(word), word))[:RARE_TERMS]


def some_of(terms: Sequence[str]) -> str:
    """An FTS5 expression for texts that may have two of the terms; one where there are too few to ask for two.

    Two pairs instead of all six: a third of the postings are walked, and what shares half its words seldom shares just one pair.
    """
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
