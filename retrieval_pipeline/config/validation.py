"""Making settings of what a file holds, and saying in one line what is wrong with it."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from retrieval_pipeline.config.settings import (
    DEFAULT_MODEL,
    ORIGINAL,
    Alerts,
    Checks,
    EvaluationSettings,
    ImageLimits,
    IndexSettings,
    LabelSettings,
    MapSettings,
    RaySettings,
    SavedQuery,
    Schedule,
    Settings,
    Source,
)
from retrieval_pipeline.errors import SettingsError
from retrieval_pipeline.storage.remote import HIDDEN, parse_place


def validated(values: dict[str, Any], file: Path) -> Settings:
    """Return the settings that a file holds; relative paths are relative to it.

    Args:
        values: What TOML made of the file.
        file: The file that held them, for messages.

    Raises:
        SettingsError: One line for each thing that is wrong, with its key and what is allowed.
    """
    base = file.absolute().parent
    try:
        return Settings.model_validate(_with_absolute_paths(values, base))
    except ValidationError as error:
        lines = [_explain(problem, values) for problem in error.errors()]
        raise SettingsError(*(f"{file}: {line}" for line in lines)) from None


def _with_absolute_paths(values: dict[str, Any], base: Path) -> dict[str, Any]:
    def absolute(path: object) -> object:
        try:
            path = parse_place(path)
        except ValueError:
            return path  # The validation says so, with the key.
        return base / _expanded(path) if isinstance(path, str) else path

    values = {**values, "home": absolute(values.get("home", str(Settings().home)))}
    if isinstance(model := values.get("model"), str):
        values["model"] = _model_path(model, base)
    if isinstance(sources := values.get("sources"), list):
        values["sources"] = [
            {**source, "path": absolute(source["path"])}
            if isinstance(source, dict) and "path" in source
            else source
            for source in sources
        ]
    if isinstance(queries := values.get("saved_queries"), list):
        values["saved_queries"] = [
            {**query, "images": [absolute(image) for image in query["images"]]}
            if isinstance(query, dict) and isinstance(query.get("images"), list)
            else query
            for query in queries
        ]
    evaluation = values.get("evaluation")
    if isinstance(evaluation, dict) and "file" in evaluation:
        values["evaluation"] = {**evaluation, "file": absolute(evaluation["file"])}
    return values


def _expanded(path: str) -> Path:
    """Replace a leading "~" by the home directory; keep the "~name" of an unknown user."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError):
        return Path(path)


def _model_path(model: str, base: Path) -> str:
    """Return the model's name; if it is written as a path, the absolute path."""
    if model.startswith(("./", "../", "~", "/")):
        return os.path.normpath(base / _expanded(model))
    return model


def _explain(problem: Any, values: dict[str, Any]) -> str:
    """Turn one pydantic error into a line "key: what is wrong, what is allowed"."""
    location: tuple[int | str, ...] = problem["loc"]
    key = _key_name(location, values)
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(location)
        guess = difflib.get_close_matches(str(location[-1]), fields, n=1)
        hint = f"did you mean `{guess[0]}`?" if guess else f"allowed: {', '.join(fields)}"
        return f"{key}: unknown key ({hint})"
    if problem["type"] == "missing":
        return f"{key}: missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] in _MUST_BE:
        message = f"must be {_MUST_BE[problem['type']]}"
    if problem["type"] == "literal_error":
        # As TOML writes them.
        expected = problem["ctx"]["expected"].replace("True, False", "true, false")
        message = f"allowed: {expected}".replace("'", '"')
    if problem["type"] == "string_pattern_mismatch":
        message = 'not five fields such as "0 2 * * *"'
    if location and location[-1] == "device":
        message = 'allowed: "auto", "cpu", "cuda", "cuda:N", "mps"'
    given = problem["input"]
    shown = f" (found {_as_toml(given)})" if isinstance(given, str | int | float) else ""
    line = f"{key}: {message}{shown}" if key else message
    if isinstance(given, str) and ("@" in given or "//" in given):
        # What was meant to be a URL may hold credentials, also in the place of a name.
        for text in (repr(given)[1:-1], given):
            line = line.replace(text, HIDDEN)
    return line


def _as_toml(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


# What pydantic says in the words of Python, in those of a settings file; by its names of errors
# (https://docs.pydantic.dev/latest/errors/validation_errors/).
_MUST_BE = {
    "string_type": "text in quotes",
    "path_type": "a path in quotes",
    "tuple_type": 'a list, such as ["a", "b"]',
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "model_type": "a table of keys",
}


def _key_name(location: Sequence[int | str], values: dict[str, Any]) -> str:
    """Write the location of an error as a key, such as `sources["holidays"].path`."""
    parts: list[str] = []
    here: Any = values
    for step in location:
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            here = None
        if isinstance(step, int):
            named = here.get("name") if isinstance(here, dict) else None
            parts[-1] += f'["{named}"]' if isinstance(named, str) else f"[{step}]"
        else:
            parts.append(step)
    return ".".join(parts)


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """Return the keys that are allowed where the last step of `location` stands."""
    section = str(location[0]) if len(location) > 1 else ""
    return list(_SECTIONS.get(section, Settings).model_fields)


_SECTIONS: dict[str, type[BaseModel]] = {
    "alerts": Alerts,
    "checks": Checks,
    "evaluation": EvaluationSettings,
    "images": ImageLimits,
    "index": IndexSettings,
    "labels": LabelSettings,
    "map": MapSettings,
    "ray": RaySettings,
    "saved_queries": SavedQuery,
    "schedule": Schedule,
    "sources": Source,
}


def with_model(settings: Settings, model: str) -> Settings:
    """Return the settings with another model; the revision stays if the model is theirs.

    A model that is written as a relative path is relative to the working directory.
    """
    name = DEFAULT_MODEL if model == ORIGINAL else _model_path(model, Path.cwd())
    revision = settings.revision if name == settings.model else None
    return settings.model_copy(update={"model": name, "revision": revision})


def with_ray(settings: Settings, address: str) -> Settings:
    """Return the settings with the Ray cluster at `address`; other keys of `ray` stay.

    Raises:
        SettingsError: The address is not one that Ray Data can use.
    """
    values = {**(settings.ray or RaySettings()).model_dump(), "address": address}
    try:
        ray = RaySettings.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem, values) for problem in error.errors()]
        raise SettingsError(*lines) from None
    return settings.model_copy(update={"ray": ray})
