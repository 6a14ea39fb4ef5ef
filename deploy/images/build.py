"""Builds the images: `make images`, or `build.py NAME…` for some of them.

    BASE_IMAGE    what they are built on; without it the Dockerfiles' own, or, where no hub
                  is reachable, one made with debootstrap, once, in build/images
    IMAGE_TOOL    docker, buildah or podman; without it the first that is there and works

buildah and podman install from where this machine's pip does: its configuration, and the
folders and certificates that it names, are mounted for the build alone. docker cannot mount
them, and installs from where pip does by itself.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "images"
HUB_BASE = "docker.io/library/python:3.11-slim"
OWN_BASE = "quintet/base:bookworm"
DOCKERFILES = {
    "gateway": "services/gateway/Dockerfile",
    "retriever": "services/retriever/Dockerfile",
    "cli": "cli/Dockerfile",
    "models": "deploy/images/models.Dockerfile",
    "tokenizer": "services/tokenizer/Dockerfile",
    "embedder": "services/embedder/Dockerfile",
    "generator": "services/generator/Dockerfile",
}
"""In the order in which they are built: the last three copy from `models`."""
BUILD = {
    "docker": ["docker", "build"],
    # The only isolation that works inside a container, too; a build runs our own commands.
    "buildah": ["buildah", "bud", "--isolation", "chroot", "--layers"],
    "podman": ["podman", "build", "--layers"],
}
INSPECT = {
    "docker": ["docker", "image", "inspect"],
    "buildah": ["buildah", "inspect", "--type", "image"],
    "podman": ["podman", "image", "inspect"],
}


def version() -> str:
    """Return the version of the services, which is the images' tag."""
    project = tomllib.loads((ROOT / "services/gateway/pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def succeeds(*command: str) -> bool:
    """Tell whether a command is there and exits with 0."""
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def find_tool() -> str:
    """Return the tool that the user names, or the first that works here."""
    if chosen := os.environ.get("IMAGE_TOOL"):
        return chosen
    for tool in BUILD:
        if succeeds(tool, "info"):
            return tool
    sys.exit("No docker, buildah or podman works here. On Debian: apt install buildah")


def pip_settings() -> dict[str, str]:
    """Return this machine's configuration of pip, where the environment overrules files."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    )
    found = {}
    for line in sorted(listed.stdout.splitlines(), reverse=True):
        name, _, value = line.partition("=")
        section, _, option = name.partition(".")
        if section in {"global", "install", ":env:"}:
            found[option] = str(ast.literal_eval(value))
    return found


def mounts(settings: dict[str, str]) -> Iterator[str]:
    """Yield the files and folders that pip needs from this machine, for --volume."""
    configuration = WORK / "pip.conf"
    lines = "".join(f"{option} = {' '.join(value.split())}\n" for option, value in settings.items())
    # An index's address may hold a password.
    configuration.unlink(missing_ok=True)
    configuration.touch(mode=0o600)
    configuration.write_text(f"[global]\n{lines}", encoding="utf-8")
    yield f"{configuration}:/etc/pip.conf:ro"
    for value in settings.values():
        for word in value.split():
            path = Path(urlsplit(word).path if word.startswith("file:") else word)
            if path.is_absolute() and path.exists():
                # An index may link to the folder beside it.
                shown = path.parent if path.name == "simple" else path
                yield f"{shown}:{shown}:ro"


def build(tool: str, tag: str, *arguments: str) -> None:
    """Build an image from the repository's root."""
    print(f"\n== {tag}", flush=True)
    subprocess.run([*BUILD[tool], "--tag", tag, *arguments], check=True, cwd=ROOT)


def base_image(tool: str) -> str:
    """Return the image to build on, made first if need be."""
    if chosen := os.environ.get("BASE_IMAGE"):
        return chosen
    if succeeds(*INSPECT[tool], HUB_BASE) or succeeds(tool, "pull", HUB_BASE):
        return HUB_BASE
    root = WORK / "base.tar"
    if not root.exists():
        print(f"\n== {HUB_BASE} cannot be pulled: making a base with debootstrap", flush=True)
        subprocess.run(["sh", str(Path(__file__).with_name("base.sh")), str(root)], check=True)
    recipe = WORK / "base.Dockerfile"
    recipe.write_text("FROM scratch\nADD base.tar /\n", encoding="utf-8")
    build(tool, OWN_BASE, "--file", str(recipe), str(WORK))
    return OWN_BASE


def main(names: Sequence[str]) -> None:
    """Build the images that are named, or all."""
    WORK.mkdir(parents=True, exist_ok=True)
    tool, tag = find_tool(), version()
    base = base_image(tool)
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout.strip()
    arguments = ["--build-arg", f"BASE_IMAGE={base}"]
    if tool != "docker":
        for mount in mounts(pip_settings()):
            arguments += ["--volume", mount]
    known = {"VERSION": tag, "REVISION": revision, "MODELS_IMAGE": f"quintet/models:{tag}"}
    for name, file in DOCKERFILES.items():
        if not names or name in names:
            text = (ROOT / file).read_text(encoding="utf-8")
            given = [f"{key}={value}" for key, value in known.items() if f"ARG {key}" in text]
            options = [word for each in given for word in ("--build-arg", each)]
            # buildah takes a label that names an argument from its cache, with the value of before.
            options += ["--label", f"org.opencontainers.image.revision={revision}"]
            build(tool, f"quintet/{name}:{tag}", *arguments, *options, "--file", file, ".")


if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - set(DOCKERFILES)
    if unknown:
        sys.exit(f"no such image: {', '.join(sorted(unknown))}; there are {', '.join(DOCKERFILES)}")
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed, as said above: {' '.join(error.cmd)}")
