import pytest

from libnetwork import options
from resources.errors import ConfigurationError


def test_defaults() -> None:
    settings = options.read({})
    assert settings[options.SCOPE] == "global"
    assert settings[options.INTERFACE_PREFIX] == "cali"
    assert settings[options.CREATE_PROFILES] is True
    assert settings[options.LABEL_ENDPOINTS] is False
    assert settings[options.LABEL_TIMEOUT] == 5.0
    assert settings[options.VETH_MTU] is None
    assert settings[options.NAMESPACE] == "libnetwork"
    assert settings[options.DOCKER_HOST] == "unix:///var/run/docker.sock"
    assert {setting.origin for setting in settings} == {"default"}


def test_calls_end_before_dockers_user_gives_up() -> None:
    settings = options.read({})
    assert settings[options.CALL_TIMEOUT] < 10
    assert settings[options.DOCKER_TIMEOUT] < settings[options.CALL_TIMEOUT]


@pytest.mark.parametrize(("text", "on"), [("false", False), ("FALSE", False), ("no", True), ("true", True)])
def test_profiles_are_made_unless_the_text_is_false(text: str, on: bool) -> None:
    assert options.read({"CALICO_LIBNETWORK_CREATE_PROFILES": text})[options.CREATE_PROFILES] is on


@pytest.mark.parametrize(("text", "on"), [("true", True), ("True", True), ("yes", False), ("1", False), ("", False)])
def test_labels_are_copied_only_if_the_text_is_true(text: str, on: bool) -> None:
    assert options.read({"CALICO_LIBNETWORK_LABEL_ENDPOINTS": text})[options.LABEL_ENDPOINTS] is on


def test_a_bad_label_timeout_is_reported_and_the_default_holds() -> None:
    settings = options.read({"CALICO_LIBNETWORK_LABEL_POLL_TIMEOUT": "soon"})
    assert settings[options.LABEL_TIMEOUT] == 5.0
    assert [(refused.option, refused.value) for refused in settings.refused] == [("label_timeout_seconds", "soon")]


def test_a_label_timeout_as_a_go_duration() -> None:
    assert options.read({"CALICO_LIBNETWORK_LABEL_POLL_TIMEOUT": "1500ms"})[options.LABEL_TIMEOUT] == 1.5


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        ("CALICO_LIBNETWORK_VETH_MTU", "70000", "between 68 and 65535"),
        ("CALICO_LIBNETWORK_VETH_MTU", "big", "integer"),
        ("CALICO_LIBNETWORK_SCOPE", "swarm", "global, local"),
        ("CALICO_LIBNETWORK_IFPREFIX", "eth-", "letters and digits"),
        ("CALICO_LIBNETWORK_IFPREFIX", "thirteenchars", "1 to 12"),
        ("CALICO_LIBNETWORK_NAMESPACE", "Upper", "lower case"),
        ("CALICO_LIBNETWORK_NAMESPACE", "a" * 64, "63"),
        ("DOCKER_HOST", "/var/run/docker.sock", "URL"),
    ],
)
def test_a_bad_value_ends_the_start_and_says_what_is_allowed(key: str, text: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError, match=f"environment: {key} = '{text}' cannot be used: .*{allowed}"):
        options.read({key: text})


def test_what_is_set_says_so() -> None:
    settings = options.read({"CALICO_LIBNETWORK_SCOPE": "LOCAL"})
    assert (settings[options.SCOPE], settings.origin(options.SCOPE)) == ("local", "environment")


def test_options_are_declared_once() -> None:
    names = [option.name for option in options.OPTIONS]
    keys = [key for option in options.OPTIONS for key in option.keys]
    assert len(set(names)) == len(names)
    assert len(set(keys)) == len(keys)
    assert all(option.help for option in options.OPTIONS)
