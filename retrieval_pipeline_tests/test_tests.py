"""The tests of this package use what it offers to everybody, not its private names."""

import ast
import functools
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = "retrieval_pipeline"
# Calls whose second argument is the name of an attribute.
BY_NAME = {"getattr", "setattr", "delattr", "hasattr"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@functools.cache
def private_names() -> frozenset[str]:
    """Every name with an underscore that the package defines, in a module or in a class."""
    found = set()
    for file in (TESTS.parent / PACKAGE).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return frozenset(filter(is_private, found))


def foreign_names(tree: ast.Module) -> set[str]:
    """The names that a test imports from elsewhere: what is private there is not our business."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                module = node.module if isinstance(node, ast.ImportFrom) else alias.name
                if str(module).partition(".")[0] != PACKAGE:
                    found.add((alias.asname or alias.name).partition(".")[0])
    return found


def root_of(node: ast.expr) -> str | None:
    """The name at the beginning of `name.of.something()`."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return None
    return node.id


def reached(code: str, private: Set[str]) -> Iterator[tuple[int, str]]:
    """Yield line and name of each private thing of the package that some code reaches."""
    tree = ast.parse(code)
    foreign = foreign_names(tree) | {"self", "cls"}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] == PACKAGE:
                parts = [*module.split("."), *(alias.name for alias in node.names)]
                yield from ((node.lineno, part) for part in parts if is_private(part))
            case ast.Attribute(value=value, attr=name):
                if name in private and root_of(value) not in foreign:
                    yield node.lineno, name
            case ast.Call(
                func=ast.Name(id=called) | ast.Attribute(attr=called),
                args=[target, ast.Constant(value=str(name)), *_],
            ):
                if called in BY_NAME and name in private and root_of(target) not in foreign:
                    yield node.lineno, name
            case ast.Constant(value=str(text)) if text.startswith(f"{PACKAGE}."):
                yield from ((node.lineno, part) for part in text.split(".") if is_private(part))


@pytest.mark.parametrize(
    "file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS))
)
def test_no_test_reaches_a_private_name(file: Path) -> None:
    assert list(reached(file.read_text("utf-8"), private_names())) == []


@pytest.mark.parametrize(
    "code",
    [
        "from retrieval_pipeline.storage.store import _listed",
        "from retrieval_pipeline.storage import store\nstore._listed",
        "def test(searcher):\n    searcher.build()[0]._listed = None",
        "monkeypatch.setattr(store, '_listed', None)",
        "monkeypatch.setattr('retrieval_pipeline.storage.store._listed', None)",
    ],
)
def test_whatever_way_it_is_reached_it_is_seen(code: str) -> None:
    assert [name for _, name in reached(code, {"_listed"})] == ["_listed"]


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._listed",
        "import torch\nmonkeypatch.setattr(torch.cpu, '_listed', None)",
        "class Mine:\n    def f(self):\n        return self._listed",
        "_listed()",
        "store.__class__",
    ],
)
def test_what_is_private_elsewhere_is_left_alone(code: str) -> None:
    assert list(reached(code, {"_listed"})) == []
