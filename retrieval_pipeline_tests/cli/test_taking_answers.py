"""Answers that go on to other programs and folders: paths, tables, copies and links."""

import csv
import io
import json
import os
import subprocess
from pathlib import Path

import pytest

from retrieval_pipeline.cli.hit_files import put_files
from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.paths import shell_quoted
from retrieval_pipeline.search.duplicate_plan import LEFT_ALBUM
from retrieval_pipeline.storage.albums import add_to_album
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline_tests.support.commands import assert_one_line, extract_home, retrieval

# Lists pictures by name, for which no model is loaded.
LIST = ("query", "--sort", "name")
NASTY = b"a \xff\x1b[2J'\\\n\xe2\x80\xaeb $x.jpg"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_home(tmp_path_factory.mktemp("answers") / "library")


def hits_of(library: Path) -> list[str]:
    done = retrieval(library, *LIST, "--json")
    return [hit["path"] for hit in json.loads(done.stdout)["hits"]]


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_paths_and_tables_are_for_programs(library: Path) -> None:
    paths = hits_of(library)
    assert len(paths) == 5
    assert retrieval(library, *LIST, "--paths").stdout == "".join(f"{path}\n" for path in paths)
    assert retrieval(library, *LIST, "-0").stdout == "".join(f"{path}\0" for path in paths)
    rows = list(csv.DictReader(io.StringIO(retrieval(library, *LIST, "--csv").stdout)))
    lines = map(json.loads, retrieval(library, *LIST, "--jsonl").stdout.splitlines())
    for expected, row, line in zip(paths, rows, lines, strict=True):
        assert row["path"] == line["path"] == expected
        assert row["rank"] == str(line["rank"])
        assert row["content_id"] == line["content_id"]


@pytest.mark.parametrize("path", [b"plain/\xc3\xa9.jpg", b"a b.jpg", b"it's.jpg", NASTY])
def test_a_quoted_path_is_the_same_in_a_shell_and_steers_no_terminal(path: bytes) -> None:
    quoted = shell_quoted(os.fsdecode(path))
    assert quoted.isprintable()
    assert (quoted[0] in "'\"$") == (path != b"plain/\xc3\xa9.jpg")
    done = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True)
    assert done.stdout == path


def test_files_are_put_by_rank_and_overwrite_nothing(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.jpg").write_text(folder)
    nasty = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/" + NASTY))
    long = tmp_path / "a" / f"{'é' * 120}.jpg"
    for path in (nasty, long):
        path.write_text(path.name[0])
    paths = [tmp_path / "a" / "same.jpg", tmp_path / "b" / "same.jpg", nasty, long]
    target = tmp_path / "new" / "there"
    planned = put_files(paths, target, "copy", dry_run=True)
    assert not target.parent.exists()
    assert put_files(paths, target, "copy") == planned
    names = ["01_same.jpg", "02_same.jpg"]
    assert files(target)[:2] == names
    assert [(target / name).read_text() for name in names] == ["a", "b"]
    # Once more, as after a full disk.
    (target / "02_same.jpg").unlink()
    again = put_files(paths, target, "copy")
    assert (again.lines, again.present) == (planned.lines[1:2], 3)
    (target / "01_same.jpg").write_text("mine")
    put_files(paths[:1], target, "link")
    assert (target / "01_same.jpg").read_text() == "mine"
    assert (target / "01_same (2).jpg").readlink() == paths[0]
    put_files(paths[:1], target, "hard link")
    assert (target / "01_same (3).jpg").samefile(paths[0])
    assert [put_files(paths[:1], target, how).present for how in ("link", "hard link")] == [1, 1]
    assert not any(name.startswith(".tmp-") for name in files(target))


def test_a_file_that_is_gone_is_named_and_the_others_are_put(tmp_path: Path) -> None:
    there = tmp_path / "there.jpg"
    there.touch()
    with pytest.raises(RetrievalError, match=r"gone.jpg is gone"):
        put_files([tmp_path / "gone.jpg", there], tmp_path / "out", "copy")
    assert files(tmp_path / "out") == ["02_there.jpg"]


def test_a_directory_that_cannot_take_them_is_one_line(library: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    for target, why in (
        ("pictures/hits", 'lies in the source "pictures"'),
        ("home/hits", "lies in the home"),
        (str(tmp_path / "file"), "is a file"),
        (str(tmp_path / "file" / "below"), "Not a directory"),
        ("/proc/hits", "cannot be written"),
        (str(tmp_path / ("x" * 300)), "File name too long"),
        (str(tmp_path / "circle" / "hits"), "Too many levels of symbolic links"),
    ):
        done = retrieval(library, *LIST, "-n", "1", "--copy-to", target, "--paths")
        assert_one_line(done, why)
    assert not (library / "pictures" / "hits").exists()


def test_a_command_says_what_it_put_and_refuses_options_that_do_not_fit(
    library: Path, tmp_path: Path
) -> None:
    done = retrieval(library, *LIST, "-n", "2", "--link-to", str(tmp_path / "out"))
    assert "linked 2 files to" in done.stderr
    assert [(tmp_path / "out" / name).is_symlink() for name in files(tmp_path / "out")] == [
        True
    ] * 2
    done = retrieval(library, *LIST, "-n", "2", "--hard")
    assert done.returncode == 2
    assert "--link-to" in done.stderr


def test_duplicates_are_planned_and_nothing_is_changed(library: Path, tmp_path: Path) -> None:
    script = tmp_path / "plan.sh"
    options = (
        "--keep",
        "path=copy*",
        "--move-to",
        str(tmp_path / "moved"),
        "--script",
        str(script),
    )
    done = retrieval(library, "duplicates", *options)
    *_, kept, moved, empty, total = done.stdout.splitlines()
    assert kept.split() == ["keep", str(library / "pictures" / "copy.jpg")]
    assert moved.split()[0] == "move"
    assert (empty, total[:13]) == ("", "1 file can go")
    other = Path(moved.split()[1])
    assert other.is_file()
    assert script.read_text().count(str(other)) == 1
    planned = json.loads(retrieval(library, "duplicates", "--json", *options[:4]).stdout)
    (group,) = planned["groups"]
    assert [each["path"] for each in group["remove"]] == [str(other)]
    # As the box "Leave these as they are" of the web page does.
    add_to_album(Store(library / "home"), LEFT_ALBUM, {group["keep"]["content_id"]: None})
    done = retrieval(library, "duplicates", "--keep", "largest")
    decided = f'1 group left as decided: pictures of the album "{LEFT_ALBUM}"'
    assert done.stdout.splitlines() == [decided, "no file can go"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep", "best"), '"best" is no rule of what to keep'),
        (("--reference", "nowhere"), 'there is no source "nowhere"'),
        (("--move-to", "pictures/gone"), "pictures/gone lies in the source"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    library: Path, options: tuple[str, ...], message: str
) -> None:
    done = retrieval(library, "duplicates", *options)
    assert_one_line(done, message)
