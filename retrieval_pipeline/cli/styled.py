"""An answer as a terminal shows it: links to the files, and what is hardly right is faint."""

import shutil
from dataclasses import replace

from rich.cells import cell_len
from rich.text import Text

from retrieval_pipeline.cli.answer_text import AnswerLine, answer_lines, column_names
from retrieval_pipeline.paths import printable
from retrieval_pipeline.search.results import Answer, Hit

DIVIDER = f"{'':>4}  ---- only the nearest from here on ----"


# Lines of a terminal, and whose they are; None for what is no hit's.
Block = tuple[Hit | None, list[Text]]


def styled_answer(answer: Answer, *, heading: bool) -> list[Text]:
    """Return the lines of `answer_lines` with styles, under the names of their columns.

    A divider stands below the likely hits. Where a line is wider than the terminal, what follows
    the path has a line of its own.
    """
    width = shutil.get_terminal_size().columns
    blocks = styled_blocks(answer, heading=heading, width=width)
    return [line for _, lines in blocks for line in lines]


def styled_blocks(answer: Answer, *, heading: bool, width: int) -> list[Block]:
    """Return the lines of `styled_answer` for `width` columns, those of a hit together."""
    blocks: list[Block] = []
    # Where none is likely, the verdict says so; in another order they are mixed.
    divided = answer.query.sort == "relevance" and 0 < answer.likely < len(answer.hits)
    named = False
    for line in answer_lines(answer, heading=heading, terminal=True):
        if line.hit is not None and not named:
            blocks.append((None, [Text(column_names(answer), "dim")]))
            named = True
        if divided and line.hit is not None and not line.hit.likely:
            blocks.append((None, [Text(DIVIDER, "dim")]))
            divided = False
        if not blocks or line.hit is None or blocks[-1][0] is not line.hit:
            blocks.append((line.hit, []))
        lines = [line]
        if line.after and cell_len(printable(str(line))) > width:
            indent = " " * (len(line.before) - 2)
            lines = [replace(line, after=""), AnswerLine(indent, after=line.after, hit=line.hit)]
        blocks[-1][1].extend(map(_styled, lines))
    return blocks


def _styled(line: AnswerLine) -> Text:
    hit = line.hit
    if hit is None:
        return Text(printable(line.before), "bold")
    path = "bold"
    if line.link is not None:
        path += f" link {line.link.as_uri()}"
    text = Text.assemble(
        (printable(line.before), "cyan"), (printable(line.path), path), printable(line.after)
    )
    if hit.relevance is not None and not hit.likely:
        text.stylize("dim")
    return text
