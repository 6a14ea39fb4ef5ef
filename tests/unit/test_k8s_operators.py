"""What operators' kinds in deploy/k8s say, and its Jobs.

kubernetes-validate has no schemas of these kinds. Their structure is checked here, by what
their documentation asks for and what the code has.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from pytest import MonkeyPatch

from quintet_cli.app import app
from quintet_cli.shards import Shard
from quintet_local import binaries
from quintet_servicekit.postgres import migrator
from quintet_servicekit.settings import ServiceSettings

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
SERVICES = ("tokenizer", "embedder", "retriever", "generator", "gateway")
METRICS = (
    "quintet_servicekit.interceptor",
    "quintet_servicekit.admission",
    "quintet_embedder.pool",
    "quintet_generator.batching",
)
Manifest = dict[str, Any]

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@cache
def built(folder: str) -> dict[tuple[str, str], Manifest]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(K8S / folder)], check=True, capture_output=True, text=True
    )
    return {(it["kind"], it["metadata"]["name"]): it for it in yaml.safe_load_all(done.stdout)}


def spec(kind: str, name: str, folder: str = "prod") -> Any:
    return built(folder)[kind, name]["spec"]


def pod(name: str, kind: str = "Deployment", folder: str = "prod") -> Any:
    return spec(kind, name, folder)["template"]["spec"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_reads_its_certificate_where_its_secret_is_mounted(
    name: str, monkeypatch: MonkeyPatch
) -> None:
    for variable, value in built("prod")["ConfigMap", name]["data"].items():
        monkeypatch.setenv(variable, value)
    module = import_module(f"quintet_{name}.settings")
    made = module.GeneratorSettings if name == "generator" else module.Settings
    settings: ServiceSettings = made()
    volumes = {it["name"]: it["secret"] for it in pod(name)["volumes"] if "secret" in it}
    mounts = {it["name"]: it["mountPath"] for it in pod(name)["containers"][0]["volumeMounts"]}
    folder = Path(mounts["tls"])
    tls = settings.tls
    # The names that cert-manager gives the files of a Secret.
    assert tls.certificate == folder / "tls.crt"
    assert tls.key == folder / "tls.key"
    assert tls.ca == folder / "ca.crt"
    certificate = spec("Certificate", name)
    assert volumes["tls"]["secretName"] == certificate["secretName"]
    # A group that the pod has may read it: the files are root's.
    assert volumes["tls"]["defaultMode"] == 0o440
    assert pod(name)["securityContext"]["fsGroup"] > 0
    # The gateway's channels expect the host of its addresses.
    assert name in certificate["dnsNames"]
    assert spec("Issuer", certificate["issuerRef"]["name"])["ca"]["secretName"] == "quintet-ca"
    usages = ",".join(certificate["usages"])
    if name == "gateway":
        assert not tls.require_client
        assert "client auth" in usages
        assert settings.access.key_file.parent == Path(mounts["operators"])  # type: ignore[attr-defined]
        assert settings.signing.key == Path(mounts["identity"]) / "private.pem"  # type: ignore[attr-defined]
    else:
        assert tls.callers == {"gateway"}
        assert settings.identity.public_keys == Path(mounts["identity"])
        # Whoever has the private key may say for whom a call is.
        assert volumes["identity"]["secretName"] == "quintet-identity-public"


def test_certificates_are_renewed_long_before_they_end() -> None:
    for (kind, _), it in built("prod").items():
        if kind == "Certificate":
            days = [
                int(it["spec"][field].removesuffix("h")) / 24
                for field in ("duration", "renewBefore")
            ]
            assert days[0] / 20 < days[1] < days[0]


def test_replicas_follow_metrics_that_the_code_has() -> None:
    for module in METRICS:
        import_module(module)
    known = {metric.name for metric in REGISTRY.collect()}
    for name in SERVICES:
        scaled = spec("ScaledObject", name)
        assert scaled["scaleTargetRef"] == {"name": name}
        kinds = [trigger["type"] for trigger in scaled["triggers"]]
        assert kinds.count("cpu") == 1
        queries = [it["metadata"] for it in scaled["triggers"] if it["type"] == "prometheus"]
        assert queries
        for query in queries:
            used = re.findall(r"([a-z_]+)\{", query["query"])
            assert used
            assert set(used) <= known
            assert float(query["threshold"]) > 0
            # Labels of the pods' monitor, and of the metrics.
            labels = set(re.findall(r"(\w+)=", query["query"]))
            assert labels <= {"namespace", "job", "grpc_service"}
            assert set(re.findall(r'job="([^"]*)"', query["query"])) <= {name}
            for service in re.findall(r'grpc_service="([^"]*)"', query["query"]):
                assert service == import_module(f"quintet_{name}.app").SERVICE
    monitor = spec("PodMonitor", "quintet")
    assert monitor["jobLabel"] == "app.kubernetes.io/name"


def test_without_redis_limits_are_shared_out_among_the_least_replicas() -> None:
    among = built("prod")["ConfigMap", "gateway"]["data"]["QUINTET_GATEWAY_LIMITS__REPLICAS"]
    assert int(among) == spec("ScaledObject", "gateway")["minReplicaCount"]


def test_the_route_leads_to_the_gateway_s_port_and_name() -> None:
    (rule,) = spec("GRPCRoute", "gateway")["rules"]
    (backend,) = rule["backendRefs"]
    ports = [port["port"] for port in spec("Service", "gateway")["ports"]]
    assert (backend["name"], [backend["port"]]) == ("gateway", ports)
    policy = spec("BackendTLSPolicy", "gateway")
    assert policy["targetRefs"] == [{"group": "", "kind": "Service", "name": "gateway"}]
    assert policy["validation"]["hostname"] in spec("Certificate", "gateway")["dnsNames"]


def test_the_database_has_what_migrations_need_and_room_for_every_replica() -> None:
    cluster = spec("Cluster", "quintet-postgres")
    extensions = {
        found
        for name in ("retriever", "gateway")
        for file in (K8S.parents[1] / f"services/{name}/quintet_{name}/migrations").glob("*.sql")
        for found in re.findall(r"CREATE EXTENSION IF NOT EXISTS (\w+)", file.read_text())
    }
    assert {it.split()[-1] for it in cluster["bootstrap"]["initdb"]["postInitApplicationSQL"]} == (
        extensions
    )
    # A failover that lost an acknowledged write would give its epoch out again.
    assert cluster["postgresql"]["synchronous"] == {"method": "any", "number": 1}
    most = 0
    for name in ("retriever", "gateway"):
        fields = import_module(f"quintet_{name}.settings").Settings.model_fields
        # Beside the pool: the relay's lock and a migration.
        # A rollout has one replica more.
        surge = spec("Deployment", name)["strategy"]["rollingUpdate"]["maxSurge"]
        most += (spec("ScaledObject", name)["maxReplicaCount"] + surge) * (
            fields["pool_max_size"].default + 2
        )
        secret = {"name": f"quintet-postgres-{name}"}
        assert {"name": f"quintet_{name}", "login": True, "passwordSecret": secret} in (
            cluster["managed"]["roles"]
        )
    assert most <= int(cluster["postgresql"]["parameters"]["max_connections"]) - 10


def test_the_database_is_of_the_version_that_the_tests_run_on() -> None:
    """Where statements use what an older one does not know, no test would tell."""
    major = asyncio.run(binaries.find(None, None)).major
    (postgres,) = (
        it
        for it in yaml.safe_load_all((K8S / "dev/postgres.yaml").read_text(encoding="utf-8"))
        if it["kind"] == "StatefulSet"
    )
    image = postgres["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.endswith(f"-pg{major}")
    assert f"postgresql:{major}-" in spec("Cluster", "quintet-postgres")["imageName"]
    assert major >= migrator.OLDEST


def test_the_generator_asks_vllm_by_the_name_and_port_that_it_has(
    monkeypatch: MonkeyPatch,
) -> None:
    data = built("gpu")["ConfigMap", "generator"]["data"]
    (container,) = pod("vllm", folder="gpu")["containers"]
    arguments = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    assert data["QUINTET_GENERATOR_OPENAI_MODEL"] == arguments["--served-model-name"]
    assert data["QUINTET_GENERATOR_OPENAI_CONTEXT_TOKENS"] == arguments["--max-model-len"]
    (port,) = spec("Service", "vllm", "gpu")["ports"]
    assert data["QUINTET_GENERATOR_OPENAI_BASE_URL"] == f"http://vllm:{port['port']}/v1"
    assert str(container["ports"][0]["containerPort"]) == arguments["--port"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for variable, value in data.items():
        monkeypatch.setenv(variable, value)
    from quintet_generator.settings import GeneratorSettings

    assert GeneratorSettings().backends == ("openai", "extractive")


def test_a_bulk_ingest_has_a_pod_for_each_share() -> None:
    job = spec("Job", "bulk-ingest", "jobs")
    assert job["completionMode"] == "Indexed"
    (container,) = pod("bulk-ingest", "Job", "jobs")["containers"]
    arguments = container["args"]
    share = arguments[arguments.index("--shard") + 1]
    shards = {Shard.parse(share.replace("$(INDEX)", str(i))) for i in range(job["completions"])}
    assert {shard.count for shard in shards} == {job["completions"]} == {len(shards)}
    (index,) = (it["valueFrom"] for it in container["env"] if it["name"] == "INDEX")
    assert "batch.kubernetes.io/job-completion-index" in index["fieldRef"]["fieldPath"]
    commands = {it.callback.__name__ for it in app.registered_commands if it.callback}
    assert arguments[0] in commands
    mounted = [it["mountPath"] for it in container["volumeMounts"]]
    assert arguments[1] in mounted


@pytest.mark.parametrize("folder", ["dev", "gpu", "jobs"])
def test_no_variable_and_no_mount_is_named_twice(folder: str) -> None:
    for kind, name in built(folder):
        if kind in ("Deployment", "StatefulSet", "Job"):
            it = pod(name, kind, folder)
            for container in it["containers"]:
                for field in ("env", "volumeMounts"):
                    names = [entry["name"] for entry in container.get(field, [])]
                    assert len(names) == len(set(names))
            assert {volume["name"] for volume in it["volumes"]} >= {
                mount["name"]
                for container in it["containers"]
                for mount in container["volumeMounts"]
            } - claims(kind, name, folder)


def claims(kind: str, name: str, folder: str) -> set[str]:
    """Volumes that a StatefulSet makes for its Pods."""
    made = spec(kind, name, folder).get("volumeClaimTemplates", [])
    return {it["metadata"]["name"] for it in made}


@pytest.mark.parametrize("name", ["retriever", "gateway"])
def test_a_migration_runs_a_module_that_is_there(name: str) -> None:
    (container,) = pod(f"migrate-{name}", "Job", "jobs")["containers"]
    *python, module = container["command"]
    # As the image's own entry point, which has no PATH to find it by.
    dockerfile = (K8S.parents[1] / f"services/{name}/Dockerfile").read_text(encoding="utf-8")
    assert f"ENTRYPOINT {json.dumps([*python, f'quintet_{name}'])}" in dockerfile
    assert find_spec(module)
    service = pod(name)["containers"][0]
    assert container["image"] == service["image"]
    variables = {it["name"]: it["valueFrom"] for it in service["env"]}
    assert all(variables[it["name"]] == it["valueFrom"] for it in container["env"])
