"""OpenAI's own client against a server of ours: whole, asynchronous, streamed, and what it makes of refusals.

    python tools/clients/openai_client.py http://127.0.0.1:8080 [KEY]

Prints a line a check, and ends with exit code 1 at the first that fails.
"""

import asyncio
import base64
import pathlib
import sys

import openai

ROOT = pathlib.Path(__file__).resolve().parents[2]
DESK = "data:image/png;base64," + base64.b64encode((ROOT / "examples/desk.png").read_bytes()).decode()
QUESTION = "What is written on the object left of the cat?"


def messages(question=QUESTION, url=DESK):
    """One question on one picture."""
    picture = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [picture, {"type": "text", "text": question}]}]


def check(claim, holds, got=""):
    """Ends when a claim does not hold."""
    if not holds:
        sys.exit(f"wrong: {claim}: {got!r}")
    print(f"right: {claim}")


def refused(claim, kind, status, param, call):
    """The client must raise `kind`, with our status and field."""
    try:
        call()
    except kind as error:
        check(claim, (error.status_code, error.param) == (status, param), (error.status_code, error.param, str(error)))
    else:
        sys.exit(f"wrong: {claim}: no error")


def whole(client, model):
    """One answer, and what it cost."""
    answer = client.chat.completions.create(model=model, messages=messages(), temperature=0, max_tokens=1024)
    content, usage = answer.choices[0].message.content, answer.usage
    check("an answer has words", isinstance(content, str) and content.strip(), content)
    check("it ended by itself", answer.choices[0].finish_reason == "stop", answer.choices[0].finish_reason)
    check("latent steps are reasoning tokens", usage.completion_tokens_details.reasoning_tokens >= 1, usage)
    check("completion tokens contain them", usage.completion_tokens > usage.completion_tokens_details.reasoning_tokens, usage)
    check("the sum is the sum", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)
    check("our own counts are there", answer.lare["latent_steps"] == usage.completion_tokens_details.reasoning_tokens)
    return content


def streamed(client, model, content):
    """The same answer in pieces, with its looks."""
    extra = {"lare": {"trace": True}}
    chunks = list(
        client.chat.completions.create(
            model=model, messages=messages(), temperature=0, stream=True, extra_body=extra,
            stream_options={"include_usage": True},
        )
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check("a stream says the same", said == content, said)
    check("its first chunk has the role", chunks[0].choices[0].delta.role == "assistant")
    check("its last chunk is the usage", not chunks[-1].choices and chunks[-1].usage.completion_tokens > 0)
    check("the one before ends the answer", chunks[-2].choices[0].finish_reason == "stop")
    looks = [chunk.lare["look"] for chunk in chunks if getattr(chunk, "lare", None) and "look" in chunk.lare]
    check("each look came", len(looks) == chunks[-1].usage.completion_tokens_details.reasoning_tokens, len(looks))
    cells = [look["rows"] * look["cols"] for look in looks]
    check("a look has a score a cell", all(len(look["scores"]) == n for look, n in zip(looks, cells)), cells)


async def at_once(base, key, model, content):
    """Many at the same time, whole and streamed."""
    async with openai.AsyncOpenAI(base_url=base, api_key=key, max_retries=0) as client:

        async def one(stream):
            answer = await client.chat.completions.create(model=model, messages=messages(), temperature=0, stream=stream)
            if not stream:
                return answer.choices[0].message.content
            return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

        answers = await asyncio.gather(*(one(stream=at % 2 == 1) for at in range(16)))
    check("sixteen at once say the same", set(answers) == {content}, set(answers))


def refusals(client, base, key, model):
    """Every kind of error the client knows."""

    def create(**fields):
        given = {"model": model, "messages": messages()} | fields
        return lambda: client.chat.completions.create(**given)

    bad = openai.BadRequestError
    refused("two answers are refused", bad, 400, "n", create(n=2))
    refused("too many steps are refused", bad, 400, "lare.steps", create(extra_body={"lare": {"steps": 999}}))
    refused("no picture is refused", bad, 400, "messages", create(messages=[{"role": "user", "content": "a"}]))
    place = "messages[0].content[0].image_url.url"
    refused("a URL is refused", bad, 400, place, create(messages=messages(url="https://example.com/a.png")))
    refused("another model is not found", openai.NotFoundError, 404, "model", create(model="other"))
    if key != "none":
        stranger = openai.OpenAI(base_url=base, api_key="wrong", max_retries=0)
        refused("a wrong key is refused", openai.AuthenticationError, 401, None, stranger.models.list)


def main():
    base, key = sys.argv[1].rstrip("/") + "/v1", sys.argv[2] if len(sys.argv) > 2 else "none"
    client = openai.OpenAI(base_url=base, api_key=key, max_retries=0, timeout=120)
    models = client.models.list().data
    check("one model is served", len(models) == 1, models)
    model = models[0].id
    check("it is found by its name", client.models.retrieve(model).id == model)
    content = whole(client, model)
    streamed(client, model, content)
    asyncio.run(at_once(base, key, model, content))
    refusals(client, base, key, model)
    seeded = [
        client.chat.completions.create(model=model, messages=messages(), temperature=1.0, seed=7).choices[0].message.content
        for _ in range(2)
    ]
    check("a seed gives its answer again", seeded[0] == seeded[1], seeded)
    print(f"all right with openai {openai.__version__}: {content!r}")


if __name__ == "__main__":
    main()
