"""The order of hits and the words of questions: pure functions, so tables of what goes in and comes out."""

import sqlite3

import pytest
from agent_kernel.base.errors import ArgumentError
from agent_kernel.base.pages import Cursor, fitting, mark_of, resumed, share
from agent_kernel.base.ranking import (
    Place,
    Text,
    any_of,
    excerpt,
    near_duplicates,
    order,
    search_terms,
    some_of,
    words_of,
)


def talk(*sizes, conversation="c"):
    """Items 1, 2, ... said one after the other."""
    return {n: Place(conversation, n - 1 if n > 1 else None, words) for n, words in enumerate(sizes, 1)}


def test_a_hit_lends_to_its_neighbours_and_to_its_conversation():
    scores = dict(order({2: 10.0}, talk(5, 5, 5, 5)))
    gate = 1 / (1 + (5 / 140) ** 4)
    assert scores[2] == pytest.approx(10 + gate * 2)
    assert scores[1] == scores[3] == pytest.approx(gate * (3 + 2))
    assert scores[4] == pytest.approx(gate * 2)


def test_the_best_three_of_a_conversation_count_for_it():
    scores = dict(order({1: 1.0, 3: 2.0, 5: 3.0, 7: 4.0}, {n: Place("c", None, 0) for n in range(1, 8)}))
    assert scores[2] == pytest.approx(0.2 * 9)


def test_a_long_item_borrows_next_to_nothing_and_lends_all():
    scores = dict(order({1: 10.0, 2: 10.0}, talk(1400, 5)))
    assert scores[1] == pytest.approx(10, abs=0.01)
    assert scores[2] == pytest.approx(10 + 3 + 4, abs=0.01)


def test_items_outside_a_conversation_have_their_own_score():
    assert order({1: 2.0, 2: 3.0}, {1: Place(None, None, 5), 2: Place(None, None, 5)}) == [(2, 3.0), (1, 2.0)]


def test_what_may_not_be_seen_neither_appears_nor_lends():
    places = talk(5, 5, 5)
    del places[2]
    assert dict(order({2: 10.0}, places)) == {1: 0.0, 3: 0.0}


def test_equal_scores_are_ordered_newest_first():
    assert [n for n, _ in order({1: 1.0, 2: 1.0, 3: 1.0}, {n: Place(None, None, 1) for n in (2, 3, 1)})] == [3, 2, 1]


def test_stop_words_go_unless_nothing_else_is_asked():
    assert search_terms("What did the Captain say to us?") == ["captain", "say"]
    assert search_terms("to be or not to be") == ["to", "be", "or", "not"]
    assert search_terms(" ?! ") == []
    assert len(search_terms(" ".join(f"w{n}" for n in range(1000)))) == 48


def test_every_question_makes_a_valid_expression():
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE f USING fts5(a, b, tokenize='porter unicode61 remove_diacritics 2')")
    db.execute("INSERT INTO f VALUES('x', 'naïve AND NEAR quote_d ² ٣')")
    found = ('naive"', "AND quote", "NEAR(x", "quote_d", "²", "٣", "a\0naïve", "\ud800naive")
    for question in (*found, "b:x", "-x ^y *z {a}:", "ſ", "İ"):
        asked = (f"{{b}} : ({any_of(search_terms(question))})",)
        assert db.execute("SELECT count(*) FROM f WHERE f MATCH ?", asked).fetchone()[0] == (question in found), (
            question
        )
    assert any_of([]) == ""
    db.close()


def test_words_are_lower_case_without_repetition():
    assert words_of("Tea_time: tea, TEA!") == ["tea", "time"]


def test_near_duplicates_share_half_of_their_words_and_two_of_the_rarest():
    new = Text.of("n", "the boiler was serviced by Hansen yesterday")
    others = {
        "a": "the boiler was serviced by Petersen yesterday", "b": "the boiler was serviced by Hansen", "c": "the cat was by the sea",
        "d": "the was by", "e": "",
    }  # fmt: skip
    assert new.rare() == ["yesterday", "serviced", "boiler", "hansen"]
    assert Text.of("n", "wherever herself through tea").rare() == ["wherever", "tea"]
    found = near_duplicates(new, [Text.of(name, text) for name, text in others.items()])
    assert [(other.id, round(score, 2)) for other, score in found] == [("b", 0.86), ("a", 0.75)]
    assert some_of(["aa", "b"]) == '"aa" OR "b"'
    assert some_of(["a", "b", "c", "d"]) == '("a" OR "c") AND ("b" OR "d")'


def test_an_excerpt_keeps_head_and_tail_and_counts_what_is_missing():
    text = "a" * 100 + "b" * 100
    cut = excerpt(text, 30, "memory://x")
    assert cut == "a" * 20 + " [... 170 characters left out, whole: memory://x ...] " + "b" * 10
    assert excerpt("short", 5, "u") == "short"


def test_room_is_shared_so_that_short_texts_stay_whole():
    assert share([10, 1000, 500], 600, 50) == 295
    assert share([10, 20], 600, 50) == 20
    assert share([1000, 1000], 10, 50) == 50
    assert share([], 10, 50) == 0
    assert fitting([10, 10, 10], [100, 5, 100], 100, 50) == (2, 80)
    assert fitting([500], [100], 100, 50) == (1, -400)


def test_a_cursor_fits_its_question_only():
    mark = mark_of(["a", 1])
    cursor = Cursor(7, 99, mark)
    assert resumed(cursor.to_text(), mark) == cursor
    assert resumed(None, mark) == Cursor(0, None, mark)
    for wrong in (Cursor(-1, 99, mark), Cursor(7, None, mark), Cursor(1 << 40, 99, mark), Cursor(7, 99, mark_of("b"))):
        with pytest.raises(ArgumentError):
            resumed(wrong.to_text(), mark)
