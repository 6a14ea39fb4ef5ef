"""The manifests of deploy/k8s, as `kubectl kustomize` builds them, against the code."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from pydantic import BaseModel
from pytest import MonkeyPatch

from quintet_gateway.settings import Settings as GatewaySettings
from quintet_servicekit.settings import ServiceSettings

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
SERVICES = ("tokenizer", "embedder", "retriever", "generator", "gateway")
NAME = "app.kubernetes.io/name"
Manifest = dict[str, Any]

pytestmark = [
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
    pytest.mark.parametrize("overlay", ["dev", "prod", "gpu"]),
]


@cache
def built(overlay: str) -> list[Manifest]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(K8S / overlay)], check=True, capture_output=True, text=True
    )
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, *kinds: str) -> dict[str, Manifest]:
    return {it["metadata"]["name"]: it for it in built(overlay) if it["kind"] in kinds}


def pods(overlay: str) -> dict[str, Manifest]:
    """The pod template of each workload."""
    return {
        name: it["spec"]["template"]
        for name, it in of_kind(overlay, "Deployment", "StatefulSet").items()
    }


def container(pod: Manifest) -> Manifest:
    (only,) = pod["spec"]["containers"]
    return cast(Manifest, only)


def labels(pod: Manifest) -> dict[str, str]:
    return cast(dict[str, str], pod["metadata"]["labels"])


def labelled(overlay: str) -> dict[str, dict[str, str]]:
    """Labels of each workload's pods; those of CloudNativePG's Cluster are named postgres."""
    found = {name: labels(pod) for name, pod in pods(overlay).items()}
    for name in of_kind(overlay, "Cluster"):
        found["postgres"] = {"cnpg.io/cluster": name}
    return found


def listens(overlay: str, name: str) -> set[int]:
    """Ports that others may have a reason to reach."""
    if name not in pods(overlay):
        return {5432, 8000}  # CloudNativePG's: the database, and how an instance is
    ports = container(pods(overlay)[name])["ports"]
    return {port["containerPort"] for port in ports if port["name"] != "health"}


def selected(overlay: str, selector: Manifest) -> set[str]:
    """Names of the workloads whose pods the selector matches."""
    wanted = selector.get("matchLabels", {}).items()
    rules = selector.get("matchExpressions", [])
    assert all(rule["operator"] == "In" for rule in rules)
    return {
        name
        for name, has in labelled(overlay).items()
        if wanted <= has.items() and all(has.get(rule["key"]) in rule["values"] for rule in rules)
    }


def variables(overlay: str, name: str) -> dict[str, str]:
    """A service's environment; "secret" stands for each value from a Secret."""
    it = container(pods(overlay)[name])
    found: dict[str, str] = {}
    for source in it.get("envFrom", []):
        found |= of_kind(overlay, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    return found | {entry["name"]: entry.get("value", "secret") for entry in it.get("env", [])}


def settings_class(name: str) -> type[ServiceSettings]:
    module = import_module(f"quintet_{name}.settings")
    found = module.GeneratorSettings if name == "generator" else module.Settings
    return cast(type[ServiceSettings], found)


def settings(overlay: str, name: str, monkeypatch: MonkeyPatch) -> ServiceSettings:
    for variable, value in variables(overlay, name).items():
        given = value
        if value == "secret" and variable.endswith("_URL"):
            given = "redis://there" if "REDIS" in variable else "postgresql://there/quintet"
        monkeypatch.setenv(variable, given)
    return settings_class(name)()


def settable(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settable(kind, f"{prefix}{name.upper()}__")
        else:
            yield prefix + name.upper()


def test_every_selector_selects_the_pods_of_its_name(overlay: str) -> None:
    for name, it in of_kind(overlay, "Deployment", "StatefulSet").items():
        assert selected(overlay, it["spec"]["selector"]) == {name}
    for name, it in of_kind(overlay, "Service").items():
        assert selected(overlay, {"matchLabels": it["spec"]["selector"]}) == {name}
    for name, it in of_kind(overlay, "PodDisruptionBudget").items():
        assert selected(overlay, it["spec"]["selector"]) == {name}
    for name, pod in pods(overlay).items():
        for spread in pod["spec"].get("topologySpreadConstraints", []):
            assert selected(overlay, spread["labelSelector"]) == {name}
    for name, it in of_kind(overlay, "ScaledObject").items():
        assert it["spec"]["scaleTargetRef"]["name"] == name
        assert name in of_kind(overlay, "Deployment")


def test_every_service_is_whole(overlay: str) -> None:
    for kind in ("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"):
        assert set(SERVICES) <= set(of_kind(overlay, kind)), kind
    scaled = of_kind(overlay, "ScaledObject")
    assert set(scaled) == (set() if overlay == "dev" else set(SERVICES))
    assert all(it["spec"]["minReplicaCount"] >= 2 for it in scaled.values())


def test_services_are_headless_and_name_a_port_of_the_container(overlay: str) -> None:
    for name, it in of_kind(overlay, "Service").items():
        assert it["spec"]["clusterIP"] == "None"
        ports = {
            port["name"]: port["containerPort"] for port in container(pods(overlay)[name])["ports"]
        }
        for port in it["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_every_variable_is_a_setting_and_every_value_is_valid(
    overlay: str, monkeypatch: MonkeyPatch
) -> None:
    for name in SERVICES:
        known = set(settable(settings_class(name), f"QUINTET_{name.upper()}_"))
        assert set(variables(overlay, name)) <= known
        monkeypatch.setenv("QUINTET_GENERATOR_BACKENDS", "extractive")
        has = settings(overlay, name, monkeypatch)
        ports = {
            port["name"]: port["containerPort"] for port in container(pods(overlay)[name])["ports"]
        }
        assert ports == {
            "grpc": has.port,
            "metrics": has.metrics_port,
            "health": has.health_port,
        }


def test_who_may_call_is_decided_in_prod_and_open_in_dev_by_name(
    overlay: str, monkeypatch: MonkeyPatch
) -> None:
    """Neither is a default: a service that knows nobody's key does not start."""
    # What the tests themselves have set.
    monkeypatch.delenv("QUINTET_GATEWAY_ACCESS__MODE", raising=False)
    for name in SERVICES[:-1]:
        monkeypatch.delenv(f"QUINTET_{name.upper()}_IDENTITY__REQUIRED", raising=False)
        identity = settings(overlay, name, monkeypatch).identity
        assert identity.required == (overlay != "dev")
        assert (identity.public_keys is not None) == identity.required
    gateway = settings(overlay, "gateway", monkeypatch)
    assert isinstance(gateway, GatewaySettings)
    assert gateway.access.mode == ("open" if overlay == "dev" else "keys")


def test_the_gateway_finds_the_four_services(overlay: str, monkeypatch: MonkeyPatch) -> None:
    has = settings(overlay, "gateway", monkeypatch)
    for name in SERVICES[:-1]:
        port = of_kind(overlay, "Service")[name]["spec"]["ports"][0]["port"]
        assert getattr(has, f"{name}_address") == f"dns:///{name}:{port}"


def test_probes_ask_for_names_that_the_server_knows(overlay: str) -> None:
    for name in SERVICES:
        it = container(pods(overlay)[name])
        # The port without TLS: the kubelet has no certificate (docs/adr/0015).
        (port,) = (port["containerPort"] for port in it["ports"] if port["name"] == "health")
        service = import_module(f"quintet_{name}.app").SERVICE
        assert it["readinessProbe"]["grpc"] == {"port": port, "service": service}
        # What waits for a dependency lives: see tests/contract/test_servicekit_server.py.
        for probe in ("startupProbe", "livenessProbe"):
            assert it[probe]["grpc"] == {"port": port, "service": "grpc.health.v1.Health"}


def test_a_pod_may_take_as_long_to_end_as_its_service_does(
    overlay: str, monkeypatch: MonkeyPatch
) -> None:
    for name in SERVICES:
        has = settings(overlay, name, monkeypatch)
        grace = pods(overlay)[name]["spec"]["terminationGracePeriodSeconds"]
        assert grace >= has.lame_duck_seconds + has.drain_seconds + 10


def quantity(text: str) -> float:
    """In cores or bytes."""
    number, unit = re.fullmatch(r"(\d+(?:\.\d+)?)(m|Ki|Mi|Gi|)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"m": 1e-3, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def test_requests_are_within_limits_and_threads_within_requests(
    overlay: str, monkeypatch: MonkeyPatch
) -> None:
    for pod in pods(overlay).values():
        resources = container(pod)["resources"]
        assert 0 < quantity(resources["requests"]["cpu"]) <= 16
        assert (
            2**20
            < quantity(resources["requests"]["memory"])
            <= quantity(resources["limits"]["memory"])
        )
        for volume in pod["spec"]["volumes"]:
            if "emptyDir" in volume:
                assert quantity(volume["emptyDir"]["sizeLimit"]) > 0
            elif "configMap" in volume:
                assert volume["configMap"]["name"] in of_kind(overlay, "ConfigMap")
    if overlay == "prod":
        for name in ("embedder", "generator"):
            cores = quantity(container(pods(overlay)[name])["resources"]["requests"]["cpu"])
            assert settings(overlay, name, monkeypatch).threads == cores  # type: ignore[attr-defined]


def test_pods_are_restricted(overlay: str) -> None:
    for pod in pods(overlay).values():
        spec, it = pod["spec"], container(pod)
        assert spec["automountServiceAccountToken"] is False
        assert spec["serviceAccountName"] in of_kind(overlay, "ServiceAccount")
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert it["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        # Variables such as TOKENIZER_PORT, which Kubernetes would add for each service.
        assert spec["enableServiceLinks"] is False
    (namespace,) = of_kind(overlay, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_images_have_the_service_s_name_and_one_tag(overlay: str) -> None:
    images = {name: container(pod)["image"] for name, pod in pods(overlay).items()}
    (tag,) = {images[name].partition(":")[2] for name in SERVICES}
    assert tag
    for name in SERVICES:
        assert images[name] == f"quintet/{name}:{tag}"


def test_secrets_are_those_that_the_readme_names(overlay: str) -> None:
    text = (K8S / "README.md").read_text(encoding="utf-8")
    for name in SERVICES:
        for entry in container(pods(overlay)[name]).get("env", []):
            secret = entry["valueFrom"]["secretKeyRef"]
            assert f"| `{secret['name']}` | `{secret['key']}` |" in text
            if overlay == "dev":
                assert secret["key"] in of_kind(overlay, "Secret")[secret["name"]]["data"]


def users_of(setting: str) -> set[str]:
    """Services whose code uses it, by the source: settings alone do not open a connection."""
    root = K8S.parents[1] / "services"
    return {
        name
        for name in SERVICES
        if setting in (root / name / f"quintet_{name}" / "app.py").read_text(encoding="utf-8")
    }


def expected_arrows(overlay: str) -> set[tuple[str, str]]:
    called = {
        name.removesuffix("_address")
        for name in GatewaySettings.model_fields
        if name.endswith("_address")
    }
    traces = {(name, "otel-collector") for name in SERVICES} | {("otel-collector", "jaeger")}
    return (
        {("gateway", name) for name in called}
        | (traces if overlay != "dev" else set())
        | {("retriever", "postgres"), ("gateway", "postgres")}
        | {(name, "valkey") for name in users_of("open_remote(settings.cache)")}
    )


def policies(overlay: str) -> list[Manifest]:
    return [it["spec"] for it in of_kind(overlay, "NetworkPolicy").values()]


def arrows(overlay: str, direction: str, peers: str) -> set[tuple[str, str]]:
    """(policy's own pod, its peer), for peers that are pods of this namespace."""
    return {
        (own, other)
        for policy in policies(overlay)
        for rule in policy.get(direction, [])
        for peer in rule[peers]
        if set(peer) == {"podSelector"}
        for own in selected(overlay, policy["podSelector"])
        for other in selected(overlay, peer["podSelector"])
    }


def test_who_may_be_called_is_who_is_called(overlay: str) -> None:
    expected = expected_arrows(overlay)
    if overlay != "dev":
        expected |= {("postgres", "postgres")}
    if overlay == "gpu":
        expected |= {("generator", "vllm")}
    assert arrows(overlay, "egress", "to") == expected
    assert {(to, own) for own, to in arrows(overlay, "ingress", "from")} == expected
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies(overlay)
    # Only pods whose Secret names a server may reach it.
    for variable, policy in (("DATABASE_URL", "to-postgres"), ("CACHE__REDIS_URL", "to-redis")):
        may = selected(overlay, of_kind(overlay, "NetworkPolicy")[policy]["spec"]["podSelector"])
        assert may == {
            name
            for name in SERVICES
            if f"QUINTET_{name.upper()}_{variable}" in variables(overlay, name)
        }


def test_policies_open_no_port_that_nobody_listens_on(overlay: str) -> None:
    """Nor the port for probes: the node may reach it whatever policies say."""
    for policy in policies(overlay):
        for own in selected(overlay, policy["podSelector"]):
            for rule in policy.get("ingress", []):
                assert {port["port"] for port in rule["ports"]} <= listens(overlay, own)
        for rule in policy.get("egress", []):
            for peer in rule["to"]:
                for other in selected(overlay, peer.get("podSelector", {"matchLabels": {"": ""}})):
                    assert {port["port"] for port in rule["ports"]} <= listens(overlay, other)
    scraped = {
        own
        for policy in policies(overlay)
        for rule in policy.get("ingress", [])
        if any("namespaceSelector" in peer for peer in rule["from"])
        and any(port["port"] == 9464 for port in rule["ports"])
        for own in selected(overlay, policy["podSelector"])
    }
    assert scraped == set(SERVICES)


def test_what_a_pod_writes_has_a_volume(overlay: str) -> None:
    """Roots are read-only."""
    found = set()
    for pod in pods(overlay).values():
        it, volumes = container(pod), {each["name"]: each for each in pod["spec"]["volumes"]}
        volumes |= {"data": {"emptyDir": {}}}  # of a StatefulSet's claim
        mounts = {
            Path(mount["mountPath"])
            for mount in it.get("volumeMounts", [])
            if "emptyDir" in volumes[mount["name"]]
        }
        values = {entry["name"]: entry.get("value", "") for entry in it.get("env", [])}
        for source in it.get("envFrom", []):
            values |= of_kind(overlay, "ConfigMap")[source["configMapRef"]["name"]]["data"]
        for name, value in values.items():
            if name.endswith(("CACHE_ROOT", "FOLDER", "HOME", "PGDATA")):
                found.add(name)
                assert any(Path(value).is_relative_to(mount) for mount in mounts), name
    assert "QUINTET_GATEWAY_USAGE__FOLDER" in found
    assert ("VLLM_CACHE_ROOT" in found) == (overlay == "gpu")
