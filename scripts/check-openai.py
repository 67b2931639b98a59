#!/usr/bin/env python3
"""Tests a running `openelm serve` with the official `openai` package.

    python3 -m venv venv && venv/bin/pip install openai
    openelm serve WEIGHTS --port 8080 &
    venv/bin/python scripts/check-openai.py http://127.0.0.1:8080 [--key KEY]

Completions and chat, whole and streamed, with several answers, stop strings, seeds, log-probabilities and prompts that are told and scored,
answers with a form, and the errors that the package knows.
"""

import argparse
import asyncio
import math

import openai


def check(holds, what):
    if not holds:
        raise SystemExit(f"FAILED: {what}")
    print(f"ok: {what}")


def raises(kind, call, *parts):
    try:
        call()
    except kind as error:
        return all(part in str(error) for part in parts) or f"{error} lacks one of {parts}"
    return "no error"


def completions(client, model):
    base = dict(model=model, prompt="Once upon a time", max_tokens=24)
    whole = client.completions.create(**base, temperature=0)
    text = whole.choices[0].text
    check(whole.usage.completion_tokens <= 24 and whole.usage.total_tokens > whole.usage.completion_tokens, f"a completion: {text!r}")
    check(whole.choices[0].finish_reason in ("length", "stop"), "with a reason for its end")
    chunks = list(client.completions.create(**base, temperature=0, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    check(streamed == text and len(chunks) > 3, f"the same as a stream of {len(chunks)} chunks")
    check(chunks[-1].usage.completion_tokens == whole.usage.completion_tokens, "which ends with the same usage")

    drawn = [client.completions.create(**base, temperature=1, seed=seed).choices[0].text for seed in (5, 5, 6)]
    check(drawn[0] == drawn[1] != drawn[2], "a seed gives the same text again, another seed another")
    several = client.completions.create(**base, temperature=1, seed=5, n=3)
    check([choice.index for choice in several.choices] == [0, 1, 2] and several.choices[0].text == drawn[0], "three answers at once")
    check(several.choices[1].text == drawn[2], "each with a seed of its own")
    batch = client.completions.create(**{**base, "prompt": ["One", "Two", "Three"]}, temperature=0)
    check(len(batch.choices) == 3, "three prompts at once")

    middle = text[len(text) // 2 : len(text) // 2 + 3]
    stopped = client.completions.create(**base, temperature=0, stop=[middle])
    check(stopped.choices[0].text == text[: text.index(middle)] and stopped.choices[0].finish_reason == "stop", f"stopped before {middle!r}")

    scored = client.completions.create(**base, temperature=0, logprobs=3).choices[0].logprobs
    check(len(scored.tokens) == len(scored.token_logprobs) == len(scored.top_logprobs) == whole.usage.completion_tokens, "log-probabilities")
    check(all(math.isclose(max(top.values()), own) for top, own in zip(scored.top_logprobs, scored.token_logprobs)), "the greedy token is the likeliest")


def echo(client, model):
    base = dict(model=model, prompt="Once upon a time there was", temperature=0, logprobs=2)
    scored = client.completions.create(**base, echo=True, max_tokens=0)
    choice, usage = scored.choices[0], scored.usage
    check(choice.text == base["prompt"] and choice.finish_reason == "length", "a prompt that is told")
    logprobs = choice.logprobs
    check(len(logprobs.tokens) == usage.prompt_tokens == usage.total_tokens, "and scored, without an answer")
    check(logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None, "but for its first token")
    check(all(own < 0 and max(top.values()) >= own for own, top in zip(logprobs.token_logprobs[1:], logprobs.top_logprobs[1:])), "with the likeliest")
    longer = client.completions.create(**base, echo=True, max_tokens=8)
    answer = client.completions.create(**base, max_tokens=8)
    check(longer.choices[0].text == base["prompt"] + answer.choices[0].text, "a prompt with its answer")
    # The answer's own log-probabilities are those that it gets as a part of a prompt.
    again = client.completions.create(**{**base, "prompt": longer.choices[0].text}, echo=True, max_tokens=0).choices[0].logprobs
    pairs = list(zip(again.token_logprobs, longer.choices[0].logprobs.token_logprobs))
    if again.tokens == longer.choices[0].logprobs.tokens:
        check(all(math.isclose(one, other, abs_tol=0.1) for one, other in pairs[1:]), "scores alike as a prompt")
    chunks = list(client.completions.create(**base, echo=True, max_tokens=8, stream=True))
    check("".join(chunk.choices[0].text for chunk in chunks) == longer.choices[0].text, "the same as a stream")
    batch = client.completions.create(model=model, prompt=[[1, 5, 7], [1, 9]], echo=True, max_tokens=0, logprobs=0)
    check([len(choice.logprobs.token_logprobs) for choice in batch.choices] == [3, 2], "prompts of ids")


def chat(client, model):
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Who are you?"}]
    base = dict(model=model, messages=messages, max_tokens=20, temperature=0)
    whole = client.chat.completions.create(**base)
    text = whole.choices[0].message.content
    check(whole.object == "chat.completion" and whole.choices[0].message.role == "assistant", f"an answer: {text!r}")
    with_usage = client.chat.completions.create(**base, stream=True, stream_options={"include_usage": True})
    chunks = list(with_usage)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check(streamed == text and chunks[0].choices[0].delta.role == "assistant", "the same as a stream")
    check(chunks[-1].usage.total_tokens == whole.usage.total_tokens, "with the same usage")
    with client.chat.completions.stream(**base) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
    check("".join(deltas) == text, "the same through the package's stream helper")
    scored = client.chat.completions.create(**base, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    told = b"".join(bytes(token.bytes) for token in scored).decode(errors="replace")
    check(told.strip().startswith(text.strip()[:10]) and all(len(token.top_logprobs) == 2 for token in scored), "log-probabilities with bytes")
    several = client.chat.completions.create(**{**base, "temperature": 1}, n=2, seed=1)
    check(len(several.choices) == 2, "two answers")
    # What the package gives back can be sent again.
    messages += [whole.choices[0].message, {"role": "user", "content": "Again?"}]
    longer = client.chat.completions.create(**{**base, "messages": messages})
    check(longer.usage.prompt_tokens > whole.usage.prompt_tokens, "the conversation goes on")
    check(longer.usage.prompt_tokens_details.cached_tokens >= whole.usage.prompt_tokens - 1, "and its beginning is not read again")


def forms(client, model):
    """Answers that have a form; pydantic comes with the package."""
    from typing import Literal

    from pydantic import BaseModel, Field

    class Bird(BaseModel):
        kind: Literal["robin", "wren"]
        songs: Literal[1, 2, 3]
        sings: bool
        note: str = Field(max_length=12)

    messages = [{"role": "user", "content": "Describe a bird."}]
    answer = client.chat.completions.parse(model=model, messages=messages, max_tokens=150, temperature=1, seed=4, response_format=Bird)
    bird = answer.choices[0].message.parsed
    check(isinstance(bird, Bird) and len(bird.note) <= 12, f"an answer of a schema: {bird}")
    ask = lambda **more: client.completions.create(model=model, prompt="A bird:", max_tokens=60, temperature=1, seed=4, **more).choices[0].text
    check(ask(extra_body={"structured_outputs": {"choice": ["robin", "wren"]}}) in ("robin", "wren"), "one of two texts")
    number = ask(extra_body={"structured_outputs": {"regex": "[1-9][0-9]{2}!"}})
    check(len(number) == 4 and number[:3].isdigit(), f"a text of a regular expression: {number!r}")
    check(ask(extra_body={"response_format": {"type": "json_object"}}).startswith("{"), "a JSON object")


def errors(client, model):
    ask = lambda **more: client.completions.create(**{"model": model, "prompt": "x", "max_tokens": 1, **more})
    check(raises(openai.NotFoundError, lambda: ask(model="gpt-4"), "gpt-4") is True, "an unknown model")
    check(raises(openai.BadRequestError, lambda: ask(temperature=-1), "temperature") is True, "a wrong temperature")
    check(raises(openai.BadRequestError, lambda: ask(prompt="a b c " * 20000), "the context holds") is True, "a prompt that is too long")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    call = lambda: client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], tools=tools)
    check(raises(openai.BadRequestError, call, "tools", "not supported") is True, "tools are refused by their name")
    wrong = client.with_options(api_key="wrong key".replace(" ", "-"))
    if client.api_key != "none":
        check(raises(openai.AuthenticationError, lambda: wrong.models.list(), "API key") is True, "a wrong key")


def same_but_for_ties(one, other):
    """Whether two greedy answers are equal up to where the two likeliest tokens are as good as equal: quantised weights round
    otherwise when several sequences are read in a step."""
    one, other = one.choices[0].logprobs, other.choices[0].logprobs
    for mine, theirs, top in zip(one.tokens, other.tokens, one.top_logprobs):
        if mine != theirs:
            first, second = sorted(top.values())[-1:-3:-1]
            return first - second < 0.1
    return True


async def together(address, key, model):
    client = openai.AsyncOpenAI(base_url=address + "/v1", api_key=key)
    ask = lambda n: client.completions.create(model=model, prompt=f"Number {n}", max_tokens=16, temperature=0, logprobs=2)
    alone = [await ask(n) for n in range(8)]
    at_once = await asyncio.gather(*(ask(n) for n in range(8)))
    equal = sum(one.choices[0].text == other.choices[0].text for one, other in zip(alone, at_once))
    check(all(map(same_but_for_ties, alone, at_once)), f"eight at once get what one alone gets ({equal} to the letter, the others but for ties)")
    # A stream that is left.
    stream = await client.completions.create(model=model, prompt="x", max_tokens=1000, stream=True)
    async for _ in stream:
        break
    await stream.close()
    check(same_but_for_ties(alone[0], await ask(0)), "a stream that is left holds nobody up")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--key", default="none")
    arguments = parser.parse_args()
    client = openai.OpenAI(base_url=arguments.address + "/v1", api_key=arguments.key, max_retries=0)
    model = client.models.list().data[0].id
    check(client.models.retrieve(model).id == model, f"the model {model}, with openai {openai.__version__}")
    completions(client, model)
    echo(client, model)
    chat(client, model)
    forms(client, model)
    errors(client, model)
    asyncio.run(together(arguments.address, arguments.key, model))
    print("the openai package works")


if __name__ == "__main__":
    main()
