"""What `openapi.json` says, held against a real node by requests made from it, good ones and bad ones.

They go over both ports, with real keys. The document has to describe every answer, and the node has to refuse
what breaks the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, Case, GenerationMode, checks, openapi
from schemathesis.core.parameters import ParameterLocation

EXAMPLES = 3
"""Of each kind, good and bad, for each operation."""

REQUEST_MAX_S = 20.0
ENDLESS = "followLive"
"""A stream that stays open."""
ANY_FILE = "checkQuiz"
"""Takes whatever a file may hold, and says what is wrong with it."""


@dataclass(frozen=True)
class Scene:
    """A session with an open question, another that is over, and by scheme what the asker shows."""

    running: str
    over: str
    tokens: Mapping[str, str]

    def key(self, operation: APIOperation) -> str:
        # The stream of a session that runs would stay open.
        return self.over if operation.path.endswith("/events") else self.running

    def headers(self, operation: APIOperation) -> dict[str, str]:
        for scheme in operation.definition.raw.get("security", ()):
            for name in scheme:
                return {"Authorization": f"Bearer {self.tokens[name]}"}
        return {}


def spoilt(case: Case, where: ParameterLocation) -> bool:
    """Whether this part of the request breaks the schema on purpose."""
    part = None if case.meta is None else case.meta.components.get(where)
    return part is not None and part.mode is GenerationMode.NEGATIVE


def modes(operation: APIOperation) -> Iterator[GenerationMode]:
    yield GenerationMode.POSITIVE
    takes = "requestBody" in operation.definition.raw or len(operation.query) > 0
    if takes and operation.definition.raw["operationId"] != ANY_FILE:
        yield GenerationMode.NEGATIVE


def hold(operation: APIOperation, mode: GenerationMode, scene: Scene, base_url: str) -> None:
    """Raises what schemathesis does for an answer that the document does not describe."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        if "key" in case.path_parameters and not spoilt(case, ParameterLocation.PATH):
            case.path_parameters["key"] = scene.key(operation)
        headers = {} if spoilt(case, ParameterLocation.HEADER) else scene.headers(operation)
        response = case.call(base_url=base_url, timeout=REQUEST_MAX_S, headers=headers)
        # What is well-formed may not fit: a choice the question, a right answer the choices.
        case.validate_response(response, excluded_checks=[checks.positive_data_acceptance], headers=headers)

    ask()


def explore(scene: Scene, api_url: str, play_url: str) -> list[str]:
    """What was asked, as `mode method path port`. Raises ExceptionGroup with every failure."""
    asked, failures = [], []
    for result in openapi.from_url(f"{api_url}/openapi.json").get_all_operations():
        operation = result.ok()
        if operation.definition.raw["operationId"] == ENDLESS:
            continue
        servers = [server["url"] for server in operation.definition.raw.get("servers", ())]
        for port, base_url in (("api", api_url), ("realtime", play_url)):
            if port == "realtime" and play_url not in servers:
                continue
            for mode in modes(operation):
                asked.append(f"{mode.value} {operation.method} {operation.path} {port}")
                try:
                    hold(operation, mode, scene, base_url)
                except Exception as failure:  # noqa: BLE001 - all of them are raised at the end
                    failure.add_note(asked[-1])
                    failures.append(failure)
    if failures:
        raise ExceptionGroup("not as the document says", failures)
    return asked
