// The server's API as the page uses it: which models there are, and an answer as it comes. Whatever goes wrong becomes one
// `Trouble`: what happened, and what to do about it.

/** No byte for so long, keep-alive comments included, and the connection counts as lost. */
const MOST_SILENCE_MS = 60_000;

/** Something that went wrong, in words for the person in front of the page. */
export class Trouble extends Error {
  /** `kind` says which way out the page can offer: "key", "smaller", "wait", "again" or "change". */
  constructor({ kind, title, what, hint, waitS = 0 }) {
    super(title);
    Object.assign(this, { kind, title, what, hint, waitS });
  }
}

function headers(key) {
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (cause) {
    if (options.signal?.aborted) throw cause;
    throw new Trouble({
      kind: "again",
      title: "The server does not answer",
      what: `Nothing answers at ${location.origin}.`,
      hint: "Check that “lare serve” is running there, then ask again.",
    });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** The models that the server answers with, its default first. */
export async function models(key) {
  const response = await request("v1/models", { headers: headers(key) });
  const list = await response.json().catch(() => null);
  if (!Array.isArray(list?.data) || list.data.length === 0) {
    throw new Trouble({
      kind: "again",
      title: "The server lists no model",
      what: "Its list of models is empty or cannot be read.",
      hint: "Start it as “lare serve”, or with “--model FOLDER”.",
    });
  }
  return list.data;
}

/** What each status means to a person; `says` is the server's own message. */
const REFUSALS = {
  400: (says) => ({ kind: "change", title: "The server refused this question", what: says, hint: "Change what it names and ask again." }),
  401: (says) => ({ kind: "key", title: "This server asks for a key", what: says, hint: "Its operator knows the key." }),
  404: (says) => ({ kind: "change", title: "The server does not know this", what: says, hint: "Reload the page: the server may run another model now." }),
  408: (says) => ({ kind: "again", title: "It took too long", what: says, hint: "Ask again with fewer looks, or a smaller picture." }),
  413: (says) => ({ kind: "smaller", title: "The picture is too large for this server", what: says, hint: "Send it at half the size; the model sees less than that anyway." }),
  429: (says) => ({ kind: "wait", title: "The server is busy", what: says, hint: "Ask again in a moment." }),
  503: (says) => ({ kind: "again", title: "The server takes no questions now", what: says, hint: "It is starting or shutting down. Ask again in a moment." }),
};
const FAILURE = (says) => ({ kind: "again", title: "The server failed at this question", what: says, hint: "Ask again. If it fails again, the server's log says why." });

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const id = response.headers.get("x-request-id");
  const waitS = Math.ceil(Number(response.headers.get("retry-after"))) || 0;
  return troubleOf(response.status, body?.error, { waitS, id });
}

function troubleOf(status, error, { waitS = 0, id = null } = {}) {
  const says = [sentence(error?.message || `It answered with status ${status}.`)];
  if (error?.param && !says[0].includes(error.param)) says.push(`The field is “${error.param}”.`);
  if (id && status >= 500) says.push(`The request is “${id}” in its log.`);
  const known = REFUSALS[status === 504 ? 408 : status] ?? (status < 500 ? REFUSALS[400] : FAILURE);
  return new Trouble({ ...known(says.join(" ")), waitS });
}

function sentence(text) {
  const trimmed = text.trim();
  const begun = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/**
 * Asks, and tells `on` what comes as it comes: `look(look)`, `text(piece)`, `finish(reason)`, `usage(usage)`.
 * Ends when the server says that it is done; anything else is a `Trouble`.
 */
export async function ask({ body, key, signal, on }) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { ...headers(key), accept: "text/event-stream" },
    body: JSON.stringify(body),
    signal,
  });
  for await (const data of events(response.body, signal)) {
    const chunk = parsed(data);
    if (chunk.error) throw troubleOf(statusOf(chunk.error), chunk.error);
    if (chunk.lare?.look) on.look(chunk.lare.look);
    const [choice] = chunk.choices ?? [];
    if (choice?.delta?.content) on.text(choice.delta.content);
    if (choice?.finish_reason) on.finish(choice.finish_reason);
    if (chunk.usage) on.usage(chunk.usage);
  }
}

/** An error inside a stream has no status of its own; this is what its code stands for. */
const CODES = { timeout: 504, closing: 503, queue_full: 429, too_large: 413, invalid_api_key: 401 };

function statusOf(error) {
  return CODES[error.code] ?? (error.type === "invalid_request_error" ? 400 : 500);
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw broken("A part of the answer arrived damaged.");
  }
}

function broken(what) {
  return new Trouble({ kind: "again", title: "The answer broke off", what, hint: "What came is kept below. Ask again for the rest." });
}

/** The data of each server-sent event, up to the one that says that all is said. */
async function* events(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let complete = false;
  try {
    for (;;) {
      const { value, done } = await next(reader, signal);
      if (done) throw broken("The connection ended before the answer did.");
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
        complete = data === "[DONE]";
        if (complete) return void drain(reader);
        if (data) yield data;
      }
    }
  } finally {
    if (!complete) reader.cancel().catch(() => {}); // it may have failed already: then there is nothing left to stop
  }
}

/** Reads what follows the end, so that the browser counts the request as finished and keeps its connection. */
async function drain(reader) {
  try {
    while (!(await reader.read()).done);
  } catch {
    // the answer is complete; how the connection ends is of no interest
  }
}

async function next(reader, signal) {
  let timer = 0;
  const silence = new Promise((_, fail) => {
    timer = setTimeout(() => fail(broken("Nothing was heard for a minute.")), MOST_SILENCE_MS);
  });
  try {
    return await Promise.race([reader.read(), silence]);
  } catch (cause) {
    if (signal.aborted || cause instanceof Trouble) throw cause;
    throw broken("The connection was lost before the answer was complete.");
  } finally {
    clearTimeout(timer);
  }
}
