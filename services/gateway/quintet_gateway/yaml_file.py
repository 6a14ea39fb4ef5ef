"""Reads what operators write in YAML files, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Content = TypeVar("Content", bound=BaseModel)


class FileError(ValueError):
    """A file that cannot be used; says which, where it is wrong and how."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # it has no types
    """Refuses a key that stands twice in one mapping, of which YAML's own takes the last:
    half of a policy would be gone unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value!r} stands there twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path, model: type[Content]) -> Content:
    """Return what a file says, as the model has it. Raises `FileError`."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        try:
            return model.model_validate(loader.get_single_data())
        finally:
            loader.dispose()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise FileError(f"{path}: {'; '.join(_faults(error))}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise FileError(f"{path} is not YAML: {error}") from error


def _faults(error: ValidationError) -> list[str]:
    return [
        f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
        for fault in error.errors()
    ]
