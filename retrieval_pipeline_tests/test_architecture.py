"""The floors of the house: which folder of the package may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "retrieval_pipeline"

# From the roof to the ground; a module at the top level of the package is a floor of its own.
# A floor imports only from those below it. docs/architecture.md draws this list.
FLOORS = (
    "__main__",
    "cli",
    "definitions",
    "orchestration",
    "web",
    "maintenance",
    "pipeline",
    "latent_map",
    "recommend",
    "search",
    "ingest",
    "rendering",
    "encoders",
    "images",
    "index",
    "config",
    "storage",
    "progress",
    "vectors",
    "concurrency",
    "paths",
    "errors",
)


def floor_of(module: str) -> str:
    """The folder, or the top-level module, that `retrieval_pipeline.a.b` lies in."""
    return module.split(".")[1]


def imports_of(file: Path) -> list[tuple[int, str]]:
    """Lines and names of the package's own modules that a file imports, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            if node.module and node.module.split(".")[0] == PACKAGE.name:
                names = [node.module] if "." in node.module else []
                names += [f"{node.module}.{alias.name}" for alias in node.names if not names]
                found += [(node.lineno, name) for name in names]
        elif isinstance(node, ast.Import):
            found += [
                (node.lineno, alias.name)
                for alias in node.names
                if alias.name.startswith(f"{PACKAGE.name}.")
            ]
    return found


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)


def test_every_folder_and_top_level_module_has_its_floor() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert there - {"__init__", "__pycache__"} == set(FLOORS)


def test_arrows_go_down_only() -> None:
    wrong = []
    for file in modules():
        floor = floor_of(name_of(file))
        if floor == "__init__":
            continue
        for line, target in imports_of(file):
            below = floor_of(target)
            if below in ("__version__", floor):
                continue
            if FLOORS.index(below) < FLOORS.index(floor):
                wrong.append(f"{file}:{line}: {floor} imports {target}, which lies above it")
    assert wrong == []


def test_no_module_imports_in_a_circle() -> None:
    arrows = {name_of(file): {name for _, name in imports_of(file)} for file in modules()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join((*way, module))}"
        if module not in done:
            for target in arrows.get(module, ()):
                visit(target, (*way, module))
            done.add(module)

    for module in arrows:
        visit(module, ())


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
        "from retrieval_pipeline.config import Settings\n"
        "from retrieval_pipeline.definitions import build_definitions\n"
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
    core = FLOORS[FLOORS.index("web") :]
    named = [
        f"{file}:{number}"
        for file in modules()
        if floor_of(name_of(file)) in core
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if line.strip().startswith(("import dagster", "from dagster"))
    ]
    assert named == []
