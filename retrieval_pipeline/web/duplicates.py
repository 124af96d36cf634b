"""The page of duplicates: what stays of each group, what could go, and a script that does it."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from pydantic import Field

from retrieval_pipeline.paths import to_text
from retrieval_pipeline.search.duplicate_plan import (
    DuplicatePlan,
    parse_rules,
    pictures_to_leave,
    plan_duplicates,
)
from retrieval_pipeline.search.duplicate_script import duplicate_script
from retrieval_pipeline.search.near_duplicates import DuplicateGroup
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.web.parameters import ContentId, Page, Text, Texts
from retrieval_pipeline.web.snapshot import Snapshot

# Pictures whose duplicates are asked for.
MOST_AMONG = 300


class PlanAddress(Page):
    """Which duplicates to show, and what is to stay.

    Attributes:
        folder: A glob: files whose path it matches stay before others; "" for none.
        formats: Formats in the order in which they stay, such as "png/jpeg"; "" for any.
        first: What stays of files that are equal in this: the largest, the oldest or the newest.
        reference: Names of sources whose files always stay.
        action: What the script does with the others.
        among: Content ids: only groups with one of these pictures; all groups if there is none.
    """

    folder: Text = ""
    formats: Text = ""
    first: Literal["largest", "oldest", "newest"] = "largest"
    reference: Texts = Field(default=[])
    action: Literal["trash", "hardlink"] = "trash"
    among: list[ContentId] = Field(default=[], max_length=MOST_AMONG)

    @property
    def query(self) -> str:
        """The address of another page of the same, without its offset."""
        fields = self.model_dump(exclude={"offset"})
        return urlencode(fields, doseq=True) + "&"

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules, the most important one first.

        Raises:
            QueryError: There is no such format.
        """
        texts = [f"path={self.folder}"] if self.folder else []
        texts += [f"format={self.formats}"] if self.formats else []
        last = ["oldest"] if self.first == "largest" else ["largest"]
        return parse_rules([*texts, self.first, *last])


@dataclass(frozen=True)
class TwinFile:
    """A file of a group.

    Attributes:
        source: Name of its source.
        path: Its path in the source, as text.
        absolute: Its absolute path, as text.
        size: In bytes.
        role: "stays", "goes", or why nothing is proposed for it.
    """

    source: str
    path: str
    absolute: str
    size: int
    role: str


@dataclass(frozen=True)
class TwinPicture:
    """A picture of a group, with all files that hold it.

    Attributes:
        content_id: Of the picture.
        cosine: With the first picture of the group.
        width: Pixels, upright.
        height: Pixels, upright.
        format: Such as JPEG.
        files: The files, in the order of their sources and paths.
    """

    content_id: str
    cosine: float
    width: int
    height: int
    format: str
    files: tuple[TwinFile, ...]


@dataclass(frozen=True)
class Planned:
    """The duplicates, and what could be done about them.

    Attributes:
        total: Number of groups.
        files: How many files could go.
        bytes: How much they hold together.
        groups: Those of this page; the pictures of each.
        leave: Content ids: somebody wants a group left as it is that has one of these.
    """

    total: int
    files: int
    bytes: int
    groups: list[list[TwinPicture]]
    leave: set[str]


def chosen(groups: list[DuplicateGroup], asked: PlanAddress) -> list[DuplicateGroup]:
    """Return the groups that are asked for."""
    among = set(asked.among)
    if not among:
        return groups
    return [
        group for group in groups if any(picture.content_id in among for picture in group.pictures)
    ]


def plan_of(
    snapshot: Snapshot, groups: list[DuplicateGroup], asked: PlanAddress, leave: set[str]
) -> DuplicatePlan:
    """Return what could be done about these groups, but those with a picture of `leave`.

    Raises:
        QueryError: There is no such format.
    """
    return plan_duplicates(
        groups,
        snapshot.searcher.whole.looks.same,
        asked.rules,
        references=asked.reference,
        action=asked.action,
        leave=leave,
    )


def planned(snapshot: Snapshot, groups: list[DuplicateGroup], asked: PlanAddress) -> Planned:
    """Return the groups of a page, with what could be done about each file.

    Raises:
        QueryError: There is no such format.
        StoreError: The album of what is to be left is damaged.
    """
    groups = chosen(groups, asked)
    leave = pictures_to_leave(snapshot.store)
    plan = plan_of(snapshot, groups, asked, leave)
    roles: dict[Place, str] = {}
    for group in plan.groups:
        roles |= dict(group.left)
        roles |= dict.fromkeys((file.path for file in group.remove), "goes")
        roles[group.keep.path] = "stays"
    shown = groups[asked.offset : asked.offset + asked.k]
    twins = [_twins(group, roles) for group in shown]
    return Planned(len(groups), plan.files, plan.bytes, twins, leave)


def _twins(group: DuplicateGroup, roles: dict[Place, str]) -> list[TwinPicture]:
    return [
        TwinPicture(
            content_id=picture.content_id,
            cosine=picture.cosine,
            width=picture.width,
            height=picture.height,
            format=picture.format,
            files=tuple(
                TwinFile(
                    source=file.location.source,
                    path=file.location.path,
                    absolute=to_text(str(path)),
                    size=file.size,
                    role=roles.get(path, "is left as it is"),
                )
                for file, path in zip(picture.files, picture.paths, strict=True)
            ),
        )
        for picture in group.pictures
    ]


def script_of(snapshot: Snapshot, groups: list[DuplicateGroup], asked: PlanAddress) -> bytes:
    """Return a shell script that does what the plan proposes; every file of it is read.

    Raises:
        QueryError: There is no such format.
        StoreError: A file is no longer what was indexed, or cannot be read; or the album of what is
            to be left is damaged.
    """
    leave = pictures_to_leave(snapshot.store)
    return duplicate_script(plan_of(snapshot, chosen(groups, asked), asked, leave))
