"""Answers of chat and of raw completions put together from several runs. Source: OpenAI's API reference."""

from typing import Any, Final

from ..engines.interface import EngineCall
from ..engines.stream_end import choices_of
from .answer import Runs, Sent, Way, body_of, less, with_body
from .events import DONE, Event, a_dict, a_list, event

LIMITS: Final = ("n_predict", "max_completion_tokens", "max_tokens")
_SAID: Final = ("content", "reasoning_content", "reasoning", "refusal")
_LENGTH: Final[dict[str, Any]] = {"index": 0, "delta": {}, "finish_reason": "length"}
_Place = tuple[str | int, ...]


class _Choice:
    """What was sent of one of the `n` answers."""

    __slots__ = ("finished", "parts", "role")

    def __init__(self) -> None:
        self.role = False
        self.finished = False
        # By place: ("content",), ("reasoning_content",), ("tool_calls", 0, "arguments"), ...
        self.parts: dict[_Place, Sent] = {}

    def read(self, choice: dict[str, Any]) -> None:
        """So much of it was sent."""
        self.finished = self.finished or choice.get("finish_reason") is not None
        self.role = self.role or "role" in (choice.get("delta") or ())
        for place, holder, key in _texts(choice):
            self.parts.setdefault(place, Sent()).add(holder[key])

    def say_role(self) -> bool:
        """Whether that is new."""
        had_role, self.role = self.role, True
        return not had_role

    def finish(self) -> None:
        self.finished = True


class ChoicesAnswer(Runs):
    """An `Answer` of choices: of chat, or of raw completions."""

    def __init__(
        self,
        call: EngineCall,
        *,
        continues: bool = True,
        continues_forms: bool = False,
        names_continuation: bool = False,
    ) -> None:
        """`names_continuation`: the engine must be told that the last message is to be continued (vLLM, SGLang)."""
        super().__init__(call, continues=continues, continues_forms=continues_forms)
        self._is_chat = call.path.endswith("/chat/completions")
        self._names_continuation = names_continuation
        self._choices: dict[int, _Choice] = {}
        # What all events of an answer say alike.
        self._same: dict[str, Any] = {}
        self._has_usage = False

    def generated(self) -> str:
        self.read_kept()
        return "".join(
            "".join(sent.text for sent in choice.parts.values()) for _, choice in sorted(self._choices.items())
        )

    def ends(self, each: Event) -> bool:
        return each.is_done

    # ---- the next run

    def next_call(self) -> EngineCall | bytes:
        if not self._choices:
            return self.anew()
        body = body_of(self.call)
        if len(self._choices) >= choices_of(body) and all(each.finished for each in self._choices.values()):
            return self._usage(body)
        if not self._continue(body):
            self.way = Way.REPLAY
            for choice in self._choices.values():
                for sent in choice.parts.values():
                    sent.replay()
            return self.call
        if less(body, LIMITS, self.before) == 0:
            # The limit was reached just as the run broke.
            return self._usage(body_of(self.call))
        self.way = Way.CONTINUE
        return with_body(self.call, body)

    def _usage(self, body: dict[str, Any]) -> EngineCall | bytes:
        """The text is there; the length of the prompt, and what else comes at the end, is learnt for one token."""
        ended = all(each.finished for each in self._choices.values())
        asked = a_dict(body.get("stream_options")).get("include_usage") or (not self._is_chat and not ended)
        if self._has_usage or not asked:
            self.done = True
            end = b"" if ended else event({**self._same, "choices": [_LENGTH]})
            return end + DONE
        for name in LIMITS:
            body.pop(name, None)
        self.way = Way.COUNT
        return with_body(self.call, {**body, "max_tokens": 1, "n": 1})

    def _continue(self, body: dict[str, Any]) -> bool:
        """Put what was generated to the end of the request, where that continues it."""
        if not self.can_continue(body) or choices_of(body) != 1 or (body.get("best_of") or 1) != 1:
            return False
        choice = self._choices.get(0) or _Choice()
        if any(place != ("content",) for place in choice.parts):
            return False
        text = choice.parts[("content",)].text if choice.parts else ""
        if self._is_chat:
            return self._continue_chat(body, text)
        prompt: object = body.get("prompt")
        if len(a_list(prompt)) == 1:
            prompt = a_list(prompt)[0]
        if not isinstance(prompt, str) or body.get("echo") or body.get("suffix"):
            return False
        body["prompt"] = prompt + text
        return True

    def _continue_chat(self, body: dict[str, Any], text: str) -> bool:
        messages = list(a_list(body.get("messages")))
        last = a_dict(messages[-1]) if messages else {}
        if last.get("role") == "assistant":
            # The client began the answer itself.
            begun: object = last.get("content") or ""
            added = begun + text if isinstance(begun, str) else [*a_list(begun), {"type": "text", "text": text}]
            messages[-1] = {**last, "content": added}
        elif text:
            messages.append({"role": "assistant", "content": text})
        body["messages"] = messages
        if text and self._names_continuation:
            body.update(continue_final_message=True, add_generation_prompt=False)
        return True

    # ---- its events

    def read(self, value: dict[str, Any]) -> None:
        if not self._same:
            self._same = {key: value[key] for key in ("id", "object", "created", "model") if key in value}
        self._has_usage = self._has_usage or bool(value.get("usage"))
        for choice in value.get("choices") or ():
            self._read_choice(choice)

    def _read_choice(self, choice: dict[str, Any]) -> None:
        self._choices.setdefault(choice.get("index", 0), _Choice()).read(choice)

    def follow(self, value: dict[str, Any]) -> bytes:
        if "error" in value:
            return event(value)
        value.update(self._same)
        before = a_list(value.get("choices"))
        follow = self._close_choice if self.way is Way.COUNT else self._follow_choice
        choices = [each for each in before if follow(each)]
        usage = value.get("usage")
        if usage:
            self._has_usage = True
            self._follow_usage(usage)
        if before and not choices and not usage:
            return b""
        value["choices"] = choices
        return event(value)

    def _follow_choice(self, choice: dict[str, Any]) -> bool:
        """Change a choice so that it follows what was sent; whether it says anything new."""
        known = self._choices.setdefault(choice.get("index", 0), _Choice())
        if known.finished:
            return False
        # What a run that goes on says of its tokens is new, also where they bring no text.
        new = self.way is Way.CONTINUE and bool(choice.get("logprobs"))
        delta: dict[str, Any] = choice.get("delta") or {}
        for tool in a_list(delta.get("tool_calls")):
            if ("tool_calls", tool.get("index", 0), "name") in known.parts:
                # It was begun: its id is that of the run that began it.
                tool.pop("id", None)
                tool.pop("type", None)
        for place, holder, key in _texts(choice):
            piece: str = holder[key]
            holder[key] = known.parts.setdefault(place, Sent()).add(piece)
            new = new or bool(holder[key])
            if not holder[key] and piece and key == "name":
                del holder[key]
        if "role" in delta:
            if known.say_role():
                new = True
            else:
                del delta["role"]
        if choice.get("finish_reason") is not None:
            known.finish()
            new = True
        return new

    def _close_choice(self, choice: dict[str, Any]) -> bool:
        """Of a run that is for counting only the end counts, and only for what has none yet."""
        known = self._choices.setdefault(choice.get("index", 0), _Choice())
        if choice.get("finish_reason") is None or known.finished:
            return False
        for _, holder, key in _texts(choice):
            holder[key] = ""
        choice["finish_reason"] = "length"
        known.finish()
        return True

    def _follow_usage(self, usage: dict[str, Any]) -> None:
        if self.way is Way.REPLAY:
            return
        prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        if self.way is Way.CONTINUE:
            usage["total_tokens"] = prompt + completion
            usage["completion_tokens"] = self.before + completion
            usage["prompt_tokens"] = max(0, prompt - self.before)
        else:
            usage["completion_tokens"] = self.before
            usage["total_tokens"] = prompt + self.before
        details = usage.get("prompt_tokens_details")
        if details and "cached_tokens" in details:
            details["cached_tokens"] = min(details["cached_tokens"], usage["prompt_tokens"])


def _texts(choice: dict[str, Any]) -> list[tuple[_Place, dict[str, Any], str]]:
    """Every text in a choice that is a piece of a longer one: its place, and where it stands."""
    if isinstance(choice.get("text"), str):
        return [(("content",), choice, "text")]
    delta: dict[str, Any] = choice.get("delta") or {}
    places: list[tuple[_Place, dict[str, Any], str]] = [((key,), delta, key) for key in _SAID]
    tools: list[dict[str, Any]] = delta.get("tool_calls") or []
    for tool in tools:
        function: dict[str, Any] = tool.get("function") or {}
        places += [(("tool_calls", tool.get("index", 0), key), function, key) for key in ("name", "arguments")]
    return [(place, holder, key) for place, holder, key in places if isinstance(holder.get(key), str)]
