"""The five services as containers: the pods of the `dev` overlay, as podman plays them.

They share this machine's network, so that each gets ports of its own and finds PostgreSQL,
Valkey and the others at 127.0.0.1. All else is as the manifests say.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import yaml

from quintet_local.ports import HOST, free_port

ROOT = Path(__file__).parents[2]
PREFIX = "quintet-test-"
SERVICES = ("tokenizer", "embedder", "retriever", "generator", "gateway")
IMAGES = (*SERVICES, "cli")
REVISION = "org.opencontainers.image.revision"
"""Label with the commit that an image was built from."""
Manifest = dict[str, Any]


def version() -> str:
    """Return the version of the services, which is their images' tag."""
    project = tomllib.loads((ROOT / "services/gateway/pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def what_is_missing(*names: str) -> str:
    """Return what keeps containers of these images from running here; "" if nothing does."""
    for program in ("podman", "kubectl", "catatonit"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    commit = _told("git", "-C", str(ROOT), "rev-parse", "HEAD")
    for name in names:
        image = f"quintet/{name}:{version()}"
        label = f'{{{{index .Labels "{REVISION}"}}}}'
        built = _told("podman", "image", "inspect", "--format", label, image)
        if not built or built != commit:
            there = f"{image} is of another commit" if built else f"there is no image {image}"
            return f"{there}: run `make images`"
    return ""


def _told(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


@dataclass(frozen=True)
class Pod:
    """A pod that runs: its Deployment, and where its service listens."""

    deployment: Manifest
    port: int
    health_port: int

    @property
    def name(self) -> str:
        """The service's name."""
        return str(self.deployment["metadata"]["labels"]["service"])

    @property
    def address(self) -> str:
        """Address of the gRPC server."""
        return f"{HOST}:{self.port}"

    @property
    def health_address(self) -> str:
        """Address that the probes ask."""
        return f"{HOST}:{self.health_port}"

    @property
    def container(self) -> Manifest:
        """The container as the manifest states it."""
        (only,) = self.deployment["spec"]["template"]["spec"]["containers"]
        return cast(Manifest, only)

    @property
    def container_name(self) -> str:
        """The name that podman gives to the container."""
        return f"{self.deployment['metadata']['name']}-pod-0-{self.name}"


class Podman:
    """podman, told to ask for no more than this machine's root may give."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = dict(os.environ)
        if not Path("/run/systemd/system").exists():
            files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            runtime = 'runtime = "runc"\n' if shutil.which("runc") else ""
            configuration = folder / "containers.conf"
            configuration.write_text(
                f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]\n'
                f'[engine]\ncgroup_manager = "cgroupfs"\n{runtime}',
                encoding="utf-8",
            )
            self._environment["CONTAINERS_CONF"] = str(configuration)

    def __call__(self, *arguments: str) -> str:
        """Run podman and return its standard output; its errors are told."""
        done = subprocess.run(
            ["podman", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def logs(self, pod: Pod) -> str:
        """Return the last lines that a pod's container logged."""
        done = subprocess.run(
            ["podman", "logs", "--tail", "20", pod.container_name],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        return f"{pod.name}:\n{done.stdout}"

    def inspect(self, *arguments: str) -> Manifest:
        """Return what `podman inspect` tells of one thing."""
        (found,) = json.loads(self("inspect", *arguments))
        return cast(Manifest, found)

    @contextmanager
    def playing(self, database_url: str, redis_url: str) -> Iterator[dict[str, Pod]]:
        """Yield the pods by service; they, and what podman made for them, end after.

        The URLs, the first one of a superuser, are those of servers of this machine that
        stand for the overlay's. Roles of services are made as the overlay names them.
        """
        built = subprocess.run(
            ["kubectl", "kustomize", str(ROOT / "deploy/k8s/dev")],
            check=True,
            capture_output=True,
            text=True,
        )
        manifests, pods = _played(list(yaml.safe_load_all(built.stdout)), database_url, redis_url)
        file = self.folder / "pods.yaml"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump_all(manifests), encoding="utf-8")
        self._remove()
        try:
            self("play", "kube", str(file))
            yield pods
        finally:
            self._remove()

    def _remove(self) -> None:
        """Remove the pods and their volumes, also those of a run that was killed."""
        for kind in ("pod", "volume"):
            for name in self(kind, "ls", "--quiet", "--filter", f"name={PREFIX}").split():
                self(kind, "rm", "--force", name)


def _here(value: str, database_url: str, redis_url: str) -> str:
    """Return a Secret's value with the address of this machine's server, if it has one."""
    url, database = urlsplit(value), urlsplit(database_url)
    if url.hostname == "valkey":
        return redis_url
    if url.hostname == "postgres" and url.username == "quintet":
        return database_url
    if url.hostname == "postgres":
        user = f"{url.username}:{url.password}"
        return database._replace(netloc=f"{user}@{database.hostname}:{database.port}").geturl()
    return value


def _played(
    manifests: list[Manifest], database_url: str, redis_url: str
) -> tuple[list[Manifest], dict[str, Pod]]:
    """Return ConfigMaps and Deployments for one machine's network, and the pods of these."""
    secrets = {
        (it["metadata"]["name"], key): base64.b64decode(value).decode()
        for it in manifests
        if it["kind"] == "Secret"
        for key, value in it["data"].items()
    }
    ours = [
        it
        for it in manifests
        if it["kind"] in {"ConfigMap", "Deployment"} and it["metadata"]["name"] in SERVICES
    ]
    ports = {name: free_port() for name in SERVICES}
    health_ports = {name: free_port() for name in SERVICES}
    pods = {}
    for it in ours:
        name = it["metadata"]["name"]
        it["metadata"] = {"name": f"{PREFIX}{name}", "labels": {"service": name}}
        if it["kind"] == "ConfigMap":
            it["data"] |= {
                key: re.sub(r"^dns:///(\w+):\d+$", lambda at: f"{HOST}:{ports[at[1]]}", value)
                for key, value in it["data"].items()
            }
            prefix = f"QUINTET_{name.upper()}_"
            it["data"] |= {
                f"{prefix}HOST": HOST,
                f"{prefix}PORT": str(ports[name]),
                f"{prefix}METRICS_PORT": str(free_port()),
                f"{prefix}HEALTH_PORT": str(health_ports[name]),
            }
            continue
        spec = it["spec"]["template"]["spec"]
        spec["hostNetwork"] = True
        (container,) = spec["containers"]
        del container["ports"]
        for source in container["envFrom"]:
            source["configMapRef"]["name"] = f"{PREFIX}{name}"
        for variable in container.get("env", []):
            secret = variable.pop("valueFrom")["secretKeyRef"]
            value = secrets[secret["name"], secret["key"]]
            variable["value"] = _here(value, database_url, redis_url)
        # podman knows volumes by their names alone: pods with the same one would share it.
        for each in [*spec["volumes"], *container["volumeMounts"]]:
            each["name"] = f"{PREFIX}{name}-{each['name']}"
        pods[name] = Pod(it, ports[name], health_ports[name])
    return ours, pods
