"""Finds what in a passage reads like an instruction to the model that answers.

Patterns over single sentences: commands to set rules aside, speech to the model as a
model, orders about its answer, orders to write what no document asks its reader for,
code that is to be put into an answer, and marks of chat formats. They find the common
forms and miss what is worded like any other sentence; docs/answers.md has how many of
the published attacks they find, and how often they are wrong.
"""

from __future__ import annotations

import re
import unicodedata

from quintet_servicekit.invisible import visible
from quintet_servicekit.sentences import sentence_spans

_ANSWER = r"(?:answers?|repl(?:y|ies)|responses?|outputs?|summar(?:y|ies)|message)"
_CODE_NOUN = r"(?:code|snippet|excerpt|script|function)"
_ANYWHERE = (
    # Set aside what you were told.
    r"\b(?:ignore|disregard|forget|override|bypass|neglect|skip)\b[^.!?]{0,40}"
    r"\b(?:previous|prior|above|earlier|preceding|foregoing|your|system|all|any|other)\b[^.!?]{0,30}"
    r"\b(?:instructions?|prompts?|rules?|directions?|guidelines?|orders?|commands?|constraints?)\b",
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.!?]{0,20}\b(?:instructions?|prompts?|rules?"
    r"|directions?|guidelines?)\b[^.!?]{0,15}\b(?:above|before|previously|given|you)\b",
    r"\b(?:your|the) (?:system|initial|hidden|original) prompt\b",
    r"\b(?:new|updated|real|following|important) (?:system )?instructions? ?(?::|for you\b)",
    r"\b(?:jailbreak|developer mode|do anything now)\b",
    # Speech to the model as a model.
    r"\b(?:as|you are|you're|act as|being) an? (?:ai|artificial intelligence"
    r"|(?:large )?language model|chatbot|assistant)\b",
    r"\b(?:from now on|for the rest of (?:this|the|our) conversation)\b[^.!?]{0,20}\byou\b",
    # Orders about the answer.
    r"\byour (?:\w+ )?(?:answer|reply|response|output) (?:should|must|needs? to|has to)\b",
    r"\b(?:respond|reply|answer) (?:only |exclusively |back )?(?:in|with|by|using|as)\b[^.!?]{0,60}"
    r"(?:instead|only|anagram|emoji|base64|rot13|caps|code|cipher|reverse|no spaces|\bjson\b)",
    r"\b(?:tell|inform|ask|urge|encourage|convince|persuade|remind|direct|invite) the "
    r"(?:user|reader|recipient|person asking)s? (?:to|that|about)\b",
)
_TRIGGERS = frozenset(
    """ignore disregard forget override bypass neglect skip prompt instruction instructions
    jailbreak developer anything ai artificial model chatbot assistant now conversation your
    respond reply answer user users reader readers recipient recipients person""".split()
)
"""Words of which each of these needs one: most sentences have none, and are done with."""
_AT_START = (
    r"(?:hey |dear |hi )?(?:ai|assistant|chatbot|chatgpt|claude|gpt|bot|model)\s?[:,]",
    r"(?:system|user|assistant|human)\s?:\s",
    r"#{1,4}\s*(?:instruction|system|response)s?\s*:",
    r"replace (?:every|each|all|vowels|consonants|letters|words)\b",
    # Orders to write.
    r"(?:please |kindly |now |then )*(?:write|compose|draft|create|develop|generate|design"
    r"|prepare|produce|give me|provide)\b(?: me| us)? (?:an? |the |some |\d+ )?(?:\w+ ){0,3}"
    r"(?:poem|haiku|limerick|story|essay|letter|speech|song|joke|recipe|tweet|slogan|dialogue|script"
    r"|blog post|press release|introduction for)\b",
    r"(?:please |kindly |now )*translate (?:the following|this|\S{0,2}['\"“‘])",
    r"(?:can|could|would|will) you (?:please |kindly )?(?:show me|write|explain|describe)\b",
)
_ABOUT_THE_ANSWER = (
    # Orders about the answer, and not what a letter says of its answer.
    r"(?!(?:i|i'm|we|you|he|she|they|it|this|that|these|those|the|an?|our|my|thanks?|looking|awaiting"
    r"|hop(?:e|ing)|regarding|further|if|when|as|after|for)\b)[^\n]{0,300}?\b(?:in|to|into|of|with|at"
    r"|within|throughout|from|on|alter|modify|edit|change|format|reword|rephrase|encode|encrypt"
    r"|scramble|rewrite|make|write|provide|present|deliver|craft|anagram)\b"
    rf"[^.!?]{{0,25}}\byour (?:\w+ ){{0,2}}{_ANSWER}\b",
    rf"(?:please |kindly |now )*(?!(?:for|to|in|with|and|on|of)\b)\w+ your (?:\w+ )?{_ANSWER}\b",
)
_CODE_TO_PUT_IN = (
    # Code that is to be put into an answer.
    rf"(?=[^.!?\n]*\b(?:following|subsequent|below) (?:\w+ ){{0,2}}{_CODE_NOUN}\b)"
    r"(?=[^.!?\n]*\byour (?:\w+ ){0,2}(?:code|codebase|solution|implementation|algorithm|program"
    r"|answer|response|reply|output)\b)",
    r"(?![^.!?\n]*\b(?:you can|you could|we|you will|you'll|you need|if you|to enable)\b)"
    r"(?:[\w'’]+ ){0,6}(?:us(?:e|ing)|utili[sz](?:e|ing)|add(?:ing)?|includ(?:e|ing)"
    r"|incorporat(?:e|ing)|insert(?:ing)?|embed(?:ding)?|integrat(?:e|ing)|employ(?:ing)?"
    r"|apply(?:ing)?|implement(?:ing)?|append(?:ing)?|featur(?:e|ing)|weav(?:e|ing)"
    r"|adopt(?:ing)?|leverag(?:e|ing)|invok(?:e|ing))\b[^.!?\n]{0,40}"
    rf"\b(?:following|subsequent|below|given) (?:\w+ ){{0,2}}{_CODE_NOUN}\b",
)
_CHAT_FORMS = re.compile(r"<\|[a-z_]{2,20}\|>|\[/?inst\]|<</?sys>>")
_INSTRUCTION = re.compile("|".join(_ANYWHERE))
_BEGINNING = re.compile("|".join(_AT_START))
FAR_AHEAD = (
    (("your ",), re.compile("|".join(_ABOUT_THE_ANSWER))),
    (("following ", "subsequent ", "below ", "given "), re.compile("|".join(_CODE_TO_PUT_IN))),
)
"""Beginnings that read on for long, each with what a match has one of: most sentences have
none, and are spared them."""
_WORD = re.compile(r"\w+")
_LONGEST = 2_000
"""Characters of a sentence that are looked at."""
_FENCE = "```"
_REST_OF_CODE = re.compile(rf".*?(?:{_FENCE}|\Z)", re.DOTALL)
_CODE = re.compile(rf"\s*{_FENCE}.*?(?:{_FENCE}|\Z)", re.DOTALL)
_LEAD = re.compile(r"^[\s>*_\-•\"'“”‘’]+")


def instruction_spans(text: str) -> list[tuple[int, int]]:
    """Return the stretches of `text` that read like instructions, ends exclusive, in
    order and apart: whole sentences, each with the block of code that it announces."""
    spans: list[tuple[int, int]] = []
    for start, end in sentence_spans(text):
        if spans and start < spans[-1][1]:
            continue
        if not _is_instruction(text[start : min(end, start + _LONGEST)]):
            continue
        within = text.count(_FENCE, start, end) % 2
        code = _REST_OF_CODE.match(text, end) if within else _CODE.match(text, end)
        spans.append((start, code.end() if code else end))
    return spans


def _is_instruction(sentence: str) -> bool:
    # Without what hides words from a pattern and not from a model.
    plain = _LEAD.sub("", unicodedata.normalize("NFKC", visible(sentence)).lower())
    if _BEGINNING.match(plain) or _CHAT_FORMS.search(plain):
        return True
    for needed, pattern in FAR_AHEAD:
        if any(it in plain for it in needed) and pattern.match(plain):
            return True
    return not _TRIGGERS.isdisjoint(_WORD.findall(plain)) and bool(_INSTRUCTION.search(plain))
