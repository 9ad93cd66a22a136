"""The scorer of memory's benchmark: what it reads, what it counts, and that every way to find fills and answers. No test looks at a time."""

import asyncio
import json
import lzma
import math

import pytest
from agent_kernel_bench.__main__ import main
from agent_kernel_bench.finders import Finder, finders
from agent_kernel_bench.interleave import Absent
from agent_kernel_bench.retrieval import Asked, Corpus, Item, means, read, score, synthetic

LOCOMO = [
    {
        "sample_id": "talk-1",
        "conversation": {
            "speaker_a": "Ada",
            "speaker_b": "Bob",
            "session_2_date_time": "1:56 pm on 8 May, 2026",
            "session_2": [{"speaker": "Bob", "dia_id": "D2:1", "text": "Look!", "blip_caption": "a red boat"}],
            "session_1_date_time": "12:05 am on 7 May, 2026",
            "session_1": [{"speaker": "Ada", "dia_id": "D1:1", "text": "I bought a boat."}],
            "session_3_date_time": "9:00 am on 9 May, 2026",
        },
        "qa": [
            {"question": "What did Ada buy?", "evidence": ["D1:1; D2:01"], "category": 1},
            {"question": "What did Bob sell?", "evidence": ["D1:1"], "category": 5},
            {"question": "Why?", "evidence": [], "category": 3},
        ],
    }
]
LONGMEMEVAL = [
    {
        "question_id": "q1",
        "question_type": "multi-session",
        "question": "Where is my boat?",
        "haystack_dates": ["2026/05/20 (Wed) 02:21", "2026/05/21 (Thu) 02:21"],
        "haystack_session_ids": ["other", "answer_1"],
        "haystack_sessions": [
            [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": ""}],
            [
                {"role": "user", "content": "My boat is in Kiel", "has_answer": True},
                {"role": "assistant", "content": "Fine"},
            ],
        ],
    },
    {"question_id": "q2_abs", "question_type": "x", "question": "?", "haystack_dates": [], "haystack_sessions": []},
]
LINE = {
    "corpus": "c",
    "items": [
        {"id": "a", "text": "line\u2028separator", "time": "2026-01-01T00:00:00", "speaker": "Ada", "session": "S"}
    ],
    "queries": [{"text": "separator", "category": "k", "gold": ["a", "gone"]}],
}


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf8")
    return path


def test_locomo_is_read_in_the_order_of_its_sessions_with_its_pictures(tmp_path):
    [talk] = read(written(tmp_path, "locomo10.json", json.dumps(LOCOMO)))
    assert [(i.id, i.speaker, i.session, i.text) for i in talk.items] == [
        ("D1:1", "Ada", "S1", "I bought a boat."),
        ("D2:1", "Bob", "S2", "Look! [shares a photo: a red boat]"),
    ]
    assert talk.items[0].time == "2026-05-07T00:05:00+00:00"
    assert [(q.category, q.gold) for q in talk.questions] == [
        ("multi-hop", {"D1:1", "D2:1"}),
        ("adversarial", {"D1:1"}),
    ]


def test_sessions_of_longmemeval_do_not_tell_where_the_answer_is(tmp_path):
    [one] = read(written(tmp_path, "longmemeval_s.json", json.dumps(LONGMEMEVAL)))
    assert "answer" not in json.dumps(one.items)
    [question] = one.questions
    assert [item.text for item in one.items if item.id in question.gold] == ["My boat is in Kiel"]
    assert len(one.items) == 3


def test_one_corpus_a_line_is_read_compressed_or_not(tmp_path):
    lines = "\n".join([json.dumps(LINE, ensure_ascii=False)] * 2)
    plain = read(written(tmp_path, "lines.jsonl", lines))
    packed = tmp_path / "lines.jsonl.xz"
    packed.write_bytes(lzma.compress(lines.encode()))
    assert read(packed) == plain
    assert [corpus.questions[0].gold for corpus in plain] == [{"a"}, {"a"}]


@pytest.mark.parametrize("text", ["[]", "{}", '[{"x": 1}]', "no", "[1]"])
def test_what_is_none_of_these_is_refused_before_anything_is_measured(tmp_path, text, capsys):
    with pytest.raises(SystemExit) as end:
        main(["memory", "--locomo", str(written(tmp_path, "x.json", text))])
    assert end.value.code == 2
    assert "cannot be read" in capsys.readouterr().err


def test_recall_counts_evidence_and_its_sessions():
    items = [Item(str(n), "", "", f"S{n // 2}", "") for n in range(40)]
    corpus = Corpus("c", items, [])
    found = list(range(30))
    one = score(corpus, Asked("?", "k", frozenset({"4", "7", "15", "39"})), found)
    ideal = sum(1 / math.log2(n) for n in (2, 3, 4, 5))
    assert one.values == pytest.approx(
        (1 / 4, 2 / 4, 3 / 4, 2 / 4, 1 / 5, (1 / math.log2(6) + 1 / math.log2(9)) / ideal)
    )
    missed = score(corpus, Asked("?", "adversarial", frozenset({"39"})), found)
    assert missed.values == (0, 0, 0, 0, 0, 0)
    assert means([one, missed]) == list(one.values)
    assert means([one, missed], "adversarial") == [0] * 6


def test_every_way_finds_and_a_library_that_is_missing_is_named(tmp_path):
    [corpus] = synthetic(1, 3, 12)

    async def run():
        for one in finders(tmp_path / "no-peers"):
            if isinstance(one, Absent):
                assert one.get
                continue
            async with one.filled(tmp_path / one.name, corpus) as find:
                scores = [score(corpus, question, await find(question.text)) for question in corpus.questions]
            assert means(scores)[1] > 0.5, one.name

    asyncio.run(run())
    assert [one.name for one in finders(None) if isinstance(one, Finder)] == ["Memory.search", "FTS5", "FTS5 porter"]


def test_a_smoke_run_measures_search_and_recall(tmp_path, capsys):
    path = written(tmp_path, "locomo10.json", json.dumps(LOCOMO))
    assert main(["memory.search_1k", "memory.add_1k", "--smoke", "--locomo", str(path), "--folder", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "memory.quality LoCoMo" in text
    assert "plain FTS5" in text
