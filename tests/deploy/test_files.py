"""What lies in deploy/ is well-formed, fits together, and configures nodes that would start."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from server.cli.main import main
from server.config.config import Config
from tests.deploy import prometheus_rule
from tests.deploy.haproxy import haproxy_program
from tests.deploy.prometheus import run

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUBERNETES_VERSIONS = ("1.30", "1.37")
"""The oldest and the newest that the manifests are held against."""

MANIFESTS = [path for path in sorted(KUBERNETES.glob("*.yaml")) if path.name != "kustomization.yaml"]
CONFIGURATIONS = [DEPLOY / "haproxy.cfg", KUBERNETES / "haproxy.cfg"]

GIVEN = {
    "FANFARE_SECRET": "a-key-of-16-characters",
    "FANFARE_AUTHOR_KEY": "a-key-of-8",
    "POD_IP": "10.0.0.7",
    "POSTGRES_PASSWORD": "the-password-of-postgres",
    "REDIS_PASSWORD": "the-password-of-redis",
}
"""What comes from outside."""


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name."""
    return {(each["kind"], each["metadata"]["name"]): each for path in MANIFESTS for each in documents(path)}


# -- Compose -----------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    return documents(DEPLOY / "compose.yaml")[0]


def composed_nodes() -> dict[str, dict[str, Any]]:
    return {name: each for name, each in compose()["services"].items() if each["image"] == "fanfare"}


def interpolated(text: str) -> str:
    """As Compose reads `${NAME}`, `${NAME:-default}` and `${NAME:?what is missing}`."""

    def value(found: re.Match[str]) -> str:
        return GIVEN.get(found["name"]) or found["default"] or ""

    return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}", value, text)


def settings_of_image() -> dict[str, str]:
    """The FANFARE_* variables of the Dockerfile."""
    return dict(re.findall(r"\b(FANFARE_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8")))


def test_the_compose_file_is_one() -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"),
        ],
        check=True,
    )


def composed_configs() -> Iterator[tuple[dict[str, Any], Config]]:
    for each in composed_nodes().values():
        environment = {key: interpolated(value) for key, value in each["environment"].items()}
        assert all(key.startswith("FANFARE_") for key in environment)
        yield each, loaded(settings_of_image() | environment)


def loaded(environment: Mapping[str, str]) -> Config:
    """Raises ConfigError for what is no setting, or not a valid one."""
    empty = Path("/dev/null")
    return Config.load(empty, environment, {})


def test_the_nodes_of_compose_would_start_as_what_they_are() -> None:
    configs = [config for _, config in composed_configs()]
    assert [config.role for config in configs] == ["realtime"] * 4 + ["api"] * 2
    for config in configs:
        assert config.link_url == f"ws://{config.node}:5003"
        assert config.public_ws_url is not None
        assert ("/n/{node}/ws" in config.public_ws_url) == (config.role == "realtime")
        assert (config.host, config.link_host, config.proxy_hops) == ("0.0.0.0", "0.0.0.0", 1)
    assert len({config.secret for config in configs}) == 1


def test_nothing_in_compose_is_open_without_a_password() -> None:
    services = {
        name: {key: interpolated(value) for key, value in each.get("environment", {}).items()}
        for name, each in compose()["services"].items()
    }
    redis, postgres = GIVEN["REDIS_PASSWORD"], GIVEN["POSTGRES_PASSWORD"]
    command = [interpolated(word) for word in compose()["services"]["redis"]["command"]]
    assert command[command.index("--requirepass") + 1] == services["redis"]["REDISCLI_AUTH"] == redis
    assert services["postgres"]["POSTGRES_PASSWORD"] == postgres
    for _, config in composed_configs():
        assert urlsplit(config.redis_url or "").password == redis
        assert urlsplit(config.database_url or "").password == postgres
    published = {
        name: {port.rpartition(":")[0].rpartition(":")[0] for port in each["ports"]}
        for name, each in compose()["services"].items()
        if "ports" in each
    }
    assert published.pop("haproxy") == {""}
    assert published == {name: {"127.0.0.1"} for name in ("prometheus", "alertmanager", "grafana")}


def test_compose_lets_nodes_drain() -> None:
    for service, config in composed_configs():
        assert float(service["stop_grace_period"].removesuffix("s")) > config.drain_s + 10


def test_nodes_with_sessions_keep_their_spool() -> None:
    for service, config in composed_configs():
        volumes = [f"{config.node}:/data"] if config.role == "realtime" else None
        assert service.get("volumes") == volumes
    stateful = manifests()["StatefulSet", "fanfare-realtime"]["spec"]
    assert [claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]] == ["data"]
    mounts = stateful["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "data", "mountPath": settings_of_image()["FANFARE_DATA_DIR"]} in mounts


# -- watching -----------------------------------------------------------------------------------------


OBSERVERS = {"prometheus", "alertmanager", "grafana", "otel-collector"}


def test_what_watches_runs_when_it_is_asked_for_and_has_its_files() -> None:
    services = compose()["services"]
    assert {name for name, each in services.items() if "profiles" in each} == OBSERVERS
    for name in OBSERVERS:
        assert services[name]["profiles"] == ["observe"]
        for volume in services[name]["volumes"]:
            source, target = volume.split(":")[:2]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source
                if name == "grafana" and source.endswith("dashboards"):
                    [provider] = documents(DEPLOY / "grafana/provisioning/dashboards/fanfare.yaml")[0][
                        "providers"
                    ]
                    assert provider["options"]["path"] == target


def test_prometheus_looks_at_every_node_and_tells_alertmanager() -> None:
    run("promtool", "check", "config", DEPLOY / "prometheus/prometheus.yaml")
    run("amtool", "check-config", DEPLOY / "prometheus/alertmanager.yaml")
    configuration = documents(DEPLOY / "prometheus/prometheus.yaml")[0]
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in configuration["scrape_configs"]}
    assert set(jobs["fanfare"]) == {f"{name}:5001" for name in composed_nodes()}
    [manager] = configuration["alerting"]["alertmanagers"]
    assert manager["static_configs"][0]["targets"] == ["alertmanager:9093"]
    [source] = documents(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")[0]["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")


@pytest.mark.parametrize(("severity", "receiver"), [("page", "page"), ("ticket", "ticket")])
def test_an_alert_goes_to_whom_its_severity_says(severity: str, receiver: str) -> None:
    file = DEPLOY / "prometheus/alertmanager.yaml"
    said = run("amtool", "config", "routes", "test", f"--config.file={file}", f"severity={severity}")
    assert said.strip() == receiver


def test_the_operator_of_prometheus_finds_nodes_and_has_the_same_rules() -> None:
    observe = KUBERNETES / "observe"
    assert (observe / "rules.yaml").read_text(encoding="utf-8") == prometheus_rule.text()
    resources = documents(observe / "kustomization.yaml")[0]["resources"]
    assert {*resources, "kustomization.yaml"} == {path.name for path in observe.iterdir()}
    [monitor] = documents(observe / "pods.yaml")
    spec = monitor["spec"]
    [endpoint] = spec["podMetricsEndpoints"]
    for node in NODES:
        labels = manifests()[node]["spec"]["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        assert labels[spec["jobLabel"]] == "fanfare"
        assert endpoint["port"] in {each["name"] for each in pod(*node)["containers"][0]["ports"]}
    haproxy = manifests()["Deployment", "fanfare-haproxy"]["spec"]["template"]["metadata"]["labels"]
    assert not spec["selector"]["matchLabels"].items() <= haproxy.items()


# -- Kubernetes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_what_kubernetes_takes(path: Path, version: str) -> None:
    for each in documents(path):
        kubernetes_validate.validate(each, version, strict=True)


def test_the_kustomization_has_every_manifest_and_no_secret() -> None:
    kustomization = documents(KUBERNETES / "kustomization.yaml")[0]
    assert {*kustomization["resources"], "secret.example.yaml"} == {path.name for path in MANIFESTS}
    for generator in kustomization["configMapGenerator"]:
        assert all((KUBERNETES / name).is_file() for name in generator["files"])


NODES = (("StatefulSet", "fanfare-realtime"), ("Deployment", "fanfare-api"))


def pod(kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = manifests()[kind, name]["spec"]["template"]["spec"]
    return found


def pod_config(kind: str, name: str) -> Config:
    """As a node in a pod finds it."""
    container = pod(kind, name)["containers"][0]
    environment: dict[str, str] = settings_of_image()
    for source in container["envFrom"]:
        if "configMapRef" in source:
            environment |= manifests()["ConfigMap", source["configMapRef"]["name"]]["data"]
        else:
            environment |= manifests()["Secret", source["secretRef"]["name"]]["stringData"]
    fields = {"metadata.name": f"{name}-0", "status.podIP": GIVEN["POD_IP"]}
    for each in container["env"]:
        value = each["value"] if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        # Only names that were given before it, as Kubernetes has it.
        environment[each["name"]] = re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], value)
    return loaded(environment)


def test_the_nodes_of_kubernetes_would_start_as_what_they_are() -> None:
    realtime, api = (pod_config(*each) for each in NODES)
    assert (realtime.role, api.role) == ("realtime", "api")
    assert (realtime.node, realtime.link_url) == (
        "fanfare-realtime-0",
        "ws://fanfare-realtime-0.fanfare-realtime:5003",
    )
    assert api.link_url == "ws://10.0.0.7:5003"
    assert realtime.public_ws_url == "wss://quiz.example/n/{node}/ws"
    assert api.public_ws_url == "wss://quiz.example/ws"


@pytest.mark.parametrize("node", NODES)
def test_kubernetes_lets_nodes_drain(node: tuple[str, str]) -> None:
    spec = pod(*node)
    (pause,) = [int(word) for word in spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1:]]
    assert spec["terminationGracePeriodSeconds"] > pod_config(*node).drain_s + pause + 10


@pytest.mark.parametrize("node", NODES)
def test_a_pod_has_no_settings_that_kubernetes_makes_up(node: tuple[str, str]) -> None:
    """A Service called fanfare would become FANFARE_PORT, which keeps a node from starting."""
    assert pod(*node)["enableServiceLinks"] is False


@pytest.mark.parametrize("node", NODES)
def test_pods_ask_for_what_they_need_and_are_looked_after(node: tuple[str, str]) -> None:
    container = pod(*node)["containers"][0]
    probes = {
        key: container[f"{key}Probe"]["httpGet"]["path"] for key in ("startup", "liveness", "readiness")
    }
    assert probes == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert pod(*node)["securityContext"]["runAsNonRoot"] is True


def test_services_and_budgets_select_pods_that_exist() -> None:
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in manifests().values()
        if each["kind"] in ("StatefulSet", "Deployment")
    ]
    for (kind, name), each in manifests().items():
        if kind in ("Service", "PodDisruptionBudget"):
            selector = each["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert sum(selector.items() <= pod_labels.items() for pod_labels in labels) == 1, name


def reaching(labels: Mapping[str, str]) -> set[str]:
    """The ports of a node, by name, that a pod with these labels may reach."""
    spec = manifests()["NetworkPolicy", "fanfare"]["spec"]
    ports: set[str] = set()
    for rule in spec["ingress"]:
        peers = [peer["podSelector"]["matchLabels"] for peer in rule["from"] if "podSelector" in peer]
        if any(wanted.items() <= labels.items() for wanted in peers):
            ports |= {each["port"] for each in rule["ports"]}
    return ports


def test_links_are_for_nodes_alone() -> None:
    policy = manifests()["NetworkPolicy", "fanfare"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    for node in NODES:
        labels = manifests()[node]["spec"]["template"]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        assert reaching(labels) == {"link"}
        assert "link" in {each["name"] for each in pod(*node)["containers"][0]["ports"]}
    haproxy = manifests()["Deployment", "fanfare-haproxy"]["spec"]["template"]["metadata"]["labels"]
    assert reaching(haproxy) == {"http", "realtime"}
    assert reaching({"app": "anything"}) == set()
    from_elsewhere = [rule for rule in policy["ingress"] if "namespaceSelector" in rule["from"][0]]
    assert [rule["ports"] for rule in from_elsewhere] == [[{"port": "http"}]]


# -- HAProxy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_a_configuration_is_what_its_first_lines_say(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    words = shlex.split(text.partition("\n\n")[0].replace("#", " "))
    assert words[:5] == ["Made", "by:", "fanfare", "cluster", "haproxy"]
    assert CliRunner().invoke(main, words[3:]).stdout == text


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_haproxy_takes_it(path: Path) -> None:
    subprocess.run([haproxy_program(), "-c", "-f", path], check=True, capture_output=True)


def test_haproxy_knows_the_nodes_that_are_there() -> None:
    servers = re.findall(r"^    server (\S+) (\S+?):", CONFIGURATIONS[0].read_text(), re.MULTILINE)
    assert set(servers) == {(name, name) for name in composed_nodes()}
    stateful = manifests()["StatefulSet", "fanfare-realtime"]
    domain = f"{stateful['spec']['serviceName']}.fanfare.svc.cluster.local"
    pods = [f"fanfare-realtime-{index}" for index in range(stateful["spec"]["replicas"])]
    expected = {(name, f"{name}.{domain}") for name in pods}
    servers = re.findall(r"^    server (\S+) (\S+?):", CONFIGURATIONS[1].read_text(), re.MULTILINE)
    assert set(servers) == expected | {("fanfare-api", "fanfare-api.fanfare.svc.cluster.local")}


# -- the image ---------------------------------------------------------------------------------------


def test_the_image_takes_what_is_there_and_runs_as_nobody_in_particular() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    sources = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert all((DEPLOY.parent / word).exists() for word in sources)
    let_in = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    assert set(sources) == set(re.findall(r"^!(\S+)$", let_in, re.MULTILINE))
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE)
    assert loaded(settings_of_image()).data_dir == Path("/data")
