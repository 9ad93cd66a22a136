import os

import pytest
from agent_kernel.base.errors import HostError
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import MemoryRules, Policy, load_policy


def written(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf8")
    return path


def test_no_file_means_nothing_is_granted(tmp_path):
    policy = load_policy(tmp_path / "config.toml")
    assert policy == Policy()
    assert not policy.grants.folders
    assert not policy.grants.hosts
    assert not policy.grants.packages
    assert not policy.grants.approve_in_host


def test_what_the_operator_wrote_is_what_holds(tmp_path):
    policy = load_policy(
        written(
            tmp_path,
            f'folders = ["{tmp_path}", "{tmp_path}:rw"]\nhosts = ["example.org"]\npackages = true\n'
            "[limits]\nmemory_mb_max = 64\ntimeout_s_max = 5\n",
        )
    )
    assert [(f.path, f.writable) for f in policy.grants.folders] == [(tmp_path, False), (tmp_path, True)]
    assert policy.grants.hosts == ("example.org",)
    assert policy.grants.packages
    assert (policy.limits.memory_mb_max, policy.limits.timeout_s_max) == (64, 5)
    assert policy.limits.processes_max == Limits().processes_max


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("folders = [", "is not TOML"),
        ("folderz = []", "Did you mean 'folders'?"),
        ("hosts = 'example.org'", "hosts must be list"),
        ("hosts = [1]", "list of strings"),
        ("packages = 'yes'", "packages must be bool"),
        ("[limits]\nmemory_mb = 1", "memory_mb_max"),
        ("[limits]\nmemory_mb_max = 'big'", "must be int"),
        ("[limits]\nmemory_mb_max = true", "must be int"),
        ("[limits]\nmemory_mb_max = 0", "above zero"),
        ("folders = ['data']", "not an absolute path"),
        ("folders = ['/no/such/folder']", "does not exist"),
        ("\x00", "is not TOML"),
        ("[memory]\nsecrets = 'hide'", "it is one of refuse, mask, allow"),
        ("[memory]\nsecret = 'mask'", "Did you mean 'secrets'?"),
        ("[memory]\nquarantine = ['internet']", "the channels are web, tool, guest, agent, user"),
        ("[memory]\nquarantine = [[]]", "the channels are"),
    ],
)
def test_a_config_that_is_not_understood_refuses_to_start(tmp_path, text, says):
    with pytest.raises(HostError, match=r"config\.invalid") as caught:
        load_policy(written(tmp_path, text))
    assert says in caught.value.message


def test_a_config_that_cannot_be_read_refuses_to_start(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("folder", "fifo"):
        with pytest.raises(HostError, match=r"config\.invalid"):
            load_policy(tmp_path / name)


def test_memory_has_rules_of_its_own(tmp_path):
    assert load_policy(tmp_path / "config.toml").memory == MemoryRules("mask", frozenset())
    rules = load_policy(written(tmp_path, '[memory]\nsecrets = "refuse"\nquarantine = ["web", "guest"]')).memory
    assert rules == MemoryRules("refuse", frozenset({"web", "guest"}))
