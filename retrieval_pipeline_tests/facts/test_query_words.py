from datetime import datetime

import pytest

from retrieval_pipeline.facts.query_words import Vocabulary, read_words

NOW = datetime(2024, 3, 13)

# A collection that has been everywhere, also where towns are called as things are.
HERE = Vocabulary(
    cameras=("Nikon D750", "Apple iPhone 12 Pro", "Canon EOS 5D Mark II", "Google Pixel 7"),
    towns={
        "Lisbon": "PT", "Berlin": "DE", "Florence": "IT", "New York City": "US", "York": "GB",
        "Boston": "US", "Nice": "FR", "Bath": "GB", "Reading": "GB", "Orange": "FR",
        "São Paulo": "BR", "Of": "TR", "Mobile": "US", "Split": "HR", "Man": "CI",
    },
    countries={
        "Portugal": "PT", "Germany": "DE", "Turkey": "TR", "China": "CN", "The Netherlands": "NL",
    },
    years=frozenset({2018, 2019, 2021}),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "rest", "facts"),
    [
        ("dogs in summer 2019", "dogs", {"on": "summer 2019"}),
        ("a dog in August 2019 on a beach", "a dog on a beach", {"on": "August 2019"}),
        ("Christmas 2019", "Christmas", {"on": "2019"}),
        ("2019", "", {"on": "2019"}),
        ("dogs in 2019 at the sea", "dogs at the sea", {"on": "2019"}),
        ("birds 2018-2020", "birds", {"on": "2018-2020"}),
        ("dogs taken on 12 August 2019", "dogs", {"on": "12 August 2019"}),
        ("last week", "", {"on": "last week"}),
        ("the cat yesterday", "the cat", {"on": "yesterday"}),
        ("a cake from 2 weeks ago", "a cake", {"on": "2 weeks ago"}),
        ("nikon", "", {"cameras": "nikon"}),
        ("Nikon D750 last week", "", {"on": "last week", "cameras": "nikon d750"}),
        ("iphone 12", "", {"cameras": "iphone 12"}),
        ("sunset taken with my Nikon", "sunset", {"cameras": "nikon"}),
        ("a tree shot on canon eos in winter", "a tree in winter", {"cameras": "canon eos"}),
        ("Lisbon at night", "at night", {"near": "Lisbon, PT"}),
        ("trams in Lisbon", "trams", {"near": "Lisbon, PT"}),
        ("trams in lisbon, portugal", "trams", {"near": "Lisbon, PT"}),
        ("sao paulo", "", {"near": "São Paulo, BR"}),
        ("dogs in New York City with snow", "dogs with snow", {"near": "New York City, US"}),
        ("statues in florence", "statues", {"near": "Florence, IT"}),
        ("beaches in Portugal", "beaches", {"countries": "PT"}),
        ("a mill in the Netherlands", "a mill", {"countries": "NL"}),
        (
            "dogs in Berlin in summer 2019",
            "dogs",
            {"on": "summer 2019", "near": "Berlin, DE"},
        ),
        ("nikon in Lisbon", "", {"near": "Lisbon, PT", "cameras": "nikon"}),
    ],
)
def test_words_that_can_only_mean_facts_are_read_and_named(
    text: str, rest: str, facts: dict[str, str]
) -> None:
    remaining, understood = read_words(text, HERE, NOW)
    assert (remaining, {each.field: each.value for each in understood}) == (rest, facts)
    assert all(each.words in " ".join(text.split()) and each.meaning for each in understood)


@pytest.mark.parametrize(
    "text",
    [
        "a red car in May", "may", "a march in spring", "snow in august", "an autumn forest",
        "a 2019 calendar", "the year 2020", "2020", "route 2019 sign", "1990s cars", "3000 sheep",
        "yesterday's newspaper", "last year's calendar", "the last supper", "today",
        "summer 2018 and summer 2019", "the last day of school",
        "a nikon camera on a table", "a man with a nikon", "apple", "an apple", "pixel", "iphone",
        "leica", "a person holding an iphone 12", "canon", "google",
        "orange", "an orange in a bowl", "nice", "nice at night", "a nice day", "reading",
        "a woman reading in bed", "bath", "a dog in bath", "turkey", "a turkey in the oven",
        "mobile", "a split in wood", "a man in china", "plates made in Germany", "of", "man",
        "boston terrier", "a boston terrier", "the berlin wall", "new york at night",
        "a Lisbon tram", "florence", "florence at the beach", "eau de berlin",
        "berlin and lisbon", "lisbon or berlin",
        "germany jersey", "a hat from lisbon", "madrid at night", "",
    ],
)  # fmt: skip
def test_words_that_may_mean_what_a_picture_shows_stay(text: str) -> None:
    assert read_words(text, HERE, NOW) == (text, ())


def test_only_what_the_collection_has_is_read() -> None:
    for text in ("nikon", "Lisbon at night", "dogs in 2019", "Portugal"):
        assert read_words(text, Vocabulary(), NOW) == (text, ())


def test_the_meaning_says_which_days_the_words_stand_for() -> None:
    assert [each.meaning for each in read_words("dogs in summer 2019", HERE, NOW)[1]] == [
        "taken in summer 2019 (2019-06-01 to 2019-08-31)"
    ]
    assert [each.meaning for each in read_words("dogs yesterday", HERE, NOW)[1]] == [
        "taken yesterday (2024-03-12)"
    ]
