"""`retrieval demo`: index the photographs that installed packages carry, without a network."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

from retrieval_pipeline.cli.gallery import gallery_html
from retrieval_pipeline.config.loading import FILE_NAME, load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.search.query import Query
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
QUERIES = (
    "a cat",
    "a cup of coffee",
    "a rocket launch",
    "a motorcycle",
    "a flower",
    "a temple",
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
    say(f"{len(searcher.index)} photos indexed. The best hit of each query, with its score:", "")
    for answer in answers:
        best = answer.hits[0]
        name = f"{best.source}/{best.path.name}"
        say(f"  {answer.query!s:<18} {best.score:6.3f}   {name}")
    page = directory / "gallery.html"
    with replacing(page) as temporary:
        html = gallery_html(answers, Limits.of(settings.images))
        temporary.write_text(html, encoding="utf-8")
    say(
        "",
        f"The pictures:  {page.as_uri()}",
        f'Ask your own:  retrieval query --config "{file}" "a person in a space suit"',
        "Your pictures: retrieval init ~/Pictures --model offline && retrieval index",
    )
    return page


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
