"""Which files are one photograph, by their names and dates."""

from datetime import datetime, timedelta

import pytest

from retrieval_pipeline.facts.groups import companions_of

NOON = datetime(2019, 8, 12, 12)

# The files of a folder -> the best of each group, with its companions.
CASES = {
    "a RAW file and its JPEG": (
        ["a/DSC1.ARW", "a/dsc1.jpg", "a/DSC2.ARW", "b/DSC1.ARW"],
        {"a/dsc1.jpg": ["raw a/DSC1.ARW"]},
    ),
    "RAW, its DNG and a HEIF": (
        ["P1.hif", "P1.ORF", "P1.dng"],
        {"P1.hif": ["raw P1.ORF", "raw P1.dng"]},
    ),
    "RAW alone, converted": (["P1.NEF", "P1.dng"], {"P1.NEF": ["raw P1.dng"]}),
    "one name, several formats": (
        ["x.jpg", "x.png", "x.tif", "x.cr2"],
        {"x.jpg": ["raw x.cr2"]},
    ),
    "an edit by Google Photos": (
        ["P1-edited.jpg", "P1.HEIC", "P1(1).jpg", "P1-edited(1).jpg", "P2-edited.jpg"],
        {"P1-edited.jpg": ["original P1.HEIC"], "P1-edited(1).jpg": ["original P1(1).jpg"]},
    ),
    "an edit by an iPhone": (
        ["IMG_1234.HEIC", "IMG_E1234.JPG", "IMG_1234.MOV", "IMG_E1234.MOV", "IMG_O1234.AAE"],
        {
            "IMG_E1234.JPG": [
                "original IMG_1234.HEIC",
                "sidecar IMG_O1234.AAE",
                "video IMG_1234.MOV",
                "video IMG_E1234.MOV",
            ]
        },
    ),
    "edits by Lightroom": (
        ["P1.NEF", "P1.jpg", "P1-Edit.tif", "P1-Edit-2.tif", "P1-Enhanced-NR.dng"],
        {
            "P1-Enhanced-NR.dng": [
                "edit P1-Edit-2.tif",
                "edit P1-Edit.tif",
                "original P1.jpg",
                "raw P1.NEF",
            ]
        },
    ),
    "an edit of an edit": (
        ["P1.jpg", "P1-Edit.jpg", "P1-Edit-edited.jpg"],
        {"P1-Edit-edited.jpg": ["edit P1-Edit.jpg", "original P1.jpg"]},
    ),
    "an edit on Android": (
        ["20190812_143210.jpg", "20190812_143210~2.jpg", "LONGNA~1.JPG", "LONGNA.JPG"],
        {"20190812_143210~2.jpg": ["original 20190812_143210.jpg"]},
    ),
    "a Live Photo, and videos of their own": (
        ["IMG_1.HEIC", "IMG_1.MOV", "IMG_2.MOV", "c/IMG_1.MOV"],
        {"IMG_1.HEIC": ["video IMG_1.MOV"]},
    ),
    "settings of RawTherapee and DxO": (
        ["P1.NEF", "P1.jpg", "P1.NEF.pp3", "P1.jpg.dop"],
        {"P1.jpg": ["raw P1.NEF", "sidecar P1.NEF.pp3", "sidecar P1.jpg.dop"]},
    ),
    "copies": (["x.jpg", "x (1).jpg", "x(1).jpg", "x copy.jpg", "x-2.jpg"], {}),
    "other normal forms of a name": (
        ["e\u0301.NEF", "\u00e9.jpg"],
        {"\u00e9.jpg": ["raw e\u0301.NEF"]},
    ),
    "names that are nothing but an extension": ([".jpg", ".nef", "a/.jpg", "-edited.jpg"], {}),
}


def is_picture(name: str) -> bool:
    return not name.lower().endswith((".mov", ".aae", ".pp3", ".dop"))


@pytest.mark.parametrize("case", CASES)
def test_files_of_one_photograph_are_grouped_by_their_names(case: str) -> None:
    names, expected = CASES[case]
    pictures = [name for name in names if is_picture(name)]
    others = [name for name in names if not is_picture(name)]
    for order in (1, -1):
        found = companions_of(pictures[::order], others[::order], lambda _: None)
        assert {
            best: [f"{each.kind} {each.path}" for each in companions]
            for best, companions in found.items()
        } == expected


def test_pictures_that_were_taken_at_different_times_are_no_group() -> None:
    # The numbers of the camera have begun anew: one JPEG is of 2019, all others of 2021.
    names = ["P1.NEF", "P1.jpg", "P1.heic", "P1-edited.heic"]
    dates = dict.fromkeys(names, NOON + timedelta(days=600)) | {"P1.jpg": NOON}
    found = companions_of(names, (), dates.get)
    assert [each.path for each in found["P1-edited.heic"]] == ["P1.heic", "P1.NEF"]
    assert list(found) == ["P1-edited.heic"]
    # A copy that was exported a moment later, or without a date, belongs to it.
    for date in (NOON + timedelta(minutes=5), None):
        found = companions_of(["P1.NEF", "P1.jpg"], (), {"P1.NEF": NOON, "P1.jpg": date}.get)
        assert list(found) == ["P1.jpg"]


def test_the_sidecars_of_all_files_of_a_group_belong_to_its_best_one() -> None:
    pictures, others = ["P1.NEF", "P1.jpg", "Q.jpg"], ["P1.xmp", "P1.jpg.json", "Q.xmp", "R.xmp"]
    found = companions_of(pictures, others, lambda _: None)
    assert [f"{each.kind} {each.path}" for each in found["P1.jpg"]] == [
        "raw P1.NEF",
        "sidecar P1.jpg.json",
        "sidecar P1.xmp",
    ]
    assert [each.path for each in found["Q.jpg"]] == ["Q.xmp"]
