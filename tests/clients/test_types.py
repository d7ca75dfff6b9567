"""The types of the JavaScript client and `asyncapi.json` say the same of every message."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fanfare_client.core import TEMPORARY
from server.realtime import handshake
from server.wire.asyncapi import HEARD, SAID, document, name_of
from server.wire.errors import STATUS
from tests.messages import PLAY_URL, WS_URL
from tests.npm import CLIENT, program

OWN = {"waiting", "rejected", "over"}
"""Events of the library's own. `waiting` has what `connect` takes, and not what was heard."""
KEPT = {"waiting", "moved", "error", "pong"}
"""What the library deals with by itself."""

SCRIPTS = Path(__file__).parent

Shape = dict[str, Any]
"""What a value may be: `string`, `number`, `boolean`, `null`, `any`; one of `words`; a `list` of a shape; an
object with `members`, each optional or not and with its shape."""

COMPONENTS = document(WS_URL, PLAY_URL)["components"]["schemas"]


def shape(schema: dict[str, Any]) -> Shape:
    """Of a schema of `asyncapi.json`."""
    if "$ref" in schema:
        return shape(COMPONENTS[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        found: Shape = {}
        for each in schema["anyOf"]:
            found |= shape(each)
        return found
    if "enum" in schema:
        return {"boolean": True} if schema["enum"] == [True] else {"words": sorted(schema["enum"])}
    match schema.get("type"):
        case None:
            return {"any": True}
        case "integer" | "number":
            return {"number": True}
        case "array":
            return {"list": shape(schema["items"])}
        case "object":
            required, members = schema["required"], schema["properties"]
            return {"members": {name: [name not in required, shape(each)] for name, each in members.items()}}
        case kind:
            return {kind: True}


def of_type(body: type) -> Shape:
    return shape(COMPONENTS[body.__name__])


@pytest.fixture(scope="module")
def declared(project: Path) -> dict[str, Shape]:
    """By the name of each type of `fanfare.d.ts`."""
    command = [
        program("node"),
        shutil.copy(SCRIPTS / "shapes.mjs", project / "tests"),
        CLIENT / "fanfare.d.ts",
    ]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    found: dict[str, Shape] = json.loads(done.stdout)
    return found


def test_every_message_that_a_client_hears_has_its_members_in_the_types(declared: dict[str, Shape]) -> None:
    messages = {
        each["members"]["t"][1]["words"][0]: each
        for each in declared.values()
        if "t" in each.get("members", {})
    }
    assert messages.keys() - OWN == {name_of(body) for body in HEARD} - KEPT
    for body in HEARD:
        if name_of(body) not in KEPT:
            assert messages[name_of(body)] == of_type(body), name_of(body)


def test_what_a_host_may_say_is_in_the_types(declared: dict[str, Shape]) -> None:
    told: dict[str, Shape] = {}
    words: set[str] = set()
    for form in SAID["host"].forms:
        members = of_type(form)["members"]
        words |= set(members["do"][1]["words"])
        told |= {name: each for name, (_, each) in members.items() if name not in ("t", "id", "do")}
    assert set(declared["HostCommand"]["words"]) == words
    assert {name: each for name, (_, each) in declared["HostMembers"]["members"].items()} == told


def test_what_may_pass_is_what_the_node_refuses_for_a_while() -> None:
    passing = {code for code, status in STATUS.items() if status in (408, 429, 500, 503)}
    passing = passing - {"session_unavailable"} | {handshake.TOO_LATE.code, "unreachable"}
    assert passing == TEMPORARY
    [pattern] = re.findall(r"^const PASSING = /(.*)/;$", (CLIENT / "fanfare.js").read_text(), re.MULTILINE)
    assert {code for code in {*STATUS, *passing} if re.search(pattern, code)} == passing


def test_who_may_join_is_in_the_types(declared: dict[str, Shape]) -> None:
    """What is told by `connect`; the rest of a `join` is what the library knows."""
    told: dict[str, Shape] = {}
    for form in SAID["join"].forms:
        told |= {name: each for name, (_, each) in of_type(form)["members"].items()}
    for known in ("t", "code", "epoch", "offset", "traceparent"):
        del told[known]
    assert {name: each for name, (_, each) in declared["Seat"]["members"].items()} == told
