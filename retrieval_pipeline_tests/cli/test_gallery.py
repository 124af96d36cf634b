import base64
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image

from retrieval_pipeline.cli.gallery import gallery_html
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.results import Answer, Hit
from retrieval_pipeline.storage.content_id import content_id_of_file

RED, GREEN, BLUE = (200, 30, 30), (30, 160, 60), (30, 60, 200)
VOID = {"meta", "img", "wbr", "rect", "path"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list["Element"] = field(default_factory=list)

    def all(self, tag: str, of_class: str = "") -> list["Element"]:
        return [
            each
            for each in self.inside
            if each.tag == tag
            and (not of_class or of_class in each.attributes.get("class", "").split())
        ]

    def one(self, tag: str, of_class: str = "") -> "Element":
        (found,) = self.all(tag, of_class)
        return found


class Parser(HTMLParser):
    """Gives each element its attributes, its text and all elements inside it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(html)
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        for each in self._open:
            each.inside.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for each in self._open:
            each.text += data


def page_of(*answers: Answer, title: str | None = None) -> Element:
    return Parser(gallery_html(answers, Limits(), title=title)).root


def answer_of(*hits: Hit, query: Query | None = None) -> Answer:
    return Answer(query or Query(text="a cat"), hits, "offline", "20250102-build", {"encode": 1.0})


def hit_of(path: Path, *others: Location, size: tuple[int, int] = (60, 40)) -> Hit:
    here = Location("photos", path.name.encode(errors="replace").decode())
    content = content_id_of_file(path) if path.exists() else "c0ffee"
    return Hit(content, path, here, 0.31274, 0.87, (here, *others), *size)


def shown(image: Element) -> Image.Image:
    head, _, data = image.attributes["src"].partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(BytesIO(base64.b64decode(data, validate=True))).convert("RGB")


def looks(image: Element, colour: tuple[int, int, int]) -> bool:
    picture = shown(image)
    middle = picture.getpixel((picture.width // 2, picture.height // 2))
    return all(abs(a - b) < 12 for a, b in zip(middle, colour, strict=True))


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., Path]:
    def make(
        name: str, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (60, 40)
    ) -> Path:
        path = tmp_path / name
        Image.new("RGB", size, colour).save(path, "JPEG")
        return path

    return make


def test_hits_are_shown_in_the_order_of_their_ranks(photo: Callable[..., Path]) -> None:
    colours = {"c.jpg": RED, "a.jpg": GREEN, "b.jpg": BLUE}
    page = page_of(answer_of(*(hit_of(photo(name, colour)) for name, colour in colours.items())))
    cards = page.all("li", "card")
    assert [card.one("span", "rank").text for card in cards] == ["1", "2", "3"]
    for card, (name, colour) in zip(cards, colours.items(), strict=True):
        image = card.one("img")
        assert looks(image, colour)
        assert image.attributes["alt"] == name
        assert name in card.one("p", "name").text


def test_a_card_tells_score_relevance_source_size_and_path(photo: Callable[..., Path]) -> None:
    path = photo("cat.jpg")
    card = page_of(answer_of(hit_of(path, size=(4000, 3000)))).one("li", "card")
    assert "0.313" in card.one("p", "measure").text
    bar = card.one("svg")
    assert bar.attributes["aria-label"] == "relevance 87%"
    assert card.one("rect").attributes["width"] == "87.0"
    assert card.one("summary").text == "photos"
    assert card.one("bdi", "path").text == str(path)
    assert "4000 × 3000" in card.one("dl").text


def test_the_other_copies_are_listed(photo: Callable[..., Path]) -> None:
    copies = Location("backup", "2023/cat.jpg"), Location("photos", "cat (2).jpg")
    card = page_of(answer_of(hit_of(photo("cat.jpg"), *copies))).one("li", "card")
    assert card.one("summary").text == "photos · 3 copies"
    assert [each.text for each in card.all("bdi", "path")][1:] == ["2023/cat.jpg", "cat (2).jpg"]
    assert "backup" in card.one("dl").text


def test_a_click_opens_the_file_whatever_its_name(photo: Callable[..., Path]) -> None:
    names = [
        "a b.jpg",
        "100%25 #1?.jpg",
        "naïve 猫.jpg",
        os.fsdecode(b"caf\xe9 \xff.jpg"),
        "q\"'&.jpg",
    ]
    paths = [photo(name) for name in names]
    page = page_of(answer_of(*map(hit_of, paths)))
    for link, path in zip(page.all("a", "picture"), paths, strict=True):
        scheme, _, rest = link.attributes["href"].partition("://")
        assert scheme == "file"
        assert unquote_to_bytes(rest) == os.fsencode(path)
        assert re.fullmatch(r"[\w/.~%-]+", rest, re.ASCII)


def test_a_name_that_is_not_utf8_is_shown_with_its_bytes_escaped(
    photo: Callable[..., Path],
) -> None:
    path = photo(os.fsdecode(b"caf\xe9.jpg"))
    query = Query(images=(path,))
    html = gallery_html([answer_of(hit_of(path), query=query)], Limits())
    html.encode("utf-8")
    page = Parser(html).root
    assert page.one("h1").text == "Pictures like caf\\xe9.jpg"
    assert "caf\\xe9.jpg" in page.one("p", "name").text


def test_markup_in_names_and_queries_is_shown_as_text(photo: Callable[..., Path]) -> None:
    evil = "<img src=x onerror=alert(1)>"
    quoted = "\"'><script>alert(1)<"
    hits = [
        hit_of(photo(f"{evil}.jpg"), Location("photos", f"{evil}/{quoted}/x.jpg")),
        hit_of(photo(f'"onload="{evil[1:]}.jpg')),
    ]
    query = Query(text=evil, plus=(evil,), minus=(quoted,), paths=(evil,))
    page = page_of(answer_of(*hits, query=query), answer_of(query=Query(text=quoted)), title=evil)
    assert not page.all("script")
    assert len(page.all("img")) == 2
    assert not [name for each in page.inside for name in each.attributes if name.startswith("on")]
    assert page.one("h1").text == evil
    assert [each.text for each in page.all("h2")] == [evil, quoted]
    assert page.all("bdi", "path")[1].text == f"{evil}/{quoted}/x.jpg"


def test_characters_that_could_turn_a_name_around_are_escaped(photo: Callable[..., Path]) -> None:
    card = page_of(answer_of(hit_of(photo("cat\u202egpj.exe")))).one("li", "card")
    assert "cat\\u202egpj.exe" in card.one("p", "name").text


def test_broken_and_missing_files_become_placeholders_that_say_so(
    photo: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture at all")
    (tmp_path / "empty.jpg").touch()
    replaced = hit_of(photo("replaced.jpg", GREEN))
    photo("replaced.jpg", BLUE)
    names = ["broken.jpg", "gone.jpg", "empty.jpg"]
    hits = [*(hit_of(tmp_path / name) for name in names), hit_of(Path("relative.jpg")), replaced]
    page = page_of(answer_of(*hits, hit_of(photo("good.jpg"))))
    missing = page.all("div", "missing")
    gone = "the file is gone or holds another picture"
    reasons = ["not an image", gone, "empty", gone, gone]
    for placeholder, reason in zip(missing, reasons, strict=True):
        assert reason in placeholder.one("p").text
    assert [link.one("img").attributes["alt"] for link in page.all("a", "picture")] == ["good.jpg"]
    assert len(page.all("li", "card")) == 6


def test_the_page_needs_nothing_but_itself(photo: Callable[..., Path]) -> None:
    html = gallery_html([answer_of(hit_of(photo("cat.jpg")))], Limits())
    assert "http:" not in html
    assert "https:" not in html
    page = Parser(html).root
    assert not page.all("script") + page.all("link") + page.all("iframe")
    addresses = [
        value
        for each in page.inside
        for name, value in each.attributes.items()
        if name in ("src", "href", "srcset")
    ]
    assert {address.partition(":")[0] for address in addresses} == {"data", "file"}
    style = page.one("style").text
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_the_style_sheet_and_no_script(photo: Callable[..., Path]) -> None:
    page = page_of(answer_of(hit_of(photo("cat.jpg"))))
    (policy,) = (
        each.attributes["content"]
        for each in page.all("meta")
        if each.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
    digest = hashlib.sha256(page.one("style").text.encode()).digest()
    assert rules["style-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "script-src" not in rules
    assert not [each for each in page.inside if "style" in each.attributes]


def test_every_colour_and_length_that_is_used_is_defined() -> None:
    style = page_of(answer_of()).one("style").text
    used = set(re.findall(r"var\((--[\w-]+)\)", style)) - {"--r"}
    assert used <= set(re.findall(r"(--[\w-]+):", style))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ink", ["text", "muted", "accent"])
@pytest.mark.parametrize("ground", ["ground", "raised", "matte"])
def test_text_has_enough_contrast(scheme: str, ink: str, ground: str) -> None:
    light, _, dark = page_of(answer_of()).one("style").text.partition("scheme: dark")
    colours = dict(re.findall(r"--(\w+): #(\w{6});", light if scheme == "light" else dark))
    darker, lighter = sorted(luminance(colours[name]) for name in (ink, ground))
    # WCAG 2.2, success criterion 1.4.3, level AA.
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance, 0 to 1, of an sRGB colour in hexadecimal (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_card_has_the_shape_of_its_picture_within_bounds(photo: Callable[..., Path]) -> None:
    sizes = [(1500, 1000), (1000, 1500), (9000, 300), (100, 5000)]
    page = page_of(answer_of(*(hit_of(photo(f"{w}.jpg"), size=(w, h)) for w, h in sizes)))
    style = page.one("style").text
    ratios = []
    for card in page.all("li", "card"):
        name = card.attributes["class"].split()[1]
        ratios += re.findall(rf"\.{name} {{ --r: ([\d.]+); }}", style)
    assert ratios == ["1.5", "0.667", "2.8", "0.56"]


def test_thumbnails_are_small_and_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((1600, 1200), 40).convert("RGB").save(path, exif=exif)
    html = gallery_html([answer_of(hit_of(path, size=(1200, 1600)))], Limits())
    assert shown(Parser(html).root.one("img")).size == (360, 480)


def test_several_queries_are_sections_with_a_table_of_contents(
    photo: Callable[..., Path],
) -> None:
    hit = hit_of(photo("cat.jpg"))
    queries = [Query(text="a cat"), Query(text="a dog")]
    page = page_of(*(answer_of(hit, query=query) for query in queries), title="Sample photos")
    assert page.one("title").text == page.one("h1").text == "Sample photos"
    assert [each.text for each in page.all("h2")] == ["a cat", "a dog"]
    sections = {f"#{each.attributes['id']}": each for each in page.all("section")}
    links = page.one("nav").all("a")
    assert [sections[link.attributes["href"]].one("h2").text for link in links] == [
        link.text for link in links
    ]


def test_one_query_names_the_page(photo: Callable[..., Path]) -> None:
    page = page_of(answer_of(hit_of(photo("cat.jpg")), query=Query(text="a cat")))
    assert page.one("title").text == page.one("h1").text == "a cat"
    assert not page.all("nav") + page.all("h2")


def test_what_else_a_query_asked_for_is_beside_its_heading(photo: Callable[..., Path]) -> None:
    query = Query(
        text="a bird",
        images=(photo("like this.jpg", BLUE),),
        plus=("water",),
        minus=("people",),
        sources=("holidays",),
        paths=("2023/*",),
        min_relevance=0.25,
    )
    head = page_of(answer_of(query=query)).one("div", "head")
    assert looks(head.one("img"), BLUE)
    assert [note.text for note in head.all("li")] == [
        "like like this.jpg",
        "+ water",
        "− people",
        "in holidays",
        "path 2023/*",
        "relevance at least 25%",
    ]


def test_a_line_parts_the_likely_hits_from_the_rest(photo: Callable[..., Path]) -> None:
    sure, near = hit_of(photo("cat.jpg")), replace(hit_of(photo("dog.jpg")), relevance=0.1)
    page = page_of(answer_of(sure, near))
    items = [item.attributes.get("class", "") for item in page.one("ol").all("li")]
    assert [name.split()[0] for name in items] == ["card", "divider", "card"]
    assert page.one("div", "head").one("li").text == "1 likely; the rest are only the nearest"
    assert not page_of(answer_of(sure)).all("li", "divider")


def test_an_example_that_is_gone_leaves_the_rest(tmp_path: Path) -> None:
    page = page_of(answer_of(query=Query(images=(tmp_path / "gone.jpg",))))
    assert page.one("h1").text == "Pictures like gone.jpg"
    assert not page.all("img")


def test_a_query_without_hits_says_so() -> None:
    page = page_of(answer_of())
    assert page.one("p", "empty").text == "Nothing here looks like that."
    assert not page.all("ol")


def test_the_footer_names_model_and_build() -> None:
    assert "Model offline, index 20250102-build" in page_of(answer_of()).one("footer").text


def test_the_same_answers_give_the_same_page(photo: Callable[..., Path]) -> None:
    answers = [answer_of(hit_of(photo("cat.jpg")), hit_of(photo("dog.jpg", GREEN)))]
    assert gallery_html(answers, Limits()) == gallery_html(answers, Limits())
