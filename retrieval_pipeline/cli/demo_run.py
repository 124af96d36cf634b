"""`retrieval demo`: index the photographs that installed packages carry, without a network."""

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from retrieval_pipeline.cli.gallery import gallery_html
from retrieval_pipeline.config.loading import FILE_NAME, load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.paths import shell_quoted
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.results import Answer
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.atomic import replacing

# Only real photographs; the packages also carry drawings, masks and test patterns.
PHOTOS = {
    "scikit-image": (
        "skimage/data",
        (
            "astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png",
            "coffee.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg",
            "moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg",
            "text.png",
        ),
    ),
    "scikit-learn": ("sklearn/datasets/images", ("china.jpg", "flower.jpg")),
}  # fmt: skip
# The last one is a thing that the offline model does not know.
QUERIES = (
    "a cat",
    "a cup of coffee",
    "a rocket launch",
    "a clock",
    "a palace in China",
    "old coins",
)


def run_demo(directory: Path, say: Callable[..., None]) -> Path:
    """Index the photographs into `directory`, answer some queries, and return the gallery page.

    Raises:
        RetrievalError: A package of the extras "offline" and "demo" is not installed.
    """
    roots = {name: _copied(name, directory / "photos" / name) for name in PHOTOS}
    file = directory / FILE_NAME
    with replacing(file) as temporary:
        text = settings_text(list(roots.items()), model="offline", home="retrieval-home")
        temporary.write_text(text, encoding="utf-8")
    settings = load_settings(file)
    say(f"indexing the sample photos of {' and '.join(roots)} with the offline model ...")
    _materialise(settings, file)
    searcher = Searcher.open(settings)
    answers = [searcher.answer(Query(text=text), k=4) for text in QUERIES]
    say(
        f"{len(searcher.index)} photos indexed. The best hit of each query, and how relevant it is:"
    )
    say("", *(_best(answer) for answer in answers))
    command = _this_command()
    page = directory / "gallery.html"
    with replacing(page) as temporary:
        html = gallery_html(answers, Limits.of(settings.images))
        temporary.write_text(html, encoding="utf-8")
    say(
        "",
        f"The pictures:  {page.as_uri()}",
        f"Ask your own:  {command} query --config {shell_quoted(str(file))} a kitten",
        f"Your pictures: {command} init ~/Pictures && {command} index",
    )
    return page


def _best(answer: Answer) -> str:
    """Return the line of a query, with its best hit if it is likely."""
    best = answer.hits[0]
    found = f"{best.source}/{best.path.name}" if best.likely else "nothing here looks like that"
    return f"  {answer.query!s:<18} {best.relevance or 0:4.0%}  {found}"


def _this_command() -> str:
    """Return how to call this program again, which need not be on the path of the shell."""
    return "retrieval" if shutil.which("retrieval") else shell_quoted(sys.argv[0])


def _copied(name: str, target: Path) -> Path:
    """Copy the photographs of a package to `target`, where people can add pictures of their own."""
    folder, files = PHOTOS[name]
    module, _, inner = folder.partition("/")
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise RetrievalError(
            f"{name} is not installed, whose photos the demo shows: "
            'pip install "retrieval-pipeline[offline,demo]"'
        )
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (target / file).exists():
            with replacing(target / file) as temporary:
                shutil.copyfile(Path(found.origin).parent / inner / file, temporary)
    return target


def _materialise(settings: Settings, file: Path) -> None:
    """Run the Dagster job that brings everything up to date, in this process."""
    import dagster as dg

    from retrieval_pipeline.orchestration.code_location import build_definitions, unstable_allowed
    from retrieval_pipeline.orchestration.resources import LibraryResource

    definitions = build_definitions(settings, LibraryResource(config_file=str(file)))
    # Dagster makes sensors anew when it takes a job out of the definitions.
    with unstable_allowed(), dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("reindex_job").execute_in_process(
            instance=instance,
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
            raise_on_error=False,
        )
    for event in result.all_events:
        if event.is_step_failure:
            raise RetrievalError(*event.step_failure_data.error_display_string.splitlines())
