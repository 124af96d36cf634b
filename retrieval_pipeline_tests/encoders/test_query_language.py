import pytest

from retrieval_pipeline.encoders.query_language import hint_of

ENGLISH = (
    "dog cat horse house car lake forest snow beach child flower bird boat bridge church road "
    "sun moon sea mountain table chair book bicycle airplane train apple cake family wedding "
    "sunset birthday motorcycle zebra giraffe elephant squirrel hedgehog kitchen bathroom "
    "sandwich pizza umbrella skateboard snowboard surfboard fireworks graffiti waterfall "
    "lighthouse windmill mushroom strawberry pineapple broccoli butterfly dragonfly ladybug "
    "screenshot receipt whiteboard laptop keyboard grandmother hiking picnic barbecue sky red "
    "kids café"
)
# Words that are English, too, were left out: auto, boot, train, ...
FINNISH = (
    "koira kissa hevonen talo järvi metsä lumi ranta lapsi kukka lintu vene silta kirkko "
    "aurinko kuu meri vuori pöytä tuoli kirja polkupyörä lentokone juna omena kakku perhe "
    "häät"
)
GERMAN = (
    "Hund Katze Pferd Haus Wald Schnee Blume Brücke Kirche Straße Sonne Mond Meer Tisch Stuhl "
    "Buch Fahrrad Flugzeug Zug Apfel Kuchen Familie Hochzeit"
)
FRENCH = (
    "chien voiture forêt neige plage enfant fleur oiseau bateau église soleil lune montagne "
    "chaise livre vélo avion pomme gâteau famille mariage"
)


def test_words_that_the_offline_model_knows_get_no_hint() -> None:
    assert [word for word in ENGLISH.split() if hint_of("offline", word)] == []


@pytest.mark.parametrize("words", [FINNISH, GERMAN, FRENCH], ids=["Finnish", "German", "French"])
def test_words_of_other_languages_get_a_hint(words: str) -> None:
    assert [word for word in words.split() if not hint_of("offline", word)] == []


@pytest.mark.parametrize(
    ("model", "text", "told"),
    [
        ("offline", "a koira", True),
        ("offline", "un perro en la playa", True),
        ("offline", "собака", True),
        ("offline", "狗", True),
        ("offline", "the koira", False),
        ("offline", "a dog named Rekku", False),
        ("offline", "2024", False),
        ("openai/clip-vit-base-patch32", "собака", True),
        ("openai/clip-vit-base-patch32", "koira", False),
        ("google/siglip2-base-patch16-224", "собака", False),
        ("/some/checkpoint", "собака", False),
    ],
)
def test_a_text_gets_a_hint_if_the_model_knows_no_word_of_it(
    model: str, text: str, told: bool
) -> None:
    hint = hint_of(model, text)
    assert (hint is not None) == told
    if hint:
        assert "understands English only" in hint
        assert "\n" not in hint
