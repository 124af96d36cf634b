from retrieval_pipeline.index.vocabulary import words


def test_the_vocabulary_is_a_few_hundred_different_words() -> None:
    assert 300 <= len(words()) == len(set(words())) <= 1000


def test_a_word_is_text_that_a_person_could_type() -> None:
    assert all(word == word.strip() and word.isprintable() and word for word in words())
    assert "dog" in words()
