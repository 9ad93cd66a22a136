"""What is taken for a secret, and what is not. The values are made here from parts, so that no scanner takes this file for a leak."""

import base64
import json

import pytest
from agent_kernel.base.credentials import find, masked


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


SECRETS = {
    "AWS access key": ["AKIA" + "IOSFODNN7EXAMPLE", "ASIA" + "Y34FZKBOKMUTVV7A"],
    "GitHub token": ["ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a", "github_pat_" + "11ABCDEFG0" * 4],
    "GitLab token": ["glpat-" + "xY3kd81mzQ_7tRb2wLpe"],
    "Slack token": ["xoxb-" + "123456789012-abcdefGHIJKL", "xapp-" + "1-A012BCDEF-1234567890-abcdef"],
    "Slack webhook": ["hooks.slack.com/services/" + "T00000000/B00000000/" + "X" * 24],
    "Anthropic key": ["sk-" + "ant-api03-" + "Ab1_" * 8],
    "OpenAI key": ["sk-" + "a1B2" * 12, "sk-" + "proj-" + "a1B2_" * 8],
    "Google API key": ["AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q"],
    "Google token": ["GOCSPX-" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9v"],
    "Stripe key": ["sk_" + "live_" + "4eC39HqLyjWDarjtT1zdp7dc"],
    "npm token": ["npm_" + "a1B2c3D4e5F6" * 3],
    "PyPI token": ["pypi-" + "AgEIcHlwaS5vcmcCJ" + "aB3" * 14],
    "Hugging Face token": ["hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ12345678"],
    "SendGrid key": ["SG." + "a1B2c3D4e5F6g7H8i9J0k1" + "." + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V"],
    "DigitalOcean token": ["dop_v1_" + "0a1b" * 16],
    "Telegram token": ["123456789:" + "AA" + "Hk3_" * 8 + "x"],
    "Azure storage key": ["AccountKey=" + "aB3/" * 21 + "=="],
    "JSON Web Token": [f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded({'sub': '1'})}.dBjftJeZ4CVPmB92K27uhbUJU1p1r"],
    "private key": [
        "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIBPAIBAAJBANPQbQ92\nlbeg1Q5JNHSO1\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH " + "PRIVATE KEY-----\\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU",
        "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----\nVersion: 1\n\nlQHYBF",
    ],
    "card number": [
        "4539 5787 6362 1486",
        "4012888888881881", "5500-0055-5555-5559", "3782 822463 10005", "6011000990139424", "2223003122003222",
    ],
    "password in a URL": ["postgres://app:" + "tr0ub4dor@db.example.org/x"],
    "bearer token": ["Authorization: Bearer " + "8f3b2c1d9e7a6f5b"],
    "password or key": [
        "password=" + "Tr0ub4dor&3", "DB_PASSWORD: '" + "s3cr3t-Pa55'", '"api_key": "' + '9f8e7d6c5b4a39281706"',
        "aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY", "my password is " + "hunter2-hunter2",
        "client_secret => " + "q8W7e6R5t4", "Das Passwort ist " + "Sommer2024!", "token: " + "P@ss$w0rd*1",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in SECRETS.items() for text in texts])
def test_a_known_kind_of_secret_is_found_in_the_middle_of_a_sentence(kind, text):
    before, after = "She wrote: ", " and went home."
    found = find(f"{before}{text}{after}")
    assert [one.kind for one in found] == [kind]
    rest = masked(f"{before}{text}{after}", found)
    assert rest.startswith(before[:4])
    assert f"[{kind} removed]" in rest
    secret = f"{before}{text}{after}"[found[0].start : found[0].end]
    assert len(secret) >= 8
    assert secret not in rest


@pytest.mark.parametrize(
    "text",
    [
        "Her phone number is 030 1234 5678 and the order is 1234 5678 9012 3456.",
        "The parcel 4012888888881882 arrived.",  # the last digit is wrong
        "0000 0000 0000 0000",
        "pi is 3.1415926535897932384626",
        "commit 4f2a9c1e8b7d6a5f4e3d2c1b0a9f8e7d6c5b4a39 fixed it",
        "id 550e8400-e29b-41d4-a716-446655440000",
        "password: please choose a new one",
        "The password is incorrect. Reset your password: https://example.org/reset?step=2",
        "password = os.environ['DB_PASSWORD']",
        "token = tokenizer.encode(text)",
        "api_key: <your-api-key>, secret: ${SECRET}, token=$TOKEN",
        "password: ********",
        "The secret: swordfish",
        "sk-learn and sk-some-long-css-class-name-for-buttons",
        "PWD=/home/ada/project2",
        "the header '-----BEGIN RSA PRIVATE KEY-----' and the footer",
        "eyJoaW50.eyJub3Qi.thisisnotatoken",
        "ssh://git@example.org/repo and http://user:password@host",
        "secret: 2024-05-07",
        "arn:aws:secretsmanager:*:*:secret:rds-custom2!*",
        "We met in the AKIAbara district",
    ],
)
def test_what_is_none_is_left_alone(text):
    assert find(text) == []


def test_places_are_in_order_and_none_lies_in_another():
    key = "sk-" + "a1B2" * 12
    text = f"password={key} then AKIA" + "IOSFODNN7EXAMPLE"
    found = find(text)
    assert [(one.kind, text[one.start : one.end][:4]) for one in found] == [
        ("OpenAI key", "sk-a"),
        ("AWS access key", "AKIA"),
    ]


@pytest.mark.parametrize(
    "piece",
    ["a", "1234 ", "password=", "eyJ", "-----BEGIN PRIVATE KEY-----\nABCDEFGHIJ", "sk-", "token: a&", "x://", "eyJaaaa.", "a.", "://",
     "authorization: bearer ", "hooks.slack.com/services/T", "xoxb-", "4111 ", "password is "],
)  # fmt: skip
def test_time_is_linear_in_a_hostile_text(piece):
    """A quadratic rule would take minutes here; the count of steps of the machine is what the whole suite's limit bounds."""
    find(piece * (256 * 1024 // len(piece)))
