"""The order of hits and the words of questions: pure functions, so tables of what goes in and comes out."""

import sqlite3

import pytest
from agent_kernel.base import wording
from agent_kernel.base.errors import ArgumentError
from agent_kernel.base.pages import Cursor, fitting, mark_of, resumed, share
from agent_kernel.base.ranking import (
    Place,
    Term,
    Text,
    excerpt,
    near_duplicates,
    order,
    rarest,
    some_of,
    weight_of,
)
from agent_kernel.base.wording import Day, any_of, asked_of, asks, pieces_of, said, words_of

PLAIN = asked_of("x")
MAY = 1_714_867_200.0
"""2024-05-05."""


def place(conversation="c", before=None, words=5, *, asks=False, speaker="", time=MAY):
    return Place(conversation, before, words, asks, speaker, time)


def talk(*sizes):
    """Items 1, 2, ... said one after the other."""
    return {n: place(before=n - 1 if n > 1 else None, words=words) for n, words in enumerate(sizes, 1)}


def scores(own, places, terms=None, asked=PLAIN, **more):
    """By item, of a question with one term that weighs 1, unless said."""
    ranked = order(own, [Term(1.0, set(own))] if terms is None else terms, places, asked, **more)
    return {one.n: one.score for one in ranked}


def soft(x):
    return 2 * x / (x + 1)


def again(turn):
    return 1 / (1 + 0.05 * turn)


def test_a_hit_lends_to_its_neighbours_and_to_its_conversation():
    found = scores({2: 10.0}, talk(5, 5, 5, 5))
    gate = 1 / (1 + (5 / 140) ** 4)
    assert found[2] == pytest.approx(soft(10 + gate * 2))
    assert found[3] == pytest.approx(soft(gate * (4 + 2)) * again(1))
    assert found[1] == pytest.approx(soft(gate * (4 + 2)) * again(2))
    assert found[4] == pytest.approx(soft(gate * 2) * again(3))


def test_two_terms_found_once_each_count_more_than_one_found_often():
    places = {1: place(None), 2: place(None)}
    found = scores({1: 4.0, 2: 6.0}, places, [Term(1.0, {1, 2}), Term(1.0, {1})])
    assert found[1] == pytest.approx(2 * soft(2))
    assert found[2] == pytest.approx(soft(6))
    assert found[1] > found[2]


def test_terms_of_neighbours_complete_each_other():
    """One turn has the first word, the next the second: both have both, so both come before a turn with one word twice."""
    places = {**talk(5, 5), 3: place("d")}
    found = scores({1: 2.0, 2: 2.0, 3: 3.0}, places, [Term(1.0, {1, 3}), Term(1.0, {2})])
    assert min(found[1], found[2]) > found[3]


def test_a_long_item_borrows_next_to_nothing_and_lends_all():
    found = scores({1: 1.0, 2: 1.0}, talk(1400, 5))
    assert found[1] == pytest.approx(soft(1) * again(1), abs=0.01)
    assert found[2] == pytest.approx(soft(1 + 0.4 + 0.2), abs=0.01)


def test_items_outside_a_conversation_have_their_own_score_and_no_turn():
    assert scores({1: 2.0, 2: 3.0}, {1: place(None), 2: place(None, before=1)}) == {2: soft(3), 1: soft(2)}


def test_what_may_not_be_seen_neither_appears_nor_lends():
    places = talk(5, 5, 5)
    del places[2]
    assert scores({2: 10.0}, places) == {1: 0.0, 3: 0.0}


def test_equal_scores_are_ordered_newest_first():
    ranked = order({1: 1.0, 2: 1.0, 3: 1.0}, [Term(1.0, {1, 2, 3})], {n: place(None) for n in (2, 3, 1)}, PLAIN)
    assert [one.n for one in ranked] == [3, 2, 1]


def test_further_items_of_a_conversation_give_way_to_others():
    places = {1: place("c"), 2: place("c"), 3: place("d")}
    ranked = order({1: 5.0, 2: 4.9, 3: 4.8}, [Term(1.0, {1, 2, 3})], places, PLAIN)
    assert [one.n for one in ranked] == [1, 3, 2]


def test_a_speaker_who_is_named_a_date_and_a_statement_weigh_more():
    places = {
        1: place(None), 2: place(None, speaker="Anna Lind"), 3: place(None, time=MAY + 90 * 86400), 4: place(None, asks=True),
    }  # fmt: skip
    own = dict.fromkeys(places, 1.0)
    found = scores(own, places, asked=asked_of("what did anna do in May 2024"))
    assert found == pytest.approx({1: 1.5, 2: 1.5 * 1.5, 3: 1.0, 4: 1.5 * 0.8})


def test_i_and_my_name_the_user_unless_the_assistant_is_asked_about_itself():
    assert "user" in asked_of("what did I say about my cat").names
    assert "user" not in asked_of("what did you tell me").names
    assert "user" not in asked_of("what did Anna say").names


def test_the_parts_of_a_score_make_it():
    places = {**talk(5, 5), 3: place("c", asks=True, speaker="anna")}
    terms = [Term(1.0, {1, 3}), Term(2.0, {2})]
    for one in order({1: 2.0, 2: 2.0, 3: 3.0}, terms, places, asked_of("anna in May 2024"), explain=True):
        product = 1.0
        for value in one.parts.times.values():
            product *= value
        assert one.score == pytest.approx(sum(one.parts.terms.values()) * product)
    assert order({1: 2.0}, terms, places, PLAIN)[0].parts is None


def test_items_with_all_phrases_come_first_whatever_their_score():
    places = {1: place(None), 2: place(None)}
    ranked = order({1: 1.0, 2: 9.0}, [Term(1.0, {1, 2})], places, PLAIN, phrased={1})
    assert [one.n for one in ranked] == [1, 2]


def test_the_rarest_terms_choose_the_pool():
    assert rarest([5000, 3, 0, 90, 900]) == [1, 3, 4]
    assert rarest([5000, 400, 300]) == [2, 1]
    assert rarest([0, 7]) == [1]
    assert rarest([0]) == []


def test_a_term_that_half_of_all_have_weighs_next_to_nothing():
    assert weight_of(1, 1000) > weight_of(100, 1000) > 1
    assert weight_of(500, 1000) == weight_of(1000, 1000) == weight_of(7, 3) == 1e-6


def test_stop_words_go_unless_nothing_else_is_asked():
    assert asked_of("What did the Captain say to us?").terms == ('"captain"', '"say"')
    assert asked_of("to be or not to be").terms == ('"to"', '"be"', '"or"', '"not"')
    assert asked_of(" ?! ").terms == ()
    assert len(asked_of(" ".join(f"w{n}" for n in range(1000))).terms) == 48
    assert wording.kept_of("What did the Captain say") == ["captain", "say"]


def test_the_beginning_of_a_word_is_asked_for_with_a_star():
    assert asked_of("sail* **bold** a* *x").terms == ('"sail"*', '"bold"', '"x"')


def test_quoted_words_are_a_phrase():
    assert asked_of('the "hot tea" and “Green  Tea!” of "" it').phrases == ('"hot tea"', '"green tea"')
    assert asked_of('one " only').phrases == ()


@pytest.mark.parametrize(
    ("question", "days"),
    [
        ("in May 2024", [(2024, 5, 0)]),
        ("on 8 May, 2024 or Sept 3rd", [(2024, 5, 8), (0, 9, 3)]),
        ("2023-05-08 and 2022 and 2021-02", [(2023, 5, 8), (2022, 0, 0), (2021, 2, 0)]),
        ("May I march? He may decide. A mar on it", []),
        ("last March", [(0, 3, 0)]),
        ("room 2024b, call 12023", []),
    ],
)
def test_dates_of_a_question(question, days):
    assert [tuple(day) for day in asked_of(question).days] == days


def test_what_happened_on_a_day_is_told_in_its_month():
    assert [Day(*day).nearness(MAY) for day in ((2024, 5, 5), (0, 5, 0), (2024, 5, 9), (2023, 5, 5), (0, 0, 0))] == [
        1, 1, 0.5, 0, 1,
    ]  # fmt: skip


def test_an_item_asks_when_it_ends_with_a_question_mark():
    assert [asks(text) for text in ("why?", "why? Because.", "“Why?” ", "なぜ？", "")] == [
        True,
        False,
        True,
        True,
        False,
    ]


INDEXED = ("speaker", "text", "pieces")


def found_by(db, question):
    terms = asked_of(question).terms
    if not terms:
        return False
    return bool(db.execute("SELECT count(*) FROM f WHERE f MATCH ?", (any_of(terms),)).fetchone()[0])


@pytest.fixture
def indexed():
    def make(text):
        db = sqlite3.connect(":memory:")
        opened.append(db)
        db.execute("CREATE VIRTUAL TABLE f USING fts5(text, pieces, tokenize='porter unicode61 remove_diacritics 2')")
        db.execute("INSERT INTO f VALUES(?,?)", (text, pieces_of(text)))
        return db

    opened = []
    yield make
    for db in opened:
        db.close()


def test_every_question_makes_a_valid_expression(indexed):
    db = indexed("naïve AND NEAR quote_d ² ٣")
    found = ('naive"', "AND quote", "NEAR(x", "quote_d", "²", "٣", "a\0naïve", "\ud800naive", "nai*")
    for question in (*found, "b:x", "-x ^y *z {a}:", "ſ", "İ", '"', '""', '"*"', "東", '"東京 x', '"東" "x y"'):
        assert found_by(db, question) == (question in found), question
        for phrase in asked_of(question).phrases:
            db.execute("SELECT count(*) FROM f WHERE f MATCH ?", (phrase,)).fetchone()
    assert any_of([]) == ""


@pytest.mark.parametrize(
    ("text", "found", "missed"),
    [
        (
            "昨日、東京でiPhoneを買った。",
            ["東京", "買った", "iphone", "京", "た", "東京で何を買った"],
            ["大阪", "阪", "京東"],
        ),
        ("我們星期三去圖書館看書", ["圖書館", "星期三", "書", "館看"], ["館書"]),
        ("ฉันชอบกินผัดไทยที่ร้านนี้", ["ผัดไทย", "ร้าน"], ["แกงเขียว"]),
        ("어제 서울에서 만났다", ["서울", "만났"], ["부산"]),
        ("ខ្ញុំចូលចិត្តកាហ្វេ", ["កាហ្វេ"], ["តែ"]),
        ("Ärzte trinken Öl, naïf", ["arzte", "ÖL", "naif"], ["arz"]),
        ("Привет мир", ["мир"], ["война"]),
        ("สวัสดี plain words", ["plain", "words"], ["lain"]),
    ],
)
def test_words_are_found_in_every_script(indexed, text, found, missed):
    db = indexed(text)
    assert [question for question in found if not found_by(db, question)] == []
    assert [question for question in missed if found_by(db, question)] == []


def test_a_phrase_holds_in_a_script_without_blanks(indexed):
    db = indexed("私は東京tower駅へ行く")
    right, wrong = ["東京tower", "京tower駅", "tower駅へ", "行く", "tower駅", "は東"], ["東tower", "tower京", "駅行"]
    for quoted in right + wrong:
        [phrase] = asked_of(f'"{quoted}"').phrases
        asked = db.execute("SELECT count(*) FROM f WHERE f MATCH ?", (phrase,)).fetchone()[0]
        assert bool(asked) == (quoted in right), quoted


def test_scripts_with_blanks_pay_nothing():
    assert pieces_of("naïve Ärzte, привет, مرحبا, שלום") == ""


def test_cutting_is_linear_in_the_text():
    """An expression that could backtrack would not come back from this."""
    assert len(pieces_of("東a" * 20_000 + "! ").split()) == 40_000


def test_a_term_is_shown_as_it_was_written():
    assert [said(term) for term in asked_of("tea 東京 茶 sail*").terms] == ["tea", "sail*", "東京", "茶*"]


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
