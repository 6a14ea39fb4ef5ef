"""What the generator told of its models and templates."""

from __future__ import annotations

from dataclasses import dataclass

from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet_servicekit.cache import key_of
from quintet_servicekit.errors import Reason, ServiceError

EXTRACTIVE = "extractive"
"""The generator's name of the backend that composes answers of the passages' sentences."""


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt template, and the revision of it alone."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class Generators:
    """The models and templates of one list."""

    listed: generator_pb.ListModelsResponse

    def by_preference(self, name: str) -> list[generator_pb.Model]:
        """Return the model of that name, or the default for an empty one, and then the
        others by preference, of which the extractive one comes last.

        Raises `ServiceError` MODEL_NOT_FOUND.
        """
        models = self.listed.models
        for wanted in models:
            if wanted.name == name or (not name and wanted.is_default):
                others = [model for model in models if model.name != wanted.name]
                return [wanted, *sorted(others, key=is_extractive)]
        raise no_model(name)

    def template(self, name: str, model: generator_pb.Model) -> Template:
        """Return the template of that name; `model` is one of the models.

        Raises `ServiceError` TEMPLATE_NOT_FOUND.
        """
        templates = self.listed.templates
        if not templates:
            # A release of before there were revisions of each.
            return Template(name, model.prompt_revision)
        for it in templates:
            if it.name == name:
                return Template(name, it.revision)
        raise ServiceError(
            Reason.TEMPLATE_NOT_FOUND,
            f"there is no template {name[:200]!r}",
            metadata={"template": name[:200], "known": ",".join(it.name for it in templates)},
        )


def key_of_model(model: generator_pb.Model) -> str:
    """Return the key of all of a model that decides its answers: what it is, and how many of
    whose tokens its passages may have."""
    return key_of(model.name, model.revision, model.context_tokens, model.tokenizer)


def is_extractive(model: generator_pb.Model) -> bool:
    """Whether a model's answers are sentences of the passages."""
    return model.backend == EXTRACTIVE


def no_model(name: str) -> ServiceError:
    """Return the error that no service has a model."""
    return ServiceError(
        Reason.MODEL_NOT_FOUND, "no service has that model", metadata={"model": name[:200]}
    )
