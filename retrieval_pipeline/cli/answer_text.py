"""Answers of a search as lines of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval_pipeline.cli.output import plural
from retrieval_pipeline.cli.wording import KINDS, shown_path
from retrieval_pipeline.facts.model import Origin
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.storage.remote import Remote

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval_pipeline.search.results import Answer, Hit
    from retrieval_pipeline.search.saved_queries import SavedAnswer


@dataclass(frozen=True)
class AnswerLine:
    """A line of an answer in its parts, which a terminal shows differently.

    Attributes:
        before: What stands before the path; the whole line if it has none.
        path: As it is shown.
        after: What stands after it.
        hit: Whose line it is; None for a heading or a verdict.
        link: The file, if it is on this machine.
    """

    before: str
    path: str = ""
    after: str = ""
    hit: Hit | None = None
    link: Path | None = None

    def __str__(self) -> str:
        return self.before + self.path + self.after


def answer_text(answer: Answer, *, heading: bool) -> list[str]:
    """Return the lines of `answer_lines` as text for a pipe."""
    return [str(line) for line in answer_lines(answer, heading=heading, terminal=False)]


def answer_lines(answer: Answer, *, heading: bool, terminal: bool) -> list[AnswerLine]:
    """Return a line for each hit, and below it its other copies.

    A line has the rank, score, relevance, the day the picture was taken, its path, and place and
    camera; what no hit knows is left out. A day with "?" is only that of the file's time. Where a
    part of the picture matched, the line names the part as `--crop` takes it. For a terminal, paths
    are quoted so that they can be pasted into a shell.
    """
    lines = [AnswerLine(str(answer.query))] if heading else []
    scored, dated = _has_scores(answer), _has_dates(answer)
    # Below the names that a terminal shows.
    width = len("relevance") if terminal else 4
    for rank, hit in enumerate(answer.hits, answer.offset + 1):
        before = f"{rank:>4}"
        if scored:
            before += f"  {hit.score or 0:6.3f}  {hit.relevance or 0:{width}.0%}"
        if dated:
            unsure = "?" if hit.facts.taken_from == Origin.FILE_TIME else " "
            before += f"  {hit.facts.day:>10}{unsure}"
        about = hit.facts.about
        after = f"  [{about}]" if about else ""
        after += f"  (its part {hit.region})" if hit.region else ""
        after += f"  (and {plural(hit.alike, 'picture')} like it)" if hit.alike else ""
        link = None if isinstance(hit.path, Remote) else hit.path
        path = shown_path(str(hit.path), terminal)
        lines.append(AnswerLine(f"{before}  ", path, after, hit, link))
        others = [(f"also in {place.source}: ", place.path) for place in hit.other_locations]
        others += [(f"{KINDS[each.kind]} ", each.file.location.path) for each in hit.companions]
        lines += [
            AnswerLine(f"{'':>12}{what}", shown_path(to_path(path), terminal), hit=hit)
            for what, path in others
        ]
    if not answer.hits:
        lines.append(AnswerLine(answer.verdict))
    return lines


def column_names(answer: Answer) -> str:
    """Return the names of the columns of `answer_lines` on a terminal, each above its column."""
    scores = "   score  relevance" if _has_scores(answer) else ""
    taken = f"  {'taken':<11}" if _has_dates(answer) else ""
    return f"   #{scores}{taken}  file"


def _has_scores(answer: Answer) -> bool:
    return any(hit.score is not None for hit in answer.hits)


def _has_dates(answer: Answer) -> bool:
    """Tell whether a hit has a date of its own: the files' times would be a column of noise."""
    return any(hit.facts.day and hit.facts.taken_from != Origin.FILE_TIME for hit in answer.hits)


def understood_text(answer: Answer) -> list[str]:
    """Say which words were read as facts and how to prevent it, and what else should be known."""
    lines = [f"note: {note}" for note in answer.notes]
    if answer.understood:
        meanings = ", ".join(each.meaning for each in answer.understood)
        lines.append(f"understood: {meanings} (--literal takes the words as they are)")
    return lines


def answer_explanation(answer: Answer) -> str:
    """Say which search plan found the hits, and how long each step took in milliseconds."""
    steps = ", ".join(f"{step} {taken:.1f} ms" for step, taken in answer.timings_ms.items())
    return f"{answer.plan}; {steps}; model {answer.model}, index {answer.build}"


def saved_text(found: SavedAnswer, *, only_new: bool) -> list[str]:
    """Name a saved query, count its hits and the new ones, and list the new hits or all of them."""
    answer = found.new if only_new else found.answer
    hits = plural(len(found.answer.hits), "hit")
    heading = f"{found.name}: {hits}, {len(found.new.hits):,} new"
    return [heading, *answer_text(answer, heading=False)]
