import json
import os

import pytest
from agent_kernel.base.errors import Denied, HostError
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import Folder, Grants, MemoryRules, Policy, load_policy


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


def shared(tmp_path, *names):
    for name in names:
        (tmp_path / name.removesuffix(":rw")).mkdir(parents=True, exist_ok=True)
    return tuple(Folder.parse(f"{tmp_path}/{name}") for name in names)


def test_what_the_file_does_not_name_is_the_command_lines_to_say(tmp_path):
    asked = Grants(shared(tmp_path, "a:rw"), hosts=("example.org",), packages=True, approve_in_host=True)
    assert load_policy(written(tmp_path, "")).granted(asked, tmp_path / "state") == asked


def test_what_a_connection_does_not_ask_for_is_as_the_file_says(tmp_path):
    (folder,) = shared(tmp_path, "a")
    policy = load_policy(written(tmp_path, f'folders = ["{folder}"]\nhosts = ["example.org"]'))
    assert policy.granted(Grants(), tmp_path / "state") == Grants((folder,), ("example.org",))


@pytest.mark.parametrize(
    ("file", "folder", "fine"),
    [
        ('folders = ["{0}/a"]', "a/inner", True),
        ('folders = ["{0}/a"]', "a:rw", False),
        ('folders = ["{0}/a:rw"]', "a", True),
        ('folders = ["{0}/a/inner"]', "a", False),
        ('folders = ["{0}/a"]', "ab", False),
        ('folders = ["{0}/a"]', "a/link", False),
        ("folders = []", "a", False),
    ],
)
def test_a_connection_has_no_folder_beyond_those_of_the_file(tmp_path, file, folder, fine):
    shared(tmp_path, "a/inner", "ab", folder.replace("/link", ""))
    (tmp_path / "a/link").symlink_to(tmp_path / "ab")
    policy = load_policy(written(tmp_path, file.format(tmp_path)))
    asked = Grants(folders=(Folder.parse(f"{tmp_path}/{folder}"),))
    assert (policy.narrowed(asked) == asked) is fine
    if fine:
        assert policy.granted(asked, tmp_path / "state") == asked
    else:
        with pytest.raises(Denied, match=rf"grant\.denied: --folder {tmp_path}/{folder} is more than"):
            policy.granted(asked, tmp_path / "state")


@pytest.mark.parametrize(
    ("file", "asked", "flag"),
    [
        ('hosts = ["example.org"]', Grants(hosts=("example.org", "other.org")), "--allow-host other.org"),
        ("packages = false", Grants(packages=True), "--allow-packages"),
        ("approve_in_host = false", Grants(approve_in_host=True), "--approve-in-host"),
    ],
)
def test_a_connection_that_asks_for_more_than_the_file_is_refused_by_name(tmp_path, file, asked, flag):
    with pytest.raises(Denied) as refused:
        load_policy(written(tmp_path, file)).granted(asked, tmp_path / "state")
    assert refused.value.message.startswith(f"{flag} is more than config.toml")


def test_no_connection_has_a_folder_with_the_state_in_it(tmp_path):
    with pytest.raises(HostError, match="contains the state folder"):
        load_policy(tmp_path / "none.toml").granted(Grants(folders=(Folder(tmp_path),)), tmp_path / "state")


def test_grants_come_back_from_the_wire_as_they_were(tmp_path):
    grants = Grants(shared(tmp_path, "a", "b:rw"), ("example.org",), packages=True)
    (tmp_path / "a").rmdir()
    assert Grants.from_wire(json.loads(json.dumps(grants.to_wire()))) == grants
