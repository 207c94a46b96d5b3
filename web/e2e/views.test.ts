// Every page shows what it is for, dark and light, and holds its state in the link.

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { gunzipSync } from "node:zlib";

import { describe, expect, inject, test } from "vitest";

import { link, open, picture, withBrowser } from "./browser";

withBrowser();

const CHECKOUT = { query: '{service="checkout"}', type: "cpu", start: "-24h" };
const PICTURE_BYTES_MIN = 1_000;

describe("the graph", () => {
  test("zooms by a click, names the frame in the link, and the link restores it", async () => {
    const page = await open(link("/explore", CHECKOUT));
    const graph = page.getByRole("application");
    await graph.waitFor();
    const box = (await graph.boundingBox()) ?? { x: 0, y: 0, width: 0 };
    // The third level below the root, in the middle.
    await page.mouse.click(box.x + box.width / 2, box.y + 2.5 * 18);
    const chip = page.locator(".chip").filter({ hasText: "Zoomed:" });
    await chip.waitFor();
    const said = await chip.textContent();
    await page.reload();
    expect(await chip.textContent()).toBe(said);
    await page.goBack();
    await expect.poll(() => chip.count()).toBe(0);
  });

  test("search, focus, hide, direction, colour and recursion are in the link", async () => {
    const state = { search: "json", focus: "/checkout/", hide: '"runtime.main"', dir: "flame", colour: "function", collapse: "1" };
    const page = await open(link("/explore", { ...CHECKOUT, ...state }));
    await page.getByRole("application").waitFor();
    expect(await page.getByRole("searchbox").inputValue()).toBe("json");
    expect(await page.locator(".chip").allTextContents()).toEqual([
      expect.stringContaining("Focus: /checkout/"),
      expect.stringContaining('Hidden: "runtime.main"'),
    ]);
    expect(await page.getByRole("button", { name: "Flame ↑" }).getAttribute("aria-pressed")).toBe("true");
    expect(await page.getByRole("button", { name: "Collapse recursion" }).getAttribute("aria-pressed")).toBe("true");
    for (const [name, value] of Object.entries(state)) expect(new URL(page.url()).searchParams.get(name)).toBe(value);
  });

  test("the menu of a frame focuses, hides and copies", async () => {
    const page = await open(link("/explore", CHECKOUT));
    const graph = page.getByRole("application");
    await graph.waitFor();
    const box = (await graph.boundingBox()) ?? { x: 0, y: 0, width: 0 };
    await page.mouse.click(box.x + box.width / 2, box.y + 2.5 * 18, { button: "right" });
    const name = await page.locator(".menu-title").textContent();
    await page.getByRole("menuitem", { name: /Copy the name/ }).click();
    await page.getByText("Copied the name").waitFor();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(name);
    await page.mouse.click(box.x + box.width / 2, box.y + 2.5 * 18, { button: "right" });
    await page.getByRole("menuitem", { name: /Hide/ }).click();
    await page.locator(".chip").filter({ hasText: `Hidden: "${name ?? ""}"` }).waitFor();
  });

  test.each(["light", "dark"] as const)("is drawn with the device's pixels, %s", async (theme) => {
    const page = await open(link("/explore", { ...CHECKOUT, view: "graph" }), { theme });
    await page.getByRole("application").waitFor();
    const canvas = page.locator(".flame-box canvas");
    const drawn = await canvas.evaluate((element: HTMLCanvasElement) => {
      const { data } = element.getContext("2d")?.getImageData(0, 0, element.width, 60) ?? { data: [] };
      const colours = new Set<number>();
      for (let i = 0; i < data.length; i += 4) colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
      return { colours: colours.size, width: element.width, shown: element.clientWidth * devicePixelRatio };
    });
    expect(drawn.colours).toBeGreaterThan(5);
    expect(drawn.width).toBe(Math.round(drawn.shown));
    await picture(page, `graph-${theme}`);
  });
});

test("colours say what kind of code it is, with a legend, in the link", async () => {
  const page = await open(link("/explore", CHECKOUT));
  await page.getByRole("application").waitFor();
  await page.getByRole("combobox", { name: "Colour" }).selectOption("by type");
  const legend = page.getByRole("list", { name: "Kinds of code" });
  await expect.poll(() => legend.getByRole("listitem").allTextContents()).toEqual([
    expect.stringMatching(/own code [\d.]+ %/),
    expect.stringMatching(/library [\d.]+ %/),
    expect.stringMatching(/runtime [\d.]+ %/),
  ]);
  expect(new URL(page.url()).searchParams.get("colour")).toBe("type");
  await page.reload();
  await legend.waitFor();
  await picture(page, "types");
  await page.goto(inject("url") + link("/compare", { ...CHECKOUT, query: '{version="1.5"}', base_query: '{version="1.4"}' }));
  await page.getByText("same share").waitFor();
  await page.getByRole("combobox", { name: "Colour" }).selectOption("by type");
  await legend.waitFor();
});

test("a tooltip says where a frame's source is, and its values of all sample types, asked for once", async () => {
  const page = await open(link("/explore", { ...CHECKOUT, type: "heap", view: "graph" }));
  const asked: string[] = [];
  page.on("request", (request) => {
    const { pathname, searchParams } = new URL(request.url());
    if (pathname === "/api/v1/merge") asked.push(searchParams.get("sample_type") ?? "");
  });
  const graph = page.getByRole("application");
  await graph.waitFor();
  asked.length = 0;
  const box = (await graph.boundingBox()) ?? { x: 0, y: 0, width: 0 };
  await page.mouse.move(box.x + 40, box.y + 2.5 * 18);
  const tip = page.locator(".flame .tooltip");
  await tip.getByText("main.go:").waitFor();
  await tip.getByText("own code").waitFor();
  const values = tip.locator(".tooltip-others dd");
  await expect.poll(() => values.allTextContents()).toEqual([
    expect.stringMatching(/^[\d.]+[kMG]? · [\d.]+ %, self [\d.]+[kMG]?$/),
    expect.stringMatching(/^[\d.]+ [KMG]iB · [\d.]+ %, self [\d.]+ [KMG]?i?B$/),
    expect.stringMatching(/^[\d.]+[kMG]? · [\d.]+ %, self [\d.]+[kMG]?$/),
  ]);
  expect(await tip.locator(".tooltip-others dt").allTextContents()).toEqual(["alloc_objects", "alloc_space", "inuse_objects"]);
  expect(asked).toEqual(["alloc_objects", "alloc_space", "inuse_objects"]);
  await picture(page, "tooltip");
  // Every other frame is looked up in what is there.
  await page.mouse.move(box.x + 40, box.y + 1.5 * 18);
  await tip.getByText("runtime.main").waitFor();
  await expect.poll(() => values.count()).toBe(3);
  await page.waitForTimeout(400);
  expect(asked.length).toBe(3);
});

test("a single profile's tooltip has all its sample types without a question", async () => {
  const page = await open("/file");
  await page.locator("input[type=file]").first().setInputFiles(resolve(import.meta.dirname, "../../tests/fixtures/profiles/svc-cpu-i1-0036.pb.gz"));
  const graph = page.getByRole("application");
  await graph.waitFor();
  await graph.focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowDown");
  await expect.poll(() => page.locator(".tooltip-others").textContent()).toMatch(/^samples[\d.]+k? · /);
});

test("the table sorts, and the call tree opens", async () => {
  const page = await open(link("/explore", { ...CHECKOUT, view: "table" }));
  const table = page.getByRole("table", { name: "Functions" });
  await table.waitFor();
  await page.getByRole("button", { name: "Total", exact: true }).click();
  const totals = await table.locator(".row:not(.head) .cell.totalshare").allTextContents();
  const shares = totals.map((text) => Number.parseFloat(text.replace("< ", "")));
  expect(shares.length).toBeGreaterThan(10);
  expect(shares).toEqual([...shares].sort((a, b) => b - a));
  await page.getByRole("button", { name: "Call tree", exact: true }).click();
  const tree = page.getByRole("treegrid", { name: "Call tree", exact: true });
  await tree.waitFor();
  const before = await tree.locator(".row").count();
  await tree.focus();
  await page.keyboard.press("ArrowLeft");
  await expect.poll(() => tree.locator(".row").count()).toBeLessThan(before);
});

test("profiles are listed, picked and opened one by one", async () => {
  const page = await open(link("/explore", { ...CHECKOUT, tab: "profiles" }));
  await page.getByText("Load 100 more").click();
  await expect.poll(() => page.locator("table.list tbody tr").count()).toBeGreaterThan(100);
  await page.locator("table.list input[type=checkbox]").first().check();
  await page.getByText("1 profile picked").waitFor();
  await picture(page, "profiles");
  await page.locator("table.list tbody a").first().click();
  await page.getByRole("heading", { name: /^Profile / }).waitFor();
  await page.getByRole("group", { name: "Whose profile" }).getByText(/^instance=checkout-[ab]$/).waitFor();
  await page.getByRole("application").waitFor();
  await page.locator("main select").first().selectOption("samples");
  await expect.poll(() => page.locator(".summary").textContent()).toMatch(/samples/);
});

test("the selector completes labels and values by the keyboard", async () => {
  const page = await open("/explore?start=-24h");
  const field = page.getByRole("combobox", { name: "Selector" });
  const suggestions = page.getByRole("listbox", { name: "Suggestions" });
  await page.getByRole("application").waitFor();
  await page.keyboard.press("q");
  await expect.poll(() => field.evaluate((element) => element === document.activeElement)).toBe(true);
  await page.keyboard.type("serv");
  await suggestions.getByRole("option", { name: "service" }).waitFor();
  await page.keyboard.press("ArrowDown");
  // Key upon key, as by a fast writer: what is written goes behind what was taken.
  await Promise.all([page.keyboard.press("Enter"), page.keyboard.type("chec")]);
  await expect.poll(() => suggestions.getByRole("option").allTextContents()).toEqual(["checkout"]);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  expect(await field.inputValue()).toBe('{service="checkout"}');
  await page.keyboard.press("Enter");
  await expect.poll(() => new URL(page.url()).searchParams.get("query")).toBe('{service="checkout"}');
});

test("the selector suggests what goes with its other conditions", async () => {
  const page = await open("/explore?start=-24h");
  const field = page.getByRole("combobox", { name: "Selector" });
  await page.getByRole("application").waitFor();
  await field.fill('{service="storage", version="');
  const options = page.getByRole("listbox", { name: "Suggestions" }).getByRole("option");
  await expect.poll(() => options.allTextContents()).toEqual(["0.9"]);
});

describe("a file", () => {
  const path = resolve(import.meta.dirname, "../../tests/fixtures/profiles/svc-cpu-i1-0036.pb.gz");

  test("that is dropped is shown without being sent, and stored when asked", async () => {
    const page = await open("/explore?start=-24h");
    const posts: string[] = [];
    page.on("request", (request) => {
      if (request.method() === "POST") posts.push(request.url());
    });
    await page.locator("input[type=file]").setInputFiles(path);
    await page.getByRole("application", { name: /svc-cpu/ }).waitFor();
    expect(posts).toEqual([]);
    await picture(page, "file");
    await page.getByRole("textbox", { name: "Service" }).fill("dropped");
    await page.getByRole("button", { name: "Store it" }).click();
    await page.getByText("Stored:").waitFor();
    expect(posts.length).toBe(1);
    const id = await page.locator("[role=status] a").first().textContent();
    const stored = await fetch(`${inject("url")}/api/v1/profiles/${id ?? ""}?raw=true`);
    expect(Buffer.from(await stored.arrayBuffer()).equals(gunzipSync(readFileSync(path)))).toBe(true);
  });

  test("that is no pprof is refused with the reason", async () => {
    const page = await open("/file");
    await page.locator("input[type=file]").first().setInputFiles({ name: "x.txt", mimeType: "text/plain", buffer: Buffer.from("hello you") });
    await page.getByRole("alert").getByText("this is not a pprof file").waitFor();
  });
});

describe("export", () => {
  test.each([
    ["pprof", /\.pb\.gz$/, (bytes: Buffer) => gunzipSync(bytes).length > PICTURE_BYTES_MIN],
    ["Folded stacks", /\.folded$/, (bytes: Buffer) => /^.*main\.main;.* \d+$/m.test(bytes.toString())],
    ["speedscope", /\.speedscope\.json$/, (bytes: Buffer) => bytes.toString().includes("speedscope.app/file-format-schema")],
    ["SVG", /\.svg$/, (bytes: Buffer) => bytes.toString().startsWith("<svg ")],
    ["PNG, as shown", /\.png$/, (bytes: Buffer) => bytes.subarray(1, 4).toString() === "PNG" && bytes.length > PICTURE_BYTES_MIN],
  ])("%s", async (name, file, isGood) => {
    const page = await open(link("/explore", CHECKOUT));
    await page.getByRole("application").waitFor();
    await page.getByRole("button", { name: "Export", exact: true }).click();
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name, exact: true }).click()]);
    expect(download.suggestedFilename()).toMatch(file);
    expect(isGood(readFileSync(await download.path()))).toBe(true);
  });

  test("the curl line asks what the page shows", async () => {
    const page = await open(link("/explore", CHECKOUT));
    await page.getByRole("application").waitFor();
    await page.getByRole("button", { name: "Export", exact: true }).click();
    await page.getByRole("button", { name: "curl", exact: true }).click();
    await page.getByText("Copied the curl command").waitFor();
    const line = await page.evaluate(() => navigator.clipboard.readText());
    const url = /'(http[^']+)'/.exec(line)?.[1] ?? "";
    const answer = await fetch(url);
    expect(answer.status).toBe(200);
    expect(Number(answer.headers.get("x-afterglow-profiles"))).toBeGreaterThan(100);
  });
});

describe("honest states", () => {
  test("a selector that is wrong is refused with the place, and the page stays", async () => {
    const page = await open(link("/explore", { ...CHECKOUT, query: '{service="checkout"' }), { expected: /400/ });
    await page.getByText("selector is wrong at byte").first().waitFor();
    await page.getByText("Correct the selection").first().waitFor();
  });

  test("where there is nothing, the page says how to send something", async () => {
    const page = await open(link("/explore", { query: '{service="nobody"}', type: "cpu" }), { expected: /404/ });
    await page.getByRole("heading", { name: "Nothing here yet" }).waitFor();
    await page.getByText("curl --data-binary").waitFor();
  });

  test("a server that does not answer is named, and asked again", async () => {
    const page = await open("/file", { expected: /Failed to load|ERR_/ });
    let isAway = false;
    // From before the page is loaded: the requests of a page that already lives may still go by an interception that is new.
    await page.route("**/api/v1/merge**", (route) => (isAway ? route.abort() : route.continue()));
    await page.goto(inject("url") + link("/explore", CHECKOUT));
    await page.getByRole("application").waitFor();
    isAway = true;
    await page.keyboard.press("r");
    await page.getByText("no answer from").waitFor();
    isAway = false;
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("application").waitFor();
  });

  test.each([
    [401, "UNAUTHENTICATED", "your browser asks for a token"],
    [403, "PERMISSION_DENIED", "Your token may not do this"],
  ])("a refused token is named with what to do (%i)", async (status, code, advice) => {
    const page = await open("/file", { expected: /40[13]/ });
    await page.route("**/api/v1/merge**", (route) => route.fulfill({ status, json: { error: { code, message: "no such token", details: [] } } }));
    await page.goto(inject("url") + link("/explore", CHECKOUT));
    await page.getByText("no such token").waitFor();
    await page.getByText(advice).waitFor();
  });

  test("a partial answer says so", async () => {
    const page = await open("/file");
    await page.route("**/api/v1/merge**", async (route) => {
      const answer = (await (await route.fetch()).json()) as Record<string, unknown>;
      await route.fulfill({ json: { ...answer, completeness: { partial: true, problems: ["block x: checksum differs"] } } });
    });
    await page.goto(inject("url") + link("/explore", CHECKOUT));
    await page.getByText("This answer is partial").click();
    await page.getByText("block x: checksum differs").waitFor();
  });
});
