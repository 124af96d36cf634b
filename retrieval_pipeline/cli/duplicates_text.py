"""Duplicates, and what is planned for them, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval_pipeline.cli.output import plural
from retrieval_pipeline.cli.wording import shown_path, size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrieval_pipeline.search.duplicate_plan import DuplicatePlan
    from retrieval_pipeline.search.near_duplicates import DuplicateGroup


def duplicates_text(groups: Sequence[DuplicateGroup], *, terminal: bool) -> list[str]:
    """List each group: a picture, then the files with the same bytes or the same looks."""
    lines = []
    for group in groups:
        for number, picture in enumerate(group.pictures):
            kind = f"{picture.cosine:.3f}" if number else ""
            for copy, path in enumerate(picture.paths):
                what = "same file" if copy else kind
                lines.append(f"{what:>10}  {shown_path(str(path), terminal)}")
        lines.append("")
    files = sum(len(picture.paths) for group in groups for picture in group.pictures)
    lines.append(
        f"{plural(len(groups), 'group')}, {plural(files - len(groups), 'file')} more than needed"
        if groups
        else "no picture is there twice"
    )
    return lines


def plan_text(plan: DuplicatePlan, *, terminal: bool) -> list[str]:
    """List what stays of each group, what can go, and what is left for a reason."""
    lines = []
    for group in plan.groups:
        lines.append(f"{'keep':>10}  {shown_path(str(group.keep.path), terminal)}")
        for file in group.remove:
            same = file.content_id == group.keep.content_id
            what = "same bytes" if same else "looks the same"
            path = shown_path(str(file.path), terminal)
            lines.append(f"{plan.action:>10}  {path}  ({what}, {size_text(file.size)})")
        lines += [
            f"{'leave':>10}  {shown_path(str(path), terminal)}  ({why})" for path, why in group.left
        ]
        lines.append("")
    if plan.left_groups:
        from retrieval_pipeline.search.duplicate_plan import LEFT_ALBUM

        many = plural(plan.left_groups, "group")
        lines.append(f'{many} left as decided: pictures of the album "{LEFT_ALBUM}"')
    total = f"{plural(plan.files, 'file')} can go, {size_text(plan.bytes)}"
    return [*lines, f"{total}; nothing was changed" if plan.files else "no file can go"]
