"""Takes out of an answer what would load something where the answer is shown.

A document that gets a model to write an image whose address holds what it read has sent
it away as soon as a browser shows the answer. So of a Markdown image the alternative
text stays, and HTML tags that load go. Links stay: nobody follows them but the reader.
"""

from __future__ import annotations

import re

from quintet_gateway.alignment import Alignment

_MARKS = re.compile(r"[<!]+")
_TAG = re.compile(r"""<[a-z/](?:"[^"]*"|'[^']*'|[^'">])*>""", re.IGNORECASE)
_LOADS = re.compile(
    r"<\s*/?\s*(?:img|image|picture|source|video|audio|track|iframe|frame|embed|object|applet|link"
    r"|script|style|svg|input|base|meta|body|table|portal)\b"
    r"|\b(?:src|srcset|style|background|poster|data|(?:xlink:)?href\s*=\s*[\"']?\s*javascript:"
    r"|on[a-z]+)\s*=?",
    re.IGNORECASE,
)
_IMAGE = re.compile(r"\[(?P<alternative>[^\[\]<>!]*)\]\([^()]*(?:\([^()]*\)[^()]*)*\)")
_IMAGE_BEGUN = re.compile(
    r"!\[[^\[\]<>!]*+(?:\](?:\((?:[^()]*+(?:\([^()]*\)[^()]*+)*+(?:\([^()]*)?)?)?)?"
)
_LONGEST = 2_000
"""Characters of a tag or an image that are waited for before it is taken for text."""


class RemoteLoads:
    """Filters one answer as its text comes in.

    `alignment` tells where the answer's characters stand after it; `removed` counts
    what was taken out.
    """

    def __init__(self) -> None:
        self.alignment = Alignment()
        self.removed = 0
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next piece; return what may be shown of all that came so far and was
        not returned yet."""
        return self._scan(self._held + text, final=False)

    def finish(self) -> str:
        """Return the rest."""
        return self._scan(self._held, final=True)

    def _scan(self, text: str, *, final: bool) -> str:
        kept: list[str] = []
        at = 0
        self._held = ""
        while marks := _MARKS.search(text, at):
            kept.append(self._keep(text[at : marks.start()]))
            at = marks.start()
            rest = text[marks.end() - 1 : marks.end() + _LONGEST]
            open_ended = not final and len(rest) < _LONGEST
            if marks.end() == len(text) and not final:
                self._held = text[at:]
                return "".join(kept)
            if rest.startswith("!["):
                image = _IMAGE.match(rest, 1)
                if image is None and open_ended and _IMAGE_BEGUN.fullmatch(rest):
                    self._held = text[at:]
                    return "".join(kept)
                # Without its mark, what is no whole image is at most a link.
                at = marks.end() if image is None else marks.end() - 1 + image.end()
                kept.append(self._remove(text[marks.start() : at], image))
            elif re.match("<[a-z/]", rest, re.IGNORECASE):
                tag = _TAG.match(rest)
                if tag is None and open_ended:
                    self._held = text[at:]
                    return "".join(kept)
                if _LOADS.search(tag[0] if tag else rest):
                    at = marks.end() if tag is None else marks.end() - 1 + tag.end()
                    kept.append(self._remove(text[marks.start() : at], None))
                else:
                    at = marks.end() if tag is None else marks.end() - 1 + tag.end()
                    kept.append(self._keep(text[marks.start() : at]))
            else:
                at = marks.end()
                kept.append(self._keep(marks[0]))
        kept.append(self._keep(text[at:]))
        return "".join(kept)

    def _keep(self, text: str) -> str:
        self.alignment.keep(len(text))
        return text

    def _remove(self, text: str, image: re.Match[str] | None) -> str:
        """Leave out `text`, all but the alternative text of an image."""
        self.removed += 1
        if image is None:
            self.alignment.drop(len(text))
            return ""
        alternative = image["alternative"]
        before = len(text) - len(image[0]) + 1
        self.alignment.drop(before)
        self.alignment.keep(len(alternative))
        self.alignment.drop(len(text) - before - len(alternative))
        return alternative
