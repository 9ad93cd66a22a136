"""What in a text is a key, a token, a password or a card number: its kind and its place, never its value. Pure.

Formats with a mark of their own (AKIA..., ghp_..., -----BEGIN ... PRIVATE KEY-----) are known by it. Three kinds have none and are known by
a second sign: a card number by its issuer's prefix, length and Luhn digit; a JSON Web Token by its decoded header; a password or a
nameless key by the word in front of it together with how random it looks.

Guarantees
1. Nothing that this file returns or writes holds the found value; `masked` puts its kind in its place.
2. Time is linear in the text: a rule runs only where its mark occurs, and every repetition is bounded.

Limits: a secret in words, one without a mark or a name before it, one that is split or disguised on purpose is not seen. This keeps
what leaks by accident out of a memory that lasts; it is no wall against whoever wants to write a secret down.

Not here: what is done about it (the operator's rule, base/policy.py), which fields are looked at (facts.py).
"""

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Found", "find", "masked"]


class Found(NamedTuple):
    kind: str
    start: int
    end: int


class _Rule(NamedTuple):
    kind: str
    marks: tuple[str, ...]
    """One of them is in every text that the pattern fits."""
    pattern: re.Pattern[str]
    """Its group `value`, or all of it, is the secret."""
    fits: Callable[[str], bool] = bool


def find(text: str) -> list[Found]:
    """In the order of their places, none inside another."""
    lower = text.lower()
    rules = {rule: None for mark, rule in _BY_MARK if mark in text} | {
        rule: None for mark, rule in _BY_NAME if mark in lower
    }
    found = [place for rule in rules for place in _places(rule, text)]
    if "PRIVATE KEY" in text:
        found += _private_keys(text)
    if _DIGITS.search(text):
        found += _places(_CARD, text)
    kept: list[Found] = []
    for one in sorted(found, key=lambda place: (place.start, -place.end)):
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def masked(text: str, found: list[Found]) -> str:
    for one in reversed(found):
        text = f"{text[: one.start]}[{one.kind} removed]{text[one.end :]}"
    return text


def _places(rule: _Rule, text: str) -> Iterator[Found]:
    for match in rule.pattern.finditer(text):
        group = "value" if match.re.groupindex else 0
        if rule.fits(match[group]):
            yield Found(rule.kind, *match.span(group))


def _private_keys(text: str) -> Iterator[Found]:
    """From BEGIN to END, or to the end of a text that was cut."""
    begin = _KEY_BEGIN.search(text)
    while begin:
        end = _KEY_END.search(text, begin.end())
        stop = end.end() if end else len(text)
        yield Found("private key", begin.start(), stop)
        begin = _KEY_BEGIN.search(text, stop)


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if not _ISSUERS.fullmatch(digits) or len(set(digits)) < 2:
        return False
    doubled = [int(digit) * (1 + i % 2) for i, digit in enumerate(reversed(digits))]
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def _is_jwt(text: str) -> bool:
    head = text.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


def _is_random(text: str) -> bool:
    """As a password or key looks: no word, no number, no code, no stand-in."""
    text = text.rstrip(".!?:&")
    if len(text) < LETTERS_LEAST or _STAND_IN.search(text) or re.sub("[-.:]", "", text).isdigit():
        return False
    digits, signs = any(map(str.isdigit, text)), not re.sub("[-_.]", "", text).isalnum()
    return (digits or signs) and any(map(str.isalpha, text)) and _bits(text) >= BITS_LEAST


def _bits(text: str) -> float:
    """Shannon's entropy of its characters, in bits each."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


LETTERS_LEAST = 8
BITS_LEAST = 2.75
"""Eight characters that are all different have 3; `password1` has 2.9 and is one."""
_STAND_IN = re.compile(
    r"[(){}<>\[\]…]|^\$|\*\*\*|\.\.\.|://|xxx|&quot|^[/~]|^(?:your|my|the|some|env|os\.|process|config|self|none|null|true|false)\b",
    re.IGNORECASE,
)
_KEY_BEGIN = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?=[\\rn\s]{0,8}[A-Za-z0-9+/:=]{8})"
)
_KEY_END = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_DIGITS = re.compile(r"[2-6]\d{3}[ -]?\d")
_ISSUERS = re.compile(
    r"4\d{12}|4\d{15}|4\d{18}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|6(?:011|5\d\d|4[4-9]\d)\d{12}"
    r"|35\d{14}|3(?:0[0-5]|[68]\d)\d{11}"
)
"""Visa, Mastercard (two ranges), American Express, Discover, JCB, Diners."""
_CARD = _Rule(
    "card number", (),
    re.compile(r"(?<![\w.,/-])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}|3\d{3}([ -]?)\d{6}\2\d{4,5})(?![\w/-]|[.,]\d)"),
    _is_card,
)  # fmt: skip


def _rule(kind: str, marks: str, pattern: str, fits: Callable[[str], bool] = bool) -> _Rule:
    return _Rule(kind, tuple(marks.split()), re.compile(pattern), fits)


_B, _E = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_MARKED = (
    _rule("AWS access key", "AKIA ASIA", _B + r"A(?:KI|SI)A[A-Z2-7]{16}" + _E),
    _rule("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", _B + r"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _rule("GitHub token", "github_pat_", _B + r"github_pat_[A-Za-z0-9_]{22,255}"),
    _rule("GitLab token", "glpat-", _B + r"glpat-[A-Za-z0-9_-]{20,255}"),
    _rule("Slack token", "xox", _B + r"xox[abeoprs]-(?=[^\s]{0,80}\d)[A-Za-z0-9-]{10,255}"),
    _rule("Slack token", "xapp-", _B + r"xapp-\d-[A-Za-z0-9-]{20,255}"),
    _rule("Slack webhook", "hooks.slack.com", r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,64}"),
    _rule("Anthropic key", "sk-ant-", _B + r"sk-ant-[A-Za-z0-9_-]{20,255}"),
    _rule("OpenAI key", "sk-", _B + r"sk-(?:(?:proj|svcacct|admin|or-v1|None)-[A-Za-z0-9_-]{20,255}|[A-Za-z0-9]{32,128}" + _E + ")"),
    _rule("Google API key", "AIza", _B + r"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    _rule("Google token", "GOCSPX- ya29.", _B + r"(?:GOCSPX-[A-Za-z0-9_-]{24,64}|ya29\.[A-Za-z0-9_-]{20,1024})"),
    _rule("Stripe key", "k_live_ k_test_", _B + r"[srp]k_(?:live|test)_[A-Za-z0-9]{16,255}"),
    _rule("npm token", "npm_", _B + r"npm_[A-Za-z0-9]{36}" + _E),
    _rule("PyPI token", "pypi-AgE", _B + r"pypi-AgE[A-Za-z0-9_-]{50,512}"),
    _rule("Hugging Face token", "hf_", _B + r"hf_[A-Za-z0-9]{30,64}" + _E),
    _rule("SendGrid key", "SG.", _B + r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    _rule("DigitalOcean token", "_v1_", _B + r"do[opr]_v1_[a-f0-9]{64}" + _E),
    _rule("Telegram token", ":AA", _B + r"\d{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])"),
    _rule("Azure storage key", "AccountKey=", r"AccountKey=(?P<value>[A-Za-z0-9+/]{80,90}={0,2})"),
    _rule("JSON Web Token", "eyJ", r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{4,8192}\.[A-Za-z0-9_-]{10,2048}", _is_jwt),
)  # fmt: skip
_NAMED = (
    _rule("password in a URL", "://", r"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,128}:(?P<value>[^\s/@:]{4,128})@", lambda text: not _STAND_IN.search(text) and text.lower() not in ("password", "passwd", "pass", "secret")),
    _rule("bearer token", "bearer basic", r"(?i)\bauthorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:bearer|basic)\s{1,3}(?P<value>[A-Za-z0-9._~+/=-]{16,4096})", lambda text: not _STAND_IN.search(text)),
    _rule(
        "password or key", "password passwd passphrase passwort pwd secret token api_key apikey api-key access_key private_key",
        r"(?i)(?<!:)(?:password|passwd|passphrase|passwort|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)(?:[_-](?:key|id|value))?"
        r"[\"']?\s{0,3}(?::=|=>|[:=])\s{0,3}[\"']?(?P<value>(?:[^\s\"',;`&]|&(?![A-Za-z_]{1,40}=)){8,256})", _is_random,
    ),
    _rule("password or key", "password passphrase passwort", r"(?i)\b(?:password|passphrase|passwort)\s+(?:is|was|ist|to)\s*:?\s+[\"']?(?P<value>[^\s\"',;`]{8,128})", _is_random),
)  # fmt: skip
_BY_MARK = [(mark, rule) for rule in _MARKED for mark in rule.marks]
_BY_NAME = [(mark, rule) for rule in _NAMED for mark in rule.marks]
