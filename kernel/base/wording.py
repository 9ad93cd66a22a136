"""The words of texts and of questions: which of them are looked for, and what else a question says. Pure.

    What did Anna say about "hot tea" in May 2024?
        terms    anna, hot, tea, may, 2024      what the index is asked for; stop words are not
        phrases  hot tea                        items with these words side by side come first
        dates    May 2024                       items about that time weigh more
        names    every word of it               items of a speaker who is named weigh more; `I` and `my` name the speaker `user`

FTS5's `porter unicode61` cuts a text at blanks and marks. Scripts without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan)
would be one word a sentence, and Korean hangs its particles on its words, so their texts are also indexed as pieces: every two
neighbouring characters as one word of digits, the last character alone, and what stands among them in other scripts
(`iPhoneを買った`). A question is cut the same way, so a word in the middle is found by its pairs.

Guarantees
1. Terms, phrases and `any_of` are valid FTS5 expressions for every string there is: operators, quotes, NUL and lone
   surrogates of the text are never syntax.
2. Stop words are dropped from a question unless nothing else is in it.
3. `pieces_of` is empty for a text that has only scripts with blanks: they pay nothing. It may change only with a migration, since old
   rows are found by what was written.

Not here: the order of hits (ranking.py), the index itself (recall.py).
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

__all__ = [
    "STOP_WORDS",
    "Asked",
    "Day",
    "any_of",
    "asked_of",
    "asks",
    "forms_of",
    "kept_of",
    "pieces_of",
    "said",
    "words_of",
]

TERMS_MAX = 48
"""Of one question. Each term costs a walk through its list of occurrences; longer questions are pasted documents."""

WORD = re.compile(r"[^\W_]+")
STOP_WORDS = frozenset(
    """
    a about above actually after again ago all already also am an and any anyone anything are as at be because been
    before being below between both but by can could d did didn do does doesn doing don down during each ever everything
    few for from further had has have having he her here hers herself him himself his how i if in into is it its itself
    just lately let ll m many me more most much my myself never no nor not nothing now of off on once only or other our
    ours out over own re really recently s same she should so some someone something still such t than that the their
    theirs them then there these they this those through to too under until up us ve very was we were what when where
    which while who whom why will with would yet you your yours
    """.split()  # noqa: SIM905  (a list of 140 quoted words is not read)
)
FIRST_PERSON = frozenset(("i", "me", "mine", "my", "myself", "our", "us", "we"))
MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)

SPACELESS = "\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
RUN = re.compile(f"[{SPACELESS}]+")
STRETCH = re.compile(rf"(?:[{SPACELESS}]|[^\W_])+")
"""Without a blank or mark; Thai and others have letters that Python does not count as such. Nothing follows, so it cannot backtrack."""
PART = re.compile(f"[{SPACELESS}]+|[^{SPACELESS}]+")

QUOTED = re.compile(r"[\"“”„«»]([^\"“”„«»]+)[\"“”„«»]")
PHRASES_MAX = 4
PAIR = re.compile(r"\b(?:\d{14}|\d{7})\b")
QUESTION_MARKS = ("?", "？", "؟", "՞", "፧", "⁇", "⁈", "?!")
ENDING = " \t\r\n\"'”’)»」』"
STARRED = re.compile(r"([^\W_]+)(\*{0,2})")

_MONTH = "|".join([*MONTHS, *(name[:3] for name in MONTHS if name != "may"), "sept"])
DATE = re.compile(
    rf"\b(?:(?P<d1>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? )?(?P<month>{_MONTH})\b\.?"
    r"(?: (?P<d2>\d{1,2})(?:st|nd|rd|th)?\b)?(?:,? (?P<year>(?:19|20)\d\d)\b)?",
    re.IGNORECASE,
)
ISO_DATE = re.compile(r"\b(?P<year>(?:19|20)\d\d)(?:-(?P<month>[01]\d)(?:-(?P<day>[0-3]\d))?)?\b")


class Day(NamedTuple):
    """A day, month or year of the calendar; 0 is a part that was not said."""

    year: int
    month: int
    day: int

    def nearness(self, moment: float) -> float:
        """1 within it, a half in its month, else 0: what happened on a day is often told some days later."""
        when = datetime.fromtimestamp(moment, UTC)
        if self.year not in (0, when.year) or self.month not in (0, when.month):
            return 0.0
        return 1.0 if self.day in (0, when.day) else 0.5


class Asked(NamedTuple):
    """A question as far as a search can use it. Terms and phrases are FTS5 expressions without a column."""

    terms: tuple[str, ...]
    phrases: tuple[str, ...]
    names: frozenset[str]
    days: tuple[Day, ...]


def asked_of(question: str) -> Asked:
    words = words_of(question)
    plain = [word for word in words if not RUN.search(word)]
    begun = frozenset(word for word, star in STARRED.findall(question.lower()) if star == "*" and len(word) > 1)
    terms = [f'"{word}"*' if word in begun else f'"{word}"' for word in plain if word not in STOP_WORDS]
    if len(plain) < len(words):
        terms += dict.fromkeys(_sought(piece) for found in _stretches(question) for piece in _pieces(found))
    terms = terms or [f'"{word}"' for word in plain]
    phrases = [_phrase(found) for found in QUOTED.findall(question)[:PHRASES_MAX]]
    first = not FIRST_PERSON.isdisjoint(words) and "you" not in words
    return Asked(
        tuple(terms[:TERMS_MAX]),
        tuple(phrase for phrase in phrases if phrase),
        frozenset((*words, "user") if first else words),
        tuple(_days(question)),
    )


def kept_of(question: str) -> list[str]:
    """Its words but for stop words, unless nothing else is in it."""
    words = words_of(question)
    return ([word for word in words if word not in STOP_WORDS] or words)[:TERMS_MAX]


def words_of(text: str) -> list[str]:
    """Lower-case words in order of their first appearance, about as FTS5's unicode61 cuts them."""
    return list(dict.fromkeys(WORD.findall(text.lower())))


def asks(text: str) -> bool:
    return text.rstrip(ENDING).endswith(QUESTION_MARKS)


def said(term: str) -> str:
    """A term or phrase as a person would write it."""
    return PAIR.sub(lambda digits: "".join(map(chr, map(int, re.findall(r"\d{7}", digits[0])))), term.replace('"', ""))


def forms_of(text: str) -> list[str]:
    """All that a text is found by, but for its stems."""
    pieces = pieces_of(text).split()
    return [word for word in words_of(text) if not RUN.search(word)] + pieces if pieces else words_of(text)


def pieces_of(text: str) -> str:
    """What the index is given besides the text, so that words of a script without blanks are found."""
    if text.isascii() or not RUN.search(text):
        return ""
    return " ".join(piece for found in _stretches(text) for piece in _pieces(found, whole=True))


def any_of(terms: Iterable[str]) -> str:
    """An FTS5 expression that matches any of the terms; empty when there is none."""
    return " OR ".join(terms)


def _stretches(text: str) -> Iterator[str]:
    """Those that are cut into pieces."""
    return (found for found in STRETCH.findall(text.lower()) if RUN.search(found))


def _pieces(found: str, *, whole: bool = False) -> Iterator[str]:
    """Pairs of neighbours as digits; a run's last character too where it is alone or the text is `whole`."""
    for part in PART.findall(found):
        if not RUN.match(part):
            yield part
            continue
        codes = [f"{ord(char):07d}" for char in part]
        yield from map("".join, pairwise(codes))
        if whole or len(codes) == 1:
            yield codes[-1]


def _sought(piece: str) -> str:
    """A single character is the beginning of a pair, or the last of a run."""
    return f'"{piece}"*' if len(piece) == 7 and piece.isdigit() else f'"{piece}"'


def _phrase(quoted: str) -> str:
    """Words side by side; a stretch that was cut into pieces is a phrase of its own, since it lies in a column of its own."""
    sought, plain = [], list[str]()
    for found in STRETCH.findall(quoted.lower())[:TERMS_MAX]:
        if RUN.search(found):
            sought += [f'"{" ".join(plain)}"'] * bool(plain) + [_beginning(found)]
            plain = []
        else:
            plain.append(found)
    return " AND ".join(sought + [f'"{" ".join(plain)}"'] * bool(plain))


def _beginning(found: str) -> str:
    """A stretch as a phrase that need not end where the stretch does: its last character is at most the beginning of a pair."""
    pieces = list(_pieces(found, whole=True))
    if not RUN.match(found[-1]):
        return f'"{" ".join(pieces)}"'
    if RUN.match(found[-2:-1]):
        return f'"{" ".join(pieces[:-1])}"'
    return f'"{" ".join(pieces)}"*'


def _days(question: str) -> Iterator[Day]:
    """A month alone is one by its capital, which the first word of a sentence has anyway: `May I ...`, `the March`, not `march on`."""
    for found in DATE.finditer(question):
        name, day, year = found["month"], int(found["d1"] or found["d2"] or 0), int(found["year"] or 0)
        alone = not day and not year
        if not alone or (found.start() > 0 and name[0].isupper() and name.lower() in MONTHS):
            yield Day(year, 1 + [month[:3] for month in MONTHS].index(name[:3].lower()), day)
    for found in ISO_DATE.finditer(DATE.sub(" ", question)):
        yield Day(int(found["year"]), int(found["month"] or 0), int(found["day"] or 0))
