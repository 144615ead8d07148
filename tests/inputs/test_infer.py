import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.inputs import infer


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('a sign that says "Open"', ("Open",)),
        ("a sign “Open” and «Fermé» and 「営業中」 and 『本』", ("Open", "Fermé", "営業中", "本")),
        ("Schild „Geöffnet“ an der Tür", ("Geöffnet",)),
        ("Schild „Geöffnet” an der Tür", ("Geöffnet",)),
        ('写着"新品上市"的海报', ("新品上市",)),
        ('"A" then "A" again, "B"', ("A", "B")),
        ('two lines "Night\nMarket"', ("Night\nMarket",)),
        ('inches: a 6" by 4" photo', ()),
        ('a 6" nail beside the word "Nail"', ()),
        ('never closed: "Open', ()),
        ('odd straight ones " but “Fine”', ("Fine",)),
        ('nothing but marks "?!" and " "', ()),
        ('"1" "2" "3" "4" "5"', ()),
        (f'short "Yes" and long "{"x" * 81}"', ("Yes",)),
        (f'"{"x" * 80}"', ("x" * 80,)),
        ("no quotes", ()),
        ("", ()),
    ],
)
def test_expected_text(prompt, texts):
    assert infer.expected_text(prompt) == texts


@given(st.text(max_size=400))
def test_expected_text_is_always_a_part_of_the_prompt(prompt):
    texts = infer.expected_text(prompt)
    assert len(texts) <= infer.MAX_TEXTS
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert text in prompt
        assert 0 < len(text) <= infer.MAX_TEXT


@given(
    st.lists(
        st.text("abcXYZ 0123éß漢字", min_size=1, max_size=20).map(str.strip).filter(bool),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_quoted_texts_come_back(texts):
    prompt = "poster with " + ", then ".join(f'"{text}"' for text in texts)
    assert infer.expected_text(prompt) == tuple(texts)


def test_quotes_take_no_quadratic_time():
    # 32,000 opening marks would take minutes if each looked ahead to the end.
    assert infer.expected_text('"' * 32_000) == ()
    assert infer.expected_text("“" * 32_000) == ()
    assert infer.expected_text("„a" * 16_000) == ()


@pytest.mark.parametrize(
    ("texts", "upload", "prompt", "subtask"),
    [
        ((), None, "a cat", "fast"),
        ((), None, "a cat " * 20, "creative"),
        (("Open",), None, "a", "typography"),
        (("Open",), "uploads/x.png", "a", "edit"),
    ],
)
def test_subtask(texts, upload, prompt, subtask):
    assert infer.subtask(prompt, texts, upload) == subtask


@pytest.mark.parametrize(
    ("text", "locale"),
    [
        ("Good Morning", "en"),
        ("Käse & Wein", "und"),
        ("Cà phê sữa đá", "vi"),
        ("Свежий хлеб", "ru"),
        ("Свіжий хліб", "uk"),
        ("Καλημέρα", "el"),
        ("新品上市", "zh"),
        ("新発売です", "ja"),
        ("抹茶ラテ", "ja"),
        ("오늘의 특가", "ko"),
        ("خصم خاص", "ar"),
        ("בוקר טוב", "he"),
        ("नया संग्रह", "hi"),
        ("กาแฟสด", "th"),
        ("გამარჯობა", "und"),
        ("$9.99", "en"),  # no letters: the prompt below decides
    ],
)
def test_locale_by_script(text, locale):
    assert infer.locale("poster", (text,)) == locale


def test_locale_without_letters_is_undetermined():
    assert infer.locale("12 + 3", ("5",)) == "und"
    assert infer.locale("🎉🎉", ()) == "und"


def test_texts_decide_before_the_prompt():
    assert infer.locale("an English prompt for a long Russian sign", ("Чай",)) == "ru"
