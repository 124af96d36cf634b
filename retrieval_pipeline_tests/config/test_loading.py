from pathlib import Path

import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import DEFAULT_MODEL, RaySettings, Settings
from retrieval_pipeline.config.template import names_for, settings_text
from retrieval_pipeline.config.validation import with_ray
from retrieval_pipeline.errors import SettingsError


def write(directory: Path, text: str) -> Path:
    file = directory / "retrieval.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problem(directory: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(directory, text))
    return str(caught.value)


def test_a_minimal_file_gets_the_defaults(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, '[[sources]]\nname = "a"\npath = "pictures"\n'))
    assert settings.model == DEFAULT_MODEL
    assert settings.home == tmp_path / "retrieval-home"
    assert settings.sources[0].path == tmp_path / "pictures"
    assert ".avif" in settings.sources[0].extensions


def test_a_written_file_is_read_back_with_odd_paths(tmp_path: Path) -> None:
    odd = tmp_path / 'a "quoted" \\ path'
    text = settings_text([("odd", odd)], model="offline", home="here")
    settings = load_settings(write(tmp_path, text))
    assert settings.sources[0].path == odd
    assert settings.model == "offline"


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, 'model = "offline"\n')
    monkeypatch.setenv("RETRIEVAL_CONFIG", str(file))
    assert load_settings().model == "offline"


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="retrieval init"):
        load_settings(tmp_path / "retrieval.toml")


def test_an_unknown_key_is_named_with_the_likely_one(tmp_path: Path) -> None:
    assert "modle: unknown key (did you mean `model`?)" in problem(tmp_path, 'modle = "offline"')


def test_an_unknown_key_of_a_source_is_named_with_its_source(tmp_path: Path) -> None:
    text = '[[sources]]\nname = "cats"\npath = "x"\nexclud = []\n'
    assert 'sources["cats"].exclud: unknown key (did you mean `exclude`?)' in problem(
        tmp_path, text
    )


def test_every_problem_has_a_line_of_its_own(tmp_path: Path) -> None:
    lines = problem(tmp_path, 'device = "gpu"\n[images]\nmax_megapixels = -1\n').splitlines()
    assert len(lines) == 2
    assert 'device: allowed: "auto", "cpu", "cuda"' in lines[0]
    assert "images.max_megapixels" in lines[1]
    assert "greater than 0" in lines[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("home = 3", "home: must be a path or URL in quotes (found 3)"),
        ("[[sources]]\nname = 'a'\npath = true", 'sources["a"].path: must be a path or URL'),
        ("index = 1", "index: must be a table of keys (found 1)"),
        ("[index]\ncodes = 3", 'index.codes: allowed: true, false or "auto" (found 3)'),
        ("[labels]\nwords = 'dog'", 'labels.words: must be a list, such as ["a", "b"]'),
        ("[labels]\ncompete = 'no way'", "labels.compete: must be true or false"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_line_in_the_words_of_the_file(
    tmp_path: Path, text: str, message: str
) -> None:
    lines = problem(tmp_path, text).splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("name", ["", "a/b", "..", "-a", "a b", "ä", "x" * 65])
def test_a_name_that_is_no_key_is_refused(tmp_path: Path, name: str) -> None:
    text = f'[[sources]]\nname = "{name}"\npath = "x"\n'
    assert "1 to 64 letters, digits" in problem(tmp_path, text)


def test_two_sources_of_one_name_are_refused_whatever_their_case(tmp_path: Path) -> None:
    text = '[[sources]]\nname = "a"\npath = "x"\n[[sources]]\nname = "A"\npath = "y"\n'
    assert "two sources are named" in problem(tmp_path, text)


@pytest.mark.parametrize(
    ("inner", "said"),
    [("x/y", "lies inside"), ("x", "are the same directory"), ("z/../x/y", "lies inside")],
)
def test_a_source_inside_another_is_refused(tmp_path: Path, inner: str, said: str) -> None:
    text = f'[[sources]]\nname = "a"\npath = "x"\n[[sources]]\nname = "b"\npath = "{inner}"\n'
    assert said in problem(tmp_path, text)


def test_broken_toml_is_named_with_its_line(tmp_path: Path) -> None:
    message = problem(tmp_path, 'model = "offline"\nhome = \n')
    assert "not valid TOML" in message
    assert "line 2" in message


def test_an_unknown_source_lists_those_that_exist() -> None:
    settings = Settings.model_validate({"sources": [{"name": "cats", "path": "x"}]})
    with pytest.raises(SettingsError, match=r"no source \"dogs\".*cats"):
        settings.source("dogs")


def test_directories_of_one_name_get_names_of_their_own() -> None:
    directories = [Path("/a/Pictures"), Path("/b/pictures"), Path("/c/Фото"), Path("/")]
    assert names_for(directories) == ["Pictures", "pictures-2", "pictures-3", "pictures-4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('reindex = "tonight"', 'schedule.reindex: not five fields such as "0 2 * * *"'),
        ('timezone = "Mars/Olympus"', "schedule.timezone: no such time zone"),
        ("watch_second = 5", "schedule.watch_second: unknown key (did you mean `watch_seconds`?)"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in problem(tmp_path, f"[schedule]\n{text}\n")


@pytest.mark.parametrize(
    ("path", "queue", "message"),
    [
        ("/srv", "https://sqs.eu-central-1.amazonaws.com/1/a", "`queue` is for buckets alone"),
        ("s3://photos/2026", "arn:aws:sqs:eu-central-1:1:a", "`queue` is no address of a queue"),
    ],
)
def test_a_queue_is_an_address_and_of_a_bucket(
    tmp_path: Path, path: str, queue: str, message: str
) -> None:
    source = f'[[sources]]\nname = "a"\npath = "{path}"\nqueue = "{queue}"\n'
    assert message in problem(tmp_path, source)


def test_labelled_queries_are_a_file_beside_the_settings_or_the_folders(tmp_path: Path) -> None:
    named = load_settings(write(tmp_path, '[evaluation]\nfile = "labels/queries.toml"\n'))
    assert named.evaluation is not None
    assert named.evaluation.file == tmp_path / "labels" / "queries.toml"
    for text, message in (
        ("", "evaluation: give it either `file`, or `folders = true`"),
        ('folders = true\nfile = "a.csv"', "evaluation: give it either `file`"),
        ('folders = true\nmetric = "ndcg"', 'evaluation.metric: allowed: "recall@1"'),
        ("folders = true\ntolerence = 0.1", "did you mean `tolerance`?"),
    ):
        assert message in problem(tmp_path, f"[evaluation]\n{text}\n")


def test_a_ray_client_and_a_home_within_a_source_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "retrieval.toml"
    file.write_text('[ray]\naddress = "ray://head:10001"\n')
    with pytest.raises(SettingsError, match=r"ray\.address: .* run on a machine of the cluster"):
        load_settings(file)
    with pytest.raises(SettingsError, match=r"address: .* run on a machine of the cluster"):
        with_ray(Settings(), "ray://head:10001")
    assert with_ray(Settings(), "auto").ray == RaySettings(address="auto")
    file.write_text(
        'home = "s3://bucket/x/home"\n[[sources]]\nname = "a"\npath = "s3://bucket/x"\n'
    )
    with pytest.raises(SettingsError, match=r'home .* lies inside source "a"'):
        load_settings(file)


def test_a_byte_order_mark_is_no_part_of_the_settings(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, '\ufeffmodel = "offline"\n')).model == "offline"


@pytest.mark.parametrize("digits", [4000, 5000])
@pytest.mark.parametrize(
    "text",
    [
        "workers = {}",
        "[schedule]\nwatch_seconds = {}",
        "[ray]\ndecoders = {}",
        '[[saved_queries]]\nname = "a"\ntext = "cat"\nk = {}',
    ],
)
def test_a_number_of_thousands_of_digits_is_refused(tmp_path: Path, text: str, digits: int) -> None:
    assert str(tmp_path) in problem(tmp_path, text.format("9" * digits))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('home = "a\\u0000b"', "home"),
        ('home = "~a\\u0000b"', "home"),
        ('model = "~a\\u0000b"', "model"),
        ('[[sources]]\nname = "a"\npath = "a\\u0000b"', 'sources["a"].path'),
        ('[[sources]]\nname = "a"\npath = "b"\nexclude = ["\\u0000"]', 'sources["a"].exclude'),
        (
            '[[saved_queries]]\nname = "a"\ntext = "cat"\nnotify = ["a\\u0000b"]',
            'saved_queries["a"].notify',
        ),
        (
            '[[saved_queries]]\nname = "a"\ntext = "cat"\nimages = ["a\\u0000b"]',
            'saved_queries["a"].images',
        ),
    ],
)
def test_a_nul_character_is_refused_by_its_key(tmp_path: Path, text: str, key: str) -> None:
    assert f"{key}: holds a NUL character" in problem(tmp_path, text)


def test_a_home_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "a\udcff"
    directory.mkdir()
    assert "a\\xff/retrieval-home is not UTF-8" in problem(directory, "")
    (tmp_path / "home").mkdir()
    settings = load_settings(write(directory, f'home = "{tmp_path / "home"}"'))
    assert settings.home == tmp_path / "home"


ENGINE = 'engine = "milvus"\n'


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('uri = "http://db:19530"\nshards = 2', "index: uri, shards: only an engine takes this"),
        (ENGINE, 'index: engine = "milvus" needs `uri`'),
        (ENGINE + 'uri = "db:19530"', 'index.uri: write it as "http://host:19530"'),
        (
            ENGINE + 'uri = "http://me:secret@db:19530"',
            "put the token into $RETRIEVAL_MILVUS_TOKEN",
        ),
        (ENGINE + 'uri = "a.db"\ntoken = "secret"', "index.token: unknown key"),
        (ENGINE + 'uri = "a.db"\ncollection = "two words"', "index.collection: "),
    ],
)
def test_an_engine_that_cannot_be_is_said_in_one_line(
    tmp_path: Path, lines: str, expected: str
) -> None:
    said = problem(tmp_path, f"[index]\n{lines}\n")
    assert expected in said
    assert "secret" not in said
    assert "\n" not in said


def test_a_file_of_the_engine_cannot_lie_in_a_remote_home(tmp_path: Path) -> None:
    text = f'home = "memory://pictures"\n[index]\n{ENGINE}uri = "a.db"\n'
    assert "where no engine can write: name an absolute path" in problem(tmp_path, text)
