"""The document that describes the API is valid, complete, and speaks of nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from engine.domain.session_keys import is_session_key
from engine.domain.settings import BOARDS, FIELDS, NAMES, PACES, REVEALS, Settings
from server.realtime.reactor.exchange import METHODS
from server.wire.errors import STATUS
from tests.http.edge import PLAY_URL, QUIZ, document, edge, validator
from tests.keys import NOT_QUITE


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(document()).validate()


async def test_it_has_every_route_and_no_other() -> None:
    async with edge() as e:
        routes = {
            (method.lower(), re.sub(r"<(\w+)>", r"{\1}", rule.rule))
            for rule in e.app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD"}
        }
    described = {(method, path) for path, item in document()["paths"].items() for method in item}
    assert routes == described


async def test_it_is_served_as_it_is() -> None:
    async with edge() as e:
        assert (await e.get("/openapi.json")).json == document()


@pytest.mark.parametrize("key", [*NOT_QUITE, "123456", "00000001-0000-7000-8000-000000000000"])
def test_the_key_of_a_session_is_described_as_it_is_judged(key: str) -> None:
    described = document()["components"]["parameters"]["Key"]["schema"]["pattern"]
    # As ECMAScript has it, where `$` is the very end.
    assert bool(re.fullmatch(described.removeprefix("^").removesuffix("$"), key)) == is_session_key(key)


def test_every_component_is_used() -> None:
    used = set(re.findall(r"#/components/(\w+/\w+)", str(document())))
    components = document()["components"]
    defined = {
        f"{kind}/{name}" for kind in ("schemas", "responses", "parameters") for name in components[kind]
    }
    assert used == defined


def media_types() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            name = f"{method} {path}"
            yield from ((name, each) for each in operation.get("requestBody", {}).get("content", {}).values())
            for response in operation["responses"].values():
                yield from ((name, each) for each in response.get("content", {}).values())
    for name, response in document()["components"]["responses"].items():
        yield from ((name, each) for each in response["content"].values())


def test_every_json_body_has_an_example_that_is_valid() -> None:
    without = []
    for name, media_type in media_types():
        if "example" in media_type:
            validator(media_type["schema"]).validate(media_type["example"])
        elif "$ref" in media_type["schema"]:
            without.append(name)
    assert without == []


def test_links_lead_to_operations_and_name_their_parameters() -> None:
    operations = {
        operation["operationId"]: path
        for path, item in document()["paths"].items()
        for operation in item.values()
    }
    links = [
        link
        for item in document()["paths"].values()
        for operation in item.values()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert links
    for link in links:
        assert link["parameters"].keys() == set(re.findall(r"\{(\w+)\}", operations[link["operationId"]]))


def test_every_operation_has_a_tag_that_is_described() -> None:
    tags = [tag for item in document()["paths"].values() for each in item.values() for tag in each["tags"]]
    assert set(tags) == {tag["name"] for tag in document()["tags"]}


def test_what_the_realtime_port_takes_too_says_so() -> None:
    there = {
        (method.upper(), path)
        for path, item in document()["paths"].items()
        for method, operation in item.items()
        if PLAY_URL in [server["url"] for server in operation.get("servers", ())]
    }
    assert there == {
        (method, f"/api/sessions/{{key}}/{what}")
        for what, methods in METHODS.items()
        for method in set(methods) - {"HEAD"}
    }


def test_settings_are_those_of_the_domain() -> None:
    """Bounds and words come from the domain; names and defaults are held against it here."""
    shown = document()["components"]["schemas"]["Settings"]["properties"]
    assert set(shown) == set(FIELDS)
    assert {name: schema["default"] for name, schema in shown.items()} == Settings().to_dict()
    words = {"pace": PACES, "names": NAMES, "board": BOARDS, "reveal": REVEALS}
    assert {name: set(shown[name]["enum"]) for name in words} == {k: set(v) for k, v in words.items()}


def test_operations_have_ids_of_their_own() -> None:
    ids = [operation["operationId"] for item in document()["paths"].values() for operation in item.values()]
    assert len(set(ids)) == len(ids)


def test_every_status_of_an_error_is_described_somewhere() -> None:
    statuses = {
        status
        for item in document()["paths"].values()
        for operation in item.values()
        for status in operation["responses"]
    }
    assert {str(status) for status in STATUS.values()} - {"405"} <= statuses


@pytest.mark.parametrize(
    "question",
    [
        {"type": "multiple", "text": "?", "choices": ["a", "b", "c"], "correct": ["a", "b"]},
        {"type": "true_false", "text": "?", "correct": True, "points": 0},
        {"type": "text", "text": "?", "accept": ["x"], "time_limit_s": 1.5},
        {"type": "numeric", "text": "?", "correct": 1.5, "tolerance": 0.1},
        QUIZ["questions"][0],
    ],
)
async def test_what_it_says_of_a_quiz_is_what_the_node_takes_and_gives(question: dict[str, object]) -> None:
    quiz = {"title": "T", "scoring": {"rule": "flat", "streak": True}, "questions": [question]}
    schema = document()["paths"]["/api/quizzes"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    validator(schema).validate(quiz)
    async with edge() as e:
        made = await e.post("/api/quizzes?id=q", quiz)
        assert made.status == 201
        read = await e.get("/api/quizzes/q")
        validator(schema).validate(read.json["quiz"])
