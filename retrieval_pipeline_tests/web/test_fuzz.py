"""Whatever is sent to the API, the answer is one that its document announces, and no 5xx."""

from collections.abc import Iterator

import httpx2
import pytest

from retrieval_pipeline.web.api_routes import OPERATIONS
from retrieval_pipeline_tests.cli.test_serve_command import server
from retrieval_pipeline_tests.support.web import WebLibrary

pytestmark = pytest.mark.slow

EXAMPLES = 25


@pytest.fixture(scope="module")
def address(indexed_library: WebLibrary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    library = indexed_library.copied(tmp_path_factory.mktemp("fuzz") / "library")
    with server(library) as (_, address):
        yield address


def test_every_operation_answers_anything_as_documented(
    address: str, indexed_library: WebLibrary
) -> None:
    # Imported here: these take two seconds, which every process of the tests would spend.
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.specs.openapi import checks

    conformance = [
        schemathesis.checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    token = httpx2.get(f"{address}api/token").json()["token"]
    known = indexed_library.content("cat.png")
    schema = schemathesis.openapi.from_url(f"{address}api/openapi.json")
    tested = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        tested += 1

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def attack(case: schemathesis.Case) -> None:
            if "X-Retrieval-Token" in (case.headers or {}):
                case.headers["X-Retrieval-Token"] = token
            # Half of the ids are real ones.
            for name, value in (case.path_parameters or {}).items():
                if name == "content_id" and value < "8":
                    case.path_parameters[name] = known
            case.call_and_validate(checks=conformance, timeout=60)

        attack()
    assert tested == len(OPERATIONS)
