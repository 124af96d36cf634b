"""The OpenAPI document of the API, made from the models that check its requests and answers."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from retrieval_pipeline import __version__
from retrieval_pipeline.web.operations import Operation
from retrieval_pipeline.web.problems import MEDIA_TYPE, Problem
from retrieval_pipeline.web.security import CSRF_HEADER, SAFE_METHODS

_REFERENCE = "#/components/schemas/{model}"
# What any request may be answered with; see security.py.
_ALWAYS = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.MISDIRECTED_REQUEST)


def openapi(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document, OpenAPI 3.1."""
    models: list[type[BaseModel]] = [Problem]
    models += [each.returns for each in operations if each.returns is not None]
    models += [each.body for each in operations if each.body is not None]
    unique = list(dict.fromkeys(models))
    outputs = {each.returns for each in operations} | {Problem}
    _, schemas = models_json_schema(
        [(model, "serialization" if model in outputs else "validation") for model in unique],
        ref_template=_REFERENCE,
    )
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "retrieval",
            "version": __version__,
            "description": "Find pictures by what is in them. Errors are problem details "
            "(RFC 9457).",
        },
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": {str(int(status)): answer for status, answer in _answers(operation).items()},
    }
    if operation.body is not None:
        schema = {"$ref": _REFERENCE.format(model=operation.body.__name__)}
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    elif operation.takes is not None:
        described["requestBody"] = {
            "required": True,
            "content": {operation.takes: {"schema": {"type": "string", "format": "binary"}}},
        }
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    schema = operation.parameters.model_json_schema()
    in_path = set(re.findall(r"{(\w+)}", operation.path))
    required = set(schema.get("required", ()))
    parameters = []
    for name, property in schema.get("properties", {}).items():
        description = property.pop("description", None)
        property.pop("title", None)
        parameters.append(
            {
                "name": name,
                "in": "path" if name in in_path else "query",
                "required": name in in_path or name in required,
                "schema": _inlined(property, schema.get("$defs", {})),
            }
            | ({"description": description} if description else {})
        )
    if operation.method not in SAFE_METHODS:
        parameters.append(
            {
                "name": CSRF_HEADER.title(),
                "in": "header",
                "required": True,
                "description": "What GET /api/token gives.",
                "schema": {"type": "string"},
            }
        )
    return parameters


def _inlined(property: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Replace a reference to a definition by the definition."""
    name = str(property.get("$ref", "")).rpartition("/")[2]
    inlined: dict[str, Any] = definitions.get(name, property)
    return inlined


def _answers(operation: Operation) -> dict[HTTPStatus, dict[str, Any]]:
    answers: dict[HTTPStatus, dict[str, Any]] = {}
    if operation.returns is not None:
        schema: dict[str, Any] = {"$ref": _REFERENCE.format(model=operation.returns.__name__)}
        answers[HTTPStatus.OK] = _answer(HTTPStatus.OK, "application/json", schema)
    elif operation.media is not None:
        schema = {"type": "string", "format": "binary"}
        answers[HTTPStatus.OK] = _answer(HTTPStatus.OK, operation.media, schema)
        answers[HTTPStatus.NOT_MODIFIED] = {"description": "The client has it already"}
    else:
        answers[HTTPStatus.NO_CONTENT] = {"description": "Done"}
    problems = {*_ALWAYS, *operation.problems}
    if operation.method not in SAFE_METHODS:
        problems.add(HTTPStatus.FORBIDDEN)
    schema = {"$ref": _REFERENCE.format(model=Problem.__name__)}
    for status in sorted(problems):
        answers[status] = _answer(status, MEDIA_TYPE, schema)
    return answers


def _answer(status: HTTPStatus, media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": status.phrase, "content": {media: {"schema": schema}}}
