"""Reads what operators write in YAML files, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Content = TypeVar("Content", bound=BaseModel)


class FileError(ValueError):
    """A file that cannot be used; says which, where it is wrong and how."""


def read(path: Path, model: type[Content]) -> Content:
    """Return what a file says, as the model has it. Raises `FileError`."""
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
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
