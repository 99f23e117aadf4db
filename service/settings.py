"""What an operator may choose, each with its bounds and its consequence.

::

    flag  --max-batch-size 32  ▶  variable  FOLDSERVE_MAX_BATCH_SIZE=32  ▶  such a line in the file of
    --settings  ▶  default 64

The first that is given wins. A ``FOLDSERVE_*`` variable that nobody knows is an error, because a
misspelt limit that is silently ignored is found out on the worst day. `describe_settings` is the
one source of the reference table in ``docs/settings.md``.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self, get_args

from dotenv import dotenv_values
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.errors import InvalidConfiguration

ENV_PREFIX = "FOLDSERVE_"

ImageFormat = Literal["jpeg", "png", "webp", "bmp", "gif", "tiff", "avif"]

_MIB = 1024 * 1024
# Where the parser puts `--settings`; no setting has this name.
_FILE_FLAG = "settings file"
_REFERENCE_HEAD = (
    "# Settings",
    "",
    "Every setting is an environment variable and a flag: `FOLDSERVE_MAX_BATCH_SIZE=32` or",
    "`--max-batch-size 32`. A flag wins over a variable, and a variable over a line of the file that",
    "`--settings FILE` names: lines like `FOLDSERVE_MAX_BATCH_SIZE=32`, as `python -m service tune` writes",
    "them. An unknown `FOLDSERVE_*` variable or line is an error.",
    "",
    "Made by `python -m service settings`.",
    "",
    "| variable | default | bounds | what it does |",
    "| --- | --- | --- | --- |",
)


class Settings(BaseSettings):
    """All settings of one service process. Frozen once read."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", protected_namespaces=()
    )

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. The default is reachable from this machine only; "
        "0.0.0.0 is reachable from everywhere the network lets it.",
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of the Open Inference Protocol over gRPC; 0 takes any free one. Needs the extra "
        "`grpc`. With several workers the kernel deals connections out among them. Unset: no gRPC.",
    )
    repository: Path | str = Field(
        default=Path("models"),
        description="Folder with <name>/<version>/model.onnx, or the address of one: `s3://`, `gs://`, "
        "`az://`, `https://`; then it needs the extra `remote`, and every version a checksum file. The "
        "highest version that loads and passes its self-test serves.",
    )
    repository_cache: Path = Field(
        default=Path("models-cache"),
        description="Folder for what is fetched of a remote repository; of each address in a folder of its "
        "own. A process that starts while the remote does not answer serves from here: keep it.",
    )
    models: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        default=None,
        description="Names of the models to load, separated by commas, or `all`. Each model has its own "
        "sessions and queue, and all share the cores.",
    )
    default_model: str | None = Field(
        default=None,
        description="Model that answers when a request names none. Unset: the only model, else `digits`.",
    )
    execution_provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        default="auto",
        description="Where inference runs. `cuda` and `tensorrt` never fall back: if the session did not get "
        "it, the process says why and exits. `auto` takes the best that really works and reports it.",
    )
    cuda_graphs: bool = Field(
        default=False,
        description="On a GPU, record each batch size's work once and replay it whole: less time "
        "between small operators, more memory. Only for models that run on the GPU whole; others are "
        "refused.",
    )
    tensorrt_cache: Path | None = Field(
        default=None,
        description="Folder, there and writable, in which TensorRT keeps what it built for this GPU. Without "
        "it every start builds anew, for minutes.",
    )
    precision: Literal["fp32", "fp16", "int8", "auto"] = Field(
        default="fp32",
        description="Which file of a version to load. `auto` follows the hardware (fp16 on a GPU, int8 with "
        "VNNI), never a stopwatch, so replicas answer alike.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Cores that inference uses. A lone image has them all; where many wait, each core runs "
        "batches of its own. Unset: the CPUs that the affinity mask and the cgroup quota leave to this "
        "process, shared by the workers; more than those only fight each other. With 2 or more, on a CPU, "
        "a model's weights are in memory twice.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Processes that share the port. Each has its own event loop, sessions and queue, and its "
        "share of the threads; queue sizes and rates are per worker. Unset: one for each CPU, up to 8 and as "
        "far as 256 MiB each go, where every model is so small that one thread runs it best, for then most "
        "of the work is HTTP; else 1 with all threads. On a GPU only 1.",
    )
    max_batch_size: int = Field(
        default=64,
        ge=1,
        le=1024,
        description="Most instances in one inference. Larger raises throughput on a GPU, and with it memory "
        "and the time that a newcomer waits for a running batch.",
    )
    max_queue_delay_ms: float = Field(
        default=0,
        ge=0,
        le=1000,
        description="Longest wait of an idle engine for company. 0: batches form only while the engine is "
        "busy anyway, which costs a lone request nothing.",
    )
    max_queue_size: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="Most instances admitted and not yet answered, for each model. What exceeds it is "
        "refused at once (503 overloaded); larger needs more memory.",
    )
    default_deadline_ms: int = Field(
        default=10_000,
        ge=1,
        le=3_600_000,
        description="Deadline of requests that send no X-Request-Timeout-Ms. Work that cannot meet its "
        "deadline is refused at the door, work that missed it is not started.",
    )
    inference_timeout_s: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="Longest time for one batch. An engine that exceeds it counts as hung: every waiter "
        "fails, and /readyz and /livez turn 503 so that the process is restarted.",
    )
    header_timeout_ms: int = Field(
        default=10_000,
        ge=10,
        le=600_000,
        description="Time from the first byte (or the connection) to the end of the headers; then 408.",
    )
    body_timeout_ms: int = Field(
        default=30_000,
        ge=10,
        le=600_000,
        description="Time from the headers to the end of the body; then 408.",
    )
    write_timeout_ms: int = Field(
        default=30_000,
        ge=100,
        le=600_000,
        description="How long a client may leave what it is sent unread; then its connection is reset. Linux "
        "only.",
    )
    keep_alive_timeout_s: int = Field(
        default=75,
        ge=1,
        le=3600,
        description="How long an idle connection stays open. Longer than the idle timeout of a proxy in "
        "front, or the proxy will reuse connections that are being closed.",
    )
    max_header_bytes: int = Field(
        default=16_384,
        ge=1024,
        le=_MIB,
        description="Largest request line and headers together; then 431.",
    )
    max_body_bytes: int = Field(
        default=32 * _MIB,
        ge=1024,
        le=1024 * _MIB,
        description="Largest request body; then 413. Each request in flight holds its body in memory.",
    )
    max_bytes_in_flight: int = Field(
        default=512 * _MIB,
        ge=1024,
        le=1024 * 1024 * _MIB,
        description="All request bodies held at once, by each worker; then 503 overloaded. "
        "Not less than max_body_bytes.",
    )
    max_connections: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Connections open at once, in each worker; further ones are answered 503 and closed. "
        "Each takes a file descriptor and some kilobytes.",
    )
    max_pixels: int = Field(
        default=50_000_000,
        ge=1,
        le=1_000_000_000,
        description="Most pixels of one image, read from its header before decoding; then 413. "
        "Decoding needs 4 to 24 bytes a pixel.",
    )
    max_images_per_request: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Most images in one request; then 413. Not more than max_queue_size, or such a request "
        "could never be admitted.",
    )
    top_k: int = Field(
        default=5, ge=1, le=1000, description="Classes listed in `top` when a request sends no top_k."
    )
    image_formats: Annotated[tuple[ImageFormat, ...], NoDecode] = Field(
        default=get_args(ImageFormat),
        min_length=1,
        description="Formats that are decoded, separated by commas. Another one is answered 415; "
        "fewer formats are fewer decoders that face the internet.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File with the hashes of API keys, a name and scopes each; `python -m service key NAME` "
        "writes a line. With it /predict and /metrics need a key; it is read again when it changes.",
    )
    tls_certificate_file: Path | None = Field(
        default=None,
        description="PEM file with the certificate and its chain: the port then speaks only HTTPS. "
        "Read at the start only. For the open internet a proxy in front is better: docs/reliability.md.",
    )
    tls_key_file: Path | None = Field(
        default=None,
        description="PEM file with the certificate's private key, without a passphrase. Unset: it is in "
        "tls_certificate_file.",
    )
    rate_limit_per_minute: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Predict requests a minute for each API key (without keys, for each address; a reverse "
        "proxy is one address); then 429. 0: no limit.",
    )
    shutdown_delay_s: float = Field(
        default=0,
        ge=0,
        le=600,
        description="How long the listener stays open after SIGTERM while /readyz already says 503, so that "
        "a load balancer can look away first.",
    )
    shutdown_grace_s: float = Field(
        default=30,
        ge=0,
        le=3600,
        description="Longest time to finish accepted work after the listener has closed; what is left then "
        "fails with 503 shutting_down.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="`debug` writes a line for each request, `info` one for each failure or change of state.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="`json` writes one object a line, for log collectors."
    )
    reload_interval_s: float = Field(
        default=5,
        ge=0,
        le=86_400,
        description="How often the repository is looked at for new versions and changed plans. Shorter picks "
        "them up sooner and costs a few file look-ups each time. 0: only when told to.",
    )
    routing_header: str = Field(
        default="X-Routing-Key",
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="Request header whose value keeps a client on the canary's side or off it. Without it "
        "each request is drawn by its id.",
    )
    commit: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{7,64}$",
        description="Git commit of the running code, shown in `foldserve_build_info`: so a change of "
        "behaviour can be laid beside a release. `make serve` and `make image` set it.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Where traces go: the full URL of an OpenTelemetry collector, as in "
        "`http://collector:4318/v1/traces`. Needs the extra `tracing`. Unset: no traces, no cost.",
    )
    traces_per_s: float = Field(
        default=10,
        gt=0,
        le=1000,
        description="Most requests traced a second, in each worker, also when callers ask for more. "
        "Each costs about half a millisecond of CPU in the background.",
    )
    triton_metrics: bool = Field(
        default=False,
        description="`true` adds the `nv_inference_*` names of Triton Inference Server to /metrics, for "
        "dashboards made for it.",
    )

    @property
    def repository_folder(self) -> Path:
        """The repository on this machine: itself, or where the copy of a remote one lies."""
        if isinstance(self.repository, Path):
            return self.repository
        digest = hashlib.sha256(self.repository.rstrip("/").encode()).hexdigest()
        return self.repository_cache / digest[:16]

    @field_validator("repository", mode="before")
    @classmethod
    def _tell_address_from_folder(cls, value: object) -> object:
        if not isinstance(value, str) or "://" not in value:
            return value if isinstance(value, Path) else Path(str(value))
        if re.fullmatch(r"[a-z0-9]+://[^\s?#@]+", value) is None:
            raise ValueError(
                "an address is protocol://place/folder; keys belong into the variables of its protocol, "
                "as docs/repository.md lists them"
            )
        return value

    @field_validator("models", "image_formats", mode="before")
    @classmethod
    def _split_list(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        if value == "all":
            return cls.model_fields[info.field_name or ""].default
        return tuple(name.strip() for name in value.split(","))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_images_per_request > self.max_queue_size:
            raise ValueError(
                f"max_images_per_request ({self.max_images_per_request}) exceeds max_queue_size "
                f"({self.max_queue_size}): such a request could never be admitted; "
                "lower the one or raise the other"
            )
        if self.max_body_bytes > self.max_bytes_in_flight:
            raise ValueError(
                f"max_body_bytes ({self.max_body_bytes}) exceeds max_bytes_in_flight "
                f"({self.max_bytes_in_flight}): such a body could never be read; "
                "lower the one or raise the other"
            )
        if self.tls_key_file is not None and self.tls_certificate_file is None:
            raise ValueError("tls_key_file is set, but not tls_certificate_file")
        return self


def load_settings(
    arguments: Sequence[str] = (), *, commands: str = "", beside: argparse.ArgumentParser | None = None
) -> Settings:
    """The settings of this process: flags, ``FOLDSERVE_*`` variables, and the lines of a settings file.

    Args:
        arguments: Command-line flags, without the program's name. ``--help`` prints them and exits.
        commands: What ``--help`` says in its end, of what there is beside serving.
        beside: Of the command that leaves these flags to the settings: says its own usage if one is wrong.
            None: serving itself.

    Raises:
        InvalidConfiguration: An unknown variable or line, a value out of its bounds (names all of them), or
            a file that cannot be read.
        SystemExit: ``--help``, or a flag that does not exist.
    """
    _refuse_unknown((name for name in os.environ if name.upper().startswith(ENV_PREFIX)), "")
    given = _Parser(commands, beside).parse_args(arguments)
    flags = {name: value for name, value in vars(given).items() if value is not None}
    file = flags.pop(_FILE_FLAG, None)
    variables = {name.upper() for name, value in os.environ.items() if value}
    lines = {} if file is None else _read_lines(file)
    lines = {name: value for name, value in lines.items() if variable_name(name) not in variables}
    try:
        return Settings(**{**lines, **flags})
    except ValidationError as error:
        problems = (
            _problem(detail["loc"], detail["input"], detail["msg"], flags) for detail in error.errors()
        )
        raise InvalidConfiguration("; ".join(problems)) from error


def _read_lines(file: str) -> dict[str, str]:
    """Setting → value, of a file's lines."""
    try:
        with open(file, encoding="utf-8") as stream:
            values = dotenv_values(stream=stream, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"--settings {file}: cannot be read: {error}") from error
    _refuse_unknown(values, f"{file}: ")
    return {name.upper().removeprefix(ENV_PREFIX).lower(): value or "" for name, value in values.items()}


def _refuse_unknown(variables: Iterable[str], source: str) -> None:
    known = {variable_name(name) for name in Settings.model_fields}
    for variable in sorted(variables):
        if variable.upper() not in known:
            nearest = difflib.get_close_matches(variable.upper(), sorted(known), n=1, cutoff=0)[0]
            raise InvalidConfiguration(f"{source}{variable}: no such setting; the nearest is {nearest}")


def _problem(location: tuple[int | str, ...], value: object, message: str, flags: Mapping[str, str]) -> str:
    text = message.removeprefix("Value error, ")
    if not location:
        return text
    name = str(location[0])
    source = f"{flag_name(name)} {value}" if name in flags else f"{variable_name(name)}={value}"
    return f"{source}: {text[0].lower()}{text[1:]}"


class _Parser(argparse.ArgumentParser):
    """Of all flags; what is wrong with one is said by the command that was given it."""

    def __init__(self, commands: str, beside: argparse.ArgumentParser | None) -> None:
        variable = variable_name("max_batch_size")
        super().__init__(
            prog="python -m service",
            description="Serve the models of a repository over HTTP.",
            epilog="\n".join([f"Every flag is also a variable: --max-batch-size is {variable}.", commands]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._beside = beside
        self.add_argument(
            "--settings",
            dest=_FILE_FLAG,
            metavar="FILE",
            help="File of FOLDSERVE_* lines, for what is given nowhere else.",
        )
        for name, default, bounds, description in describe_settings():
            facts = ", ".join(part for part in (f"default {default}", bounds) if part)
            self.add_argument(flag_name(name), dest=name, metavar="VALUE", help=f"{description} ({facts})")

    def error(self, message: str) -> NoReturn:
        if self._beside is not None:
            self._beside.error(message)
        super().error(message)


def variable_name(setting: str) -> str:
    """``max_batch_size`` as an environment variable."""
    return ENV_PREFIX + setting.upper()


def flag_name(setting: str) -> str:
    """``max_batch_size`` as a command-line flag."""
    return "--" + setting.replace("_", "-")


def describe_settings() -> Iterator[tuple[str, str, str, str]]:
    """Name, default, bounds and consequence of every setting, in the order of the class."""
    for name, field in Settings.model_fields.items():
        yield name, _default_text(name, field), _bounds_text(field), field.description or ""


def settings_reference() -> str:
    """``docs/settings.md``: every setting as a row of a table."""
    rows = [
        f"| `{variable_name(name)}` | {default} | {bounds} | {description} |"
        for name, default, bounds, description in describe_settings()
    ]
    return "\n".join([*_REFERENCE_HEAD, *rows, ""])


def _default_text(name: str, field: FieldInfo) -> str:
    if field.default is None:
        return "all" if name == "models" else "unset"
    if isinstance(field.default, tuple):
        return "all"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    if isinstance(field.default, int) and field.default >= _MIB and field.default % _MIB == 0:
        return f"{field.default} ({field.default // _MIB} MiB)"
    return str(field.default)


def _bounds_text(field: FieldInfo) -> str:
    choices = ("true", "false") if field.annotation is bool else _choices(field.annotation)
    if choices:
        return ", ".join(choices)
    limits = {type(limit).__name__: limit for limit in field.metadata}
    lower, above, upper = (getattr(limits.get(kind), kind.lower(), None) for kind in ("Ge", "Gt", "Le"))
    if upper is None:
        return ""
    return f"{lower} to {upper}" if lower is not None else f"above {above}, to {upper}"


def _choices(annotation: object) -> tuple[str, ...]:
    """The words that a setting may have, also as the items of a list; empty where it is free."""
    inner = get_args(annotation)
    if inner and all(isinstance(choice, str) for choice in inner):
        return inner
    return _choices(inner[0]) if len(inner) == 2 and inner[1] is Ellipsis else ()
