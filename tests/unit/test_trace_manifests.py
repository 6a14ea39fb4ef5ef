"""What becomes of spans: the collector's and Jaeger's configurations, and who runs them.

Neither binary is at hand where tests run: what is checked here is that each part that a
pipeline names is there and that the policies name what the code writes.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_gateway.settings import Settings as GatewaySettings
from quintet_servicekit import attributes

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES = ("tokenizer", "embedder", "retriever", "generator", "gateway")
CONFIGS = ("otel-collector", "jaeger")
Manifest = dict[str, Any]


@cache
def config(name: str) -> Manifest:
    text = (DEPLOY / "observability" / f"{name}.yaml").read_text(encoding="utf-8")
    return cast(Manifest, yaml.safe_load(text))


@cache
def built() -> list[Manifest]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "k8s" / "prod")],
        check=True,
        capture_output=True,
        text=True,
    )
    return list(yaml.safe_load_all(done.stdout))


def of_kind(kind: str) -> dict[str, Manifest]:
    return {it["metadata"]["name"]: it for it in built() if it["kind"] == kind}


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def policies() -> dict[str, Manifest]:
    told = config("otel-collector")["processors"]["tail_sampling"]["policies"]
    return {it["name"]: it for it in told}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_part_that_a_pipeline_names_is_there_and_every_one_that_is_there_is_used(
    name: str,
) -> None:
    told = config(name)
    pipelines = told["service"]["pipelines"].values()
    assert set(told["extensions"]) == set(told["service"]["extensions"])
    for kind in ("receivers", "processors", "exporters"):
        assert set(told[kind]) == {part for it in pipelines for part in it[kind]}


def test_memory_is_limited_first_and_spans_are_batched_after_the_choice() -> None:
    (pipeline,) = config("otel-collector")["service"]["pipelines"].values()
    assert pipeline["processors"] == ["memory_limiter", "tail_sampling", "batch"]


def test_errors_degraded_and_slow_answers_are_always_kept_and_a_share_of_the_rest() -> None:
    told = policies()
    assert list(told) == ["errors", "degraded", "slow-answers", "rest"]
    assert told["errors"]["status_code"] == {"status_codes": ["ERROR"]}
    assert told["degraded"]["boolean_attribute"] == {"key": attributes.DEGRADED, "value": True}
    slow, answers = told["slow-answers"]["and"]["and_sub_policy"]
    assert slow["latency"]["threshold_ms"] > 0
    assert answers["string_attribute"]["key"] == "rpc.method"
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    methods = {f"{service.full_name}/{it.name}" for it in service.methods}
    assert set(answers["string_attribute"]["values"]) <= methods
    assert 0 < told["rest"]["probabilistic"]["sampling_percentage"] < 100
    for it in told.values():
        assert it["type"] in it  # each has the block that its type names


def test_a_trace_is_decided_on_after_the_longest_answer_has_ended() -> None:
    sampling = config("otel-collector")["processors"]["tail_sampling"]
    wait = int(sampling["decision_wait"].removesuffix("s"))
    assert wait > GatewaySettings.model_fields["ask_seconds"].default
    assert sampling["num_traces"] >= wait * sampling["expected_new_traces_per_sec"]


def test_jaeger_keeps_what_it_takes_and_shows_what_it_keeps() -> None:
    told = config("jaeger")
    (backend,) = told["extensions"]["jaeger_storage"]["backends"]
    assert told["exporters"]["jaeger_storage_exporter"]["trace_storage"] == backend
    assert told["extensions"]["jaeger_query"]["storage"]["traces"] == backend


def test_the_services_export_every_span_to_the_collector_and_it_to_jaeger() -> None:
    for name in SERVICES:
        data = of_kind("ConfigMap")[name]["data"]
        prefix = f"QUINTET_{name.upper()}"
        # Whoever drops a trace before it has ended may drop an error.
        assert float(data[f"{prefix}_TRACE_RATIO"]) == 1.0
        assert data[f"{prefix}_OTLP_ENDPOINT"] == "http://otel-collector:4317"
    assert config("otel-collector")["exporters"]["otlp"]["endpoint"] == "jaeger:4317"
    for name in CONFIGS:
        (served,) = (it for it in of_kind("Service")[name]["spec"]["ports"] if it["name"] == "otlp")
        received = config(name)["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
        assert served["port"] == port(received) == 4317


@pytest.mark.parametrize("name", CONFIGS)
def test_a_pod_has_its_configuration_and_the_ports_and_the_health_that_it_tells(name: str) -> None:
    deployment = of_kind("Deployment")[name]["spec"]
    # A second one would have other spans of the same trace, or other traces.
    assert deployment["replicas"] == 1 and deployment["strategy"] == {"type": "Recreate"}
    spec = deployment["template"]["spec"]
    (it,) = spec["containers"]
    (volume,) = spec["volumes"]
    (mount,) = it["volumeMounts"]
    data = of_kind("ConfigMap")[volume["configMap"]["name"]]["data"]
    assert list(data) == [f"{name}.yaml"] and yaml.safe_load(data[f"{name}.yaml"]) == config(name)
    assert it["args"] == [f"--config={mount['mountPath']}/{name}.yaml"]
    ports = {each["name"]: each["containerPort"] for each in it["ports"]}
    extensions = config(name)["extensions"]
    health = extensions.get("health_check") or extensions["healthcheckv2"]["http"]
    assert ports["health"] == port(health["endpoint"])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert it[probe]["httpGet"]["port"] == "health"
    assert "@" in it["image"] or it["image"].rpartition(":")[2][0].isdigit()
