"""Retrieval with gold evidence: what a conversation is, the files that hold some, and how good an answer is. No judge, no model.

Files are the user's; none is shipped. Three forms are read, `.xz` or not:

    LoCoMo          locomo10.json of its authors: a list of {sample_id, conversation{session_N[], session_N_date_time}, qa[]}
    LongMemEval     longmemeval_s.json, _m or _oracle: a list of {question, haystack_sessions[][], haystack_dates[], ...}, the turns of the
                    evidence marked `has_answer`
    lines           one corpus a line: {corpus, items[{id, text, time, speaker, session}], queries[{text, category, gold[]}]}

Guarantees
1. Names of sessions are counted anew: LongMemEval's say which of them hold the answer.
2. Questions without evidence are left out. LoCoMo's adversarial ones have a category of their own and are in no total: they have no answer.
3. Recall is the share of a question's gold items among the first k, a mean over questions; session recall the same of their sessions.
"""

import json
import lzma
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "DOINGS", "MEASURES", "PEOPLE", "PLACES", "THINGS", "Asked", "Corpus", "Item", "Score", "means", "read", "score", "synthetic",
]  # fmt: skip

MEASURES = ("recall@5", "recall@10", "recall@20", "session recall@10", "MRR", "nDCG@10")
DEPTH = 20
NO_ANSWER = "adversarial"
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: NO_ANSWER}
"""LoCoMo's numbers."""


class Item(NamedTuple):
    id: str
    text: str
    speaker: str
    session: str
    time: str


class Asked(NamedTuple):
    text: str
    category: str
    gold: frozenset[str]


@dataclass(frozen=True, slots=True)
class Corpus:
    name: str
    items: Sequence[Item]
    questions: Sequence[Asked]


class Score(NamedTuple):
    category: str
    values: tuple[float, ...]


def score(corpus: Corpus, question: Asked, found: Sequence[int]) -> Score:
    """`found`: places in the corpus's items, best first, at most DEPTH of them."""
    ids = [corpus.items[place].id for place in found[:DEPTH]]
    session_of = {item.id: item.session for item in corpus.items}
    hits = [place for place, item_id in enumerate(ids) if item_id in question.gold]
    sessions = {session_of[item_id] for item_id in question.gold}
    best = sum(1 / math.log2(place + 2) for place in range(min(10, len(question.gold))))
    return Score(
        question.category,
        (
            *(len(question.gold.intersection(ids[:k])) / len(question.gold) for k in (5, 10, 20)),
            len(sessions & {session_of[item_id] for item_id in ids[:10]}) / len(sessions),
            1 / (hits[0] + 1) if hits else 0.0,
            sum(1 / math.log2(place + 2) for place in hits if place < 10) / best,
        ),
    )


def means(scores: Sequence[Score], category: str | None = None) -> list[float]:
    """Of a category, or of all that have an answer."""
    wanted = [
        one.values for one in scores if one.category == category or (category is None and one.category != NO_ANSWER)
    ]
    return [sum(column) / len(wanted) for column in zip(*wanted, strict=True)]


# --- files


def read(path: Path) -> list[Corpus]:
    opened: Callable[..., Any] = lzma.open if path.suffix == ".xz" else open
    with opened(path, "rt", encoding="utf8") as file:
        text = file.read()
    try:
        whole = json.loads(text)
    except ValueError:
        whole = [json.loads(line) for line in text.split("\n") if line.strip()]
    found = list(whole if isinstance(whole, list) else [whole])
    if not found or not isinstance(found[0], dict):
        raise ValueError(f"{path} holds no list of conversations")
    for mark, reader in (("qa", _locomo), ("haystack_sessions", _longmemeval), ("queries", _line)):
        if mark in found[0]:
            return [corpus for corpus in map(reader, found) if corpus.questions]
    raise ValueError(
        f"{path} is neither LoCoMo, LongMemEval nor one corpus a line; its first entry has {sorted(found[0])[:8]}"
    )


def _line(entry: Mapping[str, Any]) -> Corpus:
    items = [
        Item(i["id"], i["text"], i.get("speaker") or "", i.get("session") or "", i["time"]) for i in entry["items"]
    ]
    known = {item.id for item in items}
    asked = [Asked(q["text"], q["category"], frozenset(q["gold"]) & known) for q in entry["queries"]]
    return Corpus(entry["corpus"], items, [one for one in asked if one.gold])


def _locomo(entry: Mapping[str, Any]) -> Corpus:
    talk = entry["conversation"]
    numbers = sorted(int(name.split("_")[1]) for name in talk if re.fullmatch(r"session_\d+", name))
    items = []
    for number in numbers:
        day = datetime.strptime(talk[f"session_{number}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        for turn in talk[f"session_{number}"]:
            shared = f" [shares a photo: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            items.append(Item(turn["dia_id"], turn["text"] + shared, turn["speaker"], f"S{number}", day.isoformat()))
    known = {item.id for item in items}
    asked = [
        Asked(
            one["question"],
            CATEGORIES[one["category"]],
            frozenset(f"D{int(d)}:{int(t)}" for d, t in re.findall(r"D(\d+):(\d+)", " ".join(one["evidence"]))) & known,
        )
        for one in entry["qa"]
    ]
    return Corpus(entry["sample_id"], items, [one for one in asked if one.gold])


def _longmemeval(entry: Mapping[str, Any]) -> Corpus:
    items, gold = [], set()
    for number, (said, turns) in enumerate(zip(entry["haystack_dates"], entry["haystack_sessions"], strict=True)):
        time = datetime.strptime(re.sub(r" \(\w+\)", "", said), "%Y/%m/%d %H:%M").replace(tzinfo=UTC).isoformat()
        for turn in turns:
            item = Item(f"{number}:{len(items)}", turn["content"], turn["role"], f"s{number:03d}", time)
            if item.text.strip():
                items.append(item)
                gold |= {item.id} if turn.get("has_answer") else set()
    asked = [Asked(entry["question"], entry["question_type"], frozenset(gold))] if gold else []
    return Corpus(entry["question_id"], items, asked)


# --- made up

PEOPLE = ("Ada", "Boris", "Chidi", "Dalia", "Emre", "Freya")
THINGS = (
    "boat", "cello", "garden", "kiln", "telescope", "bakery", "marathon", "beehive", "novel", "motorbike", "loom", "greenhouse",
)  # fmt: skip
DOINGS = (
    "repaired",
    "sold",
    "bought",
    "painted",
    "borrowed",
    "photographed",
    "finished",
    "forgot",
    "dreamt of",
    "showed me",
)
PLACES = ("Lisbon", "Tromsø", "Kyoto", "Accra", "Quito", "Leeds", "Izmir", "Hobart", "Vilnius", "Muscat")
IDLE = (
    "How have you been?", "Not much, the usual.", "Oh, that sounds lovely!", "I have to run soon.", "Did you sleep well?", "The weather was awful.",
)  # fmt: skip


def synthetic(conversations: int = 3, sessions: int = 12, turns: int = 24, seed: int = 1) -> list[Corpus]:
    """Talks made up from a few words: they show that everything runs, and say little about quality."""
    return [_made_up(f"made-up-{n}", sessions, turns, random.Random(seed + n)) for n in range(conversations)]  # noqa: S311


def _made_up(name: str, sessions: int, turns: int, chance: random.Random) -> Corpus:
    items: list[Item] = []
    asked: list[Asked] = []
    told = set()
    for session in range(sessions):
        for who, text in _session(chance, turns):
            item = Item(
                f"{session}:{len(items)}", text, who, f"S{session}", f"2026-{1 + session % 12:02d}-05T10:00:00Z"
            )
            items.append(item)
            words = text.rstrip(".").split()
            if words[0] == "I" and text not in told:
                told.add(text)
                asked.append(Asked(f"Where did {who} get the {words[-3]}?", "single-hop", frozenset([item.id])))
    return Corpus(name, items, asked[:40])


def _session(chance: random.Random, turns: int) -> Iterator[tuple[str, str]]:
    pair = chance.sample(PEOPLE, 2)
    for turn in range(turns):
        if chance.random() < 0.3:
            yield pair[turn % 2], f"I {chance.choice(DOINGS)} the {chance.choice(THINGS)} in {chance.choice(PLACES)}."
        else:
            yield pair[turn % 2], chance.choice(IDLE)
