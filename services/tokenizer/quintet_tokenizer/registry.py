"""The tokenizers that this process can serve, loaded at their first use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.loading import Loading
from quintet_tokenizer.models import Model
from quintet_tokenizer.tokenizer import LoadedTokenizer


class Registry:
    """Tokenizers by name, at most `capacity` (2 or more) of them in memory: the least
    recently used one goes, but never the default one. Safe across threads.

    `paths` maps each name to a tokenizer.json or to the folder that holds one.
    """

    def __init__(self, paths: Mapping[str, Path], default: str, capacity: int) -> None:
        self._paths = dict(paths)
        self._default = default
        self._capacity = capacity
        self._loaded: OrderedDict[str, LoadedTokenizer] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._attempts = {name: Loading("tokenizer model", name) for name in paths}

    def resolve(self, name: str) -> str:
        """Return the name of the model asked for; "" asks for the default one.

        Raises `ServiceError` MODEL_NOT_FOUND.
        """
        resolved = name or self._default
        if resolved not in self._paths:
            raise ServiceError(
                Reason.MODEL_NOT_FOUND, "no model has that name", metadata={"model": resolved}
            )
        return resolved

    def is_loaded(self, name: str) -> bool:
        """Return whether `get` would answer at once."""
        return name in self._loaded

    def get(self, name: str) -> LoadedTokenizer:
        """Return the tokenizer of a resolved name, loading it if need be.

        Blocks for the time of loading: 20 to 500 ms. Raises `ServiceError`
        DEPENDENCY_UNAVAILABLE when it cannot be loaded: at once for a pause after that.
        """
        found = self._find(name)
        if found is None:
            self._attempts[name].check()
            # A lock of its own, so that tokenizers in memory serve meanwhile.
            with self._loading:
                found = self._find(name) or self._load(name)
                with self._lock:
                    self._loaded[name] = found
                    if len(self._loaded) > self._capacity:
                        oldest = next(it for it in self._loaded if it != self._default)
                        del self._loaded[oldest]
        return found

    def _find(self, name: str) -> LoadedTokenizer | None:
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
            return self._loaded.get(name)

    def _load(self, name: str) -> LoadedTokenizer:
        path = self._paths[name]
        with self._attempts[name].attempt():
            file = path / "tokenizer.json" if path.is_dir() else path
            return LoadedTokenizer(file.read_bytes())

    def models(self) -> list[Model]:
        """Return every model, by name."""
        with self._lock:
            return [
                Model(
                    name=name,
                    revision=loaded.revision if loaded else "",
                    vocabulary_size=loaded.vocabulary_size if loaded else 0,
                    is_default=name == self._default,
                    loaded=loaded is not None,
                )
                for name, loaded in ((n, self._loaded.get(n)) for n in sorted(self._paths))
            ]
