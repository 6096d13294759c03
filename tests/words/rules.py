"""Rules of the word linter: what is avoided, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Rule(NamedTuple):
    """A word or construction to avoid.

    Attributes:
        name: How messages and the baseline call it.
        pattern: Regular expression that finds it; a space in it matches any white space.
        instead: What to write instead.
        where: "text" for all prose, "summary" for the first line of a docstring, "attribute" for the
            description of an attribute or argument in a docstring.
    """

    name: str
    pattern: str
    instead: str
    where: str = "text"

    def starts(self, text: str) -> Iterator[int]:
        """Yield the offset of each occurrence in `text`."""
        pattern = self.pattern.replace(" ", r"\s+")
        return (found.start() for found in re.finditer(pattern, text, re.IGNORECASE | re.DOTALL))


RULES = (
    Rule("whoever", r"\bwhom?(?:so)?ever\b", "name the subject: the user, the process that …"),
    Rule("nobody", r"\b(?:nobody|no one)\b", "no process, no user; or the passive with its noun"),
    Rule("somebody", r"\b(?:somebody|someone)\b", "a user, another process"),
    Rule("anybody", r"\b(?:any|every)(?:body|one)\b", "any user, all users, every process"),
    Rule("anew", r"\banew\b", "again, from the start"),
    Rule("aloud", r"\baloud\b", "in the log, with an error"),
    Rule("for want of", r"\bfor want of\b", "because there is no …"),
    Rule("to the letter", r"\bto the letter\b", "exactly"),
    Rule("is none of", r"\b(?:is|are|was|were) none of\b", "is not one of, does not belong to"),
    Rule("another one", r"\banother one\b", "another with its noun: another checkpoint"),
    Rule("the other one", r"\bthe other one\b", "its noun: the second attempt"),
    Rule("what it is that", r"\b(?:what|who|which) it is that\b", "what"),
    Rule(
        "the one … the other",
        r"\bthe one\b[^.;:]{1,60}\bthe other\b",
        "both nouns: the supervisor … the shim",
    ),
    Rule("mended", r"\bmend(?:s|ed|ing)?\b", "repaired, fixed"),
    Rule("a moment ago", r"\ba moment ago\b", "the time, or: just now"),
    Rule("as it was", r"(?<!far.)(?<!long.)(?<!soon.)\bas (?:it|they) (?:was|were)\b", "unchanged"),
    Rule("hears of", r"\bhears? (?:of|about|nothing|from)\b", "is notified of, receives"),
    Rule("that …", r"\AThat\b", "a noun phrase or the imperative: Stall record of a rank", where="summary"),
    Rule("which.", r"\A(?:Which|What)\b\W*\Z", "a noun phrase: Number of the attempt", where="attribute"),
)

# What a Python module must contain for a rule to match in it. Adjacent literals are joined, so quotes and a
# prefix may stand between two words. Parsing is slow, and most modules contain nothing to find.
WORTH_PARSING = re.compile(
    "|".join(rule.pattern.replace(" ", r"\W+(?:[fr]{1,2}\W+)?") for rule in RULES if rule.where == "text")
    + r'|"""That\b|: (?:Which|What)\b\W*$',
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)
