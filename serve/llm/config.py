"""What users write: which models an application serves, by which engines, to whom.

Everything is checked here, where it is written, and says what is wrong in one sentence. Nothing here acts on it.
"""

import hashlib
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from ..base.unknown_names import unknown
from ..capacity_queue.config import check_cost
from ..declaration.options import DeploymentOptions, parse_options
from ..declaration.router_options import queue_config

# Of engines, by which pydantic tells them apart.
_KINDS: Final = frozenset({"llamacpp", "server", "simulated", "wordllama"})
BATCH_BAND: Final = "batch"
_Name = Annotated[str, Field(min_length=1, max_length=256)]


class ConfigError(ValueError):
    """A configuration says what it may not: one sentence for each mistake."""


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            sentences = [_sentence(type(self), each) for each in error.errors(include_url=False)]
            raise ConfigError("; ".join(sentences)) from None


def _sentence(config: type[BaseModel], mistake: ErrorDetails) -> str:
    """What pydantic has found, for who wrote it. The place is without the kind of an engine, which nobody writes."""
    parts = [part for part in mistake["loc"] if part not in _KINDS]
    where = config.__name__ + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    value: object = mistake["input"]
    match mistake["type"]:
        case "extra_forbidden":
            return unknown(f"{config.__name__} field", str(parts[0]), config.model_fields)
        case "missing":
            return f"{config.__name__} needs the field {str(parts[0])!r}"
        case "value_error":
            return f"{where}: {mistake['msg'].removeprefix('Value error, ')}"
        case _:
            # What has another form than a hash may be the secret itself.
            shown = isinstance(value, bool | int | float | str) and mistake["type"] != "string_pattern_mismatch"
            given = f", not {value!r}"[:100] if shown else ""
            return f"{where}: {mistake['msg'][:1].lower()}{mistake['msg'][1:]}{given}"


class LlamaCppEngine(_Config):
    """llama.cpp (package `xllamacpp`) in a process that the replica owns: a GGUF file, several requests at once."""

    kind: Literal["llamacpp"] = "llamacpp"
    model: _Name
    """Path of the GGUF file; `package:NAME` for the one GGUF file that an installed Python package carries."""
    slots: int = Field(default=4, ge=1, le=1024)
    """Requests that run at once, in one batch."""
    context: int = Field(default=8192, ge=64)
    """Tokens of context for all slots together: each has `context / slots`."""
    threads: int = Field(default=1, ge=1, le=1024)
    """CPU threads that compute. More than there are free cores make it slower."""
    gpu_layers: int = Field(default=-1, ge=-1)
    """Layers on the GPU; -1: as many as fit, where there is a GPU."""
    prefill_batch: int | None = Field(default=None, ge=1)
    """Prompt tokens that are read in one step, in which no other request gets a token and no engine
    notices a client that leaves; None: 4 for each thread on a CPU, on a GPU as many as llama.cpp takes."""
    chat_template: str | None = None
    """Jinja text in place of the model's own template."""
    embeddings: bool = False
    """Serve embeddings (and nothing else, where the model was made for them)."""
    params: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Further fields of llama.cpp's common parameters, by their names there: {"cache_type_k": "q8_0"}."""


class ServerEngine(_Config):
    """A server process that speaks the OpenAI protocol (vLLM, SGLang, llama.cpp's own): started, watched and ended."""

    kind: Literal["server"] = "server"
    command: list[str] = Field(min_length=1)
    """Program and arguments, without a shell. `{port}`, `{free_port}` (another one), `{host}`, `{model_id}`, `{gpus}`,
    `{session}` are filled in."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Where it listens, on 127.0.0.1; None: a free port, which the command gets as `{port}`."""
    keep_alive: bool = True
    """Whether connections are used again. False for servers that keep a thread for each, as llama.cpp's does."""
    health_path: str = "/health"
    """Answers 200 as soon as requests can come."""
    start_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds until it must answer; loading a large model takes minutes."""
    stop_timeout_s: float = Field(default=10.0, ge=0)
    """Seconds between SIGTERM and SIGKILL for its whole process group."""
    env: dict[str, str] = Field(default_factory=dict[str, str])
    """Further environment variables."""
    paths: list[str] | None = None
    """What it answers; None: it is asked (its OpenAPI description, else by trying)."""
    kv_tokens: int | None = Field(default=None, ge=1)
    """Tokens that its cache holds; None: it is asked, where it says so."""
    slots: int = Field(default=256, ge=1)
    """Requests that it runs at once."""
    context: int | None = Field(default=None, ge=1)
    """Tokens of the longest request; None: it is asked."""
    ranks: int = Field(default=1, ge=1)
    """Data-parallel ranks."""
    continues_chat: bool | None = None
    """Whether it continues a last message of the assistant; None: known by what it is."""


class SimulatedEngine(_Config):
    """No model, but the time that one would take: for load tests without a GPU."""

    kind: Literal["simulated"] = "simulated"
    prefill_tokens_per_s: float = Field(default=10_000.0, gt=0)
    """Prompt tokens (outside of the prefix cache) that are read in a second."""
    decode_step_s: float = Field(default=0.01, ge=0)
    """Seconds of one step of decoding with a batch of one: each running request gets one token a step."""
    decode_step_per_request_s: float = Field(default=0.0, ge=0)
    """Seconds that each further request in the batch adds to the step."""
    kv_tokens: int = Field(default=100_000, ge=1)
    """Tokens that the key-value cache holds; requests wait while they do not fit."""
    slots: int = Field(default=64, ge=1)
    """Requests that are decoded at once."""
    context: int = Field(default=8192, ge=2)
    """Tokens of the longest request."""
    block_tokens: int = Field(default=16, ge=1)
    """Tokens of a block of the prefix cache; 0 hits below one block."""
    chunk_tokens: int = Field(default=2048, ge=1)
    """Prompt tokens that are read in one step at most, so that a long prompt does not hold up requests that decode."""
    answer_tokens: int = Field(default=200, ge=1)
    """Tokens of an answer on average, where the request neither sets a limit nor `ignore_eos`."""
    speed: float = Field(default=1.0, gt=0)
    """All times are divided by this."""


class WordLlamaEngine(_Config):
    """Embeddings and reranking by a small model that the package `wordllama` carries."""

    kind: Literal["wordllama"] = "wordllama"
    dimensions: int = Field(default=256, ge=1)
    """Numbers in an embedding."""


EngineConfig = Annotated[LlamaCppEngine | ServerEngine | SimulatedEngine | WordLlamaEngine, Field(discriminator="kind")]


# What llama.cpp restores a slot with as it was saved with, or not at all.
_OF_SLOTS: Final = ("cache_type_k", "cache_type_v", "flash_attn_type")


class PrefillConfig(_Config):
    """Replicas that only read prompts, for a model whose others answer. It needs the capacity queue."""

    engine: EngineConfig | None = None
    """Of these replicas, of the same kind as the model's; None: the same. llama.cpp hands slots over as files, a server
    by vLLM's `kv_transfer_params`."""
    deployment: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Options of their deployment: num_replicas, max_ongoing_requests (default: twice the engine's slots), ..."""
    folder: _Name | None = None
    """Where llama.cpp's slots are saved, which all replicas of the model must reach; None: in the session's folder on
    this machine."""


class LoraAdapter(_Config):
    """A LoRA adapter that is loaded when the model starts. Requests choose it by its name, as a model."""

    name: _Name
    path: _Name
    """File (llama.cpp) or folder (vLLM, SGLang)."""


class LLMConfig(_Config):
    """A model: its name, its engine, and the deployment that runs it."""

    model_id: _Name
    """The name that requests give."""
    engine: EngineConfig
    aliases: list[_Name] = Field(default_factory=list[str])
    """Further names for it."""
    adapters: list[LoraAdapter] = Field(default_factory=list[LoraAdapter])
    max_adapters: int = Field(default=16, ge=0)
    """LoRA adapters that may be loaded at once, those that are loaded live included."""
    deployment: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Options of its deployment: num_replicas, max_ongoing_requests (default: twice the engine's slots), ..."""
    max_resumes: int = Field(default=3, ge=0)
    """How often a stream whose replica died goes on at another one; 0: never."""
    stall_timeout_s: float | None = Field(default=300.0, gt=0)
    """Seconds for which requests may wait in an engine of which nothing is heard, neither bytes nor progress, until it
    is taken for hung, killed and started again (its answers go on elsewhere); None: never."""
    sleep_after_s: float | None = Field(default=None, gt=0)
    """Seconds without a request after which the engine sleeps (where it can); None: never."""
    queue_timeout_s: float = Field(default=120.0, gt=0)
    """Seconds that a request waits until a replica has room for it, or is there at all; then it is 503."""
    prefill: PrefillConfig | None = None
    """Replicas that read prompts, so that those of `deployment` only answer; None: each does both."""
    cost: Any = None
    """What a request takes of its capacity queue, in place of the estimate: called with its EngineCall it gives tokens
    of the prompt, or a QueueCost, of which what is left open is estimated. Or "module:name" of one."""
    owned_by: str = "actorrt"
    """What /v1/models says."""

    @field_validator("cost")
    @classmethod
    def _there(cls, cost: Any) -> Any:
        try:
            return check_cost("cost", cost)
        except TypeError as error:
            raise ValueError(str(error)) from None

    @field_validator("deployment")
    @classmethod
    def _known(cls, options: dict[str, Any]) -> dict[str, Any]:
        queue = queue_config(parse_options(options, DeploymentOptions(name="model")).request_router)
        if queue is not None and queue.cost is not None:
            raise ValueError("a model's cost function is the field cost of its LLMConfig, and none of its router")
        if queue is not None and queue.prefill is not None:
            raise ValueError("who reads prompts is the field prefill of the LLMConfig, and none of its router")
        return options

    @model_validator(mode="after")
    def _hands_over(self) -> Self:
        if self.prefill is None:
            return self
        if not has_capacity_queue(self):
            raise ValueError("prefill needs the capacity queue: deployment={'request_router': 'capacity_queue'}")
        if "request_router" in self.prefill.deployment:
            raise ValueError("prefill.deployment has no request_router of its own: the model's queue decides")
        if "name" in self.prefill.deployment:
            raise ValueError("prefill.deployment has no name of its own: it follows that of the model's")
        parse_options(self.prefill.deployment, DeploymentOptions(name="prefill"))
        reads, answers = self.prefill.engine or self.engine, self.engine
        if answers.kind not in ("llamacpp", "server") or reads.kind != answers.kind:
            raise ValueError(
                f"a prompt is handed over from llamacpp to llamacpp, or from server to server, "
                f"not from {reads.kind} to {answers.kind}"
            )
        if isinstance(reads, LlamaCppEngine) and isinstance(answers, LlamaCppEngine):
            if reads.model != answers.model:
                raise ValueError("the engine of prefill must have the same model as the one that answers")
            if "slot_save_path" in reads.params or "slot_save_path" in answers.params:
                raise ValueError("where slots are saved is prefill.folder, and no slot_save_path of an engine")
            for name in _OF_SLOTS:
                if reads.params.get(name) != answers.params.get(name):
                    raise ValueError(f"the engine of prefill must have the same {name} as the one that answers")
            if reads.embeddings or answers.embeddings:
                raise ValueError("an engine with embeddings reads no prompts for another")
        elif self.prefill.folder is not None:
            raise ValueError("prefill.folder is for llamacpp engines alone")
        return self


def has_capacity_queue(config: LLMConfig) -> bool:
    """Whether the model's deployment has one."""
    options = parse_options(config.deployment, DeploymentOptions(name=""))
    return queue_config(options.request_router) is not None


def lowest_band(config: LLMConfig) -> str:
    """Of the model's capacity queue, in which batches wait: "batch", or the last one where there is none of that name;
    "" without a queue.
    """
    queue = queue_config(parse_options(config.deployment, DeploymentOptions(name="")).request_router)
    if queue is None:
        return ""
    bands = [each.name for each in queue.bands]
    return BATCH_BAND if BATCH_BAND in bands else bands[-1]


class ApiKey(_Config):
    """A key that clients send as `Authorization: Bearer KEY` or `x-api-key: KEY`."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """The key's SHA-256 in hexadecimal, so that a configuration holds no secret: `ApiKey.of("sk-...", tenant)`."""
    tenant: _Name
    """To whom its requests are counted."""

    @classmethod
    def of(cls, key: str, tenant: str) -> "ApiKey":
        return cls(sha256=hashlib.sha256(key.encode()).hexdigest(), tenant=tenant)


class BatchConfig(_Config):
    """Where files of requests and their answers are kept, and how much of them."""

    folder: _Name
    """For files, and their records in SQLite; it is made if it is not there. It must be on a disk of the machine on
    which the replicas of the front run, and stays when these end: what is in it goes on with the next ones."""
    max_file_bytes: int = Field(default=200 * 1024 * 1024, ge=1)
    """A larger file is 413."""
    max_requests: int = Field(default=50_000, ge=1)
    """Requests in a file; a batch of one that has more fails."""
    max_bytes: int = Field(default=10 * 1024**3, ge=1)
    """Bytes of all files of a tenant; more are refused (413), but for those that its batches make."""
    max_files: int = Field(default=10_000, ge=1)
    """Files of a tenant, likewise."""
    max_open: int = Field(default=100, ge=1)
    """Batches of a tenant that have not ended; more are refused (429)."""
    concurrency: int = Field(default=64, ge=1)
    """Requests of a tenant's batches that a replica of the front has at once at each model with a capacity queue, where
    all others go before them."""
    concurrency_unqueued: int = Field(default=4, ge=1)
    """The same, of all tenants, at each model without one, where these are served as any other."""
    expires_after_s: int | None = Field(default=30 * 86400, ge=1)
    """Seconds that files live of which their makers do not say it; None: until they are deleted."""
    lease_s: float = Field(default=10.0, ge=0.1)
    """Seconds of silence after which a batch of a replica of the front is gone on with by another one."""


class FrontConfig(_Config):
    """What clients meet: which keys are valid, and what each client may send."""

    keys: list[ApiKey] = Field(default_factory=list[ApiKey])
    """Once there is one, requests without a known key are refused with 401."""
    cors_origins: list[str] = Field(default_factory=lambda: ["*"])
    """Origins whose pages may call; empty: none. Those that are named may also call from a public site into a private
    network."""
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    """A larger request is 413."""
    unsupported: Literal["refuse", "ignore"] = "refuse"
    """What becomes of a known parameter that the model's engine lacks: 400 that names it, or nothing."""
    ping_s: float = Field(default=10.0, gt=0)
    """Seconds of silence after which a stream is sent a sign of life: Anthropic's `ping`, else a comment."""
    stored_responses: int = Field(default=1000, ge=0)
    """Answers of /v1/responses that are kept for later requests; those unused for longest go first. 0: none."""
    stored_response_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Bytes that these may take together, with all that went into them."""
    batches: BatchConfig | None = None
    """Where files (/v1/files) and batches (/v1/batches) are kept; None: neither is there."""
    num_replicas: int = Field(default=1, ge=1)
    """Replicas of the front."""
    live_adapters: bool = False
    """Whether requests may load and unload LoRA adapters (/v1/load_lora_adapter). They name files of the server's."""
    access_log: bool = False
    """Whether each request is a line of the log, with its model, tenant, tokens and times."""
    chat_page: bool = False
    """Whether `/` is a page to chat on."""
