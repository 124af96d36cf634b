import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_pipeline.paths import compile_globs, glob_matches, printable, to_path, to_text


@given(st.binary())
def test_any_file_name_survives_as_unicode_text(name: bytes) -> None:
    text = to_text(name)
    text.encode("utf-8")
    assert os.fsencode(to_path(text)) == name


def test_ordinary_names_are_left_as_they_are() -> None:
    assert to_text("Ferien/größe 日本.jpg") == "Ferien/größe 日本.jpg"


def test_what_steers_a_terminal_is_shown_as_text() -> None:
    assert printable("a\nb\x1b[31m.jpg") == "a\\nb\\x1b[31m.jpg"


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.jpg", "a/b.jpg", True),
        ("a/*", "a/b/c.jpg", True),
        ("b.jpg", "a/b.jpg", True),
        ("a", "a/b.jpg", False),
        ("[[]x]*", "[x]/b.jpg", True),
        ("*.JPG", "a/b.jpg", False),
        ("cafe\u0301/*", "caf\u00e9/b.jpg", True),
    ],
)
def test_globs_match_the_path_or_the_name(pattern: str, path: str, expected: bool) -> None:
    assert glob_matches(compile_globs([pattern]), path) is expected


def test_no_globs_match_nothing() -> None:
    assert not glob_matches(compile_globs([]), "a.jpg")
