"""A model's tokenizer and chat form, without the weight of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from quintet_generator.models import Prompt
from quintet_generator.special_tokens import SpecialTokens


class ChatTokenizer:
    """Reads tokenizer.json and the chat template of a transformers folder, and gives
    what transformers' own `apply_chat_template` does."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._special = SpecialTokens(it.content for it in added if it.special)
        self._named = {
            name: text for name in _NAMED if isinstance(text := _text(config.get(name)), str)
        }
        # As transformers sets it up; a sandbox, because a template is somebody's program.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        environment.filters["tojson"] = _to_json
        self._template = environment.from_string(_template(folder, config))

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the prompt's tokens in the model's chat form, its answer begun."""
        text = self._template.render(
            messages=[
                {"role": "system", "content": self._special.broken(prompt.system)},
                {"role": "user", "content": self._special.broken(prompt.user)},
            ],
            add_generation_prompt=True,
            **self._named,
        )
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the tokens' text, special tokens left out."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)


_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _template(folder: Path, config: dict[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if not isinstance(template, str):
        raise FileNotFoundError(
            f"{folder} has no chat template; it is no model that was taught one"
        )
    return template


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def end_tokens(folder: Path) -> frozenset[int]:
    """Return the tokens that end an answer, by the configurations in the folder."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        if path.is_file():
            value = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            found.update(it for it in (value if isinstance(value, list) else [value]) if it)
    return frozenset(found)
