"""An answer as a terminal shows it: links to the files, and what is hardly right is faint."""

from rich.text import Text

from retrieval_pipeline.cli.text import AnswerLine, answer_lines
from retrieval_pipeline.paths import printable
from retrieval_pipeline.search.results import Answer

DIVIDER = f"{'':>4}  ---- only the nearest from here on ----"


def styled_answer(answer: Answer, *, heading: bool) -> list[Text]:
    """Return the lines of `answer_lines` with styles, and a divider below the likely hits."""
    lines = []
    # Where none is likely, the verdict says so; in another order they are mixed.
    divided = answer.query.sort == "relevance" and 0 < answer.likely < len(answer.hits)
    for line in answer_lines(answer, heading=heading, terminal=True):
        if divided and line.hit is not None and not line.hit.likely:
            lines.append(Text(DIVIDER, "dim"))
            divided = False
        lines.append(_styled(line))
    return lines


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
