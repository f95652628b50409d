"""Keys: found where the job says, fit for a header, and kept out of every text."""

from __future__ import annotations

import base64
import pickle
import re
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from batchrunner.credentials import NO_KEY, Redactor, Secret, is_loopback, read_env_file, refuse_plain_http, resolve
from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchrunner.credentials import Credential

TESS = "https://api.tess.im"
AZURE = "https://*.openai.azure.com"


def found(references: tuple[str, ...] | None, base: Path, **changed: Any) -> tuple[Credential, ...]:
    told: dict[str, Any] = {"variable": "TESS_API_KEY", "base_url": TESS, "public_base_url": TESS, "environ": {}}
    return resolve(references, base=base, **told | changed)


def key_of(credentials: tuple[Credential, ...]) -> str | None:
    (credential,) = credentials
    return None if credential.key is None else credential.key.reveal()


def faults_of(call: Callable[[], object]) -> list[str]:
    with pytest.raises(JobError) as error:
        call()
    return list(error.value.faults)


def test_the_provider_s_own_variable_serves_its_own_address(tmp_path):
    (credential,) = found(None, tmp_path, environ={"TESS_API_KEY": " 12|abc\n"})

    assert credential.key == Secret("12|abc")
    assert (credential.source, credential.label) == ("TESS_API_KEY", "key TESS_API_KEY")


def test_a_missing_variable_says_where_it_was_looked_for(tmp_path):
    (fault,) = faults_of(lambda: found(None, tmp_path))

    assert fault == (
        "TESS_API_KEY is not set, and api.tess.im needs a key; looked for it in the environment; set it there or in an"
        " --env-file, or say in provider.api_key where it is kept; cron and systemd do not read a shell profile"
    )


@pytest.mark.parametrize(
    "base_url",
    [
        "https://proxy.example.com",
        "https://api.tess.im:8443",
        "https://api.tess.im.evil.com",
        "https://api.tess.im@evil.com",
    ],
)
def test_the_variable_is_not_sent_to_another_host(tmp_path, base_url):
    (fault,) = faults_of(lambda: found(None, tmp_path, base_url=base_url, environ={"TESS_API_KEY": "canary"}))

    assert fault.startswith("provider.api_key: expected 'env:NAME', 'file:PATH', 'command:...' or 'none', got nothing;")
    assert "TESS_API_KEY is not sent to" in fault
    assert "canary" not in fault


def test_a_provider_without_public_address_needs_a_reference(tmp_path):
    with pytest.raises(JobError, match="which is not the provider's own address"):
        found(None, tmp_path, public_base_url=None, environ={"TESS_API_KEY": "key"})


def test_a_pattern_of_addresses_stands_for_every_customer_s_own(tmp_path):
    ours, environ = "https://my-name.openai.azure.com", {"TESS_API_KEY": "key"}

    credentials = found(None, tmp_path, base_url=ours, public_base_url=AZURE, environ=environ)

    assert key_of(credentials) == "key"


@pytest.mark.parametrize(
    "base_url",
    [
        "https://openai.azure.com",
        "https://.openai.azure.com",
        "https://a.b.openai.azure.com",
        "https://evil.com%2f.openai.azure.com",
        "https://my-name.openai.azure.com.evil.com",
        "https://my-name.openai.azure.com:8443",
        "https://my-name.openai.azure.com@evil.com",
        "https://evil.com/my-name.openai.azure.com",
        "https://evilopenai.azure.com",
    ],
)
def test_a_pattern_of_addresses_stands_for_one_label_and_no_more(tmp_path, base_url):
    with pytest.raises(JobError, match="which is not the provider's own address"):
        found(None, tmp_path, base_url=base_url, public_base_url=AZURE, environ={"TESS_API_KEY": "canary"})


def test_a_local_server_needs_no_key_but_gets_the_one_that_is_set(tmp_path):
    local = "http://127.0.0.1:8080"

    (without,) = found(None, tmp_path, base_url=local)

    assert (without.key, without.label) == (None, "no key (TESS_API_KEY is not set)")
    assert key_of(found(None, tmp_path, base_url=local, environ={"TESS_API_KEY": "key"})) == "key"


def test_none_means_no_key(tmp_path):
    assert found(("none",), tmp_path, environ={"TESS_API_KEY": "key"}) == NO_KEY


def test_a_named_variable_is_read_whatever_the_host(tmp_path):
    assert key_of(found(("env:OTHER",), tmp_path, base_url="https://x.example", environ={"OTHER": "key"})) == "key"


@pytest.mark.parametrize(("environ", "what"), [({}, "is not set"), ({"OTHER": "  "}, "is empty")])
def test_a_named_variable_that_is_missing_is_a_fault(tmp_path, environ, what):
    (fault,) = faults_of(lambda: found(("env:OTHER",), tmp_path, environ=environ))

    assert fault == (
        f"provider.api_key: OTHER {what}; looked for it in the environment; set it there or in an --env-file;"
        " cron and systemd do not read a shell profile"
    )


def test_a_key_written_where_its_variable_belongs_is_not_shown(tmp_path):
    (fault,) = faults_of(lambda: found(("env:canary0123456789abcdef",), tmp_path))

    assert "canary" not in fault


def test_a_key_file_is_relative_to_the_job_and_may_be_a_link(tmp_path):
    target = tmp_path / "target"
    target.write_text("\ufeffkey-from-file\n")
    target.chmod(0o600)
    (tmp_path / "key").symlink_to(target)

    (credential,) = found(("file:key",), tmp_path)

    assert credential.key == Secret("key-from-file")
    assert (credential.source, credential.warnings) == ("file:key", ())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_can_read_is_a_warning(tmp_path, mode):
    file = tmp_path / "key"
    file.write_text("key")
    file.chmod(mode)

    (credential,) = found(("file:key",), tmp_path)

    assert credential.warnings == (f"{file} holds a key and others can read it (mode {mode:04o}); chmod 600 it",)


def test_a_key_file_that_everyone_can_write_is_a_fault(tmp_path):
    file = tmp_path / "key"
    file.write_text("canary")
    file.chmod(0o602)

    assert faults_of(lambda: found(("file:key",), tmp_path)) == [
        f"provider.api_key: {file} holds secrets and everyone can write to it (mode 0602); chmod 600 it"
    ]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (None, "no such file or directory"), (b"", "is empty"), (b"\xff\xfe", "expected UTF-8"),
        (b"x" * 70_000, "expected at most 65536 bytes"),
    ],
)  # fmt: skip
def test_a_key_file_without_a_key_is_a_fault(tmp_path, data, what):
    if data is not None:
        (tmp_path / "key").write_bytes(data)
        (tmp_path / "key").chmod(0o600)

    (fault,) = faults_of(lambda: found(("file:key",), tmp_path))

    assert fault.startswith(f"provider.api_key: {tmp_path / 'key'}")
    assert what in fault


def command(code: str) -> str:
    return f"command:{shlex.join([sys.executable, '-c', code])}"


def test_a_command_s_output_is_the_key(tmp_path):
    code = "import os; print(os.environ['PART'] + os.path.basename(os.getcwd()))"

    (credential,) = found((command(code),), tmp_path, environ={"PART": "key-"})

    assert credential.key == Secret(f"key-{tmp_path.name}")
    assert credential.source == f"command:{sys.executable}"


def test_a_command_runs_without_a_shell(tmp_path):
    assert key_of(found(("command:echo a;b$HOME",), tmp_path)) == "a;b$HOME"


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        (command("print('canary'); raise SystemExit(3)"), "ended with exit status 3"),
        (command("import time; time.sleep(60)"), "printed no key within 3 s"),
        (command(""), "printed nothing; expected a key"),
        ("command:no-such-program-anywhere --token canary", "cannot be run: no such file or directory"),
        ("command:echo 'canary", "no closing quotation"),
        ("command:''", "cannot be run"),
    ],
)
def test_a_command_that_brings_no_key_is_a_fault(tmp_path, reference, what):
    (fault,) = faults_of(lambda: found((reference,), tmp_path, command_timeout_s=3))

    assert fault.startswith("provider.api_key: command:")
    assert what in fault
    assert "canary" not in fault


def test_a_doubled_prefix_is_dropped(tmp_path):
    assert key_of(found(None, tmp_path, environ={"TESS_API_KEY": "Bearer sk-1"})) == "sk-1"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("canary one", "a space at position 7"), ("canary\nb", "a line break at position 7"),
        ("canary\x07", "a control character at position 7"), ("canary\u20ac", "a character beyond ASCII at position 7"),
    ],
)  # fmt: skip
def test_a_key_no_header_can_carry_is_a_fault_that_hides_it(tmp_path, text, what):
    (fault,) = faults_of(lambda: found(("env:OTHER",), tmp_path, environ={"OTHER": text}))

    assert fault == f"provider.api_key: the key from OTHER holds {what}, which no header can carry"


def test_a_literal_key_is_refused_and_not_shown(tmp_path):
    (fault,) = faults_of(lambda: found(("sk-canary",), tmp_path))

    assert "canary" not in fault
    assert fault.endswith("a literal key is refused")


def test_several_keys_keep_their_order_and_all_faults_are_told(tmp_path):
    environ = {"A": "key-a", "B": "key-b"}

    assert [each.label for each in found(("env:B", "env:A"), tmp_path, environ=environ)] == ["key B", "key A"]
    assert len(faults_of(lambda: found(("env:C", "env:A", "file:none"), tmp_path, environ=environ))) == 2


def test_one_key_twice_is_a_fault(tmp_path):
    assert faults_of(lambda: found(("env:A", "env:B"), tmp_path, environ={"A": "key", "B": "key "})) == [
        "provider.api_key: A and B hold the same key; it has one allowance, not two"
    ]


def test_labels_differ(tmp_path):
    credentials = found(("command:echo a", "command:echo b"), tmp_path)

    assert [each.label for each in credentials] == ["key command:echo #1", "key command:echo #2"]


def test_a_secret_does_not_show_itself(tmp_path):
    (credential,) = found(None, tmp_path, environ={"TESS_API_KEY": "canary"})
    secret = credential.key

    assert "canary" not in f"{secret} {secret!r} {credential!r} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1",
        "http://LOCALHOST./v1",
        "http://a.localhost",
        "http://127.0.0.1",
        "http://127.9.9.9:80",
        "http://[::1]:8080/v1",
        "http://[::ffff:127.0.0.1]",
    ],
)
def test_loopback_addresses_are_known(url):
    assert is_loopback(url)
    refuse_plain_http(url, allow_http=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1",
        "http://localhost.evil.com",
        "http://127.0.0.1.evil.com",
        "http://0.0.0.0",
        "http://evil.com#localhost",
        "http://localhost@evil.com",
        "http://evil.com@localhost",
        "http://127.0.0.1\\@evil.com",
        "http://[::1",
        "http://[::2]",
        "",
    ],
)
def test_a_key_does_not_travel_unencrypted_to_another_machine(url):
    assert not is_loopback(url)
    with pytest.raises(
        JobError, match=r"could read the key over plain http; use https, or set provider\.allow_http = true"
    ):
        refuse_plain_http(url, allow_http=False)
    refuse_plain_http(url, allow_http=True)


def test_https_may_carry_a_key():
    assert refuse_plain_http("https://api.tess.im", allow_http=False) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("key 12|canary-abc refused", "key *** refused"),
        ("?key=12%7Ccanary-abc&x", "?key=***&x"),
        ("12|CANARY-ABC", "***"),
        ("Authorization: Bearer eyJother", "Authorization: Bearer ***"),
        ('{"a": "bearer xyz", "b": 1}', '{"a": "bearer ***", "b": 1}'),
        ("Bearer 12|canary-abc", "Bearer ***"),
        ("ok of nothing", "ok of nothing"),
    ],
)
def test_a_redactor_leaves_no_key_in_a_text(text, clean):
    assert Redactor([Secret("12|canary-abc"), Secret("ok"), None])(text) == clean


def test_a_redactor_takes_the_secret_half_and_longer_keys_first():
    redact = Redactor(
        [Secret("abcdef"), Secret("abcdef-more"), Secret("77|0123456789canary0123456789"), Secret('quo"ted')]
    )

    assert redact("abcdef-more, abcdef") == "***, ***"
    assert redact("token 0123456789canary0123456789") == "token ***"
    assert redact(r'{"key": "quo\"ted"}') == '{"key": "***"}'


@pytest.mark.parametrize(
    "text",
    [
        "cut in it: 12|Canary/key+0123",
        "cut by a word 12|Canary/key+0… and on",
        "İ 12|Canary/key+0123456789",
        'from PHP: "12|Canary\\/key+0123456789"',
        base64.b64encode(b"Authorization: Bearer 12|Canary/key+0123456789!").decode(),
        base64.urlsafe_b64encode(b"me:12|Canary/key+0123456789").decode(),
    ],
)
def test_a_redactor_knows_a_key_in_other_clothes_and_by_its_start(text):
    shown = Redactor([Secret("12|Canary/key+0123456789"), Secret("12|Canary/key+of another")])(text)

    assert "***" in shown
    assert not re.search("canary|key|0123|" + base64.b64encode(b"Canary/key+").decode()[4:12], shown, re.IGNORECASE)


def test_an_environment_file_is_read(tmp_path):
    file = tmp_path / "run.env"
    file.write_bytes(
        b'\xef\xbb\xbf# keys\r\nexport A=1\r\n\n  B = two words # said\nC=\'sin#gle $A\' # x\nD="a\\n\\"b\\" #"\n'
        b'E=\nF=a#b\nG=12|x=y\nH={"j": 1}\nA=2\n'
    )
    file.chmod(0o600)

    assert read_env_file(file) == {
        "A": "2", "B": "two words", "C": "sin#gle $A", "D": 'a\n"b" #', "E": "", "F": "a#b", "G": "12|x=y",
        "H": '{"j": 1}',
    }  # fmt: skip


def test_every_faulty_line_of_an_environment_file_is_named_without_its_value(tmp_path):
    file = tmp_path / "run.env"
    file.write_text('A=1\ncanary\n1B=canary\nC=\'canary\nD="canary"x\n')
    file.chmod(0o600)

    faults = faults_of(lambda: read_env_file(file))

    assert faults == [
        f"{file} line {number}: expected KEY=VALUE, with the quotes of the value closed" for number in (2, 3, 4, 5)
    ]


def test_an_environment_file_that_is_missing_or_open_to_all_is_a_fault(tmp_path):
    file = tmp_path / "run.env"

    assert faults_of(lambda: read_env_file(file)) == [f"{file}: no such file or directory"]
    file.write_text("A=1")
    file.chmod(0o666)
    assert "everyone can write to it (mode 0666)" in faults_of(lambda: read_env_file(file))[0]


def test_many_tokens_of_a_long_run_are_learnt_without_a_halt():
    """A day of five-minute tokens: each is learnt inside the event loop."""
    redact = Redactor([])
    tokens = [f"{number:04d}" + "x" * 1_000 for number in range(288)]
    began = time.process_time()
    for token in tokens:
        redact.learn(Secret(token))

    assert time.process_time() - began < 5
    assert redact(f"a {tokens[0]} b {tokens[-1].upper()}") == "a *** b ***"
