"""A long load of every kind on a server: whole answers, streams, clients that go away, bodies that are none, slow readers.

    python tools/clients/soak.py http://127.0.0.1:8080 --requests 20000 [--rate 35] [--seconds 600] [--pid PID] [--key KEY]

Every answer is compared with what the server said to the same request alone. Ends with exit code 1 when an answer was wrong, a
request was lost or hung, or the process --pid grew. Needs nothing but Python.
"""

import argparse
import asyncio
import base64
import collections
import itertools
import json
import pathlib
import random
import struct
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def png(width, height):
    """A picture of coloured stripes."""
    rows = b"".join(b"\0" + bytes((x * y // 7 + 85 * c) % 256 for x in range(width) for c in range(3)) for y in range(height))
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# Of every shape; most requests are about the first.
PICTURES = [(ROOT / "examples/desk.png").read_bytes(), png(64, 64), png(900, 200), png(150, 1100), png(33, 700), png(1200, 900)]
PICTURES = ["data:image/png;base64," + base64.b64encode(data).decode() for data in PICTURES]
QUESTIONS = [
    "What is written on the object left of the cat?",
    "What is written on the object right of the cat?",
    "What is above the cat?",
    "Which is left of the cat, the cup or the dog?",
]
PATIENCE = 120


def body(picture, question, steps, stream):
    content = [{"type": "image_url", "image_url": {"url": PICTURES[picture]}}, {"type": "text", "text": question}]
    lare = {"steps": steps, "trace": steps % 2 == 0}
    fields = {"messages": [{"role": "user", "content": content}], "temperature": 0, "stream": stream, "lare": lare}
    return json.dumps(fields).encode()


class Server:
    def __init__(self, url, key):
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        self.place, self.key = (host, int(port)), key

    async def send(self, data, kind="application/json"):
        reader, writer = await asyncio.open_connection(*self.place)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\nconnection: close\r\n"
            f"authorization: Bearer {self.key}\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        await writer.drain()
        return reader, writer

    async def ask(self, data, slowly=False, **more):
        """Status and body."""
        reader, writer = await self.send(data, **more)
        got = b""
        while piece := await reader.read(64 if slowly else 1 << 16):
            got += piece
            if slowly and len(got) < 2000:
                await asyncio.sleep(0.02)
        writer.close()
        head, _, rest = got.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            rest = unchunked(rest)
        return int(head.split(b" ")[1]), rest.decode()


def unchunked(rest):
    whole = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        whole, rest = whole + rest[:length], rest[length + 2 :]
    return whole


def said(text, stream):
    """The answer's words; None for one that was cut off."""
    if not stream:
        return json.loads(text)["choices"][0]["message"]["content"]
    data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    if not data or data[-1] != "[DONE]":
        return None
    deltas = (json.loads(line)["choices"][0]["delta"] for line in data[:-1])
    return "".join(delta.get("content", "") for delta in deltas)


class Soak:
    def __init__(self, server, seed):
        self.server, self.random = server, random.Random(seed)
        self.expected, self.counts, self.wrong = {}, collections.Counter(), []

    async def learn(self):
        """What the server says alone."""
        for asked in itertools.product(range(len(PICTURES)), QUESTIONS, range(5)):
            status, text = await self.server.ask(body(*asked, False))
            assert status == 200, text
            self.expected[asked] = said(text, False)

    async def one(self):
        kind = self.random.choices(
            ["whole", "stream", "slow", "gone", "gone later", "no JSON", "bad field", "bad type", "too large"],
            [40, 25, 5, 10, 8, 4, 4, 2, 2],
        )[0]
        picture = self.random.choice([0, 0, 0, *range(len(PICTURES))])
        asked = (picture, self.random.choice(QUESTIONS), self.random.randrange(5))
        try:
            note = await asyncio.wait_for(self.act(kind, asked), PATIENCE)
        except TimeoutError:
            note = "hung"
        except (OSError, ValueError, IndexError) as error:
            note = f"lost: {error!r}"
        if note not in ("right", "full"):
            self.wrong.append((kind, *asked, note))
        self.counts[f"{kind}: {note if len(note) < 20 else 'wrong'}"] += 1

    async def act(self, kind, asked):
        ask = self.server.ask
        if kind in ("whole", "stream", "slow"):
            stream = kind != "whole"
            status, text = await ask(body(*asked, stream), slowly=kind == "slow")
            if status == 429:
                return "full"
            got = said(text, stream) if status == 200 else f"{status} {text}"
            return "right" if got == self.expected[asked] else f"wrong: {got!r}"
        if kind.startswith("gone"):
            reader, writer = await self.server.send(body(*asked, True))
            if kind == "gone later":
                await reader.read(300)
            writer.close()
            return "right"
        expected, data, more = {
            "no JSON": (400, body(*asked, False)[:-9], {}),
            "bad field": (400, json.dumps({"messages": [{"role": "user", "content": 7}]}).encode(), {}),
            "bad type": (415, b"a=b", {"kind": "application/x-www-form-urlencoded"}),
            "too large": (413, b" " * (33 << 20), {}),
        }[kind]
        status, text = await ask(data, **more)
        return "right" if status in (expected, 429) and "error" in json.loads(text) else f"{status} {text[:200]}"


def resident_kib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


async def soak(args):
    server = Server(args.url, args.key)
    load, begun, done, memory = Soak(server, args.seed), time.monotonic(), 0, []
    await load.learn()

    async def worker():
        nonlocal done
        while done < args.requests and time.monotonic() - begun < args.seconds:
            done += 1
            if args.rate:
                await asyncio.sleep(begun + done / args.rate - time.monotonic())
            await load.one()
            if args.pid and done % max(1, args.requests // 20) == 0:
                memory.append(resident_kib(args.pid))

    await asyncio.gather(*(worker() for _ in range(args.concurrency)))
    for kind, count in sorted(load.counts.items()):
        print(f"{count:6} {kind}")
    print(f"{done} requests in {time.monotonic() - begun:.0f} s; memory in MiB: {[kib >> 10 for kib in memory]}")
    for wrong in load.wrong[:10]:
        print("wrong:", *wrong)
    grew = len(memory) >= 8 and max(memory[-3:]) > 1.25 * max(memory[2:5])
    if grew:
        print("the server's memory grew")
    return 1 if load.wrong or grew else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, help="requests a second at most")
    parser.add_argument("--concurrency", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--key", default="none")
    parser.add_argument("--pid", type=int, help="watch this process's memory")
    raise SystemExit(asyncio.run(soak(parser.parse_args())))


if __name__ == "__main__":
    main()
