// Asks the querier that served this page, and nobody else. One function for all questions: it reports bytes as they arrive, gives up when
// the asker does, and turns every refusal into a `Refusal` with what to do about it.

/** The milliseconds after which a question that nobody answers is given up; servers have a shorter deadline of their own. */
const PATIENCE_MILLIS = 120_000;

/** Parameters of a question; what is empty is left out, as the server takes it for missing. */
export type Parameters = Record<string, string | number | boolean | undefined>;

/** Why there is no answer. */
export class Refusal extends Error {
  constructor(
    /** The HTTP status; 0 when no server answered. */
    readonly status: number,
    /** The server's code, such as INVALID_ARGUMENT. */
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "Refusal";
  }

  /** Whether what was selected counts different things, which cannot be added up. */
  get isMixed(): boolean {
    return this.code === "INVALID_ARGUMENT" && this.message.startsWith("profiles that count different things");
  }

  /** Returns what the reader can do about it. */
  get advice(): string {
    if (this.isMixed) return "Choose one service, or what else the message names, in the selector.";
    switch (this.code) {
      case "UNREACHABLE":
        return "Is the server still running? The page asks again when you press “Try again”.";
      case "INVALID_ARGUMENT":
        return "Correct the selection: the message says where it is wrong.";
      case "NOT_FOUND":
        return "It may have been deleted by retention, or the link may be of another server.";
      case "RESOURCE_EXHAUSTED":
        return "Ask for less: a shorter time range, a narrower selector, or one profile type.";
      case "UNAVAILABLE":
      case "DEADLINE_EXCEEDED":
        return "Try again in a moment, or with a shorter time range.";
      case "UNAUTHENTICATED":
        return "Load the page again: your browser asks for a token then, as the password under any user name. Who runs this server gives you one.";
      case "PERMISSION_DENIED":
        return "Your token may not do this, or not for this tenant; who runs this server can give you one that may.";
      case "UNIMPLEMENTED":
        return "This server does not answer this question; a newer version does.";
      default:
        return "Try again; if it stays, the server's log has this request.";
    }
  }
}

/** Builds the path and query of a question. */
export function urlOf(path: string, parameters: Parameters = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== "" && value !== false) {
      query.set(name, String(value));
    }
  }
  const text = query.toString();
  return text === "" ? path : `${path}?${text}`;
}

/** What a question may be given beside its parameters. */
export interface Listening {
  /** Ends the question. */
  signal?: AbortSignal | undefined;
  /** Hears how many bytes have arrived, uncompressed. */
  onProgress?: ((bytes: number) => void) | undefined;
}

/** Asks a question by GET and returns its JSON answer. Throws `Refusal`. */
export async function ask<T>(path: string, parameters: Parameters = {}, listening: Listening = {}): Promise<T> {
  const response = await fetched(urlOf(path, parameters), { headers: { accept: "application/json" } }, listening.signal);
  const text = await whole(() => read(response, listening.onProgress), listening.signal);
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new Refusal(response.status, "UNKNOWN", `${location.host} answered with something else than JSON: is it a proxy's?`);
  }
}

/** Fetches a file. Throws `Refusal`. */
export async function download(path: string, parameters: Parameters = {}, { signal, onProgress }: Listening = {}): Promise<Blob> {
  const response = await fetched(urlOf(path, parameters), {}, signal);
  const { body } = response;
  if (body === null || onProgress === undefined) return whole(() => response.blob(), signal);
  return whole(() => new Response(body.pipeThrough(counting(onProgress))).blob(), signal);
}

/** Reads what a server answers. Throws `Refusal` where it breaks off. */
async function whole<T>(read: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new Refusal(0, "UNREACHABLE", `the answer of ${location.host} broke off`);
  }
}

/** Stores a pprof and returns its id. Throws `Refusal`; a querier alone takes no profiles. */
export async function store(file: Blob, service: string, type: string): Promise<string> {
  const request = { method: "POST", body: file };
  const response = await fetched(urlOf("/api/v1/profiles", { service, type }), request, undefined);
  return ((await response.json()) as { id: string }).id;
}

async function fetched(url: string, request: RequestInit, signal: AbortSignal | undefined): Promise<Response> {
  const timeout = AbortSignal.timeout(PATIENCE_MILLIS);
  let response: Response;
  try {
    response = await fetch(url, { ...request, signal: signal ? AbortSignal.any([signal, timeout]) : timeout });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new Refusal(0, "UNREACHABLE", `no answer from ${location.host}`);
  }
  if (!response.ok) throw await refusalOf(response);
  return response;
}

async function refusalOf(response: Response): Promise<Refusal> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string } };
    return new Refusal(response.status, error.code, error.message);
  } catch {
    // A proxy in between answers in words of its own.
    return new Refusal(response.status, "UNKNOWN", `the server answered ${response.status} ${response.statusText}`.trim());
  }
}

async function read(response: Response, onProgress: ((bytes: number) => void) | undefined): Promise<string> {
  if (response.body === null || onProgress === undefined) return response.text();
  const reader = response.body.pipeThrough(counting(onProgress)).pipeThrough(new TextDecoderStream()).getReader();
  const parts: string[] = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return parts.join("");
    parts.push(value);
  }
}

function counting(onProgress: (bytes: number) => void): TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> {
  let bytes = 0;
  return new TransformStream({
    transform(chunk, controller) {
      bytes += chunk.byteLength;
      onProgress(bytes);
      controller.enqueue(chunk);
    },
  });
}
