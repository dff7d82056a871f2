"""Settings are read once, checked whole, and tell no secret."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import httpx2
import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from adapters.slack.settings import KEY_MAKER
from bot.app.documents import TABLE, example, table
from bot.app.platforms import all_specs, load_settings, remote_specs
from bot.text.prompt import SystemPrompt
from config.settings import PLACEHOLDERS, Settings, SettingsError, hand_on, variables
from tests.support.at_work import make_turn
from tests.support.settings import settings_of, value_of

EXAMPLE = Path(__file__).parents[2] / ".env.example"
NOWHERE = Path("no-such-file")
STORE_KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="
SLACK_APP = (
    "SLACK_CLIENT_ID=1.2 SLACK_CLIENT_SECRET=client-s3cret SLACK_PUBLIC_URL=https://bot.example "
    f"SLACK_STORE_KEY={STORE_KEY}"
)
GGUF = "is not a file, nor a name at Hugging Face such as owner/name:Q4_K_M"
LAYERS = "is neither auto (as many as fit) nor a number: 0 means none, 999 means all"
SHARDS = "is not like 0-3/8 or 4/8: the first, the last, and how many there are"
TOO_LONG = "x" * 300


def mistakes(environment: dict[str, str], env_file: Path = NOWHERE) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings(environment, env_file)
    return tuple(str(caught.value).splitlines())


def mistakes_in(folder: Path, text: str) -> tuple[str, ...]:
    """Return the mistakes of a file with this text."""
    (folder / ".env").write_text(text, encoding="utf-8")
    return mistakes({}, folder / ".env")


def words(text: str) -> list[str]:
    return text.split()


def test_nothing_set_is_enough(tmp_path: Path) -> None:
    assert remote_specs(settings_of()) == []
    # Some people's virtual environment is called .env.
    for env_file in (NOWHERE, tmp_path):
        assert load_settings({}, env_file) == settings_of()


def test_every_value_arrives_in_its_type(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    text = """
        MODEL_FALLBACKS=a/b,c/d, GPU_LAYERS=12 LOCAL_THREADS=3 MAX_TOKENS=100 TEMPERATURE=0 TOP_P=1
        REDIS_URL=unix:///run/redis?db=1 DISCORD_THREADS=OFF DISCORD_TOKEN=x DISCORD_SHARDS=2-3/8
        DISCORD_GATEWAY_URL=ws://127.0.0.1:1 PORT=0 LOG_LEVEL=DEBUG LEASE_SECONDS=0.3
    """
    environment = dict(word.split("=", 1) for word in words(text))
    environment |= {"LOCAL_MODEL_PATH": str(tmp_path / "model.gguf"), "DATA_DIR": str(tmp_path)}

    settings = load_settings(environment, NOWHERE)

    assert settings == settings_of(
        model_fallbacks=("a/b", "c/d"),
        local_model_path=tmp_path / "model.gguf",
        gpu_layers=12,
        local_threads=3,
        max_tokens=100,
        temperature=0.0,
        top_p=1.0,
        redis_url="unix:///run/redis?db=1",
        data_dir=tmp_path,
        discord_threads=False,
        discord_token="x",
        discord_shards=((2, 3), 8),
        discord_gateway_url="ws://127.0.0.1:1",
        port=0,
        log_level="debug",
        lease_seconds=0.3,
    )


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("MAX_TOKENS=1\nPORT=2\n")

    settings = load_settings({"MAX_TOKENS": "3"}, env_file)

    assert (settings.max_tokens, settings.port, value_of(settings, "WEB_PORT")) == (3, 2, 5006)


def test_an_empty_value_counts_as_none(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("MAX_TOKENS=7\nPORT=\nDATA_DIR='  '\n")

    settings = load_settings({"MAX_TOKENS": " ", "LOG_LEVEL": ""}, env_file)

    assert settings == settings_of(max_tokens=7)


def test_a_file_is_taken_as_it_was_written(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(
        '\ufeffHF_TOKEN=hf_${HOME}$x # mine\nexport SYSTEM_PROMPT="Grüße\nalle"\n', encoding="utf-8"
    )

    settings = load_settings({}, env_file)

    assert settings.hf_token == "hf_${HOME}$x"
    assert settings.system_prompt == "Grüße\nalle"


def test_all_mistakes_are_reported_at_once() -> None:
    found = mistakes(
        {
            "MAX_TOKENS": "many",
            "TOP_P": "0",
            "TEMPERATURE": "nan",
            "PORT": "65536",
            "LEASE_SECONDS": "inf",
            "DISCORD_THREADS": "perhaps",
        }
    )

    assert found == (
        "MAX_TOKENS='many' is not a whole number",
        "TEMPERATURE='nan' is not from 0 to 2",
        "TOP_P='0' is not from 0.0001 to 1",
        "PORT='65536' is not from 0 to 65535",
        "LEASE_SECONDS='inf' is not from 0.1 to 3600",
        "DISCORD_THREADS='perhaps' is neither on nor off",
    )


@pytest.mark.parametrize(
    "sentence",
    [
        f"GPU_LAYERS='all' {LAYERS}",
        f"GPU_LAYERS='-1' {LAYERS}",
        "LOCAL_THREADS='0' is not from 1 to 512",
        "MAX_TOKENS='0' is not from 1 to 10000000",
        "REPLY_TIMEOUT='soon' is not a number",
        "REPLY_TIMEOUT='-1' is not from 0.1 to 86400",
        "MODELS='Fast=' has 'Fast=' in it, which is not like Label=name (what it is for)",
        "MODELS='a/b c' has a blank or a special character in it",
        "MODELS='A=x,a=y' names a model, or uses a label, twice",
        "FEEDBACK='maybe' is none of auto, on and off",
        "LOG_LEVEL='loud' is none of debug, info, warning, error",
        f"LOCAL_MODEL_PATH='no-such' {GGUF}",
        f"DATA_DIR='{__file__}' is not a folder",
        f"LOCAL_MODEL_PATH='{TOO_LONG}' cannot be used: File name too long",
        f"DATA_DIR='{TOO_LONG}' cannot be used: File name too long",
        "DATA_DIR='~nosuch/x' cannot be used: there is no such home",
        "MODEL_ID='two words' has a blank or a special character in it",
        "MODEL_URL='localhost' does not begin with http:// or https://",
        "MODEL_URL='http://' names no server",
        "REDIS_URL='http://here' does not begin with redis:// or rediss:// or unix://",
        "REDIS_URL='unix://' names no server",
        "REDIS_URL='redis://here/x' names a database that is no number",
        "REDIS_URL='redis+sentinel://a:1,b:2/main/x' names a database that is no number",
        "REDIS_URL='redis+sentinel://a,,b/main' names no server",
        "REDIS_URL='redis+sentinel://a,b/0/1/2' names a database that is no number",
        "REDIS_URL='redis+sentinel://a,b' lacks the primary's name, as in "
        "redis+sentinel://HOST,HOST/NAME/0",
        "REDIS_REPLICAS='all' is not a whole number",
        "MODEL_URL='http://a..b/v1' is not a host name or an IP address",
        "HOST='a..b' is not a host name or an IP address",
        f"DISCORD_SHARDS='all' {SHARDS}",
        f"DISCORD_SHARDS='3-8/8' {SHARDS}",
        f"DISCORD_SHARDS='0/0' {SHARDS}",
        "DISCORD_GATEWAY_URL='https://here' does not begin with ws:// or wss://",
    ],
)
def test_a_mistake_names_the_variable_and_its_value(sentence: str) -> None:
    ((name, value),) = re.findall(r"^(\w+)='(.*?)' ", sentence)

    assert mistakes({name: value}) == (sentence,)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "REDIS_URL",
            "redis://here/0?foo=bar",
            "REDIS_URL='redis://here/0?foo=***' has an option that is none of db, username, "
            "password, client_name, protocol, max_connections, health_check_interval, "
            "socket_keepalive",
        ),
        (
            "REDIS_URL",
            "http://bot:s3cret@here:1/0",
            "REDIS_URL='http://***@here:1/0' does not begin with redis:// or rediss:// or unix://",
        ),
        (
            "SLACK_API_URL",
            "http://bot:s3cret@here/",
            "SLACK_API_URL='http://***@here/' holds a user name, "
            "which cannot be sent beside the platform's token",
        ),
        ("WEB_PASSWORD", "short", "WEB_PASSWORD is too easy to guess: take at least 8 characters"),
        ("HISTORY_DAYS", "9" * 500, f"HISTORY_DAYS='{'9' * 400}…' is not from 0 to 36500"),
        (
            "SYSTEM_PROMPT",
            "caf\udce9",
            "SYSTEM_PROMPT='caf\\udce9' is no text: it has a NUL or a byte that is not UTF-8",
        ),
    ],
)
def test_a_mistake_shows_a_value_only_in_part(name: str, value: str, sentence: str) -> None:
    assert mistakes({name: value}) == (sentence,)


HOSTILE = (
    *("\0", "a\0b", "\ud83d", "caf\udce9", "\x1b[2J", "\u202e", " ", "-1", "0", "1e400", "nan"),
    *("-inf", "9" * 5000, "x" * 100_000, "٣", "1_0", "0-99999/99999", "1" * 5000 + "/2"),
    *("http://[", "http://[::1", "http://a:b:c@d", "http://a:99999", "redis://%00", "unix://\0"),
    *("redis://h?db=x", "redis://h?&&=", "rediss://h?ssl_cert_reqs=\ud800", "ws://u:p@h", "//"),
    *("~nosuch/x", "/dev/null", "/dev/full/x", "/proc/self/mem", "..", "a/" * 3000, ":"),
)
VALUES = (
    st.sampled_from(HOSTILE)
    | st.text(st.characters())
    | st.text("0123456789-+./:@%?#&=[]~ exnaif\0\ud800", max_size=30)
    | st.builds("{}://{}".format, st.sampled_from(["http", "redis", "unix", "ws"]), st.text())
)


def read(environment: dict[str, str]) -> Settings | tuple[str, ...]:
    try:
        return load_settings(environment, NOWHERE)
    except SettingsError as error:
        return tuple(str(error).splitlines())


@given(name=st.sampled_from(list(variables(all_specs()))), value=VALUES)
def test_every_value_of_a_setting_is_taken_or_refused_by_name(name: str, value: str) -> None:
    found = read({name: value})

    if isinstance(found, Settings):
        assert re.search("[\0\ud800-\udfff]", repr(found)) is None
    else:
        assert all(name in mistake and mistake.isprintable() for mistake in found)


@given(
    name=st.sampled_from(["MODEL_URL", "SLACK_API_URL", "DISCORD_API_URL", "DISCORD_GATEWAY_URL"]),
    rest=st.text("abz019-._~:/?#[]@!$&'()*+,;=%"),
)
def test_an_address_that_is_taken_is_one_for_the_libraries(name: str, rest: str) -> None:
    scheme = "ws" if name == "DISCORD_GATEWAY_URL" else "http"

    found = read({name: f"{scheme}://{rest}"})

    if isinstance(found, Settings):
        address = value_of(found, name)
        assert httpx2.URL(address).host
        assert yarl.URL(address).host


def test_prices_are_for_a_million_tokens_read_and_written_of_each_model() -> None:
    found = load_settings({"PRICES": "org/small=0.2/0.6, large one=1 / 3"}, NOWHERE)

    assert found.prices == (("org/small", 0.2, 0.6), ("large one", 1.0, 3.0))


@pytest.mark.parametrize(
    ("variables", "mistake"),
    [
        ({"PRICES": "small=0.2"}, "PRICES='small=0.2' has 'small=0.2' in it, which is not like"),
        ({"PRICES": "small=-1/2"}, "which is not like NAME=0.2/0.6"),
        ({"PRICES": "small=1e9/2"}, "which is not like NAME=0.2/0.6"),
        ({"PRICES": "=1/2"}, "which is not like NAME=0.2/0.6"),
        ({"PRICES": "a=1/2,a=2/3"}, "has a twice"),
        ({"MONEY_PER_MONTH": "nan", "PRICES": "a=1/2"}, "is not from 0 to"),
        ({"SERVER_MONEY_PER_MONTH": "5"}, "SERVER_MONEY_PER_MONTH needs PRICES beside it"),
    ],
)
def test_prices_and_money_that_cannot_be_meant_are_refused(
    variables: dict[str, str], mistake: str
) -> None:
    (found,) = mistakes(variables)

    assert mistake in found


def test_models_have_labels_and_the_first_answers_if_no_other_is_named() -> None:
    text = (
        "Fast = mistralai/small:fastest (quick, for most), Very clever=Qwen/large,plain (plain) ,"
        "Mistral (old :)=mistral"
    )

    first = load_settings({"MODELS": text}, NOWHERE)
    named = load_settings({"MODELS": text, "MODEL_ID": "another"}, NOWHERE)

    assert first.models == (
        ("mistralai/small:fastest", "Fast", "quick, for most"),
        ("Qwen/large", "Very clever", ""),
        ("plain", "plain", "plain"),
        ("mistral", "Mistral (old :)", ""),
    )
    assert (first.model_id, named.model_id) == ("mistralai/small:fastest", "another")


@pytest.mark.parametrize(
    "url",
    [
        *("redis://here:1/?db=1", "redis://here:1/?client_name=parley&protocol=3"),
        *("redis://here:1/?max_connections=20", "rediss://here?ssl_cert_reqs=none"),
        *("redis+sentinel://a,b:1,[::1]:2/main", "redis+sentinel://u:p,q@a,b/my-main.1/3"),
        "rediss+sentinel://a/main?sentinel_username=u&sentinel_password=p&ssl_ca_certs=c",
    ],
)
def test_options_of_an_address_that_redis_knows_are_taken(url: str) -> None:
    assert load_settings({"REDIS_URL": url}, NOWHERE).redis_url == url


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder: run as somebody else")
@pytest.mark.parametrize("name", ["DATA_DIR", "LOCAL_MODEL_PATH"])
def test_a_path_in_a_folder_that_may_not_be_entered_is_a_mistake(name: str, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)

    found = mistakes({name: str(closed / "x")})

    assert found == (f"{name}='{closed / 'x'}' cannot be used: Permission denied",)


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (
            "MAX_TOKENS=512 CONTEXT_TOKENS=512",
            "MAX_TOKENS=512 leaves no room for a question in CONTEXT_TOKENS=512",
        ),
        ("SLACK_APP_TOKEN=xapp-1", "SLACK_APP_TOKEN needs SLACK_BOT_TOKEN beside it"),
        ("SLACK_SIGNING_SECRET=1", "SLACK_SIGNING_SECRET needs SLACK_BOT_TOKEN beside it"),
        ("SLACK_CLIENT_SECRET=1", "SLACK_CLIENT_SECRET needs SLACK_CLIENT_ID beside it"),
        (f"SLACK_STORE_KEY={STORE_KEY}", "SLACK_STORE_KEY needs SLACK_CLIENT_ID beside it"),
        (
            f"SLACK_BOT_TOKEN=xoxb-1 {SLACK_APP}",
            "SLACK_BOT_TOKEN and SLACK_CLIENT_ID are two ways into a workspace: set one of them",
        ),
        (
            SLACK_APP.replace("SLACK_STORE_KEY", "MODEL_ID"),
            f"SLACK_CLIENT_ID needs SLACK_STORE_KEY beside it; this makes one: {KEY_MAKER}",
        ),
        ("SLACK_STORE_KEY=short", f"SLACK_STORE_KEY is no key; this makes one: {KEY_MAKER}"),
        ("DISCORD_SHARDS=0/1", "DISCORD_SHARDS needs DISCORD_TOKEN beside it"),
        ("MODEL_API_KEY=x", "MODEL_API_KEY needs MODEL_URL beside it"),
        (f"LOCAL_MMPROJ_PATH={__file__}", "LOCAL_MMPROJ_PATH needs LOCAL_MODEL_PATH beside it"),
        ("WEB_OIDC_CLIENT_ID=x", "WEB_OIDC_CLIENT_ID needs WEB_OIDC_ISSUER beside it"),
        (
            "WEB_PROXY_ADDRESS=10.0.0.1",
            "WEB_PROXY_ADDRESS needs WEB_PROXY_HEADER, or another way to sign in, beside it",
        ),
        (
            "ALLOWED_PEOPLE=U0123ABCD,123456789012345 BLOCKED_PEOPLE=U0123ABCD",
            "ALLOWED_PEOPLE and BLOCKED_PEOPLE both name U0123ABCD",
        ),
        (
            "LEAVE_OTHER_SERVERS=on ALLOWED_SERVERS=T0123ABCD",
            "LEAVE_OTHER_SERVERS=on needs a Discord server in ALLOWED_SERVERS",
        ),
        (
            "MODEL_ID=demo MODEL_URL=http://here",
            "MODEL_ID=demo and MODEL_URL are two ways to a model: set one of them",
        ),
        (
            f"LOCAL_MODEL_PATH={__file__} TRANSFORMERS_MODEL=some/model",
            "LOCAL_MODEL_PATH and TRANSFORMERS_MODEL are two ways to a model: set one of them",
        ),
        # A refused value is one mistake and no second.
        ("CONTEXT_TOKENS=few MAX_TOKENS=99999", "CONTEXT_TOKENS='few' is not a whole number"),
    ],
)
def test_settings_that_do_not_fit_together_are_one_mistake(assignments: str, sentence: str) -> None:
    environment = dict(word.split("=", 1) for word in words(assignments))

    assert mistakes(environment) == (sentence,)


@pytest.mark.parametrize(
    ("name", "value"), [("MODEL_URL", "http://here"), ("LOCAL_MODEL_PATH", __file__)]
)
def test_a_token_may_stand_beside_another_way_to_a_model(name: str, value: str) -> None:
    settings = load_settings({"HF_TOKEN": "hf_1", name: value}, NOWHERE)

    assert settings.hf_token == "hf_1"


def test_exchanged_slack_tokens_are_reported_without_their_values() -> None:
    found = mistakes({"SLACK_BOT_TOKEN": "xapp-s3cret", "SLACK_APP_TOKEN": "xoxb-s3cret"})

    assert found == (
        "SLACK_BOT_TOKEN is an app-level token: it belongs in SLACK_APP_TOKEN",
        "SLACK_APP_TOKEN is a bot token: it belongs in SLACK_BOT_TOKEN",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "hf_s3 cret"),
        ("DISCORD_TOKEN", "s3cret…"),
        ("REDIS_URL", "redis://s3cret:s3cret@here:port"),
        ("REDIS_URL", "redis://:s3#cret@here"),
        ("REDIS_URL", "redis://:s3cret"),
        ("REDIS_URL", "http://bot:s3cret@here"),
        ("REDIS_URL", "http://here?password=s3cret"),
        ("MODEL_URL", "ftp://bot:s3@cret@here"),
        ("DISCORD_API_URL", "ftp://bot:s3cret@here"),
        ("DISCORD_API_URL", "http://bot:s3cret@here"),
        ("SLACK_API_URL", "http://s3cret@here"),
        ("REDIS_URL", "redis://here?foo=s3cret"),
        ("REDIS_URL", "redis://:s3cret@here?retry=x"),
        ("REDIS_URL", "redis://here?sentinel_password=s3cret"),
        ("REDIS_URL", "redis+sentinel://bot:s3@cret@a,b/main?sentinel_password=s3cret&foo=s3cret"),
        ("REDIS_URL", "redis+sentinel://bot:s3#cret@a,b/main"),
        ("REDIS_URL", "redis+sentinel://a:s3cret,b/main"),
    ],
)
def test_a_mistake_shows_no_secret(name: str, value: str) -> None:
    (mistake,) = mistakes({name: value})

    assert name in mistake
    assert "s3" not in mistake
    assert "cret" not in mistake


def test_the_written_form_of_settings_holds_no_secret() -> None:
    secrets = {"MODEL_URL": "http://a:s3cret@here", "REDIS_URL": "redis://:s3cret@here"}
    secrets |= dict.fromkeys(("HF_TOKEN", "MODEL_API_KEY", "DISCORD_TOKEN"), "s3cret")
    secrets |= dict.fromkeys(("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"), "s3cret")

    settings = load_settings(secrets, NOWHERE)

    assert "s3cret" not in repr(settings)
    assert [spec.name for spec in remote_specs(settings)] == ["discord", "slack"]


def test_each_key_of_the_store_is_a_secret() -> None:
    environment = dict(word.split("=", 1) for word in words(SLACK_APP))
    newer = STORE_KEY.replace("c2V", "abc")

    settings = load_settings({**environment, "SLACK_STORE_KEY": f"{newer},{STORE_KEY}"}, NOWHERE)

    assert {newer, STORE_KEY, "client-s3cret"} <= {*settings.secrets}
    assert "s3cret" not in repr(settings)
    assert STORE_KEY not in repr(settings)


def test_the_command_that_makes_a_key_makes_one() -> None:
    made = subprocess.run(KEY_MAKER, shell=True, capture_output=True, text=True, check=True)

    environment = dict(word.split("=", 1) for word in words(SLACK_APP))
    load_settings({**environment, "SLACK_STORE_KEY": made.stdout.strip()}, NOWHERE)


def test_the_secrets_of_settings_are_those_in_addresses_too() -> None:
    settings = load_settings(
        {
            "DISCORD_TOKEN": "http://[token",
            "MODEL_URL": "http://a:first%21@here",
            "REDIS_URL": "rediss://here?password=second&ssl_password=third&db=1",
        },
        NOWHERE,
    )

    found = settings.secrets

    assert {"http://[token", "first%21", "first!", "second", "third"} <= set(found)
    assert "1" not in found


def test_the_passwords_of_sentinels_are_secrets() -> None:
    url = "redis+sentinel://bot:f%21rst@a:1,b:2/main/0?sentinel_password=s%20cond"

    found = load_settings({"REDIS_URL": url}, NOWHERE).secrets

    assert {"f!rst", "f%21rst", "s cond", "s%20cond", url} <= set(found)


def test_a_misspelt_name_in_the_file_is_reported_with_the_nearest_one(tmp_path: Path) -> None:
    text = "DISCORD_TOKN=s3cret\nMAX_TOKEN=1\nSLACK_COLOUR=red\nCOMPOSE_FILE=a\n"

    assert mistakes_in(tmp_path, text) == (
        "DISCORD_TOKN in .env is unknown; did you mean DISCORD_TOKEN?",
        "MAX_TOKEN in .env is unknown; did you mean MAX_TOKENS?",
        "SLACK_COLOUR in .env is unknown; docs/settings.md has a table of them all",
    )


@pytest.mark.parametrize(
    "line",
    [
        "HF_TOKEN s3cret",
        "DISCORD_TOKEN: s3cret",
        "DISCORD_TOKEN:s3cret",
        "DISCORD_TOKEN:s3cret=",
        "discord_tokens3cret",
        'SYSTEM_PROMPT="s3cret',
        "MAX_TOKENS",
    ],
)
def test_a_line_that_is_no_setting_is_named_by_its_number(
    line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = mistakes_in(tmp_path, f"# mine\n\n\n{line}\nPORT=many\n")

    assert found == ("PORT='many' is not a whole number", ".env line 4 is not NAME=value")
    assert not caplog.records


# What people might write who mean to close the bot: each is found by another rule or word.
SPELLINGS = words("""
    ALLOWED_DISCORD_IDS allowedGuilds ALOWED_SERVERS ALLOWED__SERVERS ALLOWED-SERVERS
    ALLOWED.SERVERS \u0410LLOWED_SERVERS ALLOWED_WORKSPACES ALLOWED_TEAMS ALLOWED_USERIDS
    ALLOWED_MEMBERS ALLOWED_PERSONS ALLOWED_ROLE_IDS SERVER_WHITELIST BOT_WHITELIST WHITE_LIST
    USER_ALLOWLIST AUTHORIZED_USERS AUTHORISED_USERS PERMITTED_USERS TRUSTED_USERS
    REPLY_CHANNEL_ONLY RESTRICT_TO DENY_ALL DENIED_PEOPLE BLOCKED_CHANNELS BLOCK_LIST BLOCKLIST
    BLACKLIST BLACKLISTED_USERS BANNED_USERS BANS IGNORE_USERS IGNORED_CHANNELS LEAVE_SERVERS
    SERVERS SERVER_IDS CHANNELS CHANNEL_ID ROLE_ID DISCORD_SERVER_ID SLACK_TEAM_ID ALLOW_DMS
    ENABLE_DIRECT_MESSAGES ADMIN_USERS OWNER_ID MODERATORS MAX_QUESTIONS_PER_DAY RATE_LIMIT
    DAILY_LIMIT QUOTA QUESTIONS WEB_PASS WEB_OIDC_ISUER
""")


@pytest.mark.parametrize(
    "form", ["{}=1", "export {}=1", "{} = '1'", "'{}'=1", '"{}"=1', "{}=", "{}"]
)
def test_no_access_setting_can_be_misspelt_in_the_file(form: str, tmp_path: Path) -> None:
    for name in SPELLINGS:
        (found, *_) = mistakes_in(tmp_path, f"DISCORD_TOKEN=x\n{form.format(name)}\n")

        assert name in found or "line 2 is not NAME=value" in found


@pytest.mark.parametrize("name", SPELLINGS)
def test_no_access_setting_can_be_misspelt_in_the_environment(name: str) -> None:
    (found,) = mistakes({name: "123456789012345678"})

    assert found.startswith(f"{name} in the environment is unknown")


@pytest.mark.parametrize(
    ("meant", "written"),
    [
        ("ALLOWED_SERVERS", "ALLOWED_GUILDS GUILD_ID allowed_servers"),
        ("ALLOWED_PEOPLE", "ALLOWED_USERS ALLOWLIST DISCORD_ALLOWED_USERS ALLOWED_USER_IDS"),
        ("BLOCKED_PEOPLE", "BLOCKED_USERS IGNORED_USERS"),
        ("ADMINS", "ADMIN_USERS BOT_OWNER_ID"),
        ("DIRECT_MESSAGES", "ALLOW_DMS"),
        ("ALLOWED_CHANNELS", "REPLY_CHANNEL_IDS"),
        ("ALLOWED_ROLES", "MEMBER_ROLE_ID"),
        ("QUESTIONS_PER_DAY", "RATE_LIMIT"),
        ("SYSTEM_PROMPT", "SYSTEM_MESSAGE OPENAI_SYSTEM_TEXT"),
        ("MODEL_API_KEY", "OPENAI_API_KEY OPENAI_APIKEY OPENROUTER_API_KEY"),
        ("MODEL_URL", "OPENAI_BASE_URL OPENAI_API_BASE"),
        ("MODEL_ID", "OPENAI_MODEL MODEL_NAME"),
        ("MAX_TOKENS", "MAX_NEW_TOKENS"),
        ("TEMPERATURE", "DO_SAMPLE"),
        ("TOP_P", "TOP_K REPETITION_PENALTY"),
        ("DISCORD_TOKEN", "BOT_TOKEN DISCORD_BOT_TOKEN TOKEN"),
        ("SLACK_BOT_TOKEN", "SLACK_TOKEN"),
        ("SLACK_APP_TOKEN", "SLACK_APP_LEVEL_TOKEN"),
        ("HF_TOKEN", "HUGGINGFACE_TOKEN HUGGINGFACEHUB_API_TOKEN HF_API_KEY"),
        ("REDIS_URL", "REDIS_HOST REDIS_PASSWORD"),
        ("FOLLOW_THREADS", "DISCORD_REQUIRE_MENTION"),
        ("LEAVE_OTHER_SERVERS", "LEAVE_OTHER_GUILDS"),
    ],
)
def test_a_name_of_another_bot_is_reported_with_the_name_here(
    meant: str, written: str, tmp_path: Path
) -> None:
    for name in words(written):
        assert mistakes_in(tmp_path, f"{name}=1\n") == (
            f"{name} in .env is unknown; did you mean {meant}?",
        )


def test_what_other_programs_read_may_stand_in_the_file_and_is_handed_on(tmp_path: Path) -> None:
    names = words("""
        COMPOSE_FILE COMPOSE_PROJECT_NAME DOCKER_HOST PUID PGID UID GID TZ LANG LC_ALL HTTP_PROXY
        HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy no_proxy SSL_CERT_FILE SSL_CERT_DIR
        REQUESTS_CA_BUNDLE PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE HF_HOME HF_HUB_OFFLINE
        HF_ENDPOINT CUDA_VISIBLE_DEVICES NO_COLOR OTEL_SERVICE_NAME
    """)
    env_file = tmp_path / ".env"
    env_file.write_text("PORT=1\n" + "".join(f"{name}=1\n" for name in names))

    assert load_settings({}, env_file) == settings_of(port=1)
    environment = {"HTTPS_PROXY": "2"}
    hand_on(env_file, environment)
    assert environment == {**dict.fromkeys(names, "1"), "HTTPS_PROXY": "2"}


def test_what_a_host_puts_into_the_environment_stops_nothing() -> None:
    names = words("""
        DYNO HEROKU_APP_ID WEB_CONCURRENCY RENDER RENDER_SERVICE_ID FLY_APP_NAME RAILWAY_SERVICE_ID
        GITHUB_REPOSITORY_OWNER_ID GITHUB_TOKEN CI CI_SERVER_HOST GITLAB_USER_ID RUNNER_OS USER
        DIRENV_DIR USERNAME USER_ID LOGNAME HOME PATH SHELL SUDO_USER OPENAI_API_KEY ALLOWED_HOSTS
        ADMIN_EMAIL WEB_SERVICE_HOST WEB_PORT_80_TCP_ADDR DISCORD_SERVICE_PORT SLACK_WEBHOOK_URL
        DISCORD_WEBHOOK TF_FORCE_GPU_ALLOW_GROWTH COMPOSER_ALLOW_SUPERUSER CUDA_LAUNCH_BLOCKING
        GIT_ALLOW_PROTOCOL SYSTEMD_EXEC_PID INVOCATION_ID KUBERNETES_SERVICE_HOST XDG_RUNTIME_DIR
        REDIS_HOST MODELSIM_HOME VLLM_ALLOW_LONG_MAX_MODEL_LEN BLOCKSIZE BANNER SERVER_NAME TEAM_ID
        GF_SECURITY_ADMIN_USER BLOCK_SIZE MODELS_DIR MODEL_CACHE_DIR WEB_ROOT WEB_BROWSER ROLES
        PEOPLE DIRECT_URL ADMIN_TOKEN ALLOW_ALL_ORIGINS COLOUR TOKEN
    """)

    assert load_settings(dict.fromkeys(names, "1"), NOWHERE) == settings_of()


def test_a_name_that_stands_twice_in_the_file_keeps_nothing_open(tmp_path: Path) -> None:
    text = "ALLOWED_PEOPLE=U0123ABCD\nPORT=\nPORT=7\nALLOWED_PEOPLE=\n"

    assert mistakes_in(tmp_path, text) == (
        "ALLOWED_PEOPLE stands in .env twice, with different values: keep one of them",
    )


IDS = ("ALLOWED_SERVERS", "ALLOWED_CHANNELS", "ALLOWED_PEOPLE", "ALLOWED_ROLES", "BLOCKED_PEOPLE")


@pytest.mark.parametrize("name", [*IDS, "ADMINS"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        *((",", "has no id in it"), (" , ,", "has no id in it")),
        *(("12345 67890", "needs commas"), ("12345;67890", "needs commas")),
        *(("12345\n67890", "needs commas"), ("# 12345", "needs commas")),
        *(('""', "is no id"), ("<@12345>", "is no id"), ("[12345]", "is no id")),
        *(("none", "is no id"), ("١٢٣٤٥", "is no id")),
    ],
)
def test_a_list_that_names_nobody_as_it_should_is_a_mistake(
    name: str, value: str, problem: str
) -> None:
    (found,) = mistakes({name: value})

    assert found.startswith(f"{name}={value.strip()!r} ")
    assert problem in found


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        *((",", "has no id in it"), ("T0123ABCD", "is not a whole number")),
        *(("T0123ABCD=-1", "is not from 0 to 36500"), ("T0123ABCD=x", "is not a whole number")),
        # A thread names its workspace, and never the organisation.
        *(("E0123ABCD=7", "'E0123ABCD', which is no id of a server"), ("=7", "is no id")),
        *(("T0123ABCD=7 T0123ABCE=8", "is not a whole number"), ("T1=7", "is no id")),
        ("T0123ABCD=7, T0123ABCD=8", "names T0123ABCD twice"),
    ],
)
def test_days_of_a_server_that_are_not_written_as_they_should_be_are_a_mistake(
    value: str, problem: str
) -> None:
    (found,) = mistakes({"SERVER_HISTORY_DAYS": value})

    assert found.startswith("SERVER_HISTORY_DAYS=")
    assert problem in found


def test_answers_can_be_rated_where_one_server_is_remembered() -> None:
    days = {"HISTORY_DAYS": "0", "SERVER_HISTORY_DAYS": "81384788765712384=90, T0123ABCD = 0"}

    assert load_settings(days, NOWHERE).server_history_days == (
        ("81384788765712384", 90),
        ("T0123ABCD", 0),
    )
    assert load_settings(days, NOWHERE).rates(usual=True)
    assert not load_settings({"HISTORY_DAYS": "0"}, NOWHERE).rates(usual=True)


def test_a_placeholder_that_is_misspelt_is_a_mistake() -> None:
    for word, meant in (("nam", "name"), ("Date", "date"), ("plattform", "platform")):
        (found,) = mistakes({"SYSTEM_PROMPT": f"You talk with {{{word}}}."})
        assert found.endswith(f"has {{{word}}} in it; did you mean {{{meant}}}?")


def test_other_braces_of_a_prompt_stay() -> None:
    prompt = r'Say {"name": "x", "list": [{}]}, {json}, {{x}}, \frac{a}{b}. You are {name} {time}.'

    assert load_settings({"SYSTEM_PROMPT": prompt}, NOWHERE).system_prompt == prompt


def test_each_placeholder_is_filled_in() -> None:
    filled = SystemPrompt("|".join(f"{{{word}}}" for word in PLACEHOLDERS)).for_turn(make_turn(1))

    assert "{" not in filled


def test_a_misspelt_name_in_the_environment_is_reported_with_the_nearest_one() -> None:
    found = mistakes({"DISCORD_TOKN": "s3cret", "HISTORY_DAY": "1"}, NOWHERE)

    assert found == (
        "DISCORD_TOKN in the environment is unknown; did you mean DISCORD_TOKEN?",
        "HISTORY_DAY in the environment is unknown; did you mean HISTORY_DAYS?",
    )


def test_a_file_that_is_no_text_is_a_mistake(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("PORT=1", encoding="utf-16")

    assert mistakes({}, env_file) == (f"{env_file} is not a text in UTF-8",)


def test_the_example_and_the_table_are_made_from_the_settings() -> None:
    root = EXAMPLE.parent

    assert EXAMPLE.read_text(encoding="utf-8") == example()
    assert table() in (root / TABLE).read_text(encoding="utf-8")
    assert "\n# how freely the model chooses its words" in example()
    assert "\nGPU_LAYERS=auto\n" in example()
    assert "| `DISCORD_THREADS` | `on` | on: a mention in a channel opens a thread;" in table()


def test_the_example_as_it_stands_changes_nothing() -> None:
    assert load_settings({}, EXAMPLE) == settings_of()


def test_in_a_strict_environment_no_name_is_let_through() -> None:
    image = {"PATH": "/bin", "HOSTNAME": "1a2b", "PYTHON_VERSION": "3.11", "GPG_KEY": "x"}

    assert mistakes({"STRICT_ENVIRONMENT": "on", "BOT_WHITELIST": "1"} | image) == (
        "BOT_WHITELIST in the environment is unknown; did you mean ALLOWED_PEOPLE?",
    )


@pytest.mark.parametrize(
    "text",
    [
        *("ALLOWED_PEOPLE= #12345", "ALLOWED_PEOPLE=  # only me", "WEB_PASSWORD= #secret"),
        *("ALLOWED_PEOPLE=\u00a0", 'SYSTEM_PROMPT="nice\nALLOWED_PEOPLE=12345\nMODEL_ID=demo"'),
        *("# a note\u2028ALLOWED_PEOPLE=12345", "# a note\x0bexport ALLOWED_PEOPLE=12345"),
        *("DOCKER_ALLOWED_PEOPLE=12345", "OTEL_ALLOWED=12345"),
    ],
)
def test_no_access_setting_hides_in_the_file(text: str, tmp_path: Path) -> None:
    assert mistakes_in(tmp_path, f"{text}\n")


def test_empty_values_and_comments_are_no_mistakes(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    names = "".join(f"# {name}=1\n#{name}=1\n" for name in SPELLINGS)
    for text in ("PORT=", 'PORT=""', "PORT= ", "PORT=8080 # a port", "# PORT=7"):
        env_file.write_text(f"\n\n# Ports\n{text}\r\n\n{names}", encoding="utf-8")

        assert load_settings({}, env_file) == settings_of()


def test_the_address_of_a_container_beside_this_one_is_no_port() -> None:
    settings = load_settings({"WEB_PORT": "tcp://10.0.0.7:80"}, NOWHERE)

    assert value_of(settings, "WEB_PORT") == 5006


SECRETS = [name for name, variable in variables(all_specs()).items() if not variable.repr]


def test_what_may_stand_in_a_file_is_every_token_key_and_password() -> None:
    names = words("TOKEN KEY SECRET PASSWORD")
    found = {name for name in variables(all_specs()) if name.endswith(tuple(names))}

    assert found | {"REDIS_URL", "MODEL_URL", "SEARCH_URL"} <= set(SECRETS)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("place", ["the environment", ".env"])
def test_a_secret_may_stand_in_a_file(place: str, end: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(f"\ufeffhf_s3cret{end}".encode())
    (tmp_path / "redis").write_text(f"redis://:pass%21@here:1/0{end}")
    given = {name: str(tmp_path / name.split("_")[0]) for name in ("redis_URL", "token_")}
    given = {"HF_TOKEN_FILE": given["token_"], "REDIS_URL_FILE": given["redis_URL"]}
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{it}={given[it]}\n" for it in given if place == ".env"))

    settings = load_settings(given if place != ".env" else {}, env_file)

    assert (settings.hf_token, settings.redis_url) == ("hf_s3cret", "redis://:pass%21@here:1/0")
    assert {"hf_s3cret", "pass%21", "pass!"} <= set(settings.secrets)
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize("strict", ["on", "off"])
def test_every_secret_has_a_name_for_its_file_and_nothing_else_has(
    strict: str, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing")
    for name in SECRETS:
        assert mistakes({f"{name}_FILE": missing, "STRICT_ENVIRONMENT": strict}) == (
            f"{name}_FILE={missing!r} is not a file",
        )
    for name in ("ALLOWED_PEOPLE", "ADMINS", "SYSTEM_PROMPT"):
        (found,) = mistakes_in(tmp_path, f"{name}_FILE={missing}\n")
        assert found.startswith(f"{name}_FILE in .env is unknown; did you mean {name}?")
    assert mistakes({"DISCORD_TOKEN_FIL": missing}) == (
        "DISCORD_TOKEN_FIL in the environment is unknown; did you mean DISCORD_TOKEN_FILE?",
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"hf_s3cret\xff", "is not a text in UTF-8"),
        (b"hf_s3cret\0", "is no text: it has a NUL or a byte that is not UTF-8"),
        (b"hf_s3cret" * 10_000, "has more than 65536 bytes in it"),
        (b"hf_s3 cret", "has a blank or a special character in it"),
        (b"hf_s3cret\nhf_2\n", "has a blank or a special character in it"),
    ],
)
def test_a_file_that_holds_no_secret_is_a_mistake_that_shows_nothing_of_it(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)

    assert mistakes({"HF_TOKEN_FILE": str(file)}) == (f"HF_TOKEN_FILE={str(file)!r} {problem}",)


def test_an_address_in_a_file_is_not_shown_if_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("http://bot:s3cret@here")

    assert mistakes({"REDIS_URL_FILE": str(file)}) == (
        f"REDIS_URL_FILE={str(file)!r} does not begin with redis:// or rediss:// or unix://",
    )


def test_what_cannot_be_a_file_of_a_secret_is_a_mistake_and_never_waited_for(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path), str(tmp_path / "pipe"), "/dev/zero", "/a\0b", "/dev/null/x"):
        assert mistakes({"HF_TOKEN_FILE": path}) == (f"HF_TOKEN_FILE={path!r} is not a file",)
    assert mistakes({"HF_TOKEN_FILE": f"/{TOO_LONG}"}) == (
        f"HF_TOKEN_FILE={f'/{TOO_LONG}'!r} cannot be read: File name too long",
    )
    assert mistakes({"HF_TOKEN_FILE": "~nosuch/x"}) == (
        "HF_TOKEN_FILE='~nosuch/x' cannot be read: there is no such home",
    )


@pytest.mark.parametrize(
    "secret", ["xoxb-s3cret", "redis://:s3cret@here/0", TOO_LONG, "s3cret\0", "ab/s3cret=="]
)
def test_a_secret_in_the_place_of_its_file_is_not_shown(secret: str) -> None:
    assert mistakes({"HF_TOKEN_FILE": secret}) == (
        "HF_TOKEN_FILE names no file (does it hold the secret itself?)",
    )


def test_a_file_of_a_secret_may_be_named_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").touch()

    assert mistakes({"HF_TOKEN_FILE": "token"}) == ("HF_TOKEN_FILE='token' is empty",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file: run as somebody else")
def test_a_file_of_a_secret_that_may_not_be_read_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch(mode=0)

    assert mistakes({"HF_TOKEN_FILE": str(file)}) == (
        f"HF_TOKEN_FILE={str(file)!r} cannot be read: Permission denied",
    )


def test_a_secret_that_stands_in_two_places_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_s3cret")
    (tmp_path / ".env").write_text("HF_TOKEN=hf_0ther\n")

    assert mistakes({"HF_TOKEN_FILE": str(tmp_path / "token")}, tmp_path / ".env") == (
        "HF_TOKEN and HF_TOKEN_FILE are both set: keep one of them",
    )


def test_a_secret_of_a_tool_server_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    servers = tmp_path / "servers.toml"
    servers.write_text(
        '[servers.wiki]\nurl = "https://wiki.example/mcp"\nheaders = { X = "Bearer ${WIKI_KEY}" }\n'
        'tools = { find = "reads" }\n'
    )
    given = {"MCP_SERVERS": str(servers), "WIKI_KEY_FILE": str(tmp_path / "key")}
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}={text}\n" for name, text in given.items()))

    for settings in (
        load_settings({**given, "STRICT_ENVIRONMENT": "on"}, NOWHERE),
        load_settings({}, env_file),
        load_settings({"MCP_SERVERS": str(servers)}, env_file),
    ):
        assert settings.tool_servers[0].headers == {"X": "Bearer s3cret"}
        assert "Bearer s3cret" in settings.secrets or "s3cret" in settings.secrets


def test_names_of_others_that_end_like_a_file_stay_as_they_are(tmp_path: Path) -> None:
    servers = tmp_path / "servers.toml"
    servers.write_text(
        '[servers.x]\nurl = "https://x/mcp"\nheaders = { A = "${COMPOSE}${B}", B = "${B_FILE}" }\n'
        'tools = { find = "reads" }\n'
    )
    given = {"COMPOSE_FILE": "no-such", "COMPOSE": "1", "B": "2", "B_FILE": "3"}

    settings = load_settings({**given, "MCP_SERVERS": str(servers)}, NOWHERE)

    assert settings.tool_servers[0].headers == {"A": "12", "B": "3"}
    environment: dict[str, str] = {}
    (tmp_path / ".env").write_text("HF_TOKEN_FILE=/x\nSSL_CERT_FILE=/y\n")
    hand_on(tmp_path / ".env", environment)
    assert environment == {"SSL_CERT_FILE": "/y"}


def test_personas_are_the_files_of_a_folder_and_all_mistakes_are_told(tmp_path: Path) -> None:
    (tmp_path / "Strict teacher.md").write_text("Ask back.\n")
    (tmp_path / "notes.csv").write_text("")
    found = load_settings({"PERSONAS": str(tmp_path)}, NOWHERE).persona_texts
    (tmp_path / "Long.md").write_text("x" * 2001)
    (tmp_path / "strict teacher.txt").write_text("Ask.")
    (tmp_path / "Empty.md").write_text("")

    assert found == (("Strict teacher", "Ask back."),)
    assert load_settings({"PERSONAS": str(tmp_path / "none")}, NOWHERE).persona_texts == ()
    assert [it.rpartition(": ")[2] for it in mistakes({"PERSONAS": str(tmp_path)})] == [
        "Empty.md is empty",
        "Long.md has more than 2,000 characters",
        "strict teacher.txt has the name of another one",
    ]
