"""The floors of the house: which folder of the package may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from docs.architecture import FLOORS, PACKAGE, PICTURE, draw, floor_of, imports_of, modules


def test_every_folder_and_top_level_module_has_its_floor() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert there - {"__init__", "__pycache__"} == set(FLOORS)


def test_arrows_go_down_only() -> None:
    floors = list(FLOORS)
    wrong = []
    for module, file in modules().items():
        floor = floor_of(module)
        if floor == "__init__":  # it hands on the public names of all floors
            continue
        for line, target in imports_of(file):
            below = floor_of(target)
            if below not in ("__version__", floor) and floors.index(below) < floors.index(floor):
                wrong.append(f"{file}:{line}: {floor} imports {target}, which lies above it")
    assert wrong == []


def test_no_module_imports_in_a_circle() -> None:
    arrows = {module: {name for _, name in imports_of(file)} for module, file in modules().items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join((*way, module))}"
        if module not in done:
            for target in arrows.get(module, ()):
                visit(target, (*way, module))
            done.add(module)

    for module in arrows:
        visit(module, ())


def test_the_picture_shows_the_imports_of_today() -> None:
    again = "draw it anew: python docs/architecture.py"
    assert PICTURE.read_text("utf-8") == draw(), again


@pytest.mark.parametrize(
    "init", sorted(PACKAGE.rglob("*/__init__.py")), ids=lambda p: p.parent.name
)
def test_a_folder_says_what_belongs_there_and_imports_nothing(init: Path) -> None:
    body = ast.parse(init.read_text("utf-8")).body
    assert len(body) == 1, f"{init} is more than a docstring"
    assert isinstance(body[0], ast.Expr)


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    shown = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{shown}"], capture_output=True, text=True, check=True
    )
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import retrieval_pipeline, retrieval_pipeline.encoders.load",
        "from click.testing import CliRunner\n"
        "from retrieval_pipeline.cli.main import cli\n"
        "assert CliRunner().invoke(cli, ['query', '--help']).exit_code == 0",
        "from retrieval_pipeline.config.settings import Settings\n"
        "from retrieval_pipeline.orchestration.code_location import build_definitions\n"
        "build_definitions(Settings(home='/nowhere', sources=[]))",
    ],
    ids=["the package", "--help", "definitions.py"],
)
def test_torch_and_transformers_are_imported_by_what_encodes_alone(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "retrieval.toml").write_text('home = "home"\n')
    monkeypatch.setenv("RETRIEVAL_CONFIG", str(tmp_path / "retrieval.toml"))
    assert loaded_by(code).isdisjoint({"torch", "transformers"})


def test_importing_the_package_imports_nothing_but_the_standard_library() -> None:
    new = loaded_by("import retrieval_pipeline") - loaded_by("")
    assert new - sys.stdlib_module_names == {"retrieval_pipeline"}


def test_the_core_knows_nothing_of_dagster() -> None:
    floors = list(FLOORS)
    core = floors[floors.index("web") :]
    named = [
        f"{file}:{number}"
        for module, file in modules().items()
        if floor_of(module) in core
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if line.strip().startswith(("import dagster", "from dagster"))
    ]
    assert named == []


# What decodes the bytes of a file: in a process that is not a decode worker, a hostile file could
# hang it, crash it, or take its memory.
OPENERS = {"PIL.Image": {"open"}, "PIL.ImageFile": {"Parser"}}
WORKER = {
    *("decode_worker", "decode", "formats", "color", "tiff", "png", "cut_jpeg", "raw"),
    *("header", "jpeg_header", "libspng"),
}
# What reads the metadata of a file, which are as hostile.
PARSERS = {"embedded", "exif", "iptc", "png", "raw", "takeout", "xmp"}


def pictures_opened_in(file: Path) -> list[str]:
    """Where a module names something of OPENERS, by its line."""
    tree = ast.parse(file.read_text("utf-8"))
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    openers = {f"{module}.{name}" for module, some in OPENERS.items() for name in some}
    used = [
        f"{file}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and f"{names.get(ast.unparse(node.value))}.{node.attr}" in openers
    ]
    return used + [f"{file}: imports {name}" for name in names.values() if name in openers]


def test_nothing_but_the_decode_worker_opens_pictures() -> None:
    images = PACKAGE / "images"
    worker = {images / f"{name}.py" for name in WORKER}
    others = [file for file in PACKAGE.rglob("*.py") if file not in worker]
    assert [line for file in others for line in pictures_opened_in(file)] == []
    assert pictures_opened_in(images / "formats.py"), "it is opened there, and must be found"


def test_nothing_but_the_decode_worker_imports_what_decodes() -> None:
    names = {f"retrieval_pipeline.images.{name}" for name in WORKER}
    names |= {f"retrieval_pipeline.facts.{name}" for name in PARSERS}
    importers = {
        module
        for module, file in modules().items()
        for _, name in imports_of(file)
        if name in names and name.rpartition(".")[2] != "decode_worker"
    }
    assert importers <= names
