"""The settings: what they are, their defaults, and what they must keep."""

import re
import zoneinfo
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from retrieval_pipeline.config.extensions import PICTURES, RAW
from retrieval_pipeline.errors import SettingsError
from retrieval_pipeline.paths import real_path, to_text
from retrieval_pipeline.storage.names import SOURCE_NAME
from retrieval_pipeline.storage.remote import Place, Remote, parse_place
from retrieval_pipeline.views import Views

DEFAULT_MODEL = "openai/clip-vit-large-patch14-336"
# A short name for it.
ORIGINAL = "clip"


class _Model(BaseModel):
    # Input may hold credentials; load_settings shows it where it cannot. Validators are built when
    # they are first used: the one of Settings holds those of all its tables.
    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _holds_no_nul(cls, value: object) -> object:
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str | PurePath) and "\0" in str(each):
                raise ValueError("holds a NUL character, which no name, path or argument can")
        return value


def _check_name(name: str) -> str:
    if not SOURCE_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not allowed: 1 to 64 letters, digits, - and _, "
            "starting with a letter or digit"
        )
    return name


# Names become Dagster partitions and parts of file names.
Name = Annotated[str, AfterValidator(_check_name)]

# A directory on this machine, or a URL.
Directory = Annotated[Place, BeforeValidator(parse_place)]


class Source(_Model):
    """A named directory that the user wants indexed.

    Attributes:
        name: Identifies the source in tables and queries; it should stay when the path changes.
        path: The directory; may be a URL such as "s3://bucket/prefix".
        extensions: File name extensions of images, such as ".jpg"; RAW files among them are looked
            at where the extra `formats` is installed.
        more_extensions: Extensions to look at beside those.
        sniff: True to look also at files of other names whose first bytes are those of a picture.
        group: True to show the files of one photograph as one: RAW and JPEG, an edited copy and its
            original.
        exclude: Globs on the relative path or the name of files and folders to leave out.
        follow_symlinks: True to follow symbolic links to files and folders.
        watch: Dagster lists the directory every `schedule.watch_seconds` and indexes changes.
        queue: Address of a queue of SQS that a bucket tells of its changes: Dagster reads it
            instead of listing the bucket.
        views: Which parts of its pictures are embedded beside the pictures themselves: "centre" for
            none, "whole" for crops that cover pictures longer than about 2:1, "tiles" for these and
            a 2 x 2 grid over every other picture.
    """

    name: Name
    path: Directory
    extensions: tuple[str, ...] = (*PICTURES, *RAW)
    more_extensions: tuple[str, ...] = ()
    sniff: bool = False
    group: bool = True
    exclude: tuple[str, ...] = ()
    follow_symlinks: bool = False
    watch: bool = True
    queue: str = ""
    views: Views = "whole"

    @field_validator("extensions", "more_extensions")
    @classmethod
    def _extensions_are_suffixes(cls, extensions: tuple[str, ...]) -> tuple[str, ...]:
        for extension in extensions:
            if not re.fullmatch(r"\.[^./\\\s]+", extension):
                raise ValueError(f'{extension!r} is not an extension: write it as ".jpg"')
        return tuple(dict.fromkeys(extension.lower() for extension in extensions))

    @model_validator(mode="after")
    def _only_buckets_have_queues(self) -> "Source":
        if not self.queue:
            return self
        if not re.fullmatch(r"https?://[^\s@]+/[^\s@]+", self.queue):
            raise ValueError(
                "`queue` is no address of a queue, such as "
                "https://sqs.eu-central-1.amazonaws.com/123456789012/pictures"
            )
        if not (isinstance(self.path, Remote) and self.path.is_bucket):
            raise ValueError("`queue` is for buckets alone, such as s3://bucket/prefix")
        return self


class ImageLimits(_Model):
    """Bounds for one image; one that exceeds them is quarantined as too large or timed out.

    Attributes:
        max_megapixels: Largest width x height, in millions of pixels.
        max_megabytes: Largest file, in millions of bytes.
        timeout_seconds: Longest time that decoding may take.
    """

    max_megapixels: Annotated[float, Field(gt=0, le=1e6)] = 300.0
    max_megabytes: Annotated[float, Field(gt=0, le=1e6)] = 1000.0
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0


def _is_file(uri: str) -> bool:
    return uri.endswith(".db") and "://" not in uri


# What belongs to an engine, and says nothing where the index is embedded.
ENGINE_KEYS = ("uri", "collection", "replicas", "shards", "index_type", "timeout")


class IndexSettings(_Model):
    """Where the index is, and how well it must answer.

    Attributes:
        recall: Share of the true ten nearest images that a query must find.
        codes: Whether to write quantised vectors too, which faiss (the extra `codes`) searches
            faster; "auto": where there are 50,000 or more together, and faiss is installed.
        vectors: What the index stores vectors as: float32 keeps full precision in twice the space.
        engine: "embedded" keeps the index in files under home; "milvus" publishes it to Milvus
            (the extra `milvus`).
        uri: Where the engine is: "http://host:19530", or a path that ends in ".db", which is
            relative to home, for Milvus Lite. The token comes from $RETRIEVAL_MILVUS_TOKEN.
        collection: What the names of the engine's collections and of the alias begin with.
        replicas: How many copies of a collection the engine keeps in memory.
        shards: How many parts of a collection the engine writes at the same time.
        index_type: The engine's kind of index, such as "HNSW", "DISKANN", "GPU_CAGRA" or "FLAT".
        timeout: Seconds that the engine may take for one answer.
    """

    recall: Annotated[float, Field(gt=0, le=1)] = 0.99
    codes: Literal[True, False, "auto"] = "auto"
    vectors: Literal["float16", "float32"] = "float16"
    engine: Literal["embedded", "milvus"] = "embedded"
    uri: str = ""
    collection: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")] = "retrieval"
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    shards: Annotated[int, Field(ge=1, le=64)] = 1
    index_type: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,31}$")] = "AUTOINDEX"
    timeout: Annotated[float, Field(gt=0, le=3600)] = 30.0

    @field_validator("uri")
    @classmethod
    def _uri_is_one(cls, uri: str) -> str:
        if not uri or _is_file(uri):
            return uri
        address = urlsplit(uri)
        if address.username or address.password:
            raise ValueError("holds a password: put the token into $RETRIEVAL_MILVUS_TOKEN")
        if (
            address.scheme not in ("http", "https", "tcp", "unix")
            or not address.path + address.netloc
        ):
            raise ValueError('write it as "http://host:19530", or as a path that ends in ".db"')
        return uri

    @model_validator(mode="after")
    def _engine_is_whole(self) -> "IndexSettings":
        named = [key for key in ENGINE_KEYS if key in self.model_fields_set]
        if self.engine == "embedded" and named:
            raise ValueError(
                f'{", ".join(named)}: only an engine takes this: add engine = "milvus"'
            )
        if self.engine == "milvus" and not self.uri:
            raise ValueError(
                'engine = "milvus" needs `uri`: "http://host:19530", or a path that ends in ".db"'
            )
        return self


def _check_timezone(name: str) -> str:
    if name not in zoneinfo.available_timezones():
        raise ValueError('no such time zone: write it as "Europe/Berlin" or "UTC"')
    return name


# Five fields; Dagster checks their contents.
Cron = Annotated[str, Field(pattern=r"^\S+( +\S+){4}$")]


class Schedule(_Model):
    """When Dagster runs jobs by itself.

    Attributes:
        reindex: Cron line for indexing all sources.
        saved_queries: Cron line for asking the saved queries; each new build asks them too.
        timezone: IANA name of the time zone of the cron lines.
        watch_seconds: Seconds between two looks at the directories.
    """

    reindex: Cron = "0 2 * * *"
    saved_queries: Cron = "0 7 * * *"
    timezone: Annotated[str, AfterValidator(_check_timezone)] = "UTC"
    watch_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 30


class SavedQuery(_Model):
    """A query that is asked whenever there is a new index, and on a schedule.

    Attributes:
        name: Name of the query.
        text: What to look for, in words.
        images: Files of pictures to find similar ones of.
        plus: More words to look for; "2*snow" counts twice.
        minus: Words whose pictures are not wanted.
        sources: Names of the sources to search; empty means all.
        paths: Globs on the paths to search; empty means all.
        after: Only pictures taken then or later, such as "2019-08" or "last week", which is counted
            from the day on which the query is asked.
        before: Only pictures taken before.
        on: Only pictures taken then, such as "summer 2019".
        years: Only pictures taken in these years; empty means any.
        file_after: Only files changed then or later.
        file_before: Only files changed before.
        cameras: Only cameras with these words in their names; empty means any.
        lenses: Only lenses with these words in their names; empty means any.
        near: Only pictures taken near this town, or "latitude, longitude" in degrees.
        within: How near, such as "20 km".
        countries: Only pictures taken in these countries, by code or name; empty means all.
        keywords: Only pictures with one of these keywords; empty means any.
        labels: Only pictures with one of these labels; empty means all.
        albums: Only pictures of one of these albums; empty means all.
        like_albums: Albums to find more pictures for; what is in them is no hit.
        min_rating: Only pictures with so many stars.
        sort: "relevance", "newest", "oldest" or "name".
        literal: True to read no words of `text` as facts.
        k: Largest number of hits.
        min_relevance: Hits with a lower relevance (0 to 1) are left out.
        notify: Command and arguments to run when there are new hits, which it gets as JSON on its
            standard input.
    """

    name: Name
    text: str = ""
    images: tuple[Path, ...] = ()
    plus: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    after: str = ""
    before: str = ""
    on: str = ""
    years: tuple[Annotated[int, Field(ge=1, le=9_998)], ...] = ()
    file_after: str = ""
    file_before: str = ""
    cameras: tuple[str, ...] = ()
    lenses: tuple[str, ...] = ()
    near: str = ""
    within: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?(km|m|mi|miles?)?$")] = "20 km"
    countries: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    albums: tuple[str, ...] = ()
    like_albums: tuple[str, ...] = ()
    min_rating: Annotated[int, Field(ge=-1, le=5)] | None = None
    sort: Literal["relevance", "newest", "oldest", "name"] = "relevance"
    literal: bool = False
    k: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    min_relevance: Annotated[float, Field(ge=0, le=1)] = 0.5
    notify: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _asks_for_something(self) -> "SavedQuery":
        if not (self.text.strip() or self.images or self.plus or self.like_albums):
            raise ValueError("asks for nothing: give it `text`, `images`, `plus` or `like_albums`")
        return self


class LabelSettings(_Model):
    """Words that every picture is labelled with, if they fit it.

    Attributes:
        words: What to label with: "invoice", or "a photo of a sunset".
        compete: True to leave a picture only the word that fits it best.
        min_relevance: From this relevance on, a picture has the label. From 0.5 on, more of those
            that have it are right than wrong.
    """

    words: tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)], ...] = ()
    compete: bool = False
    min_relevance: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _words_are_apart(self) -> "LabelSettings":
        folded = [word.casefold() for word in self.words]
        for word in self.words:
            if not word.isprintable():
                raise ValueError(f"{word!r} is no line of text")
            if folded.count(word.casefold()) > 1:
                raise ValueError(f'"{word}" is named twice')
        return self


class MapSettings(_Model):
    """How the map is laid out.

    Attributes:
        umap: True for a layout by UMAP beside the principal components, with the extra `umap`.
    """

    umap: bool = False


class Checks(_Model):
    """Thresholds above which Dagster's checks warn.

    Attributes:
        max_quarantined: Share of a source's images that cannot be used.
        min_dated: Share of a source's pictures that have a date other than the time of the file;
            0 for a source of pictures that no camera took.
        max_drift: How far images moved between two maps, as a share of the map's size.
        max_age_hours: Hours since a source was last crawled.
    """

    max_quarantined: Annotated[float, Field(ge=0, le=1)] = 0.1
    min_dated: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_drift: Annotated[float, Field(ge=0)] = 0.5
    max_age_hours: Annotated[float, Field(gt=0)] = 36.0


class EvaluationSettings(_Model):
    """Labelled queries: Dagster counts how well each index answers them, and so must a new model.

    Attributes:
        file: Labelled queries, in a format of docs/quality.md.
        folders: True to let each folder's name ask for the pictures in it, instead of a file.
        metric: By which a new model is compared with the present one.
        tolerance: A new model whose metric is lower by more than this does not take over.
    """

    file: Path | None = None
    folders: bool = False
    metric: Literal["recall@1", "recall@5", "recall@10", "MRR", "nDCG@10", "mAP"] = "nDCG@10"
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02

    @model_validator(mode="after")
    def _has_one_kind_of_labels(self) -> "EvaluationSettings":
        if (self.file is not None) == self.folders:
            raise ValueError("give it either `file`, or `folders = true`")
        return self


class Alerts(_Model):
    """Whom Dagster tells of what went wrong.

    Attributes:
        notify: Command and arguments to run when a run or a check has failed, which it gets as JSON
            on its standard input.
    """

    notify: tuple[str, ...] = ()


def _check_address(address: str) -> str:
    if address.startswith("ray://"):
        raise ValueError(
            "Ray Data does not run through Ray's client: run on a machine of the cluster, "
            'with "auto" or "host:6379"'
        )
    return address


class RaySettings(_Model):
    """Embedding on a Ray cluster.

    Attributes:
        address: "local" starts one on this machine for the run; "auto" or "host:6379" joins one
            that this machine belongs to.
        decoders: Largest number of actors that decode; each takes one processor.
        encoders: Largest number of actors that hold the model.
        num_gpus: GPUs for each encoder, also a fraction; with 0 it computes on a processor.
    """

    address: Annotated[str, Field(min_length=1), AfterValidator(_check_address)] = "local"
    decoders: Annotated[int, Field(ge=1, le=100_000)] = 4
    encoders: Annotated[int, Field(ge=1, le=100_000)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 0.0


class Settings(_Model):
    """Everything that retrieval.toml may say.

    Attributes:
        home: Directory of all tables, builds and maps; may be a URL such as "s3://bucket/prefix".
        model: "offline", an id of the Hugging Face hub, or the directory of a checkpoint; "clip"
            stands for the original's, the default.
        revision: Branch, tag or commit of a hub model; None means its main branch. Of "offline":
            "lite2" or "lite0"; None means what the home was embedded with, else "lite2".
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "reference" (float32, every pixel decoded) or "int8" (eight bits, if
            these pass a check on the first pictures).
        workers: Number of processes that decode images; None means one per core.
        max_shrink: Share of a source's files that may vanish between two runs without
            `--allow-shrink`.
        images: Bounds for one image.
        index: Where the index is, and how well it must answer.
        schedule: When Dagster runs jobs by itself.
        ray: The Ray cluster that embeds images; None means this process.
        checks: Thresholds of Dagster's checks.
        alerts: Whom Dagster tells of what went wrong.
        evaluation: Labelled queries that tell how well an index answers; None for none.
        labels: Words that pictures are labelled with.
        map: How the map is laid out.
        sources: The directories to index.
        saved_queries: Queries that are asked whenever there is a new index.
    """

    home: Directory = Path("retrieval-home")
    model: Annotated[str, Field(min_length=1)] = DEFAULT_MODEL
    revision: str | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    precision: Literal["auto", "reference", "int8"] = "auto"
    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    max_shrink: Annotated[float, Field(ge=0, le=1)] = 0.5
    images: ImageLimits = ImageLimits()
    index: IndexSettings = IndexSettings()
    schedule: Schedule = Schedule()
    ray: RaySettings | None = None
    checks: Checks = Checks()
    alerts: Alerts = Alerts()
    evaluation: EvaluationSettings | None = None
    labels: LabelSettings = LabelSettings()
    map: MapSettings = MapSettings()
    sources: tuple[Source, ...] = ()
    saved_queries: tuple[SavedQuery, ...] = ()

    @field_validator("model")
    @classmethod
    def _model_in_full(cls, model: str) -> str:
        return DEFAULT_MODEL if model == ORIGINAL else model

    @field_validator("home")
    @classmethod
    def _home_is_text(cls, home: Place) -> Place:
        # Arrow and Annoy take the names of files as UTF-8 only.
        try:
            str(home).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{to_text(str(home))} is not UTF-8: name a home elsewhere, or rename the directory"
            ) from None
        return home

    @model_validator(mode="after")
    def _file_of_engine_is_local(self) -> "Settings":
        file = self.index.uri
        if isinstance(self.home, Remote) and _is_file(file) and not Path(file).is_absolute():
            raise ValueError(
                f"index.uri: {file} would lie in home ({self.home}), where no engine can write: "
                "name an absolute path"
            )
        return self

    @model_validator(mode="after")
    def _saved_queries_are_apart(self) -> "Settings":
        names = [query.name.lower() for query in self.saved_queries]
        for query in self.saved_queries:
            if names.count(query.name.lower()) > 1:
                raise ValueError(f'two saved queries are named "{query.name}"')
            for source in query.sources:
                if source not in self.source_names:
                    raise ValueError(
                        f'saved query "{query.name}": there is no source "{source}" '
                        f"(sources: {', '.join(self.source_names) or 'none yet'})"
                    )
        return self

    @model_validator(mode="after")
    def _sources_are_apart(self) -> "Settings":
        # Names become file names, and some file systems do not tell cases apart.
        names: dict[str, str] = {}
        for source in self.sources:
            if other := names.get(source.name.lower()):
                raise ValueError(f'two sources are named "{other}": give each its own name')
            names[source.name.lower()] = source.name
        roots: dict[PurePath, Source] = {}
        for source in self.sources:
            root = _resolved(source.path)
            if (same := roots.setdefault(root, source)) is not source:
                raise ValueError(
                    f'sources "{same.name}" and "{source.name}" are the same directory '
                    f"({source.path}): keep one of them"
                )
        for root, source in roots.items():
            for above in root.parents:
                if (parent := roots.get(above)) is not None:
                    raise ValueError(
                        f'source "{source.name}" ({source.path}) lies inside source '
                        f'"{parent.name}" ({parent.path}): keep one of them, or use `exclude`'
                    )
        home = _resolved(self.home)
        for root, source in roots.items():
            if home in (root, *root.parents):
                where = "is" if root == home else "lies inside"
                raise ValueError(
                    f'source "{source.name}" ({source.path}) {where} home ({self.home}), which is '
                    "for tables alone: let `home` name a directory of its own"
                )
        # The crawl leaves out a local home that lies inside a source.
        if isinstance(self.home, Remote):
            for place in (home, *home.parents):
                if (parent := roots.get(place)) is not None:
                    raise ValueError(
                        f'home ({self.home}) lies inside source "{parent.name}", whose pictures it '
                        "would become: give it a prefix or bucket of its own"
                    )
        return self

    @property
    def has_engine(self) -> bool:
        """Whether an engine holds the index, rather than files under home."""
        return self.index.engine != "embedded"

    @property
    def engine_file(self) -> Path | None:
        """The directory in which Milvus Lite keeps its data; None where the engine is a server."""
        if not _is_file(self.index.uri):
            return None
        return Path(str(self.home)) / self.index.uri

    @property
    def source_names(self) -> list[str]:
        """Names of the sources, as listed."""
        return [source.name for source in self.sources]

    def source(self, name: str) -> Source:
        """Return the source called `name`.

        Raises:
            SettingsError: There is none; the message lists those that exist.
        """
        for source in self.sources:
            if source.name == name:
                return source
        known = ", ".join(self.source_names) or "none yet"
        raise SettingsError(f'there is no source "{name}" in the settings (sources: {known})')

    def saved_query(self, name: str) -> SavedQuery:
        """Return the saved query called `name`.

        Raises:
            SettingsError: There is none; the message lists those that exist.
        """
        for query in self.saved_queries:
            if query.name == name:
                return query
        known = ", ".join(query.name for query in self.saved_queries) or "none yet"
        raise SettingsError(f'there is no saved query "{name}" in the settings ({known})')


def _resolved(place: Place) -> PurePath:
    return PurePosixPath(place.identity) if isinstance(place, Remote) else real_path(place)
