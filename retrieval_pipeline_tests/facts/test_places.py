import math

import numpy as np
import pytest

from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.facts import places
from retrieval_pipeline.facts.places import (
    are_available,
    country_code,
    country_name,
    find_place,
    gazetteer_version,
    name_places,
)


@pytest.fixture(autouse=True)
def only_towns_of_5000(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a smaller list of towns: reading the one with every village takes seconds."""
    monkeypatch.setattr(places, "ALL_TOWNS", 5_000)


needs_towns = pytest.mark.skipif(not are_available(), reason="the extra `places` is not installed")


@needs_towns
@pytest.mark.slow
@pytest.mark.parametrize("text", ["lisboa", " LISSABON ", "Lisbon, Portugal"])
def test_a_town_is_found_by_its_names_in_other_languages(text: str) -> None:
    place = find_place(text)
    assert str(place) == "Lisbon, Lisboa, PT"
    assert (place.latitude, place.longitude) == pytest.approx((38.72, -9.14), abs=0.05)


@needs_towns
@pytest.mark.slow
def test_of_several_towns_the_most_populous_is_meant_and_the_others_are_told() -> None:
    place = find_place("Paris")
    assert str(place) == "Paris, Île-de-France, FR"
    assert "Paris, Texas, US" in map(str, place.namesakes)
    # Too small to be among the large towns, where its namesake in Brazil is.
    assert str(find_place("Nazaré, Portugal")) == "Nazaré, Leiria, PT"
    with pytest.raises(QueryError, match=r'no place "Lissbonn": did you mean Lisbon'):
        find_place("Lissbonn")


def test_coordinates_are_a_place_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "are_available", lambda: False)
    place = find_place("38.7, -9.1")
    assert (place.latitude, place.longitude) == (38.7, -9.1)
    assert country_code("pt") == "PT"
    assert country_name("PT") == "PT"
    assert gazetteer_version() is None
    with pytest.raises(QueryError, match=r"retrieval-pipeline\[places\]"):
        find_place("Lisbon")
    with pytest.raises(QueryError, match=r"retrieval-pipeline\[places\]"):
        country_code("Portugal")
    with pytest.raises(QueryError, match="latitudes are -90 to 90"):
        find_place("91, 0")


@needs_towns
def test_a_country_is_known_by_its_codes_and_names() -> None:
    assert [country_code(text) for text in ("pt", "PRT", "Portugal", "UK")] == [
        "PT", "PT", "PT", "GB",
    ]  # fmt: skip
    assert country_name("PT") == "Portugal"
    with pytest.raises(QueryError, match='no country "Portugl": did you mean Portugal'):
        country_code("Portugl")
    with pytest.raises(QueryError, match='no country "xx"'):
        country_code("xx")


@needs_towns
def test_a_picture_is_in_the_city_around_it_or_the_nearest_town_or_nowhere() -> None:
    where = {
        # Quarters that GeoNames lists as towns are nearer than the middle of the city.
        (38.7139, -9.1334): ("Lisbon", "Lisboa", "PT"),
        (51.5007, -0.1246): ("London", "England", "GB"),
        # A city of its own beside a larger one, and a field outside a small town.
        (35.44, 139.64): ("Yokohama", "Kanagawa", "JP"),
        (39.63, -9.06): ("Nazaré", "Leiria", "PT"),
        # The Atlantic; and no coordinates.
        (30.0, -40.0): (None, None, None),
        (math.nan, 2.0): (None, None, None),
    }
    points = np.array(list(where), np.float64)
    named = name_places(points[:, 0], points[:, 1])
    assert [tuple(row.values()) for row in named.to_pylist()] == list(where.values())
    assert len(name_places(np.empty(0), np.empty(0))) == 0
