"""What a request asks of the simulated engine: read from its JSON, or refused by a sentence that names the field."""

from dataclasses import dataclass
from typing import Any, cast

from .request_fields import Fields, Refused, are_tokens
from .word_pieces import text_of

_ABSENT = "the simulated engine has no {}: it answers with words that follow from the prompt"
_LACKED = {
    "tools": "tools", "functions": "functions", "grammar": "grammars", "json_schema": "JSON schemas",
    "guided_json": "JSON schemas", "logprobs": "log probabilities", "top_logprobs": "log probabilities",
    "suffix": "suffixes",
}  # fmt: skip
# What one request may make the engine hold and search: choices of a prompt, answers of all, strings and their length.
_MOST_CHOICES = 128
_MOST_ANSWERS = 1024
_MOST_STOPS = 32
_MOST_STOP_LETTERS = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that can be answered."""

    chat: bool
    model: str
    prompts: tuple[str, ...]
    """Each gets `choices` answers. Of a chat it is the conversation, with the begun answer at its end."""
    begun: str = ""
    """What the assistant has said already, to be continued."""
    choices: int = 1
    most_tokens: int | None = None
    """0: the prompt is read, and that is all."""
    stop: tuple[str, ...] = ()
    seed: int = 0
    stream: bool = False
    usage: bool = False
    """Whether the stream ends with an event that tells the usage."""
    echo: bool = False
    ignore_end: bool = False
    """Go on until `most_tokens`, whatever the text."""
    timings: bool = False
    """Have each token's event say when it left the engine."""


def read(body: bytes, *, chat: bool) -> Wanted:
    """Raises Refused."""
    fields = Fields.of(body)
    for name, what in _LACKED.items():
        if fields.all.get(name) not in (None, False, 0, [], ""):
            raise Refused(_ABSENT.format(what), name)
    form: Any = fields.of_type("response_format", dict, "an object", {})
    if form.get("type", "text") != "text":
        raise Refused(_ABSENT.format(f"response_format of type {form['type']!r}"), "response_format")
    fields.of_type("temperature", int | float, "a number", None)
    options: Any = fields.of_type("stream_options", dict, "an object", {})
    begun = ""
    if chat:
        prompt, begun = _conversation(fields.all.get("messages"))
        prompts: tuple[str, ...] = (prompt,)
    else:
        prompts = _prompts(fields.all.get("prompt"))
    choices = fields.count("n", most=_MOST_CHOICES) or 1
    most = fields.count("max_completion_tokens", least=0)
    if len(prompts) * choices > _MOST_ANSWERS:
        asked = f"{len(prompts)} prompts with {choices} choices each"
        raise Refused(f"'prompt' must ask for at most {_MOST_ANSWERS} answers, but is {asked}", "prompt")
    return Wanted(
        chat=chat,
        model=fields.of_type("model", str, "a string", ""),
        prompts=prompts,
        begun=begun,
        choices=choices,
        most_tokens=fields.count("max_tokens", least=0) if most is None else most,
        stop=_stop(fields.all.get("stop")),
        seed=fields.of_type("seed", int, "an integer", 0),
        stream=fields.of_type("stream", bool, "true or false", False),
        usage=bool(options.get("include_usage")),
        echo=not chat and fields.of_type("echo", bool, "true or false", False),
        ignore_end=fields.of_type("ignore_eos", bool, "true or false", False),
        timings=fields.of_type("timings_per_token", bool, "true or false", False),
    )


def prompt_of(body: bytes) -> str:
    """The prompt that a chat makes. Raises Refused."""
    return _conversation(Fields.of(body).all.get("messages"))[0]


def _conversation(messages: object) -> tuple[str, str]:
    if messages is None:
        raise Refused("'messages' is required", "messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("'messages' must be a list of at least one message", "messages")
    parts: list[str] = []
    begun = ""
    last = len(cast(list[object], messages)) - 1
    for index, message in enumerate(cast(list[Any], messages)):
        fields = cast(dict[str, Any], message) if isinstance(message, dict) else {}
        role = fields.get("role")
        if not isinstance(role, str):
            raise Refused(f"'messages[{index}]' must be an object with a 'role'", f"messages[{index}].role")
        text = _content(fields.get("content"), f"messages[{index}].content")
        if role == "assistant" and index == last:
            begun = text
        else:
            parts.append(f"<|{role}|>\n{text}\n")
    return f"{''.join(parts)}<|assistant|>\n{begun}", begun


def _content(content: object, name: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refused(f"'{name}' must be a string or a list of parts", name)
    texts: list[str] = []
    for part in cast(list[Any], content):
        match part:
            case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
                texts.append(text)
            case {"type": str(kind)}:
                raise Refused(_ABSENT.format(f"parts of type {kind!r}, as in '{name}'"), name)
            case _:
                raise Refused(f"each part of '{name}' must be an object with a 'type'", name)
    return "".join(texts)


def _prompts(prompt: object) -> tuple[str, ...]:
    if prompt is None:
        raise Refused("'prompt' is required", "prompt")
    if isinstance(prompt, str) or are_tokens(prompt):
        prompt = [prompt]
    if isinstance(prompt, list) and prompt and all(isinstance(p, str) or are_tokens(p) for p in cast(Any, prompt)):
        try:
            return tuple(p if isinstance(p, str) else text_of(p) for p in cast(list[str | list[int]], prompt))
        except ValueError as error:
            raise Refused(str(error), "prompt") from None
    raise Refused("'prompt' must be a string, a list of strings, a list of token numbers, or a list of those", "prompt")


def _stop(stop: Any) -> tuple[str, ...]:
    if stop is None:
        return ()
    if not isinstance(stop, str | list):
        raise Refused("'stop' must be a string or a list of strings", "stop")
    strings = cast(list[object], [stop] if isinstance(stop, str) else stop)
    if len(strings) > _MOST_STOPS:
        raise Refused(f"'stop' must hold at most {_MOST_STOPS} strings, but holds {len(strings)}", "stop")
    for index, one in enumerate(strings):
        name = "stop" if isinstance(stop, str) else f"stop[{index}]"
        if not isinstance(one, str):
            raise Refused(f"'{name}' must be a string", name)
        if not one:
            raise Refused(f"'{name}' is empty: every answer would stop before its first token", name)
        if len(one) > _MOST_STOP_LETTERS:
            raise Refused(f"'{name}' must have at most {_MOST_STOP_LETTERS} letters, but has {len(one)}", name)
    return tuple(cast(list[str], strings))
