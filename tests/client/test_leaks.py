"""The secret scan: what it finds, what it leaves alone, and that no text makes it slow."""

import re
from random import Random

import pytest

from aimessage.client.leaks import RULES, require_no_secret
from aimessage.errors import SecretFound
from support.steps import count_steps

A, H = "Ab3" * 40, "abcdef0123456789" * 10
SECRETS = {
    "pem-private-key": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk",
    "putty-private-key": "PuTTY-User-Key-File-3: ssh-ed25519",
    "age-secret-key": "AGE-SECRET-KEY-1" + "Q" * 58,
    "aimessage-token": "aim1-" + "abcd2345" * 8,
    "aws-access-key": "AKIA" + "ABCDEFGH234567AB",
    "aws-secret-key": "AWS_SECRET_ACCESS_KEY = " + A[:40],
    "gcp-api-key": "AIza" + A[:35],
    "gcp-oauth-secret": "GOCSPX-" + A[:28],
    "azure-storage-key": "AccountName=x;AccountKey=" + A[:86] + "==",
    "github-token": "ghp_" + A[:36],
    "github-fine-grained-token": "github_pat_" + A[:82],
    "gitlab-token": "glpat-" + A[:20],
    "slack-token": "xoxb-123456789012-" + A[:24],
    "slack-app-token": "xapp-1-A1B2C3-" + A[:40],
    "slack-webhook": "https://hooks.slack.com/services/T12345678/B12345678/" + A[:24],
    "stripe-key": "sk_live_" + A[:24],
    "stripe-webhook-secret": "whsec_" + A[:32],
    "anthropic-key": "sk-ant-api03-" + A[:90],
    "openai-key": "sk-proj-" + A[:48],
    "openai-legacy-key": "sk-" + A[:48],
    "openrouter-key": "sk-or-v1-" + H[:64],
    "huggingface-token": "hf_" + "aBcD" * 10,
    "npm-token": "npm_" + A[:36],
    "pypi-token": "pypi-AgEIcHlwaS5vcmc" + A[:60],
    "sendgrid-key": "SG." + A[:22] + "." + A[:43],
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + A[:43],
}
HOSTILE = {
    "of a prefix": "eyJ",
    "of starts": " eyJ",
    "of segments": "eyJAAAAAAAA.",
    "of almost a webhook": "hooks.slack.com/services/TAAAAAAAA/",
    "of almost a key": "sk-",
    "of separators": "aws_secret_access_key    ",
    "of dashes": "-----BEGIN ",
    "of one character": "A",
    "of almost PEM": "-----BEGIN RSA PRIVATE KE",
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("around", ["{}", "key={} ok", '{{"k": "{}"}}', "line\n{}\nline"])
def test_a_secret_is_refused_by_the_name_of_its_rule(rule: str, around: str) -> None:
    with pytest.raises(SecretFound) as refusal:
        require_no_secret(around.format(SECRETS[rule]))
    assert refusal.value.rule == rule
    assert rule in str(refusal.value)
    assert SECRETS[rule] not in str(refusal.value)


def innocent() -> list[str]:
    """Return texts as agents send them, none of which is a secret."""
    dice = Random(7)
    hexadecimal = [dice.randbytes(size).hex() for size in (16, 20, 32, 64) for _ in range(200)]
    base64 = ["".join(dice.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=size))
              for size in (40, 64, 200, 4000) for _ in range(100)]  # fmt: skip
    uuids = [f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:32]}" for h in hexadecimal[:200]]
    prose = [
        "Please rotate the AWS key and put the private key into the vault; never mail sk-anything.",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ alice@host",
        "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
        "set AWS_SECRET_ACCESS_KEY in the environment; AKIA is the prefix of an access key id",
        "the risk-assessment-of-the-quarterly-report-and-everything-else is in docs/task-list.md",
        "sk-learn and npm_config_registry, hf_hub_download, ghp_pages, xoxo, eyJust a word",
        "curl https://hooks.slack.com/services/TEAM/CHANNEL/TOKEN # fill these in",
        "commit " + "0123456789abcdef" * 2 + "01234567 Merge branch 'main'",
        "name~abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst",
        "sha256:" + "ab" * 32,
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ",
    ]
    return [*hexadecimal, *base64, *uuids, *prose]


def test_ordinary_texts_pass() -> None:
    for text in innocent():
        require_no_secret(text)


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("rule", RULES)
def test_twice_the_text_is_at_most_twice_the_work(rule: str, unit: str) -> None:
    once, twice = (count_steps(RULES[rule], (unit * size)[:size]) for size in (2_000, 4_000))
    assert twice <= 2.1 * once
    assert once <= 60 * 2_000


def test_the_count_of_steps_tells_a_pattern_that_is_not_linear() -> None:
    slow = r"A{1,}+B"
    once, twice = count_steps(slow, "A" * 500), count_steps(slow, "A" * 1_000)
    assert twice > 3.5 * once


@pytest.mark.parametrize("rule", RULES)
def test_the_counting_matcher_agrees_with_the_real_one(rule: str) -> None:
    for text in (SECRETS[rule], *HOSTILE.values()):
        found: list[bool] = []
        count_steps(RULES[rule], text, found)
        assert bool(found) == bool(re.search(RULES[rule], text))


def test_a_full_body_of_each_hostile_kind_is_scanned() -> None:
    for unit in HOSTILE.values():
        require_no_secret((unit * 65_536)[:65_536])
