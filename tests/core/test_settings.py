"""Where settings come from, which of them wins, and what a wrong one is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnivec.core.exposure import check_exposure, is_loopback
from omnivec.core.settings import (
    FIELDS,
    Settings,
    SettingsError,
    cache,
    load,
    mask,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without an omnivec.toml; it stands for /etc/default as well."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_come_from_nowhere() -> None:
    loaded = load({}, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.file is None


def test_flags_win_over_environment_over_file_over_profile(elsewhere: Path) -> None:
    (elsewhere / "omnivec.toml").write_text(
        'profile = "sie"\nport = 3\nqueue = 3\ndtype = "f32"\nmax_items = 7\n'
    )
    loaded = load({"port": "1"}, {"OMNIVEC_PORT": "2", "OMNIVEC_QUEUE": "2"}, etc=elsewhere)
    settings = loaded.settings
    assert (settings.port, settings.queue, settings.dtype) == (1, 2, "f32")
    assert (settings.host, settings.dialect) == ("0.0.0.0", "sie")
    assert loaded.origins["port"] == "flag --port"
    assert loaded.origins["queue"] == "environment OMNIVEC_QUEUE"
    assert loaded.origins["dtype"] == "file omnivec.toml"
    assert loaded.origins["host"] == "profile sie"
    assert loaded.origins["overflow"] == "default"
    assert loaded.file == Path("omnivec.toml")


def test_the_file_is_found_in_its_order(elsewhere: Path) -> None:
    home = elsewhere / "home" / ".config" / "omnivec" / "config.toml"
    home.parent.mkdir(parents=True)
    home.write_text("port = 1")
    environ = {"HOME": str(elsewhere / "home")}
    assert load({}, environ).settings.port == 1
    (elsewhere / "omnivec.toml").write_text("port = 2")
    assert load({}, environ).settings.port == 2
    (elsewhere / "other.toml").write_text("port = 3")
    assert load({}, {**environ, "OMNIVEC_CONFIG": "other.toml"}).settings.port == 3
    (elsewhere / "asked.toml").write_text("port = 4")
    assert load({}, environ, "asked.toml").settings.port == 4


def test_every_field_can_stand_in_the_environment() -> None:
    values = {
        name: str(field.default[0] if isinstance(field.default, tuple) else field.default)
        for name, field in FIELDS.items()
        if field.default not in ((), None)
    }
    environ = {f"OMNIVEC_{name.upper()}": value for name, value in values.items()}
    loaded = load({}, environ)
    assert loaded.settings == Settings()
    for name in values:
        assert loaded.origins[name] == f"environment OMNIVEC_{name.upper()}"


def test_lists_are_split_as_their_texts_allow() -> None:
    environ = {
        "OMNIVEC_MODELS": "fake:dims=8,seed=1; BAAI/bge-m3",
        "OMNIVEC_API_KEY": "one, two,three",
        "OMNIVEC_MEDIA_ALLOW": "10.0.0.0/8,images.internal",
    }
    settings = load({}, environ).settings
    assert settings.models == ("fake:dims=8,seed=1", "BAAI/bge-m3")
    assert settings.api_keys == ("one", "two", "three")
    assert settings.media_allow == ("10.0.0.0/8", "images.internal")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("float16", "f16"), ("BF16", "bf16"), ("half", "f16"), ("fp32", "f32"), ("auto", "auto")],
)
def test_dtypes_have_several_spellings(written: str, meant: str) -> None:
    assert load({"dtype": written}, {}).settings.dtype == meant


def test_switches_are_read_as_people_write_them() -> None:
    for text in ("1", "true", "Yes", "on"):
        assert load({}, {"OMNIVEC_OFFLINE": text}).settings.offline is True
    for text in ("0", "false", "No", "off"):
        assert load({}, {"OMNIVEC_OFFLINE": text}).settings.offline is False


def test_platform_variables_are_honoured_below_our_own() -> None:
    loaded = load({}, {"PORT": "5000", "HF_HUB_OFFLINE": "1"})
    settings = loaded.settings
    assert (settings.port, settings.offline) == (5000, True)
    assert loaded.origins["port"] == "environment PORT"
    assert load({}, {"PORT": "5000", "OMNIVEC_PORT": "6000"}).settings.port == 6000
    assert load({}, {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}).settings.offline is False
    assert load({}, {"NO_COLOR": "", "PORT": ""}).settings == Settings()
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4318"}
    assert load({}, collector).settings.otel_endpoint == "http://all:4318"
    collector["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = "http://traces:4318/v1/traces"
    assert load({}, collector).settings.otel_endpoint == "http://traces:4318/v1/traces"


def test_what_kubernetes_sets_for_a_service_of_our_name_is_not_ours() -> None:
    environ = {
        "OMNIVEC_PORT": "tcp://10.0.0.1:8400",
        "OMNIVEC_SERVICE_HOST": "10.0.0.1",
        "OMNIVEC_SERVICE_PORT": "8400",
        "OMNIVEC_SERVICE_PORT_HTTP": "8400",
        "OMNIVEC_PORT_8400_TCP": "tcp://10.0.0.1:8400",
        "OMNIVEC_PORT_8400_TCP_ADDR": "10.0.0.1",
        "OMNIVEC_GPU_SERVICE_HOST": "10.0.0.2",
        "OMNIVEC_GPU_PORT": "tcp://10.0.0.2:8400",
    }
    assert load({}, environ).settings == Settings()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OMNIVEC_PORT": "eight"}, ("port", "OMNIVEC_PORT", "'eight'", "from 0 to 65535")),
        ({"OMNIVEC_PORT": "65536"}, ("'65536'", "from 0 to 65535")),
        ({"OMNIVEC_DTYPE": "int4"}, ("dtype", "auto, bf16, f16, f32, int8")),
        ({"OMNIVEC_DEVICE": "npu"}, ("auto, cpu, cuda",)),
        ({"OMNIVEC_QUEUE": "0"}, ("queue", "a whole number from 1")),
        ({"OMNIVEC_MAX_AGE": "0"}, ("max_age", "a number of seconds above 0")),
        ({"OMNIVEC_LOAD_WAIT": "-1"}, ("load_wait", "a number of seconds from 0")),
        ({"OMNIVEC_MAX_BODY": "4MB"}, ("max_body", "'4MB'", "from 1, in bytes")),
        ({"OMNIVEC_MEMORY": "four"}, ("memory (environment OMNIVEC_MEMORY)", "'four'", "16GiB")),
        ({"OMNIVEC_CACHE": "9"}, ("cache (environment OMNIVEC_CACHE)", "from 16MB")),
        ({"OMNIVEC_API_KEY": "a b"}, ("api_keys (environment OMNIVEC_API_KEY)", "printable")),
        ({"OMNIVEC_OFFLINE": "maybe"}, ("offline", "true, false")),
        ({"OMNIVEC_PRT": "1"}, ("'OMNIVEC_PRT'", "did you mean 'OMNIVEC_PORT'", "omnivec config")),
        ({"OMNIVEC_PROT": "1"}, ("did you mean 'OMNIVEC_PORT'",)),
        ({"OMNIVEC_API_KY": "1"}, ("did you mean 'OMNIVEC_API_KEY'",)),
        (
            {"OMNIVEC_RUNTIME": "nope"},
            ("OMNIVEC_RUNTIME", "'nope'", "auto, ctranslate2, fake", "onnx, openvino, torch"),
        ),
        ({"OMNIVEC_PROFILE": "tei"}, ("profile", "openai", "synesis")),
        ({"PORT": "x"}, ("port (environment PORT)",)),
        ({"OMNIVEC_API_KEY_FILE": "absent"}, ("api_key_file", "cannot be read: No such file")),
        ({"OMNIVEC_CONFIG": "absent.toml"}, ("absent.toml", "No such file")),
    ],
)
def test_a_wrong_value_names_its_place_and_what_is_accepted(
    environ: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, environ)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("port = 'x'", ("port", "omnivec.toml", "from 0 to 65535")),
        ("prot = 1", ("omnivec.toml", "'prot'", "did you mean 'port'")),
        ("port = ", ("omnivec.toml is not valid TOML",)),
        ("models = 5", ("models", "a list of texts")),
        ("offline = 1", ("offline", "true, false")),
        ("[port]\nx = 1", ("omnivec.toml: [port] is a table", "port = 8400, in no table")),
        ("[omnivec]\nport = 1", ("[omnivec] is a table", "port = 8400")),
        ('[[group]]\nmodels = [{ id = "a/b" }]', ("[group] is a table", "--catalogue")),
        ("memory = 4", ("memory", 'a text, in quotes: "4GB"')),
        ("lora = 4", ("lora", 'a list of texts: ["one", "two"]')),
    ],
)
def test_a_wrong_file_says_so(elsewhere: Path, content: str, words: tuple[str, ...]) -> None:
    (elsewhere / "omnivec.toml").write_text(content)
    with pytest.raises(SettingsError) as caught:
        load({}, {})
    for word in words:
        assert word in str(caught.value)


def test_a_key_of_the_wrong_type_is_not_repeated(elsewhere: Path) -> None:
    (elsewhere / "omnivec.toml").write_text("admin_key = 1234567")
    with pytest.raises(SettingsError, match=r"admin_key .*a text, in quotes") as caught:
        load({}, {})
    assert "1234567" not in str(caught.value)


def test_a_file_takes_lists_and_texts(elsewhere: Path) -> None:
    (elsewhere / "omnivec.toml").write_text(
        'models = ["a/b", "c/d"]\napi_key = "k"\nmax_age = 3\nmax-body = 100\n'
    )
    settings = load({}, {}).settings
    assert settings.models == ("a/b", "c/d")
    assert settings.api_keys == ("k",)
    assert (settings.max_age, settings.max_body) == (3.0, 100)


# ── profiles ─────────────────────────────────────────────────────────────────────────────


def test_synesis_reads_its_own_variables_and_file(elsewhere: Path) -> None:
    (elsewhere / "synesis").write_text(
        "# the service's file\n"
        'export EMBEDDING_TORCH_DTYPE="bfloat16"   # precision\n'
        "EMBEDDING_PORT=8401\n"
        "EMBEDDING_MAX_BATCH_SIZE='16'\n"
        "EMBEDDING_USE_FLASH_ATTENTION=true\n"
    )
    environ = {
        "EMBEDDING_MODEL_PATH": "./models/embed",
        "EMBEDDING_RERANKER_MODEL_PATH": "./models/rerank",
        "EMBEDDING_DEFAULT_DIMENSION": "256",
        "EMBEDDING_PORT": "8402",
        "EMBEDDING_SOMETHING_ELSE": "x",
    }
    loaded = load({"profile": "synesis"}, environ, etc=elsewhere)
    settings = loaded.settings
    assert settings.models == ("./models/embed", "./models/rerank")
    assert (settings.port, settings.host) == (8402, "0.0.0.0")
    assert (settings.dtype, settings.max_items, settings.default_dims) == ("bf16", 16, 256)
    assert settings.dialect == "synesis"
    assert loaded.origins["port"] == "environment EMBEDDING_PORT"
    assert loaded.origins["dtype"] == f"file {elsewhere / 'synesis'}: EMBEDDING_TORCH_DTYPE"
    assert len(loaded.notes) == 1
    assert loaded.notes[0].startswith("EMBEDDING_USE_FLASH_ATTENTION has no effect")


def test_synesis_documents_its_port_address_and_batch(elsewhere: Path) -> None:
    settings = load({"profile": "synesis"}, {}, etc=elsewhere).settings
    assert (settings.host, settings.port, settings.max_items) == ("0.0.0.0", 8400, 32)


def test_a_service_variable_means_nothing_without_its_profile() -> None:
    assert load({}, {"EMBEDDING_PORT": "1", "MODEL_NAMES": "a/b"}).settings == Settings()


def test_omnivec_variables_win_over_the_service_ones(elsewhere: Path) -> None:
    environ = {"OMNIVEC_PROFILE": "synesis", "EMBEDDING_PORT": "1", "OMNIVEC_PORT": "2"}
    assert load({}, environ, etc=elsewhere).settings.port == 2


def test_an_unclosed_quote_in_the_service_file_is_told(elsewhere: Path) -> None:
    (elsewhere / "synesis").write_text('EMBEDDING_HOST="0.0.0.0\n')
    with pytest.raises(SettingsError, match="a quote is not closed"):
        load({"profile": "synesis"}, {}, etc=elsewhere)


@pytest.mark.parametrize(
    ("profile", "port"),
    [("openai", 8400), ("intel", 8000), ("runpod", 8000), ("sie", 8080)],
)
def test_each_profile_has_its_port_and_dialect(profile: str, port: int) -> None:
    settings = load({"profile": profile}, {}).settings
    assert (settings.port, settings.dialect, settings.profile) == (port, profile, profile)


def test_intel_reads_its_own_variables() -> None:
    environ = {
        "EMBEDDING_MODEL_NAME": "CLIP/clip-vit-b-16",
        "EMBEDDING_DEVICE": "GPU.1",
        "EMBEDDING_SERVER_PORT": "9777",
        "EMBEDDING_USE_OV": "true",
        "DEFAULT_START_OFFSET_SEC": "2",
        "DEFAULT_CLIP_DURATION": "-1",
        "DEFAULT_NUM_FRAMES": "8",
        "INFER_BATCH_SIZE": "64",
        "EMBEDDING_OV_MODELS_DIR": "",
        "http_proxy": "",
    }
    loaded = load({"profile": "intel"}, environ)
    settings = loaded.settings
    assert settings.models == ("CLIP/clip-vit-b-16",)
    assert (settings.port, settings.host, settings.device) == (9777, "0.0.0.0", "auto")
    assert (settings.video_start, settings.video_duration, settings.video_frames) == (2, -1, 8)
    assert settings.media_root == ("/tmp/videoQnA", "/tmp/dataprep")
    told = sorted(note.partition(" ")[0] for note in loaded.notes)
    assert told == ["EMBEDDING_USE_OV", "INFER_BATCH_SIZE"]


@pytest.mark.parametrize(("word", "device"), [("CPU", "cpu"), ("NPU", "auto"), ("AUTO", "auto")])
def test_intels_words_for_devices(word: str, device: str) -> None:
    settings = load({"profile": "intel"}, {"EMBEDDING_DEVICE": word}).settings
    assert settings.device == device


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DEFAULT_START_OFFSET_SEC", "-1"),
        ("DEFAULT_CLIP_DURATION", "-2"),
        ("DEFAULT_NUM_FRAMES", "-1"),
        ("DEFAULT_NUM_FRAMES", "many"),
    ],
)
def test_a_wrong_default_of_intels_is_told(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        load({"profile": "intel"}, {variable: value})


def test_runpod_lists_are_separated_by_semicolons() -> None:
    environ = {
        "OMNIVEC_PROFILE": "runpod",
        "MODEL_NAMES": "BAAI/bge-m3; /models/Qwen3-Reranker-0.6B;",
        "DTYPES": "fp16;fp16",
        "INFINITY_QUEUE_SIZE": "99",
        "RUNPOD_MAX_CONCURRENCY": "7",
        "BATCH_SIZES": "",
    }
    loaded = load({}, environ)
    assert loaded.settings.models == ("BAAI/bge-m3", "/models/Qwen3-Reranker-0.6B")
    assert (loaded.settings.dtype, loaded.settings.queue) == ("f16", 99)
    assert loaded.settings.max_jobs == 7
    assert loaded.notes == ()
    with pytest.raises(SettingsError, match="one for all models"):
        load({}, {**environ, "DTYPES": "fp16;auto"})


def test_a_backend_of_infinity_is_a_runtime() -> None:
    environ = {"OMNIVEC_PROFILE": "runpod", "BACKEND": "torch", "PORT_HEALTH": "8001"}
    settings = load({}, environ).settings
    assert (settings.runtime, settings.health_port) == ("torch", 8001)
    assert load({}, {**environ, "BACKEND": "ctranslate2"}).settings.runtime == "ctranslate2"
    assert load({}, {**environ, "BACKEND": "optimum"}).settings.runtime == "onnx"
    with pytest.raises(SettingsError, match="'neuron'; accepted: auto"):
        load({}, {**environ, "BACKEND": "neuron"})


def test_a_password_of_the_job_store_is_not_shown() -> None:
    settings = load({"jobs": "postgresql://me:se@cret@host/db?password=hush&x=1"}, {}).settings
    assert "postgresql://***@host/db?password=***&x=1" in repr(settings)
    assert "/var/lib/jobs.sqlite" in repr(load({"jobs": "/var/lib/jobs.sqlite"}, {}).settings)


# ── the cache ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "size", "folder"),
    [
        ("2GB", 2 * 10**9, "/home/me/.cache/omnivec"),
        ("500mb,/var/lib/omnivec", 5 * 10**8, "/var/lib/omnivec"),
        ("0.5 G, with, comma", 5 * 10**8, "with, comma"),
        ("20000000", 2 * 10**7, "/home/me/.cache/omnivec"),
    ],
)
def test_a_cache_has_a_size_and_a_folder(written: str, size: int, folder: str) -> None:
    settings = load({"cache": written}, {}).settings
    assert cache(settings, {"HOME": "/home/me"}) == (Path(folder), size)


def test_a_cache_is_in_the_users_own_folder_or_nowhere() -> None:
    settings = load({}, {"OMNIVEC_CACHE": "1GB"}).settings
    assert cache(settings, {"XDG_CACHE_HOME": "/c"}) == (Path("/c/omnivec"), 10**9)
    with pytest.raises(SettingsError, match="SIZE,FOLDER"):
        cache(settings, {})
    for off in ({}, {"cache": "off"}):
        assert cache(load(off, {"OMNIVEC_CACHE": ""}).settings, {}) is None


@pytest.mark.parametrize("written", ["much", "1MB", "-1GB", "2GB/var", "1PB", "/var/lib,2GB"])
def test_a_cache_of_no_size_is_refused(written: str) -> None:
    with pytest.raises(SettingsError, match="500MB or 2GB,/var/lib/omnivec"):
        load({"cache": written}, {})


# ── keys and addresses ───────────────────────────────────────────────────────────────────


def test_keys_come_from_a_file_too_and_are_never_shown(elsewhere: Path) -> None:
    (elsewhere / "keys").write_text("# team a\nfile-key\n\n")
    loaded = load({"api_keys": ["flag-key"], "api_key_file": "keys"}, {})
    assert loaded.settings.api_keys == ("flag-key", "file-key")
    assert "-key" not in repr(loaded.settings).replace("api_key", "")
    assert mask("api_keys", loaded.settings.api_keys) == ("***", "***")


@pytest.mark.parametrize("content", ["", "\n\n", "# later\n  # or never\n"])
def test_a_file_without_a_key_opens_no_server(elsewhere: Path, content: str) -> None:
    (elsewhere / "keys").write_text(content)
    with pytest.raises(SettingsError, match="keys has no key in it; accepted: one key a line"):
        load({"api_key_file": "keys", "api_keys": ["another"]}, {})


def test_a_key_that_no_header_can_carry_is_refused_unshown() -> None:
    with pytest.raises(SettingsError, match="printable ASCII") as caught:
        load({"api_keys": ["geheim und mehr"]}, {})
    assert "geheim" not in str(caught.value)


def test_other_machines_need_a_key_or_the_word() -> None:
    with pytest.raises(SettingsError) as caught:
        check_exposure(load({"host": "0.0.0.0"}, {}).settings)
    assert "--api-key" in str(caught.value)
    assert "--insecure-no-auth" in str(caught.value)
    for flags in ({"host": "127.0.0.1"}, {"api_keys": ["k"]}, {"insecure_no_auth": True}):
        assert check_exposure(load({"host": "0.0.0.0", **flags}, {}).settings) is None


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_only_loopback_is_loopback(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer
