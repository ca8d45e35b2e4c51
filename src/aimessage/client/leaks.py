"""The secret scan: what looks like a key or a token does not leave by mistake.

Every pattern is linear in the text: it begins with a literal that no character of its own alphabet precedes, and each
repeat is possessive and of one set of characters, so nothing is ever tried twice. A secret that is spelled in another
way passes: this catches mistakes, not intent.
"""

import re
from typing import Final

from aimessage.errors import SecretFound

__all__ = ["RULES", "require_no_secret"]


def _token(prefix: str, alphabet: str, least: int) -> str:
    """A token: *prefix*, then at least so many characters, standing by itself."""
    return rf"(?<![A-Za-z0-9_-]){prefix}[{alphabet}]{{{least},}}+"


_ANY: Final = "A-Za-z0-9"
_URL: Final = "A-Za-z0-9_-"

RULES: Final[dict[str, str]] = {
    "pem-private-key": r"-----BEGIN (?:RSA |EC |DSA |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY",
    "putty-private-key": r"PuTTY-User-Key-File-[23]:",
    "age-secret-key": _token("AGE-SECRET-KEY-(?:PQ-)?1", "A-Z0-9", 50),
    "aimessage-token": _token("aim1-", "a-z0-9-", 40),
    "aws-access-key": r"(?<![A-Za-z0-9_-])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])",
    "aws-secret-key": r"(?i:aws_?secret_?access_?key)[\"' \t]{0,4}+[:=][\"' \t]{0,4}+[A-Za-z0-9/+]{40}",
    "gcp-api-key": _token("AIza", _URL, 35),
    "gcp-oauth-secret": _token("GOCSPX-", _URL, 28),
    "azure-storage-key": r"AccountKey=[A-Za-z0-9/+]{86}==",
    "github-token": _token("(?:ghp|gho|ghu|ghs|ghr)_", _ANY, 36),
    "github-fine-grained-token": _token("github_pat_", "A-Za-z0-9_", 60),
    "gitlab-token": _token("glpat-", _URL, 20),
    "slack-token": _token("xox[abeoprs]-", "A-Za-z0-9-", 20),
    "slack-app-token": _token("xapp-", "A-Za-z0-9-", 30),
    "slack-webhook": r"hooks\.slack\.com/services/T[A-Z0-9]{8,}+/B[A-Z0-9]{8,}+/[A-Za-z0-9]{20}",
    "stripe-key": _token("(?:sk|rk)_(?:live|test)_", _ANY, 16),
    "stripe-webhook-secret": _token("whsec_", "A-Za-z0-9+/=", 32),
    "anthropic-key": _token("sk-ant-", _URL, 24),
    "openai-key": _token("sk-(?:proj|svcacct|admin)-", _URL, 32),
    "openai-legacy-key": r"(?<![A-Za-z0-9_-])sk-[A-Za-z0-9]{48}(?![A-Za-z0-9])",
    "openrouter-key": _token("sk-or-v1-", "a-f0-9", 32),
    "huggingface-token": _token("hf_", "A-Za-z", 34),
    "npm-token": _token("npm_", _ANY, 36),
    "pypi-token": _token("pypi-AgE", _URL, 50),
    "sendgrid-key": r"(?<![A-Za-z0-9_-])SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    "jwt": r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{16,}+",
}
"""Each rule's name and its pattern."""
_SIGNS: Final = (
    *((sign, "github-token") for sign in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    *(("AKIA", "aws-access-key"), ("ASIA", "aws-access-key"), ("sk_", "stripe-key"), ("rk_", "stripe-key")),
    *(("PRIVATE KEY", "pem-private-key"), ("PuTTY-User", "putty-private-key"), ("AGE-SECRET-KEY-", "age-secret-key")),
    *(("aim1-", "aimessage-token"), ("AIza", "gcp-api-key"), ("GOCSPX-", "gcp-oauth-secret")),
    *(("AccountKey=", "azure-storage-key"), ("github_pat_", "github-fine-grained-token"), ("glpat-", "gitlab-token")),
    *(("xox", "slack-token"), ("xapp-", "slack-app-token"), ("hooks.slack", "slack-webhook")),
    *(("whsec_", "stripe-webhook-secret"), ("sk-ant-", "anthropic-key"), ("sk-", "openai-key")),
    *(("sk-", "openai-legacy-key"), ("sk-or-v1-", "openrouter-key"), ("hf_", "huggingface-token")),
    *(("npm_", "npm-token"), ("pypi-AgE", "pypi-token"), ("SG.", "sendgrid-key"), ("eyJ", "jwt")),
)
"""What every secret of a rule holds: most texts hold none of it, and finding that out costs little."""
_MARKS: Final = ("_", "-", "")


def _mark(sign: str) -> str:
    return next(mark for mark in _MARKS if mark in sign)


_BY_MARK: Final = tuple((mark, tuple(pair for pair in _SIGNS if _mark(pair[0]) == mark)) for mark in _MARKS)
"""The same behind a character that they have in common: a text without it is not searched for any of them."""
_SIGN_IN_ANY_CASE: Final = "acce"  # of aws-secret-key: letters that no other character folds to


def require_no_secret(text: str) -> None:
    """Return nothing if *text* holds nothing that looks like a secret. Raises SecretFound, which names the rule."""
    suspected = [name for mark, signs in _BY_MARK if mark in text for sign, name in signs if sign in text]
    if _SIGN_IN_ANY_CASE in text.lower():
        suspected.append("aws-secret-key")
    for name in suspected:
        if re.search(RULES[name], text) is not None:
            raise SecretFound(f"the message looks as if it held a secret ({name}); nothing was sent", rule=name)
