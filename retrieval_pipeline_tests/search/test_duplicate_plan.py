import os
import subprocess
from pathlib import Path

import pytest

from retrieval_pipeline.errors import QueryError, StoreError
from retrieval_pipeline.facts.groups import Kind
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.index.records import CompanionFile, IndexedFile
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.search.duplicate_plan import (
    Action,
    DuplicatePlan,
    parse_rules,
    plan_duplicates,
    plan_json,
)
from retrieval_pipeline.search.duplicate_script import duplicate_script
from retrieval_pipeline.search.near_duplicates import DuplicateGroup, DuplicatePicture
from retrieval_pipeline.storage.content_id import content_id

# A name that ends a line and a quote, starts a command, is not UTF-8, steers a terminal, turns the
# line around, would be a format of printf, and ends with a line end.
ODD = os.fsdecode(b"it's\n$(touch hacked)\n'; touch hacked; '\xff\x1b[2J\xe2\x80\xae%s\\101.png\n")


class Files:
    """Pictures in files below a directory, each younger than those before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.number = 0

    def picture(
        self, data: bytes, *names: str, size: int = 10, form: str = "JPEG", raw: bool = False
    ) -> DuplicatePicture:
        """Write the bytes to files, each named by its source and path, as one item."""
        files, paths = [], []
        for number, name in enumerate(names):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.utime(path, ns=(0, 1_000_000_000 * (10 * self.number + number)))
            source, relative = name.split("/", 1)
            location = Location(source, to_text(relative))
            files.append(IndexedFile(location, len(data), path.stat().st_mtime_ns))
            paths.append(path)
        raws = (CompanionFile(Kind.RAW, files[0]),) if raw else ()
        self.number += 1
        return DuplicatePicture(
            *(self.number, content_id(data), 1.0, size, size, form),
            *(tuple(files), tuple(paths), raws),
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def always(one: int, other: int) -> bool:
    return True


def names(plan: DuplicatePlan) -> tuple[str, list[str]]:
    """The names of the file that stays and of those that can go."""
    (group,) = plan.groups
    return group.keep.path.name, [file.path.name for file in group.remove]


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (["largest"], "big.png"),
        (["oldest"], "first.jpg"),
        (["newest"], "big.png"),
        (["format=webp/jpg,newest"], "other.jpg"),
        (["source=b/a", "oldest"], "other.jpg"),
        (["path=best/*"], "good.jpg"),
        ([], "first.jpg"),
    ],
)
def test_rules_decide_which_file_stays(files: Files, rules: list[str], kept: str) -> None:
    copies = files.picture(b"x", "a/first.jpg", "a/best/good.jpg", "b/other.jpg")
    big = files.picture(b"yy", "a/big.png", size=20, form="PNG")
    plan = plan_duplicates([DuplicateGroup((copies, big))], always, parse_rules(rules))
    stays, can_go = names(plan)
    assert stays == kept
    assert sorted([stays, *can_go]) == ["big.png", "first.jpg", "good.jpg", "other.jpg"]
    sizes = {"big.png": 2}
    assert plan.bytes == sum(sizes.get(name, 1) for name in can_go)


@pytest.mark.parametrize("rule", ["biggest", "format=", "largest=1", ""])
def test_a_rule_that_does_not_exist_is_refused(rule: str) -> None:
    with pytest.raises(QueryError, match="is no rule of what to keep: largest"):
        parse_rules([rule])


def test_what_must_not_go_is_left_with_the_reason(files: Files) -> None:
    copies = files.picture(b"x", "b/reference.jpg", "b/other.jpg", "a/changed.jpg", "a/gone.jpg")
    (files.root / "a/changed.jpg").write_bytes(b"other")
    (files.root / "a/gone.jpg").unlink()
    link = files.picture(b"v", "a/link.jpg")
    (files.root / "a/link.jpg").unlink()
    (files.root / "a/link.jpg").symlink_to("../b/other.jpg")
    unlike = files.picture(b"y", "a/unlike.jpg", size=20)
    with_raw = files.picture(b"z", "a/raw.jpg", raw=True)
    group = DuplicateGroup((link, unlike, with_raw, copies))
    plan = plan_duplicates([group], lambda one, other: False, references=["b"])
    assert (plan.files, plan.bytes) == (0, 0)
    assert plan.groups[0].keep.path.name == "reference.jpg"
    reasons = {path.name: why for path, why in plan.groups[0].left}
    assert reasons == {
        "other.jpg": 'its source "b" is a reference',
        "changed.jpg": "it has changed since it was indexed: run `retrieval index`",
        "gone.jpg": "it cannot be found: No such file or directory",
        "link.jpg": "it is a link, no file of its own",
        "unlike.jpg": "it does not look the same as the file that stays",
        "raw.jpg": "other files belong to it, such as a RAW file",
    }


def test_one_file_under_two_names_is_not_its_own_duplicate(files: Files) -> None:
    one = files.picture(b"x", "a/one.jpg")
    (files.root / "b").symlink_to("a")
    os.link(files.root / "a/one.jpg", files.root / "a/same.jpg")
    row = one.files[0]
    places = [Location("a", "one.jpg"), Location("a", "same.jpg"), Location("b", "one.jpg")]
    picture = DuplicatePicture(
        *(1, one.content_id, 1.0, 10, 10, "JPEG"),
        tuple(IndexedFile(place, row.size, row.mtime_ns) for place in places),
        tuple(files.root / place.source / place.path for place in places),
    )
    plan = plan_duplicates([DuplicateGroup((picture,))], always)
    assert plan.files == 0
    assert len(plan.groups[0].left) == 2


def run(script: bytes, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a directory with a trash of its own."""
    programs = directory / "programs"
    programs.mkdir()
    (programs / "gio").write_text(
        f'#!/bin/sh\nmkdir -p {directory}/bin; mv "$3" {directory}/bin/\n'
    )
    (programs / "gio").chmod(0o755)
    (directory / "script").write_bytes(script)
    path = f"{programs}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "script"],
        cwd=directory,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("action", ["trash", "hardlink", "move"])
def test_a_script_does_what_was_planned_whatever_the_names_are(
    files: Files, action: Action
) -> None:
    copies = files.picture(b"x", "a/keep.jpg", f"a/{ODD}", "b/-f")
    alike = files.picture(b"y", "b/alike.jpg")
    root = files.root
    plan = plan_duplicates([DuplicateGroup((copies, alike))], always, action=action)
    script = duplicate_script(plan, root / "moved")
    # Whoever reads it on a terminal sees all of it.
    assert script.decode().replace("\n", "").isprintable()
    done = run(script, root)
    assert (done.stdout, done.stderr) == (f"done: {plan.files}, left out: 0\n", "")
    assert not list(root.rglob("hacked"))
    assert (root / "a/keep.jpg").read_bytes() == b"x"
    if action == "hardlink":
        for name in (f"a/{ODD}", "b/-f"):
            assert (root / name).samefile(root / "a/keep.jpg")
        assert (root / "b/alike.jpg").read_bytes() == b"y"
    else:
        assert not any((root / "b").iterdir())
        gone = {
            "trash": {root / "bin" / name for name in (ODD, "-f", "alike.jpg")},
            "move": {root / "moved" / name for name in (f"a/{ODD}", "b/-f", "b/alike.jpg")},
        }[action]
        assert all(file.is_file() for file in gone)


def test_a_script_leaves_out_what_has_changed_since(files: Files) -> None:
    one = files.picture(b"x", "a/keep.jpg", "a/changed.jpg", "a/same.jpg")
    two = files.picture(b"y", "a/lost.jpg", "a/spare.jpg")
    groups = [DuplicateGroup((one,)), DuplicateGroup((two,))]
    plan = plan_duplicates(groups, always)
    script = duplicate_script(plan)
    changed = files.root / "a/changed.jpg"
    before = changed.stat()
    changed.write_bytes(b"z")
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    plan.groups[1].keep.path.unlink()
    done = run(script, files.root)
    assert done.stdout == "done: 1, left out: 2\n"
    assert "step 1 left out: the file is gone or has changed" in done.stderr
    assert "step 3 left out: the file to keep is gone or has changed" in done.stderr
    assert done.returncode == 1
    assert [file.name for file in (files.root / "bin").iterdir()] == ["same.jpg"]
    with pytest.raises(StoreError, match=r"changed.jpg is no longer what was indexed"):
        duplicate_script(plan)


def test_the_json_of_a_plan_has_what_is_needed_to_check_it_again(files: Files) -> None:
    copies = files.picture(b"x", "a/keep.jpg", "a/copy.jpg")
    written = plan_json(plan_duplicates([DuplicateGroup((copies,))], always))
    (group,) = written["groups"]
    assert (written["files"], written["bytes"], written["action"]) == (1, 1, "trash")
    assert (
        group["remove"][0].items()
        >= {
            "path": str(files.root / "a/copy.jpg"),
            "content_id": copies.content_id,
            "size": 1,
            "mtime_ns": copies.files[1].mtime_ns,
            "same_bytes": True,
        }.items()
    )
